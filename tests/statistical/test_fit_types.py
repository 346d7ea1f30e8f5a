"""Whole fits, from frames to rows, against the bound: positions, z and colour, as precise as they say and as can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import erf, expit

from fitting import analyse
from fitting.calibrated import MeasuredPsf, SigmaCurves
from fitting.shift_field import ShiftField

pytestmark = pytest.mark.statistical

Array = np.ndarray[Any, Any]
PIXEL_NM = 100.0
METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 100.0,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ReadNoise": 1.0,
}
PLAIN = {"background": None, "threshold": 2.0, "debounce_radius": 8.0}
STEP, SIDE = 26, 26 * 5  # px between molecules, of a frame or channel
FRAMES = 60
Z = np.arange(-800, 801, 50.0)
CURVES = SigmaCurves.from_defocus(Z, (130, 250, 400, 0, 0), (130, -250, 400, 0, 0))
# bends over the field, as a cubic polynomial does
FIELD = ShiftField(
    (6500.0, 6500.0),
    6500.0,
    np.array([[240.0, 60.0, -20.0], [110.0, 30.0, 0.0], [40.0, 0.0, 0.0], [25.0, 0.0, 0.0]]),
    np.array([[-170.0, 90.0, 35.0], [-60.0, 20.0, 0.0], [15.0, 0.0, 0.0], [-10.0, 0.0, 0.0]]),
)
PHOTONS, BACKGROUND = 1500.0, 10.0


def widths_px(z: Array) -> tuple[Array, Array]:
    """Of CURVES, by their formula."""
    x, y = (1.3 * np.sqrt(1 + ((z - c) / 400) ** 2) for c in (250.0, -250.0))
    return x, y


def draw(image: Array, x: Array, y: Array, photons: Array, sx: Array, sy: Array) -> None:
    """Add pixel-integrated Gaussians to an image."""

    def shares(centre: Array, sigma: Array, length: int) -> Array:
        edges = (np.arange(length + 1) - 0.5 - centre[:, None]) / (np.sqrt(2) * sigma[:, None])
        return np.diff(0.5 * erf(edges))

    height, width = image.shape
    image += np.einsum("k,ky,kx->yx", photons, shares(y, sy, height), shares(x, sx, width))


def film(
    rng: np.random.Generator, *, two: bool = False, axial: bool = False, share: Array | None = None
) -> tuple[Array, Array]:
    """Frames [ADU], and (frame, x, y, z [nm], share in channel 0) of each molecule."""
    centres = np.arange(SIDE // STEP) * STEP + STEP / 2
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    expected = np.full((FRAMES, SIDE * (2 if two else 1), SIDE), BACKGROUND)
    truth = []
    for t, image in enumerate(expected):
        x, y = (grid + rng.uniform(-2, 2, grid.shape)).T
        z = rng.uniform(-400, 400, len(x)) if axial else np.zeros(len(x))
        sx, sy = widths_px(z) if axial else (np.full(len(x), 1.3),) * 2
        part = np.ones(len(x)) if share is None else rng.choice(share, len(x))
        draw(image[:SIDE], x, y, PHOTONS * part, sx, sy)
        if two:
            dx, dy = FIELD.at(PIXEL_NM * x, PIXEL_NM * y)
            lower = np.zeros((SIDE, SIDE))
            draw(lower, x - dx / PIXEL_NM, y - dy / PIXEL_NM, PHOTONS * (1 - part), sx, sy)
            image[SIDE:] += lower[::-1]
        truth.append(np.stack([np.full(len(x), t), PIXEL_NM * x, PIXEL_NM * y, z, part], axis=1))
    electrons = rng.poisson(expected) + rng.normal(0, 1.0, expected.shape)
    return np.clip(np.round(100 + electrons / 0.5), 0, 65535).astype(np.uint16), np.concatenate(truth)


def joined(rows: Array, truth: Array) -> Array:
    """The truth of each row; every molecule has exactly one."""
    at = rows["fitResults"]
    cell = np.floor(np.stack([at["x0"], at["y0"]], axis=1) / (STEP * PIXEL_NM)).astype(int)
    order = rows["tIndex"] * (SIDE // STEP) ** 2 + cell[:, 1] * (SIDE // STEP) + cell[:, 0]
    assert sorted(order.tolist()) == list(range(len(truth)))
    return truth[order]


def assert_at_the_bound(value: Array, true: Array, error: Array) -> None:
    """RMSE over the bound within 1.06, and pulls within 7 % of one, both beside three standard deviations of the sample."""
    known = np.isfinite(error)
    assert known.mean() > 0.99
    off, error = (value - true)[known], error[known]
    chance = 3 / np.sqrt(2 * len(off))
    assert np.sqrt(np.mean(off**2) / np.mean(error**2)) < 1.06 + chance
    assert abs(np.std(off / error) - 1) < 0.07 + chance
    assert abs(np.mean(off / error)) < 0.05 + 3 / np.sqrt(len(off))


def test_a_molecule_in_two_channels_is_as_precise_as_both_together_allow() -> None:
    frames, truth = film(np.random.default_rng(21), two=True, share=np.array([0.35, 0.6]))
    analysis = {"fit": "SplitterFitFNR", "shifts": FIELD, "options": {"species": [0.35, 0.6]}, **PLAIN}

    rows = analyse(frames, analysis, METADATA).rows

    true = joined(rows, truth)
    at, error = rows["fitResults"], rows["fitError"]
    for name, column in (("x0", 1), ("y0", 2)):
        assert_at_the_bound(at[name], true[:, column], error[name])
    assert_at_the_bound(rows["gFraction"], true[:, 4], rows["gFractionError"])
    wrong = rows["species"] != (true[:, 4] == 0.6)
    expected = expit(-rows["speciesMargin"].astype(float)).sum()  # what the margins say of themselves
    assert wrong.sum() <= expected + 3 * np.sqrt(expected) + 1
    one = analyse(frames[:, :SIDE], {"fit": "gaussian", **PLAIN}, METADATA).rows
    assert np.median(error["x0"]) < 0.8 * np.median(one["fitError"]["x0"])


def test_the_shift_between_channels_is_measured_at_the_bound() -> None:
    frames, truth = film(np.random.default_rng(22), two=True, share=np.array([0.5]))

    rows = analyse(frames, {"fit": "SplitterShiftEstFR", **PLAIN}, METADATA).rows

    true = joined(rows, truth)
    for name, wanted in zip(("dx", "dy"), FIELD.at(true[:, 1], true[:, 2]), strict=True):
        assert_at_the_bound(rows["fitResults"][name], wanted, rows["fitError"][name])


@pytest.mark.parametrize("fit", ["AstigGaussFitFR", "InterpFitR"])
def test_z_is_at_the_bound_within_400_nm(fit: str) -> None:
    frames, truth = film(np.random.default_rng(23), axial=True)
    analysis: dict[str, Any] = {"fit": fit, **PLAIN}
    if fit == "AstigGaussFitFR":
        analysis["sigma_curves"] = CURVES
    else:
        volume = np.zeros((len(Z), 25, 25))
        for plane, sx, sy in zip(volume, *widths_px(Z), strict=True):
            draw(plane, np.array([12.0]), np.array([12.0]), np.ones(1), np.array([sx]), np.array([sy]))
        analysis["psf"] = MeasuredPsf(volume.astype(np.float32), PIXEL_NM, 50.0, 16.0)

    rows = analyse(frames, analysis, METADATA).rows

    true = joined(rows, truth)
    good = rows["resultCode"] == 1
    assert good.mean() > 0.99
    for name, column in (("x0", 1), ("y0", 2), ("z0", 3)):
        assert_at_the_bound(rows["fitResults"][name][good], true[good, column], rows["fitError"][name][good])
