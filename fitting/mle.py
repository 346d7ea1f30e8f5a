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

from fitting.kernel import inlined, kernel
from fitting.lanes import LANES, absolute, lane_bits, load, select, splat, store
from fitting.normal import factorise, inverse_diagonal, substitute
from fitting.poisson import (
    CLOSE,
    CONVERGED,
    DAMPED_FROM,
    DEGENERATE,
    ITERATION_LIMIT,
    ITERATIONS,
    LEAST_MEAN,
    LEAST_PHOTONS,
    LEAST_WIDTH,
    LEFT_ROI,
    QUALITY,
    at_least,
    deviance_terms,
    moments,
    within,
)
from fitting.psf import axis_factors
from fitting.row_sums import row_sums

PARAMETERS = 5
"""x, y [px] from the centre of the ROI's middle pixel, N [e⁻], b [e⁻/px], s [px]."""
COVARIANCES = 6
"""The variances of the five, then the covariance of N and s."""


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
        (x, y, n, b), least_b, pixels = moments(data, extra, first, side)
        start = (x, y, n, b, splat(np.float32(width_px)))
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
            deviance / at_least(expected - expected * (PARAMETERS / at_least(pixels, 6.0)), 1.0),
        )
        store(quality, to + 2 * LANES, iterations)
        store(quality, to + 3 * LANES, code)


@inlined
def _climb(
    data: Any, extra: Any, first: int, side: int, start: Any, least_b: Any, pixels: Any, aspect: Any,
    fx: Any, gx: Any, sx: Any, fy: Any, gy: Any, sy: Any,
) -> Any:  # fmt: skip
    """Fisher scoring; a lane that has arrived is frozen."""
    x, y, n, b, s = start
    half = np.float32(side) * np.float32(0.5)
    zero = splat(0.0)
    v0, v1, v2, v3, v4, v5 = zero, zero, zero, zero, zero, zero
    code = select(pixels < PARAMETERS + 1.0, DEGENERATE, zero)
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
        if step >= DAMPED_FROM:
            scale = np.float32(0.5) if step < 2 * DAMPED_FROM else np.float32(0.25)
        u0, u1, u2, u3, u4, u5 = inverse_diagonal(pivots, lower)
        v0, v1 = select(active, u0 / (n * n), v0), select(active, u1 / (n * n), v1)
        v2, v3, v4 = select(active, u2, v2), select(active, u3, v3), select(active, u4 / (n * n), v4)
        v5 = select(active, u5 / n, v5)
        jump = s * 0.7
        x = select(active, x + within(d0 / n * scale, jump), x)
        y = select(active, y + within(d1 / n * scale, jump), y)
        s = select(active, s + within(d4 / n * scale, s * 0.3), s)
        n = select(active, at_least(at_least(n + d2 * scale, n * 0.3), LEAST_PHOTONS), n)
        b = select(active, at_least(b + d3 * scale, least_b), b)
        iterations = iterations + select(active, 1.0, 0.0)
        away = (absolute(x) > half + 0.5) | (absolute(y) > half + 0.5)
        lost = (s <= LEAST_WIDTH) | (s > 2.0 * half) | ~(absolute(distance) < 1e20)
        arrived = absolute(distance) < CLOSE
        ended = select(
            lost,
            DEGENERATE,
            select(
                away,
                LEFT_ROI,
                select(arrived, select(good & (n > LEAST_PHOTONS), CONVERGED, DEGENERATE), 0.0),
            ),
        )
        code = select(active, ended, code)
        active = code < 0.5
        if lane_bits(active) == 0:
            break
    code = select(active, ITERATION_LIMIT, code)
    return (x, y, n, b, s), code, iterations, (v0, v1, v2, v3, v4, v5)


@inlined
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


@inlined
def _normal_equations(
    data: Any, extra: Any, first: int, side: int, n: Any, b: Any, aspect: Any,
    fx: Any, gx: Any, sx: Any, fy: Any, gy: Any, sy: Any,
) -> Any:  # fmt: skip
    r"""Gradient (5) and Fisher matrix (15), with the derivatives by x, y and s divided by N.

    The model is separable, so the sums along a row, over products of the x factors only, are
    multiplied by the row's y factors afterwards; their names are those of `fitting.row_sums`.
    """
    z = splat(0.0)
    g0, g1, g2, g3, g4 = z, z, z, z, z
    h00, h01, h02, h03, h04, h11, h12, h13, h14 = z, z, z, z, z, z, z, z, z
    h22, h23, h24, h33, h34, h44 = z, z, z, z, z, z
    for j in range(side):
        py, dy, wy = load(fy, j * LANES), load(gy, j * LANES), load(sy, j * LANES) * aspect
        height = n * py
        at = first + j * side * LANES
        R, RP, RG, RS, W, WP, WG, WS, PP, PG, PS, GG, GS, SS = row_sums(
            data, extra, at, side, height, b, fx, gx, sx
        )
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


@inlined
def _deviance(data: Any, extra: Any, first: int, side: int, n: Any, b: Any, fx: Any, fy: Any) -> Any:
    """Poisson deviance 2 Σ [μ - x + x ln(x/μ)] of the ROI, and what it would be on average if the model is right."""
    total, expected = splat(0.0), splat(0.0)
    for j in range(side):
        height = n * load(fy, j * LANES)
        at = first + j * side * LANES
        for i in range(side):
            mu = at_least(height * load(fx, i * LANES) + (load(extra, at + i * LANES) + b), LEAST_MEAN)
            x = load(data, at + i * LANES)
            half, mean = deviance_terms(x, mu)
            total, expected = total + half, expected + mean
    return total * 2.0, expected
