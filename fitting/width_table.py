"""Two widths against z as cubic splines on an even grid, for kernels: values and slopes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

from fitting.kernel import borrower
from fitting.lanes import LANES, gather, load, rounded, select, splat, store
from fitting.poisson import at_least


@lru_cache(maxsize=8)
def cubics(x: bytes, y: bytes, aspect: float) -> npt.NDArray[np.float32]:
    """`table` of `fitting.gaussian_kinds.Widths`, of widths given as bytes of float64: a fit of few molecules takes less time than the splines."""
    widths = (np.frombuffer(x), np.frombuffer(y) * aspect)
    steps = np.arange(len(widths[0]), dtype=np.float64)
    cubics = [CubicSpline(steps, values).c[::-1] for values in widths]
    return np.ascontiguousarray(np.concatenate(cubics), np.float32).reshape(-1)


@borrower
def look_up(psf: Any, local: Any, out: Any) -> None:
    """Widths and their slopes at z; beyond the ends of the curves they are constant."""
    count = psf.intervals
    last, per_nm = np.float32(count), np.float32(1.0) / psf.pitch
    t = (load(local, 2 * LANES) - psf.lowest) * per_nm
    slope_scale = select((t >= 0.0) & (t <= last), splat(per_nm), 0.0)
    t = at_least(select(t < last, t, last), 0.0)
    i = rounded(t - 0.5)
    i = at_least(select(i < last - np.float32(1.0), i, last - np.float32(1.0)), 0.0)
    u = t - i
    for axis in range(2):
        first = 4 * axis * count
        c0, c1 = gather(psf.table, first, i), gather(psf.table, first + count, i)
        c2, c3 = gather(psf.table, first + 2 * count, i), gather(psf.table, first + 3 * count, i)
        store(out, axis * LANES, ((c3 * u + c2) * u + c1) * u + c0)
        store(out, (2 + axis) * LANES, ((c3 * u * 3.0 + c2 * 2.0) * u + c1) * slope_scale)


@borrower
def widths_at(psf: Any, z: Any) -> Any:
    """s_x, s_y at one z."""
    count = psf.intervals
    t = min(max((z - psf.lowest) / psf.pitch, np.float32(0.0)), np.float32(count))
    i = min(int(t), count - 1)
    return _cubic(psf.table, i, count, t - np.float32(i)), _cubic(
        psf.table, 4 * count + i, count, t - np.float32(i)
    )


@borrower
def _cubic(table: Any, at: int, count: int, u: Any) -> Any:
    return ((table[at + 3 * count] * u + table[at + 2 * count]) * u + table[at + count]) * u + table[at]
