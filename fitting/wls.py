r"""Weighted least squares as PYME does it, sixteen ROIs at a time, for whoever must compare.

.. math::

    m_{ij} = A \, e^{-((j - x)^2 + (i - y)^2) / 2 s^2} + b + b_x (j - x) + b_y (i - y)

The Gaussian is sampled at the pixel centres, the weights 1/σ come from the data, and errors are scaled by the reduced
χ². So the width comes out as the root of σ² + 1/12, the background too low, and the positions 3 to 10 % less precise than maximum
likelihood; that is the estimator's nature. PYME differentiates by finite differences; here the derivatives are exact.

References
----------
.. [1] K. Levenberg (1944), D. W. Marquardt, SIAM J. Appl. Math. 11, 431 (1963), https://doi.org/10.1137/0111030.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fitting.kernel import device, kernel
from fitting.lanes import LANES, absolute, lane_bits, load, select, splat, store
from fitting.localisations import ResultCode
from fitting.psf import gaussian

PARAMETERS = 7
"""A [ADU], x, y [px] from the centre of the ROI's middle pixel, s [px], b [ADU], bx, by [ADU/px]."""
COVARIANCES = 8
"""The variances of the seven, then the covariance of A and s."""
QUALITY = 4
"""χ², reduced χ², iterations, result code."""

ITERATIONS = 50
_CLOSE = 1e-4  # g·H⁻¹g: a hundredth of a standard error
_LEAST_WIDTH = 0.25  # [px]
_SUMS = PARAMETERS + PARAMETERS * PARAMETERS  # gradient, then the matrix by rows

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
        Signal [ADU] and 1/σ [1/ADU], 0 for a pixel that does not count; indexed [block, y, x, lane].
    width_px, aspect : float32
        Width at the start [px of x]; pixel width over pixel height [1].
    theta : (16 · 7 blocks,) float32 array
        Out: the parameters, indexed [block, parameter, lane].
    covariance : (16 · 8 blocks,) float32 array
        Out: see `COVARIANCES`; scaled by the reduced χ².
    quality : (16 · 4 blocks,) float32 array
        Out: see `QUALITY`.
    """
    here, trial = np.zeros(_SUMS * LANES, np.float32), np.zeros(_SUMS * LANES, np.float32)
    lower, step = np.zeros(_SUMS * LANES, np.float32), np.zeros(PARAMETERS * LANES, np.float32)
    aspect = np.float32(aspect)
    for block in range(blocks):
        first, to = block * side * side * LANES, block * PARAMETERS * LANES
        at = theta[to : to + PARAMETERS * LANES]
        pixels = _start(data, extra, first, side, np.float32(width_px), at)
        chi2, code, iterations = _descend(
            data, extra, first, side, aspect, pixels, at, here, trial, lower, step
        )
        reduced = chi2 / _at_least(pixels - float(PARAMETERS), 1.0)
        _factorise(here, lower, splat(np.float32(0.0)))
        for k in range(PARAMETERS):
            for m in range(PARAMETERS):
                store(step, m * LANES, splat(np.float32(1.0 if m == k else 0.0)))
            _substitute(lower, step)
            store(covariance, (block * COVARIANCES + k) * LANES, load(step, k * LANES) * reduced)
            if k == 0:
                store(covariance, (block * COVARIANCES + 7) * LANES, load(step, 3 * LANES) * reduced)
        to = block * QUALITY * LANES
        store(quality, to, chi2)
        store(quality, to + LANES, reduced)
        store(quality, to + 2 * LANES, iterations)
        store(quality, to + 3 * LANES, code)


@device
def _at_least(value: Any, bound: Any) -> Any:
    return select(value > bound, value, bound)


@device
def _start(data: Any, extra: Any, first: int, side: int, width: Any, theta: Any) -> Any:
    """PYME's start: the ROI's smallest value, its range, the middle, the expected width. Gives the number of pixels."""
    least, most, pixels = splat(np.float32(1e30)), splat(np.float32(-1e30)), splat(np.float32(0.0))
    for pixel in range(side * side):
        value = load(data, first + pixel * LANES)
        known = load(extra, first + pixel * LANES) > 0.0
        least = select(known & (value < least), value, least)
        most = select(known & (value > most), value, most)
        pixels = pixels + select(known, 1.0, 0.0)
    for k in range(PARAMETERS):
        store(theta, k * LANES, splat(np.float32(0.0)))
    least = select(pixels > 0.0, least, 0.0)
    store(theta, 0, _at_least(most - least, 0.0))
    store(theta, 3 * LANES, splat(width))
    store(theta, 4 * LANES, least)
    return pixels


@device
def _descend(
    data: Any, extra: Any, first: int, side: int, aspect: Any, pixels: Any, theta: Any,
    here: Any, trial: Any, lower: Any, step: Any,
) -> Any:  # fmt: skip
    """Levenberg–Marquardt; a lane that has arrived is frozen."""
    half = np.float32(side) * np.float32(0.5)
    tried = np.zeros(PARAMETERS * LANES, np.float32)
    damping, iterations = splat(np.float32(1e-2)), splat(np.float32(0.0))
    code = select(pixels < float(PARAMETERS + 1), _DEGENERATE, 0.0)
    active = code < 0.5
    chi2 = _normal_equations(data, extra, first, side, aspect, theta, here)
    for _ in range(ITERATIONS):
        if lane_bits(active) == 0:
            break
        good = _factorise(here, lower, damping)
        for k in range(PARAMETERS):
            store(step, k * LANES, load(here, k * LANES))
        _substitute(lower, step)
        distance = splat(np.float32(0.0))
        for k in range(PARAMETERS):
            distance = distance + load(step, k * LANES) * load(here, k * LANES)
            store(tried, k * LANES, load(theta, k * LANES) + load(step, k * LANES))
        s = load(theta, 3 * LANES)
        change = load(step, 3 * LANES)
        change = select(change > s, s, select(change < s * -0.5, s * -0.5, change))
        store(tried, 3 * LANES, s + change)
        new = _normal_equations(data, extra, first, side, aspect, tried, trial)
        better = active & (new <= chi2)
        for k in range(PARAMETERS):
            store(theta, k * LANES, select(better, load(tried, k * LANES), load(theta, k * LANES)))
        for k in range(_SUMS):
            store(here, k * LANES, select(better, load(trial, k * LANES), load(here, k * LANES)))
        iterations = iterations + select(active, 1.0, 0.0)
        x, y, s = load(theta, LANES), load(theta, 2 * LANES), load(theta, 3 * LANES)
        stuck = ~(damping < 1e10)
        lost = (s <= _LEAST_WIDTH) | (s > 4.0 * half) | ~(absolute(distance) < 1e20)
        arrived = (better & (absolute(distance) < _CLOSE)) | stuck
        away = (absolute(x) > half + 0.5) | (absolute(y) > half + 0.5)
        ended = select(arrived, select(good, _CONVERGED, _DEGENERATE), 0.0)
        code = select(active, select(lost, _DEGENERATE, select(away, _LEFT_ROI, ended)), code)
        chi2 = select(better, new, chi2)
        damping = select(better, _at_least(damping * 0.1, 1e-7), damping * 10.0)
        active = code < 0.5
    return chi2, select(active, _ITERATION_LIMIT, code), iterations


@device
def _normal_equations(
    data: Any, extra: Any, first: int, side: int, aspect: Any, theta: Any, sums: Any
) -> Any:
    """Write Σ r m' and Σ m' m'ᵀ, weighted; gives χ² = Σ r²."""
    for k in range(_SUMS):
        store(sums, k * LANES, splat(np.float32(0.0)))
    d = np.empty(PARAMETERS * LANES, np.float32)
    a, x, y, s = load(theta, 0), load(theta, LANES), load(theta, 2 * LANES), load(theta, 3 * LANES)
    b, bx, by = load(theta, 4 * LANES), load(theta, 5 * LANES), load(theta, 6 * LANES)
    inverse = 1.0 / s
    half = np.float32(side - 1) * np.float32(0.5)
    chi2 = splat(np.float32(0.0))
    for j in range(side):
        v = splat(np.float32(j) - half) - y
        vs = v * inverse / aspect
        ey = gaussian(vs)
        for i in range(side):
            at = first + (j * side + i) * LANES
            w = load(extra, at)
            u = splat(np.float32(i) - half) - x
            us = u * inverse
            e = ey * gaussian(us)
            peak = a * e
            r = (load(data, at) - (peak + b + bx * u + by * v)) * w
            chi2 = chi2 + r * r
            store(d, 0, e * w)
            store(d, LANES, (peak * us * inverse - bx) * w)
            store(d, 2 * LANES, (peak * vs * inverse / aspect - by) * w)
            store(d, 3 * LANES, peak * (us * us + vs * vs) * inverse * w)
            store(d, 4 * LANES, w)
            store(d, 5 * LANES, u * w)
            store(d, 6 * LANES, v * w)
            _accumulate(d, r, sums)
    return chi2


@device
def _accumulate(d: Any, r: Any, sums: Any) -> None:
    for k in range(PARAMETERS):
        dk = load(d, k * LANES)
        store(sums, k * LANES, load(sums, k * LANES) + dk * r)
        for m in range(k, PARAMETERS):
            to = (PARAMETERS + k * PARAMETERS + m) * LANES
            store(sums, to, load(sums, to) + dk * load(d, m * LANES))


@device
def _factorise(sums: Any, lower: Any, damping: Any) -> Any:
    """L D Lᵀ of the matrix with its diagonal times 1 + damping; 1/D on the diagonal of `lower`. Gives where it is positive definite."""
    good = splat(np.float32(0.0)) > -1.0
    for k in range(PARAMETERS):
        for m in range(k, PARAMETERS):
            value = load(sums, (PARAMETERS + k * PARAMETERS + m) * LANES)
            diagonal = value * (damping + 1.0)
            if m == k:
                value = diagonal
            for q in range(k):
                lkq, lmq = (
                    load(lower, (k * PARAMETERS + q) * LANES),
                    load(lower, (m * PARAMETERS + q) * LANES),
                )
                value = value - lkq * lmq / load(lower, (q * PARAMETERS + q) * LANES)
            if m == k:
                least = diagonal * 1e-6 + 1e-30
                good = good & (value > least)
                pivot = 1.0 / select(value > least, value, least)
                store(lower, (k * PARAMETERS + k) * LANES, pivot)
            else:
                store(lower, (m * PARAMETERS + k) * LANES, value * load(lower, (k * PARAMETERS + k) * LANES))
    return good


@device
def _substitute(lower: Any, g: Any) -> None:
    """Solve L D Lᵀ z = g in place."""
    for k in range(PARAMETERS):
        value = load(g, k * LANES)
        for q in range(k):
            value = value - load(lower, (k * PARAMETERS + q) * LANES) * load(g, q * LANES)
        store(g, k * LANES, value)
    for k in range(PARAMETERS):
        store(g, k * LANES, load(g, k * LANES) * load(lower, (k * PARAMETERS + k) * LANES))
    for back in range(PARAMETERS):
        k = PARAMETERS - 1 - back
        value = load(g, k * LANES)
        for q in range(k + 1, PARAMETERS):
            value = value - load(lower, (q * PARAMETERS + k) * LANES) * load(g, q * LANES)
        store(g, k * LANES, value)
