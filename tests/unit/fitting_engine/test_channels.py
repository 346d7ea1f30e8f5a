"""Peaks of all channels, brought to where their molecules are in channel 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fitting.channels import arrange, to_first_channel, whole_frame
from fitting.geometry import Rectangle
from fitting.kernel import kernel
from fitting.scan import Peaks
from fitting.shift_field import ShiftField

FIELD = ShiftField(
    (2000.0, 2000.0), 2000.0, np.array([[180.0, 20.0], [-30.0, 5.0]]), np.array([[-90.0, 15.0]])
)
TWO = (Rectangle(0, 0, 40, 30), Rectangle(0, 30, 40, 30, flipped=True))


@kernel
def _moved(channels: Any, peaks: Any, found: int) -> int:
    return to_first_channel(channels, peaks, found)


def moved(channels: Any, places: np.ndarray) -> np.ndarray:
    """(y, x, R) of peaks at places (y, x, R) of the frame, where they are in channel 0."""
    found = len(places)
    peaks = Peaks(
        np.zeros((found + 1, 2), np.int32),
        np.zeros((found + 1, 4), np.float32),
        np.zeros(found + 1, np.uint8),
    )
    peaks.place[:found] = np.rint(places[:, :2])
    peaks.values[:found, :3] = places
    left = _moved(channels, peaks, found)
    assert (peaks.place[:left] == np.rint(peaks.values[:left, :2])).all()
    order = [tuple(row) for row in peaks.place[:left].tolist()]
    assert order == sorted(order)
    return peaks.values[:left, :3]


@settings(deadline=None)
@given(
    places=st.lists(st.tuples(st.floats(0, 59, width=32), st.floats(0, 39, width=32)), max_size=60),
    flipped=st.booleans(),
)
def test_each_peak_of_a_channel_has_one_place_and_the_places_come_in_raster_order(
    places: list[tuple[float, float]], flipped: bool
) -> None:
    two = (TWO[0], Rectangle(0, 30, 40, 30, flipped=flipped))
    channels = arrange(two, (None, None), (60, 40), (0, 0), (100.0, 100.0))
    given_places = np.array([(y, x, k) for k, (y, x) in enumerate(places)]).reshape(-1, 3)

    found = moved(channels, given_places)

    expected = {}
    for y, x, k in given_places:
        lower = round(y) >= 30
        row = (59 - y if flipped else y - 30) if lower else y
        if 0 <= round(row) < 30:
            expected[k] = (row, x)
    assert sorted(found[:, 2].tolist()) == sorted(expected)
    for y, x, k in found.tolist():
        assert max(abs(y - expected[k][0]), abs(x - expected[k][1])) < 1e-4


def test_a_shift_field_is_undone() -> None:
    channels = arrange(TWO, (None, FIELD), (60, 40), (0, 0), (100.0, 100.0))
    rng = np.random.default_rng(5)
    there = rng.uniform((6, 6), (24, 34), (50, 2))
    dx, dy = FIELD.at(100 * there[:, 1], 100 * there[:, 0])
    seen = np.stack([59 - (there[:, 0] - dy / 100), there[:, 1] - dx / 100, np.arange(50)], axis=1)

    found = moved(channels, seen[np.lexsort((seen[:, 1], np.rint(seen[:, 0])))])

    assert len(found) == 50
    assert np.abs(found[np.argsort(found[:, 2]), :2] - there).max() < 2e-4


def test_one_channel_keeps_its_peaks_as_they_are() -> None:
    places = np.array([(3.2, 5.1, 1.0), (29.4, 0.0, 2.0)])

    for channels in (whole_frame((30, 40)), arrange(TWO[:1], (None,), (30, 40), (0, 0), (100.0, 100.0))):
        np.testing.assert_array_equal(moved(channels, places), places.astype(np.float32))
