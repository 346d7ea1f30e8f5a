"""What the maximum-likelihood kernels share: limits, the start by moments, the deviance that is to be expected.

How they use it is said in `fitting.mle`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fitting.kernel import device
from fitting.lanes import LANES, load, select, splat
from fitting.localisations import ResultCode
from fitting.psf import logarithm

UNKNOWN = np.float32(2.0**100)
"""`data` and `extra` of a pixel that says nothing: a variance without bound, at which x/μ is exactly 1."""

QUALITY = 4
"""What a fit says of itself: deviance, deviance over its expectation, iterations, result code."""

ITERATIONS = 40
CLOSE = 1e-4  # g·H⁻¹g: a hundredth of a standard error, before the last step
LEAST_MEAN = 1e-2  # [e⁻], keeps x/μ finite where the background is none
LEAST_PHOTONS = 1.0
LEAST_WIDTH = 0.25  # [px]
DAMPED_FROM = 8  # a pair of emitters in one ROI makes full steps swing

CONVERGED = float(ResultCode.CONVERGED)
ITERATION_LIMIT = float(ResultCode.ITERATION_LIMIT)
LEFT_ROI = float(ResultCode.LEFT_ROI)
DEGENERATE = float(ResultCode.DEGENERATE)


@device
def at_least(value: Any, bound: Any) -> Any:
    """The larger of the two; the bound where the value is NaN."""
    return select(value > bound, value, bound)


@device
def within(value: Any, bound: Any) -> Any:
    """The value, cut off at ± the bound."""
    return select(value > bound, bound, select(value < -bound, -bound, value))


@device
def moments(data: Any, extra: Any, first: int, side: int) -> Any:
    """A start: background from the ROI's border, photons and centroid from the rest.

    Returns
    -------
    (x, y, N, b), the least background at which every mean is positive, and the number of pixels that count; lanes.
    """
    zero = splat(0.0)
    border, on_border, pixels, least = zero, zero, zero, splat(UNKNOWN)
    for j in range(side):
        for i in range(side):
            at = first + (j * side + i) * LANES
            c = load(extra, at)
            known = c < UNKNOWN
            pixels = pixels + select(known, 1.0, 0.0)
            least = select(c < least, c, least)
            if i == 0 or j == 0 or i == side - 1 or j == side - 1:
                border = border + select(known, load(data, at) - c, 0.0)
                on_border = on_border + select(known, 1.0, 0.0)
    b = border / at_least(on_border, 1.0)
    n, along_x, along_y = zero, zero, zero
    half = np.float32(side - 1) * np.float32(0.5)
    for j in range(side):
        for i in range(side):
            at = first + (j * side + i) * LANES
            c = load(extra, at)
            v = select(c < UNKNOWN, load(data, at) - c - b, 0.0)
            n = n + v
            along_x = along_x + v * (np.float32(i) - half)
            along_y = along_y + v * (np.float32(j) - half)
    n = at_least(n, 10.0)
    least_b = LEAST_MEAN - least
    start = (within(along_x / n, 1.0), within(along_y / n, 1.0), n, at_least(b, least_b))
    return start, least_b, pixels


@device
def expected_deviance(mu: Any) -> Any:
    """Mean deviance of one Poisson count: 1 + 1/6μ + 1/6μ² from μ = 5 on, below a polynomial in μ/(1 + μ) (to 0.1 %)."""
    inverse = 1.0 / mu
    sixth = inverse * (1.0 / 6.0)
    u = 1.0 / (inverse + 1.0)
    p = u * -106.540126 + 431.920577
    p = p * u + -733.066777
    p = p * u + 682.142874
    p = p * u + -381.247462
    p = p * u + 132.228785
    p = p * u + -31.3179789
    p = p * u + 6.83710860
    p = p * u + 0.0352790497
    return select(mu > 5.0, sixth + sixth * inverse + 1.0, p)


@device
def deviance_terms(x: Any, mu: Any) -> Any:
    """Half of a pixel's deviance, μ - x + x ln(x/μ), and what the whole of it is on average if μ is right; 0 where nothing is known."""
    half = mu - x + x * logarithm(at_least(x / mu, 1e-30))
    return half, select(mu < UNKNOWN, expected_deviance(mu), 0.0)
