"""How well a Gaussian of given place and widths matches a ROI, photons and background being free: a quick look before a fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from fitting.kernel import borrower
from fitting.lanes import LANES, load, select, splat, store
from fitting.poisson import UNKNOWN, at_least
from fitting.psf import gaussian


@borrower
def write_residual(views: Any, channel: int, block: int, residual: Any) -> Any:
    """Write the channel's photons minus their mean, 0 for a pixel that does not count; gives one over the mean signal."""
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
    return 1.0 / at_least(signal / count, 1.0)


@borrower
def gain(residual: Any, side: int, x: Any, y: Any, sx: Any, sy: Any, fx: Any, fy: Any) -> Any:
    """By how much a Gaussian of these widths lowers the sum of squares: cov(v, P)²/var(P), 0 where they anticorrelate."""
    sum_x, square_x = _bells(x, sx, side, fx)
    sum_y, square_y = _bells(y, sy, side, fy)
    covariance = splat(0.0)
    for j in range(side):
        row = splat(0.0)
        for i in range(side):
            row = row + load(residual, (j * side + i) * LANES) * load(fx, i * LANES)
        covariance = covariance + row * load(fy, j * LANES)
    every = sum_x * sum_y
    variance = square_x * square_y - every * every * (np.float32(1.0) / np.float32(side * side))
    covariance = at_least(covariance, 0.0)
    return covariance * covariance / at_least(variance, 1e-6)


@borrower
def _bells(centre: Any, s: Any, side: int, out: Any) -> Any:
    """Write a sampled Gaussian, broadened as pixels broaden it; gives its sum and that of its squares."""
    inverse = np.float32(1.0) / np.sqrt(s * s + np.float32(1.0 / 12.0))
    half = np.float32(side - 1) * np.float32(0.5)
    total, square = splat(0.0), splat(0.0)
    for i in range(side):
        value = gaussian((splat(np.float32(i) - half) - centre) * inverse)
        store(out, i * LANES, value)
        total, square = total + value, square + value * value
    return total, square
