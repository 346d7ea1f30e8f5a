"""Drift against a known one; tolerances follow from the errors of single fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fitting.calibration.drift import corrected_rows, drift_from_rows
from fitting.calibration.markers import find_markers, follow
from fitting.errors import InvalidCalibration
from fitting.localisations import LAT_GAUSS_DTYPE, ResultCode

Array = np.ndarray[Any, Any]
ERROR_NM = 3.0
FRAMES = 1500
Seen = Callable[[int, Array], Array]


def path(frame: Array) -> tuple[Array, Array]:
    return 200 * np.sin(frame / 700) + 0.05 * frame, -0.1 * frame + 40 * np.cos(frame / 300) - 40


def always(_: int, frame: Array) -> Array:
    return np.ones(len(frame), bool)


def marker_rows(
    markers: int,
    seed: int,
    *,
    seen: Seen = always,
    wrong: float = 0.0,
    frames: int = FRAMES,
    apart_nm: float = 3000.0,
) -> Array:
    """Fits of markers in a row along x, sorted by frame; a share of them is wrong by some hundred nm."""
    rng = np.random.default_rng(seed)
    frame = np.arange(frames)
    drift = path(frame)
    tables = []
    for k in range(markers):
        shown = seen(k, frame)
        rows = np.zeros(int(shown.sum()), LAT_GAUSS_DTYPE)
        rows["tIndex"] = frame[shown]
        for axis, name in enumerate(("x0", "y0")):
            place = 5000 + apart_nm * k * (axis == 0)
            noise = rng.normal(0, ERROR_NM, len(rows))
            rows["fitResults"][name] = place + drift[axis][shown] + noise
            rows["fitError"][name] = ERROR_NM
        bad = rng.random(len(rows)) < wrong
        rows["fitResults"]["x0"][bad] += rng.uniform(60, 300, bad.sum())
        rows["fitResults"]["sigma"] = rng.normal(135, 2, len(rows))
        rows["resultCode"] = ResultCode.CONVERGED
        tables.append(rows)
    whole = np.concatenate(tables)
    return whole[np.argsort(whole["tIndex"], kind="stable")]


def off(curve: Any) -> Array:
    """The curve less the truth, both since the curve's first frame with a marker (frame, axis)."""
    first = int(np.flatnonzero(curve.markers)[0])
    truth = np.stack(path(curve.frame), axis=1)
    return np.stack([curve.x_nm, curve.y_nm], axis=1) - (truth - truth[first])


def rms(values: Array) -> float:
    return float(np.sqrt((values**2).mean()))


def smoothed_error(markers: int, window: float = 10.0) -> float:
    """Error of a mean over a Gaussian window of frames, twice as wide in power: 1/√(2 √π window markers) of a fit's."""
    return ERROR_NM / np.sqrt(2 * np.sqrt(np.pi) * window * markers)


@pytest.mark.statistical
@pytest.mark.parametrize("markers", [1, 4])
def test_the_curve_is_as_good_as_the_mean_over_its_window(markers: int) -> None:
    curve = drift_from_rows(marker_rows(markers, 1), FRAMES)

    error = off(curve)
    # about its own mean, which the error of the first frame shifts; 1500 frames are some 42 independent windows
    assert rms(error - error.mean(axis=0)) < smoothed_error(markers) * (1 + 4 / np.sqrt(2 * 2 * 42))
    # a single fit would be off by ERROR_NM
    assert rms(error - error.mean(axis=0)) < ERROR_NM / 3
    inside = np.abs(error) < 4 * np.stack([curve.x_error_nm, curve.y_error_nm], axis=1) + 1e-9
    assert inside.mean() > 0.99
    assert len(curve.tracks) == markers


@pytest.mark.statistical
def test_wrong_fits_hardly_move_the_curve() -> None:
    for markers in (1, 5):
        good, bad = (
            off(drift_from_rows(marker_rows(markers, 2, wrong=share), FRAMES)) for share in (0.0, 0.03)
        )

        assert rms(bad[:, 0] - bad[:, 0].mean()) < 2.0 * max(rms(good[:, 0] - good[:, 0].mean()), 0.2)


@pytest.mark.statistical
def test_a_marker_that_appears_late_and_one_that_is_lost_shift_nothing() -> None:
    def seen(k: int, frame: Array) -> Array:
        return {0: frame < 700, 1: frame > 600, 2: (frame < 300) | (frame > 1200)}[k]

    curve = drift_from_rows(marker_rows(3, 3, seen=seen), FRAMES)

    error = off(curve)
    steps = error[720:1190].mean(axis=0) - error[310:590].mean(axis=0)
    # the two are joined by 100 frames in which both are seen
    assert np.abs(steps).max() < 4 * ERROR_NM * np.sqrt(2 / 100 + 2 / 280)
    assert rms(error) < ERROR_NM / 2
    assert (np.unique(curve.markers) == [1, 2]).all()


def test_a_steady_drift_is_unbiased_at_its_ends_and_beside_gaps() -> None:
    rows = marker_rows(4, 4, seen=lambda _, frame: (frame < 700) | (frame >= 800))

    curve = drift_from_rows(rows, FRAMES, smooth_frames=20.0)

    error = off(curve)
    for edge in (slice(0, 10), slice(690, 700), slice(800, 810), slice(-10, None)):
        # a line at the end of its window has twice the error of one in the middle
        assert np.abs(error[edge].mean(axis=0)).max() < 4 * 2 * np.sqrt(2) * smoothed_error(4, 20.0)


def test_a_gap_is_interpolated_and_told_of() -> None:
    curve = drift_from_rows(
        marker_rows(
            3, 5, seen=lambda _, frame: (frame > 99) & (frame < 400) | (frame >= 1100) & (frame < 1400)
        ),
        FRAMES,
    )

    np.testing.assert_allclose(np.diff(curve.x_nm[400:1099], 2), 0, atol=1e-9)
    assert (curve.markers[400:1100] == 0).all()
    for said in ("before frame 100", "after frame 1399", "between frames 399 and 1100"):
        assert any(said in note for note in curve.notes)
    assert (curve.x_nm[:100] == curve.x_nm[100]).all()


def test_stretches_that_no_marker_joins_go_on_from_each_other() -> None:
    def seen(k: int, frame: Array) -> Array:
        return frame < 700 if k == 0 else frame >= 710

    curve = drift_from_rows(marker_rows(2, 6, seen=seen), FRAMES)

    assert np.abs(np.diff(curve.x_nm[690:720])).max() < 2.0
    assert np.abs(off(curve)[720:].mean(axis=0) - off(curve)[:690].mean(axis=0)).max() < 5 * ERROR_NM


def test_markers_that_lie_close_together_are_followed_apart() -> None:
    curve = drift_from_rows(marker_rows(3, 7, apart_nm=300.0), FRAMES)

    assert [len(track) for track in curve.tracks] == [FRAMES] * 3
    assert rms(off(curve)) < ERROR_NM / 2


def test_following_takes_the_nearest_within_reach() -> None:
    frame = np.array([0, 0, 1, 1, 2, 30, 30])
    places = np.array([[0, 0], [100, 0], [104, 0], [2, 0], [51, 90], [3, 0], [400, 0]], float)

    track = follow(frame, places, np.full(7, 3.0))

    assert track.tolist() == [0, 1, 1, 0, 2, 3, 4]


def test_bad_fits_do_not_count() -> None:
    rows = marker_rows(2, 8)
    rows["fitError"]["x0"][::10] = 50.0
    rows["fitResults"]["sigma"][1::10] = 300.0
    rows["resultCode"][2::10] = ResultCode.LEFT_ROI

    tracks, notes = find_markers(rows)

    assert sum(len(track) for track in tracks) == 0.7 * len(rows)
    assert "do not count" in notes[0]


def test_rows_are_corrected_in_a_copy() -> None:
    rows = marker_rows(3, 9)
    before = rows.copy()
    curve = drift_from_rows(rows, FRAMES)

    still = corrected_rows(rows, curve)

    np.testing.assert_array_equal(rows, before)
    for k in range(3):
        own = still[np.abs(rows["fitResults"]["x0"] - 5000 - 3000 * k) < 1400]
        assert own["fitResults"]["x0"].std() < 1.1 * ERROR_NM
        assert own["fitResults"]["y0"].std() < 1.1 * ERROR_NM
    for name in ("tIndex", "fitError", "resultCode", "nchi2"):
        np.testing.assert_array_equal(still[name], rows[name])
    np.testing.assert_array_equal(still["fitResults"]["A"], rows["fitResults"]["A"])


def test_the_drift_of_a_frame_beyond_the_curve_is_that_of_its_end() -> None:
    curve = drift_from_rows(marker_rows(2, 10), FRAMES)

    x, y = curve.at([-5, FRAMES + 100])

    assert x.tolist() == [curve.x_nm[0], curve.x_nm[-1]]
    assert y.tolist() == [curve.y_nm[0], curve.y_nm[-1]]


def test_without_smoothing_the_curve_is_the_mean_of_each_frame() -> None:
    rows = marker_rows(4, 11)

    curve = drift_from_rows(rows, FRAMES, smooth_frames=0.0)

    error = off(curve)
    spread = rms(error - error.mean(axis=0))
    # Student's weights of four degrees of freedom cost a few per cent on Gaussian noise
    assert abs(spread / (ERROR_NM / 2) - 1) < 0.06 + 4 / np.sqrt(2 * 2 * FRAMES)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (marker_rows(1, 0)[:5], "nowhere are there 20"),
        (marker_rows(1, 0)[:0], "no fits of markers"),
        (np.zeros(5, [("x", float)]), "LatGaussFitFR"),
    ],
)
def test_rows_without_a_marker_are_refused(rows: Array, said: str) -> None:
    with pytest.raises(InvalidCalibration, match=said):
        drift_from_rows(rows, 100)
