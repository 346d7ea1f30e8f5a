from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitting.calibration.pixel_sums import PixelStatistics, PixelSums
from fitting.errors import InvalidCalibration, InvalidFrames

FRAMES = np.random.default_rng(0).poisson(300, (40, 6, 7)).astype(np.uint16)


def summed(frames: Any, cuts: list[int]) -> PixelStatistics:
    sums = PixelSums()
    for block in np.split(frames, cuts):
        sums.add(block)
    return sums.statistics()


def same(one: PixelStatistics, other: PixelStatistics) -> None:
    for name in ("mean_adu", "variance_adu2", "levels_adu"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_mean_and_variance_are_those_of_the_frames(dtype: str) -> None:
    frames = (FRAMES // 2).astype(dtype)

    found = summed(frames, [1, 7, 30])

    np.testing.assert_allclose(found.mean_adu, frames.mean(axis=0, dtype=np.float64), rtol=1e-14)
    np.testing.assert_allclose(found.variance_adu2, frames.astype(float).var(axis=0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(found.levels_adu, frames.mean(axis=(1, 2), dtype=np.float64), rtol=1e-14)


@given(
    cuts=st.lists(st.integers(0, 40), max_size=6).map(sorted), dtype=st.sampled_from(["uint16", "float32"])
)
def test_the_blocks_that_frames_come_in_do_not_matter(cuts: list[int], dtype: str) -> None:
    frames = FRAMES.astype(dtype) * np.array(1.0 if dtype == "uint16" else 0.1, dtype)

    same(summed(frames.astype(dtype), cuts), summed(frames.astype(dtype), []))


def test_sums_of_integers_are_exact_at_the_largest_readings() -> None:
    frames = np.full((3000, 2, 2), 65535, np.uint16)
    frames[::2] = 0

    found = summed(frames, [1000])

    assert (found.mean_adu == 65535 / 2).all()
    np.testing.assert_allclose(found.variance_adu2, 65535**2 / 4 * 3000 / 2999, rtol=1e-15)


def test_a_frame_that_is_taken_out_was_never_there() -> None:
    sums = PixelSums()
    sums.add(FRAMES)
    sums.take_out(0, FRAMES[0])
    sums.take_out(17, FRAMES[17])

    found = sums.statistics()

    rest = np.delete(FRAMES, [0, 17], axis=0).astype(float)
    assert (found.frames, found.left_out) == (38, (0, 17))
    np.testing.assert_allclose(found.mean_adu, rest.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.variance_adu2, rest.var(axis=0, ddof=1), rtol=1e-12)


def test_a_frame_with_a_light_leak_is_named_and_the_others_are_not() -> None:
    frames = np.random.default_rng(1).normal(100, 3, (200, 20, 20)).astype(np.float32)
    frames[50] += 5

    sums = PixelSums()
    sums.add(frames)

    assert sums.unlike_the_others() == [50]


def test_no_frame_of_an_unsteady_series_is_named() -> None:
    frames = np.full((100, 4, 4), 100.0) + np.random.default_rng(2).normal(0, 1, (100, 4, 4))
    frames[::5] += 40

    sums = PixelSums()
    sums.add(frames)

    assert sums.unlike_the_others() == []


def test_what_all_pixels_do_together_is_told_from_their_own_noise() -> None:
    rng = np.random.default_rng(3)
    own = rng.normal(0, 2, (1000, 30, 30))
    together = rng.normal(0, 1, (1000, 1, 1))

    steady, unsteady = summed(own, []), summed(own + together, [])

    # the variance of 1000 levels is known to √(2/999); a steady series' levels vary by 4/900
    assert steady.common_variance_adu2 < 4 / 900 * 4 * np.sqrt(2 / 999)
    assert abs(unsteady.common_variance_adu2 / together.var(ddof=1) - 1) < 4 * 2 * 2 / 30 / np.sqrt(1000)


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (np.zeros((3, 4)), "stack"),
        (np.zeros((3, 4, 4), np.complex64), "complex64"),
        (np.full((3, 6, 7), np.nan), "NaN"),
        (np.zeros((3, 5, 7), np.uint16), "7 × 5 px"),
        (np.zeros((3, 6, 7), np.uint8), "uint8"),
    ],
)
def test_frames_that_do_not_belong_are_refused(frames: Any, said: str) -> None:
    sums = PixelSums()
    sums.add(FRAMES)

    with pytest.raises(InvalidFrames, match=said):
        sums.add(frames)


def test_one_frame_has_no_variance() -> None:
    sums = PixelSums()
    sums.add(FRAMES[:1])

    with pytest.raises(InvalidCalibration, match="two frames"):
        sums.statistics()


def test_a_frame_that_was_not_added_cannot_be_taken_out() -> None:
    sums = PixelSums()
    sums.add(FRAMES[:5])
    sums.take_out(1, FRAMES[1])

    for number in (1, 5, -1):
        with pytest.raises(InvalidFrames, match=str(number)):
            sums.take_out(number, FRAMES[1])
