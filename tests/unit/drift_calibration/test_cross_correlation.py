"""Drift by cross-correlation, on filaments that moved as we know."""

from __future__ import annotations

import numpy as np
import pytest

from fitting.calibration.cross_correlation import drift_by_correlation
from fitting.errors import InvalidCalibration

FRAMES = 5000
FIELD_NM = 12_800.0


def true_drift(frame: np.ndarray) -> np.ndarray:
    """Drift [nm] in each frame, (n, 2): some way and back along x, ever faster along y; none in frame 0."""
    u = frame / FRAMES
    return np.stack([300 * u + 60 * np.sin(4 * u), -150 * u**1.5], axis=1)


def filaments(
    count: int, seed: int, precision_nm: float = 12.0, last_frame: int = FRAMES
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of molecules on forty filaments, seen through the drift, and their frames."""
    rng = np.random.default_rng(seed)
    begin, end = rng.uniform(0, FIELD_NM, (2, 40, 2))
    of, along = rng.integers(0, 40, count), rng.uniform(0, 1, (count, 1))
    frame = rng.integers(0, last_frame, count)
    place = begin[of] + (end[of] - begin[of]) * along
    return place + true_drift(frame) + rng.normal(0, precision_nm, (count, 2)), frame


@pytest.mark.parametrize(("count", "allowed_nm"), [(5_000, 6.0), (20_000, 3.0), (200_000, 2.0)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_drift_is_found_to_a_few_nanometres(count: int, allowed_nm: float, seed: int) -> None:
    place, frame = filaments(count, seed)

    curve = drift_by_correlation(place[:, 0], place[:, 1], frame)

    every = np.arange(FRAMES)
    missed = np.stack(curve.at(every), axis=1) - true_drift(every)
    # a constant is nobody's drift: what shifts the whole picture alike does not blur it
    assert (missed - missed.mean(axis=0)).std() < allowed_nm
    assert np.hypot(*(missed - missed.mean(axis=0)).T).max() < 6 * allowed_nm
    assert np.hypot(*curve.at(frame.min())) < 1e-6


def test_the_picture_is_as_sharp_without_the_drift_as_if_there_had_been_none() -> None:
    place, frame = filaments(50_000, seed=4)
    curve = drift_by_correlation(place[:, 0], place[:, 1], frame)

    left = place - np.stack(curve.at(frame), axis=1)
    still = place - true_drift(frame)

    # 12 nm of precision and 2 nm of drift that is left add up to 12.2 nm
    off = (left - still) - (left - still).mean(axis=0)
    assert np.sqrt((off**2).mean()) < 2.0


def test_where_nothing_moved_nothing_is_found() -> None:
    place, frame = filaments(20_000, seed=5)
    still = place - true_drift(frame)

    curve = drift_by_correlation(still[:, 0], still[:, 1], frame)

    assert np.abs([curve.x_nm, curve.y_nm]).max() < 4.0


def test_localisations_may_come_in_any_order_and_from_any_origin() -> None:
    place, frame = filaments(10_000, seed=6)
    mixed = np.random.default_rng(0).permutation(len(frame))

    curve = drift_by_correlation(place[:, 0], place[:, 1], frame)
    other = drift_by_correlation(place[mixed, 0] - 5e4, place[mixed, 1] + 1e5, frame[mixed])

    np.testing.assert_allclose(other.x_nm, curve.x_nm, atol=0.5)
    np.testing.assert_allclose(other.y_nm, curve.y_nm, atol=0.5)


def test_segments_hold_equally_many_also_when_the_dye_bleaches() -> None:
    rng = np.random.default_rng(7)
    place, _ = filaments(20_000, seed=7)
    frame = np.minimum(rng.exponential(600, 20_000).astype(int), FRAMES - 1)
    moved = place - place.mean(axis=0) + true_drift(frame)

    curve = drift_by_correlation(moved[:, 0], moved[:, 1], frame, segments=8)

    assert len(curve.frame) == 8
    assert np.diff(curve.frame).min() > 0
    assert np.diff(curve.frame)[0] < np.diff(curve.frame)[-1] / 4


def test_too_few_localisations_or_one_frame_are_refused() -> None:
    place, frame = filaments(399, seed=8)

    with pytest.raises(InvalidCalibration, match="399 localisations are too few"):
        drift_by_correlation(place[:, 0], place[:, 1], frame)

    place, frame = filaments(5_000, seed=8)
    with pytest.raises(InvalidCalibration, match="one frame"):
        drift_by_correlation(place[:, 0], place[:, 1], np.zeros_like(frame))
