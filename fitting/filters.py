r"""The band-pass of detection: two Gaussians, and how much noise their difference lets through at the border.

A Gaussian of 2.8 px or more is so smooth that every second row and column of it say it all. Its filters are then made for every second row and column
only; all, also those that were made, follow by interpolation with a cubic B-spline [1]_. The weights are those for which filter and
interpolation together come nearest to the Gaussian: to 0.27 % of its norm at 3 px along each axis. The narrow Gaussian is cut off three widths
from its middle, which changes it by less than that.

Far from the border the noise of R = (G₁ - G₃) * P follows from the kernels. Near it the reflected image folds a kernel onto
itself, so that fewer independent pixels carry the same weight; the variance there over that inside is the *noise gain*. The gain of a
corner is taken as the product of those of its row and its column.

References
----------
.. [1] M. Unser, IEEE Signal Processing Magazine 16(6), 22 (1999), https://doi.org/10.1109/79.799930.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

SPARSE_FROM_PX = 2.8
"""Width from which the wide Gaussian is made for every second row and column."""
_SPARSE_REACH = 2.8  # [widths]: its tails are also those of the spline
ON_ROW = (1 / 6, 4 / 6)
"""Cubic B-spline at a row that was made: weights of those at ±2 rows and of the row itself."""
BETWEEN = (1 / 48, 23 / 48)
"""Cubic B-spline between two such rows: weights of those at ±3 rows and at ±1."""


class Filters(NamedTuple):
    """The two Gaussians, weights from their middle outwards.

    low; high; sparse: what takes the place of high where it is made for every second row and column (`step` 2); gain_y, gain_x: noise gain
    (squared, 1 inside) of each row and column. Its type says which, so that the other way is not compiled.
    """

    low: Any
    high: Any
    sparse: Any
    step: int
    gain_y: Any
    gain_x: Any


class EveryRow(Filters):
    """`Filters` of which the wide one is made for every row and column."""

    __slots__ = ()


class EverySecondRow(Filters):
    """`Filters` of which the wide one is made for every second row and column."""

    __slots__ = ()


@lru_cache(maxsize=16)
def make_filters(height: int, width: int, lowpass_px: float, highpass_px: float) -> Filters:
    """The filters for frames of a shape; widths in px."""
    low, high = _half_kernel(lowpass_px, 3), _half_kernel(highpass_px, 4)
    low = low[: len(high)]
    gain_y, gain_x = (_noise_gain(length, low, high) for length in (height, width))
    smooth = highpass_px >= SPARSE_FROM_PX
    sparse = _before_interpolation(high, round(_SPARSE_REACH * highpass_px)) if smooth else high
    near, far, for_some = (kernel.astype(np.float32) for kernel in (low, high, sparse))
    if smooth:
        return EverySecondRow(near, far, for_some, 2, gain_y, gain_x)
    return EveryRow(near, far, for_some, 1, gain_y, gain_x)


def _half_kernel(sigma: float, widths: int) -> npt.NDArray[np.float64]:
    k = np.exp(-(np.arange(int(widths * sigma + 0.5) + 1) ** 2) / (2 * sigma**2))
    result: npt.NDArray[np.float64] = k / (2 * k.sum() - k[0])
    return result


def _before_interpolation(high: npt.NDArray[np.float64], most: int) -> npt.NDArray[np.float64]:
    """Weights for every second row, `most` on either side, whose interpolation comes nearest to `high`; their sum is 1."""
    reach = len(high) - 1
    at = np.arange(-reach - 4, reach + 5)
    wanted = np.where(abs(at) <= reach, high[np.minimum(abs(at), reach)], 0.0)
    rows, right = [], []
    for steps, weights in (((-2, 0, 2), (*ON_ROW, ON_ROW[0])), ((-3, -1, 1, 3), (*BETWEEN, *BETWEEN[::-1]))):
        spread = np.zeros((len(at), most + 1))
        for step, weight in zip(steps, weights, strict=True):
            far = abs(at - step)
            known = np.flatnonzero(far <= most)
            np.add.at(spread, (known, far[known]), weight)
        rows.append(spread)
        right.append(wanted)
    total = np.full((1, most + 1), 2.0)
    total[0, 0] = 1.0
    heavy = 100.0  # the sum counts for more than any one weight
    system, wanted = np.concatenate([*rows, heavy * total]), np.concatenate([*right, [heavy]])
    result: npt.NDArray[np.float64] = np.linalg.lstsq(system, wanted, rcond=None)[0]
    return result


def _noise_gain(
    length: int, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Variance of R at each position of an axis over that far from the border, the other axis far from it."""
    reach = len(high) - 1
    inner = _products(2 * reach + 1, reach, low, high)
    middle = min(reach, length)
    ends = [*range(middle), *range(max(length - reach, middle), length)]
    gain = np.ones(length)
    norm = inner @ (inner * (1, -2, 1))
    for position in ends:
        gain[position] = _products(length, position, low, high) @ (inner * (1, -2, 1)) / norm
    return np.maximum(gain, 1.0).astype(np.float32)


def _products(
    length: int, position: int, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Σ l², Σ l h, Σ h² of the two kernels centred at `position` of a reflected axis."""
    folded = np.zeros((2, length))
    for row, half in zip(folded, (low, high), strict=True):
        steps = np.arange(1 - len(half), len(half))
        np.add.at(row, _reflected(position + steps, length), half[abs(steps)])
    return np.array([folded[0] @ folded[0], folded[0] @ folded[1], folded[1] @ folded[1]])


def _reflected(index: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    wrapped = index % (2 * length)
    return np.minimum(wrapped, 2 * length - 1 - wrapped)
