"""Looking at a job's picture, and the small drawings."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qs

import pytest

from cluster.protocol import PictureQuery
from cluster.web.models.picture_choice import MOST_PX, PictureChoice, field_of
from cluster.web.models.svg import histogram, rectangle

FIELD = field_of(height=100, width=200, pixel_x_nm=100.0, pixel_y_nm=100.0)
WHOLE = PictureChoice(FIELD)


def asked(choice: PictureChoice) -> PictureQuery:
    return PictureQuery.model_validate({key: value[0] for key, value in parse_qs(choice.query()).items()})


def test_the_field_begins_half_a_pixel_before_the_first_centre() -> None:
    assert FIELD == (-50.0, -50.0, 19_950.0, 9_950.0)


def test_the_query_is_one_that_the_cluster_understands() -> None:
    query = asked(replace(WHOLE.zoomed(0.5, 0.5, 4.0), colour_by="frame", style="histogram", gamma=0.7))

    assert query.region == "7450.0,3700.0,12450.0,6200.0"
    assert (query.colour_by, query.style, query.gamma) == ("frame", "histogram", 0.7)
    assert query.pixel_nm == pytest.approx(5.0)
    assert asked(WHOLE).region is None


def test_a_pixel_is_as_chosen_unless_the_picture_were_too_large() -> None:
    assert replace(WHOLE, pixel_nm=50.0).fine_nm == 50.0
    assert replace(WHOLE, pixel_nm=1.0).fine_nm == pytest.approx(20_000 / MOST_PX)
    assert WHOLE.fine_nm == pytest.approx(20.0)


def test_what_is_under_the_cursor_stays_there_when_zooming() -> None:
    near = WHOLE.zoomed(0.25, 0.75, 3.0)

    assert near.place_nm(0.25, 0.75) == pytest.approx(WHOLE.place_nm(0.25, 0.75))


def test_moving_stops_at_the_edge_and_zooming_out_ends_with_everything() -> None:
    near = WHOLE.zoomed(0.5, 0.5, 2.0).moved(-5.0, 0.0)

    assert near.shown_nm[0] == FIELD[0]
    assert near.shown_nm[2] - near.shown_nm[0] == pytest.approx(10_000)
    assert near.zoomed(0.5, 0.5, 0.1).region_nm is None
    assert near.whole() == WHOLE


def test_zooming_in_has_an_end() -> None:
    near = WHOLE
    for _ in range(100):
        near = near.zoomed(0.5, 0.5, 2.0)

    x0, y0, x1, y1 = near.shown_nm
    assert x1 - x0 == pytest.approx(25.0)
    assert y1 - y0 == pytest.approx(25.0)
    assert asked(near).pixel_nm == pytest.approx(0.5)


def test_a_histogram_says_its_median_and_escapes_its_words() -> None:
    drawn = histogram([1.0, 2.0, 2.0, 3.0, 1500.0], title="σ <of>", unit="px")

    assert "σ &lt;of&gt;: median 2 px" in drawn
    assert drawn.count("<rect") == 30
    assert "no photons" in histogram([float("nan")], title="photons", unit="")
    assert "median 5" in histogram([5.0, 5.0], title="photons", unit="")


def test_a_rectangle_may_be_drawn_from_any_corner() -> None:
    assert rectangle(10, 20, 5, 4, "red") == rectangle(5, 4, 10, 20, "red")
    assert 'x="5.00" y="4.00" width="5.00" height="16.00"' in rectangle(5, 4, 10, 20, "red")


def test_a_picture_has_the_pixels_of_its_window_and_a_file_is_no_coarser_for_it() -> None:
    choice = PictureChoice(field_of(200, 400, 100.0, 100.0))

    shown = choice.in_window(700.0, 430.0)  # wide: its width is what counts
    high = PictureChoice(field_of(400, 100, 100.0, 100.0)).in_window(700.0, 430.0)

    assert shown.fine_nm == pytest.approx(40_000 / 700, rel=0.01)
    assert high.side_px == 430
    assert shown.to_keep().fine_nm == 40.0
    assert choice.in_window(50.0, 50.0).side_px == 400
    assert choice.in_window(9000.0, 9000.0).fine_nm == 20.0
    assert replace(shown, pixel_nm=50.0).in_window(500.0, 500.0).fine_nm == 50.0  # what was chosen stands
