"""What says nothing becomes no molecule, and a status says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fitting import analyse, fit_rois
from fitting.localisations import FrameStatus, ResultCode

DEAD = [np.inf, -1.0, np.nan]
"""Read-noise variances [e⁻²] by which a map says that a pixel is dead."""


def _dark(frames: int) -> Any:
    rng = np.random.default_rng(2)
    electrons = rng.poisson(10, (frames, 48, 48)) + rng.normal(0, 1.6, (frames, 48, 48))
    return np.clip(np.round(100 + electrons / 0.5), 0, 65535).astype(np.uint16)


STUCK = np.zeros((48, 48), bool)
STUCK[20:22, 25:27] = STUCK[35, 8] = STUCK[0, 0] = True


def _stuck_at(adu: int) -> Any:
    """Six dark frames in which a block of two by two, a single pixel and one in the corner always read the same."""
    return np.where(STUCK, np.uint16(adu), _dark(6))


@pytest.mark.parametrize("background", [None, "-30:0"])
@pytest.mark.parametrize("adu", [0, 100, 400, 5000, 65535])
@pytest.mark.parametrize("variance", DEAD)
def test_dead_pixels_of_a_map_are_no_molecules(
    variance: float, adu: int, background: str | None, metadata: dict[str, object]
) -> None:
    settings = {"background": background, "variance_map": np.where(STUCK, variance, 2.56)}

    result = analyse(_stuck_at(adu), settings, metadata)

    assert len(result.rows) == 0
    assert (result.frame_status == FrameStatus.LOCALISED).all()


def test_without_the_map_a_block_of_hot_pixels_looks_like_a_molecule(metadata: dict[str, object]) -> None:
    assert len(analyse(_stuck_at(5000), {"background": None}, metadata).candidates)


BRIGHT = np.where(np.arange(1024).reshape(32, 32) == 16 * 32 + 16, 9000.0, 120.0)
HALF = np.where(np.arange(1024).reshape(32, 32) % 2, 120.0, np.nan)


@pytest.mark.parametrize("background", [None, "-30:0"])
@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (np.zeros((32, 32)), FrameStatus.SKIPPED),
        (np.full((32, 32), np.nan), FrameStatus.SKIPPED),
        (np.full((32, 32), 65535.0), FrameStatus.LOCALISED),
        (np.full((32, 32), 130.0), FrameStatus.LOCALISED),
        (np.full((32, 32), np.inf), FrameStatus.LOCALISED),
        (BRIGHT, FrameStatus.LOCALISED),
        (HALF, FrameStatus.LOCALISED),
    ],
    ids=["all zero", "all NaN", "saturated", "constant", "infinite", "one bright pixel", "half NaN"],
)
def test_a_frame_without_molecules_says_whether_it_was_looked_at(
    frame: Any, status: FrameStatus, background: str | None, metadata: dict[str, object]
) -> None:
    frames = np.stack([np.full((32, 32), 120.0), frame, np.full((32, 32), 120.0)]).astype(np.float32)

    result = analyse(frames, {"background": background}, metadata)

    assert result.frame_status.tolist() == [FrameStatus.LOCALISED, status, FrameStatus.LOCALISED]
    assert len(result.rows) == 0


@pytest.mark.parametrize("hole", [(16, 16), (16, 18), (15, 14)])
def test_a_hole_of_nan_beside_a_molecule_leaves_a_finite_row(
    hole: tuple[int, int], spot: Callable[..., Any], metadata: dict[str, object]
) -> None:
    frame = (100 + 2 * (spot(16.3, 15.8, 2000, 1.3, 32, 32) + 10)).astype(np.float32)
    frame[hole] = np.nan

    rows = analyse(frame[np.newaxis], {"background": None}, metadata).rows

    assert rows["resultCode"].tolist() == [ResultCode.CONVERGED]
    assert rows["fitResults"]["x0"][0] == pytest.approx(1630, abs=0.1)
    assert all(np.isfinite(rows["fitResults"][name]).all() for name in rows["fitResults"].dtype.names)
    assert all(np.isfinite(rows["fitError"][name]).all() for name in ("A", "x0", "y0", "sigma", "background"))


@pytest.mark.parametrize("estimator", ["mle", "wls"])
@pytest.mark.parametrize("side", [7, 11])
@pytest.mark.parametrize(
    "value", [0.0, 12.0, 65535.0, np.nan, np.inf], ids=["zero", "constant", "saturated", "NaN", "infinite"]
)
def test_a_flat_roi_does_not_determine_the_parameters(value: float, side: int, estimator: str) -> None:
    found = fit_rois(np.full((1, side, side), value), estimator=estimator)[0]

    assert found["status"] == ResultCode.DEGENERATE
    assert np.isnan(found["x_px_err"])


def test_one_bright_pixel_is_narrower_than_any_molecule() -> None:
    roi = 5.0 + 900.0 * (np.arange(49).reshape(1, 7, 7) == 24)

    assert fit_rois(roi)["status"][0] == ResultCode.DEGENERATE


def test_two_molecules_that_detection_takes_for_one_are_singled_out_by_their_goodness_of_fit(
    spot: Callable[..., Any], metadata: dict[str, object]
) -> None:
    rng = np.random.default_rng(3)
    one = spot(30, 32, 1000, 1.3, 64, 64)
    two = one + spot(32.8, 32, 1000, 1.3, 64, 64)
    photons = rng.poisson(np.stack([one + 10, two + 10]).repeat(20, axis=0))

    rows = analyse((100 + 2 * photons).astype(np.uint16), {"background": None}, metadata).rows

    frame, nchi2 = rows["tIndex"], rows["nchi2"]
    assert len(rows) == 40
    assert (nchi2[frame < 20] < 2).all()
    assert (nchi2[frame >= 20] > 2).all()
