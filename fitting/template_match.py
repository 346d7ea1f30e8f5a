"""How well a Gaussian of given place and widths matches a ROI, photons and background being free: a quick look before a fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from fitting.kernel import borrower
from fitting.lanes import LANES, load, select, splat, square_root, store
from fitting.poisson import UNKNOWN, at_least
from fitting.psf import gaussian

PIXEL_VARIANCE = 1.0 / 12.0
"""By which a pixel broadens what falls on it [px²]."""


@borrower
def write_residual(views: Any, channel: int, block: int, residual: Any) -> Any:
    """Write the channel's photons minus their mean, 0 for a pixel that does not count; gives one over the mean signal, and the mean."""
    area = views.side * views.side
    first = channel * views.stride + block * area * LANES
    count, total, signal = splat(0.0), splat(0.0), splat(0.0)
    for k in range(0, area * LANES, LANES):
        c, d = load(views.extra, first + k), load(views.data, first + k)
        known = c < UNKNOWN
        count = count + select(known, 1.0, 0.0)
        total, signal = total + select(known, d - c, 0.0), signal + select(known, d, 0.0)
    count = at_least(count, 1.0)
    mean = total / count
    for k in range(0, area * LANES, LANES):
        c, d = load(views.extra, first + k), load(views.data, first + k)
        store(residual, k, select(c < UNKNOWN, d - c - mean, 0.0))
    return 1.0 / at_least(signal / count, 1.0), mean


@borrower
def correlate(residual: Any, side: int, x: Any, y: Any, sx: Any, sy: Any, fx: Any, fy: Any) -> Any:
    """Correlate with a Gaussian P of height 1 at x, y: the sum of P × residual, the variance of P × pixels, the mean of P.

    Parameters
    ----------
    residual : (16 side²,) float32 array
    x, y, sx, sy : lanes
        Place and widths [px].
    fx, fy : (16 side,) float32 arrays
        Scratch.
    """
    sum_x, square_x = _bells(x, sx, side, fx)
    sum_y, square_y = _bells(y, sy, side, fy)
    covariance = splat(0.0)
    for j in range(side):
        row = splat(0.0)
        for i in range(side):
            row = row + load(residual, (j * side + i) * LANES) * load(fx, i * LANES)
        covariance = covariance + row * load(fy, j * LANES)
    mean = sum_x * sum_y * (np.float32(1.0) / np.float32(side * side))
    return covariance, at_least(square_x * square_y - mean * sum_x * sum_y, 1e-6), mean


@borrower
def _bells(centre: Any, s: Any, side: int, out: Any) -> Any:
    """Write a sampled Gaussian, broadened as pixels broaden it; gives its sum and that of its squares."""
    inverse = 1.0 / square_root(s * s + PIXEL_VARIANCE)
    half = np.float32(side - 1) * np.float32(0.5)
    total, square = splat(0.0), splat(0.0)
    for i in range(side):
        value = gaussian((splat(np.float32(i) - half) - centre) * inverse)
        store(out, i * LANES, value)
        total, square = total + value, square + value * value
    return total, square
