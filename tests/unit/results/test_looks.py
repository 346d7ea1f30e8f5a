"""Columns, filters and histograms: what people look at of localisations; and pictures of very many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cluster.errors import Invalid
from cluster.results.columns import MEASURES, Columns
from cluster.results.filters import Filters
from cluster.results.histograms import histograms
from cluster.results.quantities import Calibration
from cluster.results.render import Field, render
from cluster.results.tints import Tint
from fitting.localisations import ResultCode

MakeRows = Callable[..., np.ndarray]
FIELD = Field.of_frame(48, 64, 100, 100)


@pytest.fixture
def columns(make_rows: MakeRows, metadata: dict[str, Any]) -> Columns:
    rows = make_rows(2000)
    rows["fitResults"]["A"] = np.arange(1, 2001)
    return Columns.of(rows, Calibration.from_metadata(metadata))


def test_columns_say_what_the_rows_say(make_rows: MakeRows, metadata: dict[str, Any]) -> None:
    rows = make_rows(10)
    rows["resultCode"][3] = ResultCode.ITERATION_LIMIT

    columns = Columns.of(rows, Calibration.from_metadata(metadata))

    shown = np.delete(rows, 3)
    assert (len(columns), columns.hidden) == (9, 1)
    assert columns.frame.tolist() == shown["tIndex"].tolist()
    # a Gaussian of height A has 2πσ²A under it; half an electron an ADU, pixels of 100 nm
    photons = 2 * np.pi * 1.3**2 * 100.0 * 0.5
    np.testing.assert_allclose(columns.photons, photons, rtol=1e-6)
    errors = shown["fitError"]
    np.testing.assert_allclose(
        columns.precision_nm, np.sqrt((errors["x0"] ** 2 + errors["y0"] ** 2) / 2), rtol=1e-6
    )
    assert columns.z_nm is None


def test_columns_of_parts_are_those_of_the_whole(make_rows: MakeRows, metadata: dict[str, Any]) -> None:
    rows, calibration = make_rows(100), Calibration.from_metadata(metadata)

    whole = Columns.of(rows, calibration)
    joined = Columns.joined([Columns.of(part, calibration) for part in np.array_split(rows, 7)])

    for measure in MEASURES:
        np.testing.assert_array_equal(joined.measure(measure.name), whole.measure(measure.name))


def test_filters_choose_what_lies_within_all_their_ranges(columns: Columns) -> None:
    filters = Filters.parse("photons=1000..2000,precision_nm=..9.5,frame=10..")

    chosen = filters.apply(columns)

    photons, frame = np.asarray(columns.photons), columns.frame
    expected = (photons >= 1000) & (photons <= 2000) & (columns.precision_nm <= 9.5) & (frame >= 10)
    assert 0 < len(chosen) == expected.sum() < len(columns)
    np.testing.assert_array_equal(chosen.x_nm, columns.x_nm[expected])
    assert len(Filters.parse(None).apply(columns)) == len(columns)


@pytest.mark.parametrize(
    "text", ["photons", "photons=5", "photons=9..1", "colour=1..2", "photons=nan..", "photons=..;rm", "=.."]
)
def test_what_is_no_filter_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        Filters.parse(text)

    assert refused.value.facts["field"] == "filters"


def test_a_filter_of_what_the_fit_does_not_know_is_refused(columns: Columns) -> None:
    with pytest.raises(Invalid, match="no z_nm"):
        Filters.parse("z_nm=0..100").apply(columns)


def test_a_histogram_counts_all_and_those_that_the_others_choose(columns: Columns) -> None:
    found = histograms(
        [columns.every(2), columns.select(np.arange(1, 2000, 2))], Filters.parse("photons=1000.."), bins=20
    )

    by_name = {one.name: one for one in found.histograms}
    assert set(by_name) == {"photons", "sigma_nm", "precision_nm", "background", "frame"}
    assert (found.localisations, found.every) == (2000, 1)
    assert found.chosen == (np.asarray(columns.photons) >= 1000).sum()
    for name, one in by_name.items():
        assert sum(one.all) == 2000, name
        assert sum(one.chosen) == (2000 if name == "photons" else found.chosen), name
    assert (by_name["frame"].low, by_name["frame"].high) == (0, 400)
    photons = np.asarray(columns.photons)
    assert by_name["photons"].median == pytest.approx(float(np.median(photons[photons >= 1000])))


def test_of_very_many_one_in_so_many_is_looked_at(monkeypatch: pytest.MonkeyPatch, columns: Columns) -> None:
    monkeypatch.setattr("cluster.results.histograms._MOST", 500)

    found = histograms([columns], Filters())

    assert (found.localisations, found.chosen, found.every) == (2000, 2000, 4)
    assert all(sum(one.all) == 2000 for one in found.histograms)


def test_a_job_without_localisations_has_no_histograms() -> None:
    assert histograms([], Filters()).histograms == []


@pytest.mark.parametrize("tint", [None, Tint("frame", 0, 20_000)])
@pytest.mark.parametrize("pixel_nm", [5.0, 20.0])
def test_many_drawn_at_once_look_like_many_drawn_one_by_one(
    make_rows: MakeRows, tint: Tint | None, pixel_nm: float
) -> None:
    """Errors from 5 to 15 nm, at random places: what differs is where in its pixel each lies, and how wide it is to a tenth."""
    rows = make_rows(100_000)
    field = Field(1000, 1000, 3000, 2500)
    each = render([rows], field, pixel_nm=pixel_nm, tint=tint)

    many = render([rows[:30_000], rows[30_000:]], field, pixel_nm=pixel_nm, tint=tint, quick_above=1000)

    assert many.shown == each.shown
    assert many.image.sum() == pytest.approx(each.image.sum(), rel=0.002)
    noise = float(np.abs(each.image - each.image.mean()).mean())  # of the counts themselves
    assert float(np.abs(many.image - each.image).mean()) < 0.5 * noise
    if tint is not None:
        assert many.light is not None
        assert each.light is not None
        assert many.light.sum() == pytest.approx(each.light.sum(), rel=0.002)


def test_few_are_drawn_one_by_one_also_when_many_would_be_drawn_at_once(make_rows: MakeRows) -> None:
    rows = make_rows(1000)

    quick = render([rows], FIELD, pixel_nm=20, quick_above=1000)

    np.testing.assert_array_equal(quick.image, render([rows], FIELD, pixel_nm=20).image)


def test_a_short_series_has_a_bar_for_each_frame(make_rows: MakeRows, metadata: dict[str, Any]) -> None:
    rows = make_rows(200)
    rows["tIndex"] = np.arange(200) % 10

    found = histograms([Columns.of(rows, Calibration.from_metadata(metadata))], Filters(), bins=50)

    of_frames = next(one for one in found.histograms if one.name == "frame")
    assert of_frames.all == [20] * 10
