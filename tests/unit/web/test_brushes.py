"""Ranges brushed over histograms, and what is drawn of them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cluster.protocol import Histogram
from cluster.web.models.brushes import Brushes
from cluster.web.models.picture_choice import PictureChoice
from cluster.web.models.svg import brushed_histogram, curves


def counted(**changes: Any) -> Histogram:
    said = {
        "name": "photons",
        "title": "photons",
        "unit": "",
        "low": 100.0,
        "high": 1100.0,
        "all": [4, 10, 6, 0],
        "chosen": [2, 5, 0, 0],
        "median": 400.0,
    }
    return Histogram(**{**said, **changes})


def test_a_drag_over_the_middle_is_a_range_in_either_direction() -> None:
    forth = Brushes().brushed(counted(), 0.2, 0.5)
    back = Brushes().brushed(counted(), 0.5, 0.2)

    assert forth.of("photons") == back.of("photons") == (300.0, 600.0)
    assert forth.query == "photons=300..600"
    assert forth.said("photons") == "300 to 600"


@pytest.mark.parametrize(
    ("first", "second", "query", "said"),
    [
        (0.0, 0.5, "photons=..600", "up to 600"),
        (0.5, 1.0, "photons=600..", "from 600"),
        (0.0, 1.0, None, "all"),
    ],
)
def test_who_brushes_to_the_end_means_what_lies_beyond_it_too(
    first: float, second: float, query: str | None, said: str
) -> None:
    brushes = Brushes().brushed(counted(), first, second)

    assert (brushes.query, brushes.said("photons"), bool(brushes)) == (query, said, query is not None)


def test_brushes_of_several_measures_are_said_together_and_one_is_taken_away_alone() -> None:
    brushes = Brushes().ranged("photons", 300, None).ranged("frame", 20, 10)

    assert brushes.query == "frame=10..20,photons=300.."
    assert brushes.ranged("photons", None, None).query == "frame=10..20"


def test_a_histogram_shows_all_the_chosen_and_the_range() -> None:
    drawn = brushed_histogram(counted(), (350.0, None), width=100, height=50)

    heights = [float(height) for height in re.findall(r'height="([\d.]+)"/>', drawn)]
    assert heights[:3] == pytest.approx([46 * 0.4, 46.0, 46 * 0.6], abs=0.01)
    assert heights[3:5] == pytest.approx([46 * 0.2, 46 * 0.5], abs=0.01)
    assert 'x="25.0" y="0" width="75.0"' in drawn
    assert "#e69f00" not in brushed_histogram(counted(), (None, None))


def test_a_histogram_of_nothing_is_drawn_too() -> None:
    assert "<svg" in brushed_histogram(counted(all=[0, 0], chosen=[0, 0]), (None, None))


def test_curves_say_their_range_to_who_does_not_see_them() -> None:
    drawn = curves([0, 10, 20], {"x": [0.0, 5.0, 300.0], "y": [0.0, -20.0, -40.0]}, unit="nm")

    assert 'aria-label="x, y from -40 to 300 nm"' in drawn
    assert drawn.count("<polyline") == 2


def test_a_curve_of_one_frame_that_does_not_move_is_drawn() -> None:
    assert "nan" not in curves([5.0], {"x": [0.0], "y": [0.0]}, unit="nm")


def test_a_tiff_is_asked_for_without_colours_and_a_png_with_all() -> None:
    choice = PictureChoice(
        (0, 0, 1000, 1000), colour_by="frame", filters="photons=300..", drift="correlation"
    )

    assert "colour_by=frame" in choice.query()
    assert "colour_by" not in choice.counted()
    for asked in (choice.query(), choice.counted()):
        assert "filters=photons%3D300.." in asked
        assert "drift=correlation" in asked
