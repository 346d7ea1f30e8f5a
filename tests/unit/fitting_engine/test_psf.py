from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

from fitting.lanes import LANES, splat
from fitting.psf import _axis, axis_factors, pixel_integrated

THETA = np.array([4.8, 5.3, 900.0, 7.0, 1.25])


@numba.njit
def _fast_axis(centre: Any, s: Any, side: int, share: Any, shift: Any, widen: Any) -> None:
    axis_factors(splat(np.float32(centre)), splat(np.float32(s)), side, share, shift, widen)


def test_all_photons_land_somewhere() -> None:
    mu, _ = pixel_integrated(np.array([20.0, 20.2, 500.0, 0.0, 1.3]), 41)

    assert mu.sum() == pytest.approx(500, rel=1e-12)


def test_the_model_is_that_of_an_independent_rendering(spot: Callable[..., Any]) -> None:
    mu, _ = pixel_integrated(THETA, 11)

    np.testing.assert_allclose(mu, spot(4.8, 5.3, 900.0, 1.25, 11, 11) + 7, rtol=1e-12)


@pytest.mark.parametrize("k", range(5))
def test_derivatives_are_those_of_the_values(k: int) -> None:
    step = np.zeros(5)
    step[k] = 1e-4 * max(1.0, THETA[k] / 10)

    numeric = (
        8 * (pixel_integrated(THETA + step, 11)[0] - pixel_integrated(THETA - step, 11)[0])
        - (pixel_integrated(THETA + 2 * step, 11)[0] - pixel_integrated(THETA - 2 * step, 11)[0])
    ) / (12 * step[k])

    analytic = pixel_integrated(THETA, 11)[1][k]
    np.testing.assert_allclose(numeric, analytic, rtol=1e-6, atol=1e-6 * abs(analytic).max())


def test_the_factors_of_a_kernel_are_those_of_the_plain_model() -> None:
    side, x, s = 9, 0.37, 1.1
    factors = np.empty((3, side * LANES), np.float32)

    _fast_axis(x, s, side, *factors)

    for plain, fast in zip(_axis(x + 4, s, side), factors[:, ::LANES], strict=True):
        np.testing.assert_allclose(fast, plain, atol=1e-6)
