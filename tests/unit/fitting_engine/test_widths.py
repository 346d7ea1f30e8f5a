from __future__ import annotations

import numpy as np
import pytest

from fitting.calibrated import SigmaCurves
from fitting.widths import widths_at, z_from_widths

CURVES = SigmaCurves.from_defocus(np.linspace(-700, 700, 71), (130, 200, 400, 0, 0), (130, -200, 400, 0, 0))


def _widths(z: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    z = np.asarray(z, float)
    return 130 * np.sqrt(1 + ((z - 200) / 400) ** 2), 130 * np.sqrt(1 + ((z + 200) / 400) ** 2)


def test_widths_between_the_points_of_the_curves_are_those_of_the_smooth_curve() -> None:
    z = np.linspace(-690, 690, 37)

    (x, slope_x), (y, slope_y) = widths_at(z, CURVES)

    np.testing.assert_allclose((x, y), _widths(z), rtol=1e-6)
    h = 1e-3
    for slope, axis in ((slope_x, 0), (slope_y, 1)):
        np.testing.assert_allclose(
            slope, (_widths(z + h)[axis] - _widths(z - h)[axis]) / (2 * h), rtol=1e-3, atol=1e-4
        )


def test_exact_widths_give_z_back() -> None:
    z = np.linspace(-650, 650, 101)
    x, y = _widths(z)

    found, error = z_from_widths(x, 5.0, y, 5.0, CURVES)

    np.testing.assert_allclose(found, z, atol=0.05)
    assert (error > 0).all()


def test_the_error_of_z_is_that_of_the_scatter() -> None:
    rng = np.random.default_rng(2)
    z = np.full(4000, 120.0)
    (x, y), (ex, ey) = _widths(z), (4.0, 7.0)

    found, error = z_from_widths(x + rng.normal(0, ex, 4000), ex, y + rng.normal(0, ey, 4000), ey, CURVES)

    pull = (found - z) / error
    assert abs(pull.std() - 1) < 4 / np.sqrt(2 * 4000)
    assert abs(pull.mean()) < 4 / np.sqrt(4000) + 0.05  # the curves are not straight


def test_the_width_with_the_smaller_error_decides() -> None:
    x, y = _widths(0.0)

    by_x, _ = z_from_widths(x + 20, 0.1, y, 1000.0, CURVES)
    by_y, _ = z_from_widths(x + 20, 1000.0, y, 0.1, CURVES)

    assert by_x[0] == pytest.approx(200 - 400 * np.sqrt(((x + 20) / 130) ** 2 - 1), abs=0.1)
    assert abs(by_y[0]) < 0.1


def test_widths_beyond_the_curves_have_no_error_of_z() -> None:
    found, error = z_from_widths(
        [400.0, np.nan, 130.0], 5.0, [130.0, 130.0, 150.0], [5.0, 5.0, np.nan], CURVES
    )

    assert found[0] == -700
    assert np.isnan(found[1:]).all()
    assert np.isnan(error).all()
