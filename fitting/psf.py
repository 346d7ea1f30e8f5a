r"""The Gaussian PSF, integrated over each pixel: values and derivatives.

.. math::

    \mu_{ij} = N \, E(j - x) \, E(i - y) + b, \qquad
    E(u) = \tfrac12 \left[ \operatorname{erf}\frac{u + 1/2}{\sqrt2\,s} - \operatorname{erf}\frac{u - 1/2}{\sqrt2\,s} \right]

The model is separable, so a ROI of side s needs 2(s + 1) values of exp and erf, not s². `pixel_integrated` is the
plain form, for planning and checking; `axis_factors` is the one the kernels use, sixteen ROIs at a time.

References
----------
.. [1] C. S. Smith et al., Nature Methods 7, 373 (2010), https://doi.org/10.1038/nmeth.1449. The printed supplement has
   2σ² in the denominator of erf; √2 σ is meant.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fitting.kernel import device
from fitting.lanes import LANES, absolute, binary_exponent, power_of_two, rounded, select, splat, store

FloatArray = npt.NDArray[np.float64]

_LOG2_E = 1.4426950408889634
_LN_2 = 0.6931471805599453
_SQRT_HALF = math.sqrt(0.5)
_SQRT_2 = math.sqrt(2.0)
_INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)


def pixel_integrated(theta: FloatArray, side: int) -> tuple[FloatArray, FloatArray]:
    """Expected photons of a ROI and their derivatives, in float64.

    Parameters
    ----------
    theta : (5,) array
        x, y [px] from the centre of pixel (0, 0), N [e⁻], b [e⁻/px], s [px].
    side : int
        Side of the ROI [px].

    Returns
    -------
    mu : (side, side) array
        Expected photons [e⁻], indexed [y, x].
    derivatives : (5, side, side) array
        dmu/dtheta, in the order of `theta`.
    """
    x, y, n, b, s = theta
    ex, gx, sx = _axis(x, s, side)
    ey, gy, sy = _axis(y, s, side)
    mu = n * np.outer(ey, ex) + b
    derivatives = np.stack(
        [
            n * np.outer(ey, gx),
            n * np.outer(gy, ex),
            np.outer(ey, ex),
            np.ones((side, side)),
            n * (np.outer(ey, sx) + np.outer(sy, ex)),
        ]
    )
    return mu, derivatives


def _axis(centre: float, s: float, side: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    from scipy.special import erf

    u = np.arange(side + 1) - 0.5 - centre
    density = np.exp(-(u**2) / (2 * s**2)) * _INV_SQRT_2PI / s
    share = np.diff(0.5 * erf(u / (_SQRT_2 * s)))
    return share, -np.diff(density), -np.diff(u * density) / s


@device
def axis_factors(centre: Any, s: Any, side: int, share: Any, shift: Any, widen: Any) -> None:
    """Write E, dE/dx and dE/ds of every pixel of an axis, for 16 ROIs.

    Parameters
    ----------
    centre, s : lanes
        Position from the middle of the axis [px]; width [px].
    share, shift, widen : (16 side,) float32 arrays
        Where E [1], dE/dx [1/px] and dE/ds [1/px] go.
    """
    inverse = 1.0 / s
    half = np.float32(side) * np.float32(0.5)
    u = splat(-half) - centre
    bell_before = gaussian(u * inverse)
    erf_before = error_function(u * inverse * _SQRT_HALF, bell_before)
    moment_before = u * bell_before
    for i in range(side):
        u = splat(np.float32(i + 1) - half) - centre
        bell = gaussian(u * inverse)
        erf_here = error_function(u * inverse * _SQRT_HALF, bell)
        moment = u * bell
        store(share, i * LANES, (erf_here - erf_before) * 0.5)
        store(shift, i * LANES, (bell_before - bell) * (inverse * _INV_SQRT_2PI))
        store(widen, i * LANES, (moment_before - moment) * (inverse * inverse * _INV_SQRT_2PI))
        bell_before, erf_before, moment_before = bell, erf_here, moment


@device
def gaussian(t: Any) -> Any:
    """exp(-t²/2); 2^n times a polynomial for 2^f, |f| ≤ 1/2, relative error 2e-9 before rounding."""
    v = t * t * (-0.5 * _LOG2_E)
    v = select(v > -120.0, v, -120.0)
    n = rounded(v)
    f = v - n
    p = f * 1.53458095e-4 + 1.33999312e-3
    p = p * f + 9.61848897e-3
    p = p * f + 5.55032878e-2
    p = p * f + 2.40226469e-1
    p = p * f + 6.93147206e-1
    return (p * f + 1.0) * power_of_two(n)


@device
def error_function(t: Any, bell: Any) -> Any:
    """erf(t), given exp(-t²); erfc(a) = exp(-a²) k P(k), k = 1/(1 + 0.39 a), absolute error 8e-9 before rounding.

    The form is Abramowitz and Stegun's 7.1.26, with a polynomial of one degree more.
    """
    a = absolute(t)
    k = 1.0 / (a * 0.3903225190105972 + 1.0)
    p = k * -0.22690369 + 0.88163049
    p = p * k + -0.62772352
    p = p * k + 0.64430609
    p = p * k + 0.0934419
    p = p * k + 0.23524873
    positive = 1.0 - p * k * bell
    return select(t < 0.0, -positive, positive)


@device
def logarithm(v: Any) -> Any:
    """Natural logarithm of a positive normal number, relative error 4e-8 before rounding."""
    exponent = binary_exponent(v)
    m = v * power_of_two(-exponent)
    large = m > _SQRT_2
    m = select(large, m * 0.5, m)
    exponent = select(large, exponent + 1.0, exponent)
    t = m - 1.0
    p = t * 0.1292634 + -0.20893341
    p = p * t + 0.2152124
    p = p * t + -0.23867575
    p = p * t + 0.28793909
    p = p * t + -0.36071626
    p = p * t + 0.48091028
    p = p * t + -0.7213472
    p = p * t + 1.442695
    return (p * t + exponent) * _LN_2
