"""Which of the peaks are fitted.

A peak that is no molecule, because a pixel there is saturated or because it is sharper than any image of a point, is
dropped. Of candidates closer than the debounce radius only the brightest is fitted: a candidate is kept if and only if no
brighter candidate that is kept lies within the radius. That rule has one solution, whatever the order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fitting.kernel import borrower, inlined

UNDECIDED, KEPT, DROPPED = 0, 1, 2
_NOISES = 3.0  # how many standard deviations below the sharpest PSF the neighbours of a spike must be


def sharpest_neighbour(sigma_px: float) -> float:
    """Least part of a pixel's signal that its four neighbours show on average, for a PSF of at least half the expected width.

    Half of the value for a molecule in the middle of the pixel is taken, to stay clear of real images of points.
    """
    width = math.sqrt(2) * max(0.5 * sigma_px, 0.45)
    middle = math.erf(0.5 / width)
    return 0.5 * (0.5 * (math.erf(1.5 / width) - middle)) / middle


@inlined
def is_molecule(
    frame: Any, level: Any, per_frame: Any, law: Any, y: int, x: int, least_neighbour: Any
) -> Any:
    """Whether the peak at (y, x) may be one: nothing saturated around it, and its neighbours as bright as a PSF makes them."""
    height, width = frame.shape
    dark, flat, floor = law.dark, law.flat, law.floor
    saturated = False
    for v in range(max(y - 1, 0), min(y + 2, height)):
        for u in range(max(x - 1, 0), min(x + 2, width)):
            saturated |= np.float32(frame[v, u]) >= law.full
    centre = _reading(frame, level, per_frame, dark, flat, y, x)
    neighbours, number, noise = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for v, u in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
        if 0 <= v < height and 0 <= u < width and frame[v, u] == frame[v, u]:
            neighbours += _reading(frame, level, per_frame, dark, flat, v, u)
            noise += _variance_adu2(frame, dark, flat, floor, law.slope, v, u)
            number += np.float32(1.0)
    short = centre * least_neighbour * number - neighbours
    sharp = short > 0 and short * short > np.float32(_NOISES * _NOISES) * noise
    return number > 0 and not saturated and not sharp


@borrower
def at_row(array: Any, y: int) -> int:
    """The row of a camera array that holds for row y of the frame."""
    return y if array.shape[0] > 1 else 0


@borrower
def _reading(frame: Any, level: Any, per_frame: Any, dark: Any, flat: Any, y: int, x: int) -> Any:
    """D - B of a pixel [ADU]."""
    expected, offset = np.float32(level[y, x]) * per_frame, dark[at_row(dark, y), x]
    reference = expected if per_frame > 0 else offset
    return (np.float32(frame[y, x]) - reference) * flat[at_row(flat, y), x]


@borrower
def _variance_adu2(frame: Any, dark: Any, flat: Any, floor: Any, slope: Any, y: int, x: int) -> Any:
    """Variance of a reading that detection assumes [ADU²]."""
    reading = (np.float32(frame[y, x]) - dark[at_row(dark, y), x]) * flat[at_row(flat, y), x]
    return floor[at_row(floor, y), x] + slope * max(reading, np.float32(1.0))


@inlined
def debounce(peaks: Any, values: Any, number: int, radius: Any, state: Any) -> None:
    """Decide `state` (UNDECIDED or DROPPED at entry) of each peak: KEPT or DROPPED.

    Peaks come in raster order. One that is undecided and has no brighter undecided or kept neighbour is kept; one with a kept brighter
    neighbour is dropped; and so on until all are decided.
    """
    undecided = True
    while undecided:
        undecided = False
        for i in range(number):
            if state[i] == UNDECIDED:
                state[i] = _verdict(peaks, values, number, radius, state, i)
                undecided |= state[i] == UNDECIDED


@inlined
def _verdict(peaks: Any, values: Any, number: int, radius: Any, state: Any, i: int) -> int:
    verdict = KEPT
    reach = radius + np.float32(4.0)  # a position may lie beside its peak
    for direction in (-1, 1):
        j = i + direction
        while 0 <= j < number and abs(peaks[j, 0] - peaks[i, 0]) <= reach:
            dy, dx = values[j, 0] - values[i, 0], values[j, 1] - values[i, 1]
            near = dy * dy + dx * dx < radius * radius
            if near and state[j] != DROPPED and _outshines(values[j], values[i], j < i):
                if state[j] == KEPT:
                    return DROPPED
                verdict = UNDECIDED
            j += direction
    return verdict


@borrower
def _outshines(other: Any, one: Any, earlier: bool) -> Any:
    """Brighter in R; of equal ones the first by y, then by x, then in raster order."""
    for k, sign in ((2, 1), (0, -1), (1, -1)):
        if other[k] != one[k]:
            return (other[k] - one[k]) * sign > 0
    return earlier
