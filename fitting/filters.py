"""The band-pass of detection: two Gaussians, and how much noise their difference lets through at the border.

Far from the border the noise of R = (G₁ - G₃) * P follows from the kernels. Near it the reflected image folds a kernel onto
itself, so that fewer independent pixels carry the same weight; the variance there over that inside is the *noise gain*. The gain of a
corner is taken as the product of those of its row and its column.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Filters(NamedTuple):
    """The two Gaussians, from their middle outwards, and the noise gain (squared, 1 inside) of each row and column."""

    low: Any
    high: Any
    gain_y: Any
    gain_x: Any


@lru_cache(maxsize=16)
def make_filters(height: int, width: int, lowpass_px: float, highpass_px: float) -> Filters:
    """The filters for frames of a shape; widths in px."""
    low, high = _half_kernel(lowpass_px), _half_kernel(highpass_px)
    low = low[: len(high)]
    gains = [_noise_gain(length, low, high) for length in (height, width)]
    return Filters(low.astype(np.float32), high.astype(np.float32), *gains)


def _half_kernel(sigma: float) -> npt.NDArray[np.float64]:
    k = np.exp(-(np.arange(int(4 * sigma + 0.5) + 1) ** 2) / (2 * sigma**2))
    result: npt.NDArray[np.float64] = k / (2 * k.sum() - k[0])
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
