r"""Maximum-likelihood fit of a pixel-integrated Gaussian, sixteen ROIs at a time.

The photo-electrons :math:`x_i` of a pixel are Poisson with mean :math:`\mu_i`; read noise of variance :math:`v_i` is
carried by the same law for the shifted counts, :math:`x_i + v_i \sim \text{Poisson}(\mu_i + v_i)` [1]_. A background that is
known from other frames enters the mean. Both are one array here, `extra` = background + variance, added to the model,
while the variance has been added to the data. A pixel of infinite variance says nothing: that is how
pixels outside the frame, dead and saturated pixels are marked.

Fisher scoring [2]_: with :math:`g = \sum (x/\mu - 1)\,\mu'` and :math:`H = \sum \mu' \mu'^T / \mu`, step by
:math:`H^{-1} g` until :math:`g^T H^{-1} g`, the squared distance to the maximum in standard errors, is below 1e-4.
:math:`H^{-1}` is then the Cramér–Rao bound.

References
----------
.. [1] F. Huang et al., Nature Methods 10, 653 (2013), https://doi.org/10.1038/nmeth.2488, supplementary note.
.. [2] C. S. Smith et al., Nature Methods 7, 373 (2010), https://doi.org/10.1038/nmeth.1449;
   T. A. Laurence and B. A. Chromy, Nature Methods 7, 338 (2010), https://doi.org/10.1038/nmeth0510-338 (deviance).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fitting.kernel import device, kernel
from fitting.lanes import LANES, absolute, lane_bits, load, select, splat, store
from fitting.localisations import ResultCode
from fitting.normal import factorise, inverse_diagonal, substitute
from fitting.psf import axis_factors, logarithm

PARAMETERS = 5
"""x, y [px] from the centre of the ROI's middle pixel, N [e⁻], b [e⁻/px], s [px]."""
COVARIANCES = 6
"""The variances of the five, then the covariance of N and s."""
QUALITY = 4
"""deviance, deviance over its expectation, iterations, result code."""
UNKNOWN = np.float32(2.0**100)
"""`data` and `extra` of a pixel that says nothing: a variance without bound, at which x/μ is exactly 1."""

ITERATIONS = 40
_CLOSE = 1e-4  # g·H⁻¹g: a hundredth of a standard error, before the last step
_LEAST_MEAN = 1e-2  # [e⁻], keeps x/μ finite where the background is none
_LEAST_PHOTONS = 1.0
_LEAST_WIDTH = 0.25  # [px]
_DAMPED_FROM = 8  # a pair of emitters in one ROI makes full steps swing

_CONVERGED = float(ResultCode.CONVERGED)
_ITERATION_LIMIT = float(ResultCode.ITERATION_LIMIT)
_LEFT_ROI = float(ResultCode.LEFT_ROI)
_DEGENERATE = float(ResultCode.DEGENERATE)


@kernel
def fit_blocks(
    data: Any,
    extra: Any,
    blocks: int,
    side: int,
    width_px: Any,
    aspect: Any,
    theta: Any,
    covariance: Any,
    quality: Any,
) -> None:
    """Fit blocks of 16 ROIs.

    Parameters
    ----------
    data, extra : (16 blocks side²,) float32 arrays
        Counts + variance, and background + variance [e⁻], indexed [block, y, x, lane]; `UNKNOWN` in both
        for a pixel that does not count.
    width_px : float32
        Width at the start [px].
    aspect : float32
        Pixel width over pixel height [1]: the width counts in pixels of x.
    theta : (16 · 5 blocks,) float32 array
        Out: the parameters, indexed [block, parameter, lane].
    covariance : (16 · 6 blocks,) float32 array
        Out: the Cramér–Rao bounds of their variances, then the covariance of N and s.
    quality : (16 · 4 blocks,) float32 array
        Out: see `QUALITY`.
    """
    row = side * LANES
    fx, gx, sx = np.empty(row, np.float32), np.empty(row, np.float32), np.empty(row, np.float32)
    fy, gy, sy = np.empty(row, np.float32), np.empty(row, np.float32), np.empty(row, np.float32)
    for block in range(blocks):
        first = block * side * row
        start, least_b, pixels = _start(data, extra, first, side, np.float32(width_px))
        found, code, iterations, bound = _climb(
            data, extra, first, side, start, least_b, pixels, np.float32(aspect), fx, gx, sx, fy, gy, sy
        )
        x, y, n, b, s = found
        axis_factors(x, s, side, fx, gx, sx)
        axis_factors(y, s * np.float32(aspect), side, fy, gy, sy)
        deviance, expected = _deviance(data, extra, first, side, n, b, fx, fy)
        to = block * PARAMETERS * LANES
        for k, value in enumerate((x, y, n, b, s)):
            store(theta, to + k * LANES, value)
        for k, value in enumerate(bound):
            store(covariance, block * COVARIANCES * LANES + k * LANES, value)
        to = block * QUALITY * LANES
        store(quality, to, deviance)
        store(
            quality,
            to + LANES,
            deviance / _at_least(expected - expected * (PARAMETERS / _at_least(pixels, 6.0)), 1.0),
        )
        store(quality, to + 2 * LANES, iterations)
        store(quality, to + 3 * LANES, code)


@device
def _at_least(value: Any, bound: Any) -> Any:
    return select(value > bound, value, bound)


@device
def _within(value: Any, bound: Any) -> Any:
    return select(value > bound, bound, select(value < -bound, -bound, value))


@device
def _start(data: Any, extra: Any, first: int, side: int, width: Any) -> Any:
    """Moments: background from the ROI's border, photons and centroid from the rest."""
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
    b = border / _at_least(on_border, 1.0)
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
    n = _at_least(n, 10.0)
    least_b = _LEAST_MEAN - least
    theta = (_within(along_x / n, 1.0), _within(along_y / n, 1.0), n, _at_least(b, least_b), splat(width))
    return theta, least_b, pixels


@device
def _climb(
    data: Any, extra: Any, first: int, side: int, start: Any, least_b: Any, pixels: Any, aspect: Any,
    fx: Any, gx: Any, sx: Any, fy: Any, gy: Any, sy: Any,
) -> Any:  # fmt: skip
    """Fisher scoring; a lane that has arrived is frozen."""
    x, y, n, b, s = start
    half = np.float32(side) * np.float32(0.5)
    zero = splat(0.0)
    v0, v1, v2, v3, v4, v5 = zero, zero, zero, zero, zero, zero
    code = select(pixels < PARAMETERS + 1.0, _DEGENERATE, zero)
    active = code < 0.5
    iterations = zero
    scale = np.float32(1.0)
    for step in range(ITERATIONS):
        axis_factors(x, s, side, fx, gx, sx)
        axis_factors(y, s * aspect, side, fy, gy, sy)
        gradient, h = _normal_equations(data, extra, first, side, n, b, aspect, fx, gx, sx, fy, gy, sy)
        gradient, h = _hold_background(gradient, h, (b <= least_b) & (gradient[3] < 0.0))
        pivots, lower, good = factorise(h)
        d = substitute(pivots, lower, gradient)
        g0, g1, g2, g3, g4 = gradient
        d0, d1, d2, d3, d4 = d
        distance = g0 * d0 + g1 * d1 + g2 * d2 + g3 * d3 + g4 * d4
        if step >= _DAMPED_FROM:
            scale = np.float32(0.5) if step < 2 * _DAMPED_FROM else np.float32(0.25)
        u0, u1, u2, u3, u4, u5 = inverse_diagonal(pivots, lower)
        v0, v1 = select(active, u0 / (n * n), v0), select(active, u1 / (n * n), v1)
        v2, v3, v4 = select(active, u2, v2), select(active, u3, v3), select(active, u4 / (n * n), v4)
        v5 = select(active, u5 / n, v5)
        jump = s * 0.7
        x = select(active, x + _within(d0 / n * scale, jump), x)
        y = select(active, y + _within(d1 / n * scale, jump), y)
        s = select(active, s + _within(d4 / n * scale, s * 0.3), s)
        n = select(active, _at_least(_at_least(n + d2 * scale, n * 0.3), _LEAST_PHOTONS), n)
        b = select(active, _at_least(b + d3 * scale, least_b), b)
        iterations = iterations + select(active, 1.0, 0.0)
        away = (absolute(x) > half + 0.5) | (absolute(y) > half + 0.5)
        lost = (s <= _LEAST_WIDTH) | (s > 2.0 * half) | ~(absolute(distance) < 1e20)
        arrived = absolute(distance) < _CLOSE
        ended = select(
            lost,
            _DEGENERATE,
            select(
                away,
                _LEFT_ROI,
                select(arrived, select(good & (n > _LEAST_PHOTONS), _CONVERGED, _DEGENERATE), 0.0),
            ),
        )
        code = select(active, ended, code)
        active = code < 0.5
        if lane_bits(active) == 0:
            break
    code = select(active, _ITERATION_LIMIT, code)
    return (x, y, n, b, s), code, iterations, (v0, v1, v2, v3, v4, v5)


@device
def _hold_background(gradient: Any, h: Any, held: Any) -> Any:
    """Take the background out of the equations where it rests on its lower bound."""
    g0, g1, g2, g3, g4 = gradient
    h00, h01, h02, h03, h04, h11, h12, h13, h14, h22, h23, h24, h33, h34, h44 = h
    free = ~held
    g3 = select(free, g3, 0.0)
    h03, h13, h23, h34 = (
        select(free, h03, 0.0),
        select(free, h13, 0.0),
        select(free, h23, 0.0),
        select(free, h34, 0.0),
    )
    return (g0, g1, g2, g3, g4), (h00, h01, h02, h03, h04, h11, h12, h13, h14, h22, h23, h24, h33, h34, h44)


@device
def _normal_equations(
    data: Any, extra: Any, first: int, side: int, n: Any, b: Any, aspect: Any,
    fx: Any, gx: Any, sx: Any, fy: Any, gy: Any, sy: Any,
) -> Any:  # fmt: skip
    r"""Gradient (5) and Fisher matrix (15), with the derivatives by x, y and s divided by N.

    The model is separable, so the sums along a row, over products of the x factors only, are
    multiplied by the row's y factors afterwards: ``P`` stands for E, ``G`` for dE/dx, ``S`` for dE/ds, ``R`` for x/μ - 1 and ``W`` for 1/μ.
    """
    z = splat(0.0)
    g0, g1, g2, g3, g4 = z, z, z, z, z
    h00, h01, h02, h03, h04, h11, h12, h13, h14, h22, h23, h24, h33, h34, h44 = (
        z,
        z,
        z,
        z,
        z,
        z,
        z,
        z,
        z,
        z,
        z,
        z,
        z,
        z,
        z,
    )
    for j in range(side):
        py, dy, wy = load(fy, j * LANES), load(gy, j * LANES), load(sy, j * LANES) * aspect
        height = n * py
        at = first + j * side * LANES
        R, RP, RG, RS, W, WP, WG, WS = z, z, z, z, z, z, z, z
        PP, PG, PS, GG, GS, SS = z, z, z, z, z, z
        for i in range(side):
            p, g, s = load(fx, i * LANES), load(gx, i * LANES), load(sx, i * LANES)
            mu = _at_least(height * p + (load(extra, at + i * LANES) + b), _LEAST_MEAN)
            w = 1.0 / mu
            r = load(data, at + i * LANES) * w - 1.0
            R, RP, RG, RS = R + r, RP + r * p, RG + r * g, RS + r * s
            wp, wg, ws = w * p, w * g, w * s
            W, WP, WG, WS = W + w, WP + wp, WG + wg, WS + ws
            PP, PG, PS = PP + wp * p, PG + wp * g, PS + wp * s
            GG, GS, SS = GG + wg * g, GS + wg * s, SS + ws * s
        g0, g1, g2, g3 = g0 + py * RG, g1 + dy * RP, g2 + py * RP, g3 + R
        g4 = g4 + py * RS + wy * RP
        pp, pd, pw = py * py, py * dy, py * wy
        h00, h01, h02, h03, h04 = (
            h00 + pp * GG,
            h01 + pd * PG,
            h02 + pp * PG,
            h03 + py * WG,
            h04 + pp * GS + pw * PG,
        )
        h11, h12, h13, h14 = h11 + dy * dy * PP, h12 + pd * PP, h13 + dy * WP, h14 + pd * PS + dy * wy * PP
        h22, h23, h24 = h22 + pp * PP, h23 + py * WP, h24 + pp * PS + pw * PP
        h33, h34 = h33 + W, h34 + py * WS + wy * WP
        h44 = h44 + pp * SS + pw * PS * 2.0 + wy * wy * PP
    return (g0, g1, g2, g3, g4), (h00, h01, h02, h03, h04, h11, h12, h13, h14, h22, h23, h24, h33, h34, h44)


@device
def _deviance(data: Any, extra: Any, first: int, side: int, n: Any, b: Any, fx: Any, fy: Any) -> Any:
    """Poisson deviance 2 Σ [μ - x + x ln(x/μ)] of the ROI, and what it would be on average if the model is right."""
    total, expected = splat(0.0), splat(0.0)
    for j in range(side):
        height = n * load(fy, j * LANES)
        at = first + j * side * LANES
        for i in range(side):
            mu = _at_least(height * load(fx, i * LANES) + (load(extra, at + i * LANES) + b), _LEAST_MEAN)
            x = load(data, at + i * LANES)
            total = total + (mu - x + x * logarithm(_at_least(x / mu, 1e-30)))
            expected = expected + select(mu < UNKNOWN, _expected_deviance(mu), 0.0)
    return total * 2.0, expected


@device
def _expected_deviance(mu: Any) -> Any:
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
