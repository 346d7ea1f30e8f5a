"""Sub-pixel shifts: applied, and found again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fitting.calibration.alignment import Offset, align, coarse_z, noise_variance, straightened
from fitting.calibration.beads import Bead
from fitting.calibration.measure_psf import mean_of_beads
from fitting.calibration.subpixel import shift_derivative, shift_matrix, shifted


def test_a_band_limited_signal_is_shifted_exactly() -> None:
    x = np.arange(40.0)

    moved = shift_matrix(40, 0.37) @ np.exp(-((x - 19) ** 2) / 8)

    np.testing.assert_allclose(moved, np.exp(-((x - 19.37) ** 2) / 8), atol=1e-6)


def test_a_constant_stays_constant_up_to_the_ends() -> None:
    np.testing.assert_allclose(shift_matrix(15, -1.3) @ np.ones(15), 1.0, atol=1e-12)


def test_the_derivative_of_a_shift_is_that_of_its_matrix() -> None:
    step = 1e-6

    numeric = (shift_matrix(12, 0.4 + step) - shift_matrix(12, 0.4 - step)) / (2 * step)

    np.testing.assert_allclose(shift_derivative(12, 0.4), numeric, atol=1e-7)


def test_a_volume_moves_along_each_of_its_axes(scope: Any) -> None:
    moved = shifted(scope.psf(31), 0.4, 0.3, -0.25)

    truth = scope.psf(31, dz_nm=0.4 * scope.step_nm, dy_px=0.3, dx_px=-0.25)
    np.testing.assert_allclose(moved[3:-3], truth[3:-3], atol=4e-4 * truth.max())


def test_the_offset_of_a_bead_is_found_with_its_brightness_and_background(scope: Any) -> None:
    mean = scope.psf(31)[np.newaxis]
    bead = 500 * scope.psf(31, dz_nm=73.0, dy_px=-0.42, dx_px=0.31)[np.newaxis] + 7

    found = align(mean, bead, Offset.none(1), scope.step_nm)

    assert found.z * scope.step_nm == pytest.approx(73.0, abs=0.5)
    assert (found.y[0], found.x[0]) == pytest.approx((-0.42, 0.31), abs=1e-3)
    assert (found.scale[0], found.background[0]) == pytest.approx((500, 7), rel=1e-2)


def test_a_bead_moved_back_lies_on_the_mean(scope: Any) -> None:
    mean = scope.psf(31)
    bead = 500 * scope.psf(31, dz_nm=40.0, dy_px=0.2, dx_px=0.1)[np.newaxis] + 7
    offset = Offset(0.8, *(np.array([v]) for v in (0.2, 0.1, 500.0, 7.0)))

    back = straightened(bead, offset)[0]

    np.testing.assert_allclose(back[3:-3], mean[3:-3], atol=2e-4 * mean.max())


@pytest.mark.parametrize("planes", [-6, 0, 9])
def test_a_bead_far_above_or_below_is_found_to_a_plane(scope: Any, planes: int) -> None:
    mean = scope.psf(21)[np.newaxis]
    bead = 10 * scope.psf(21, dz_nm=planes * scope.step_nm)[np.newaxis]

    assert coarse_z(mean, bead) == planes


def test_noise_is_told_from_what_changes_smoothly() -> None:
    rng = np.random.default_rng(3)
    smooth = np.linspace(0, 50, 60)[:, None, None] ** 2 * np.ones((60, 20, 20))

    # 24,000 values, fourth differences correlated: the variance is known to 2 % (1 sd)
    assert noise_variance(smooth + rng.normal(0, 2, smooth.shape)) == pytest.approx(4, rel=0.08)


def test_shifts_of_beads_are_recovered_to_a_fiftieth_of_a_pixel_and_five_nanometres(
    scope: Any, bead: Any, field: Any
) -> None:
    rng = np.random.default_rng(11)
    truth = np.column_stack([rng.uniform(-0.5, 0.5, (9, 2)), rng.uniform(-120, 120, 9)])
    places = [(25 + 45 * i, 25 + 45 * j) for i in range(3) for j in range(3)]
    beads = [
        bead(y, x, dy, dx, dz, photons=float(p))
        for (y, x), (dy, dx, dz), p in zip(places, truth, rng.uniform(30_000, 90_000, 9), strict=True)
    ]
    stack = field(scope, beads, (140, 140)).astype(float)
    cuts = np.stack([stack[np.newaxis, :, y - 15 : y + 16, x - 15 : x + 16] for y, x in places])

    mean = mean_of_beads(cuts, [Bead(0, (place,), 1.0) for place in places], scope.step_nm)

    assert len(mean.beads) == 9
    found = np.array([[o.y[0], o.x[0], o.z * scope.step_nm] for o in mean.offsets])
    np.testing.assert_allclose(found[:, :2], truth[:, :2], atol=0.02)
    relative = (found - found.mean(axis=0)) - (truth - truth.mean(axis=0))
    np.testing.assert_allclose(relative[:, 2], 0, atol=5.0)
    np.testing.assert_allclose(relative[:, :2], 0, atol=0.02)
