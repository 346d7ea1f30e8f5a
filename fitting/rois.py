"""Regions cut out for fitting, sixteen side by side.

A buffer holds two numbers for each pixel of each ROI, indexed [block, y, x, lane]: what the estimators need of the camera is
all in them. For maximum likelihood: photo-electrons + variance, and background + variance. For least squares: corrected
ADU, and one over their standard deviation. A pixel outside the frame, saturated or dead counts for nothing in either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fitting.candidates import at_row
from fitting.kernel import borrower, kernel
from fitting.lanes import LANES, absolute, lane, load, load_numbers, select, splat, square_root
from fitting.poisson import UNKNOWN

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RoiBuffer:
    """Room for `capacity` ROIs of a side.

    Attributes
    ----------
    data, extra : (capacity side²,) float32 arrays
    place : (capacity, 4) int32 array
        Frame, y, x of the middle pixel; 1 where the fit becomes a row, 0 where it only serves those of its neighbours.
    level : (capacity,) float32 array
        Mean background of the ROI [ADU].
    """

    side: int
    capacity: int
    data: FloatArray
    extra: FloatArray
    place: npt.NDArray[np.int32]
    level: FloatArray

    @classmethod
    def with_room(cls, capacity: int, side: int) -> RoiBuffer:
        """Room for at least `capacity` ROIs."""
        capacity = -(-capacity // LANES) * LANES
        pixels = capacity * side * side
        return cls(
            side,
            capacity,
            np.empty(pixels, np.float32),
            np.empty(pixels, np.float32),
            np.empty((capacity, 4), np.int32),
            np.empty(capacity, np.float32),
        )


@borrower
def cut(
    frame: Any, level: Any, per_frame: Any, law: Any, subtract: bool, weighted: bool,
    y0: int, x0: int, side: int, data: Any, extra: Any, index: int,
) -> Any:  # fmt: skip
    """Write the ROI around (y0, x0) as number `index`; gives its mean background [ADU]."""
    height, width = frame.shape
    half = side // 2
    whole_lines = side <= LANES and x0 >= half and x0 - half + LANES <= width
    if whole_lines and y0 >= half and y0 + half < height:
        return _cut_inside(frame, level, per_frame, law, subtract, weighted, y0, x0, side, data, extra, index)
    total, number = np.float32(0.0), np.float32(0.0)
    to = index // LANES * side * side * LANES + index % LANES
    for y in range(y0 - side // 2, y0 + side // 2 + 1):
        for x in range(x0 - side // 2, x0 + side // 2 + 1):
            inside = 0 <= y < height and 0 <= x < width
            if inside and _is_known(frame[y, x], law, y, x):
                b = background(level, per_frame, law, y, x)
                total += b
                number += np.float32(1.0)
                b = b if subtract else np.float32(0.0)
                d = (np.float32(frame[y, x]) - law.dark[at_row(law.dark, y), x]) * law.flat[
                    at_row(law.flat, y), x
                ]
                v = law.variance[at_row(law.variance, y), x]
                if weighted:
                    data[to] = d - b
                    extra[to] = np.float32(1.0) / np.sqrt(_variance(law, v, d))
                else:
                    shifted = d * law.scale + v
                    data[to] = shifted if shifted > 0 else np.float32(0.0)
                    extra[to] = b * law.scale + v
            else:
                data[to] = np.float32(0.0) if weighted else UNKNOWN
                extra[to] = np.float32(0.0) if weighted else UNKNOWN
            to += LANES
    return total / number if number > 0 else np.float32(0.0)


@borrower
def _cut_inside(
    frame: Any, level: Any, per_frame: Any, law: Any, subtract: bool, weighted: bool,
    y0: int, x0: int, side: int, data: Any, extra: Any, index: int,
) -> Any:  # fmt: skip
    """`cut` where sixteen pixels from the left of each line on lie in the frame: a line at a time."""
    half = side // 2
    x = x0 - half
    to = index // LANES * side * side * LANES + index % LANES
    total, number = splat(0.0), splat(0.0)
    darks, flats, variances = (
        law.dark,
        law.flat,
        law.variance,
    )  # once: each look-up in a tuple counts references
    for y in range(y0 - half, y0 + half + 1):
        raw, v = load_numbers(frame[y], x), load(variances[at_row(variances, y)], x)
        dark, flat = load(darks[at_row(darks, y)], x), load(flats[at_row(flats, y)], x)
        known = (absolute(raw) < law.full) & (v < 1e12)
        b = splat(0.0)
        if per_frame > 0:
            b = (load_numbers(level[y], x) * per_frame - dark) * flat
            b = select(absolute(b) < np.float32(np.inf), b, 0.0)
        total, number = total + select(known, b, 0.0), number + select(known, 1.0, 0.0)
        b = b if subtract else splat(0.0)
        d = (raw - dark) * flat
        if weighted:
            sigma2 = (select(d > 1.0, d, 1.0) + (v + 1.0) / law.scale) * law.slope
            first, second = select(known, d - b, 0.0), select(known, 1.0 / square_root(sigma2), 0.0)
        else:
            shifted = d * law.scale + v
            first = select(known, select(shifted > 0.0, shifted, 0.0), UNKNOWN)
            second = select(known, b * law.scale + v, UNKNOWN)
        for k in range(side):
            data[to], extra[to] = lane(first, k), lane(second, k)
            to += LANES
    level_sum, pixels = np.float32(0.0), np.float32(0.0)
    for k in range(side):
        level_sum += lane(total, k)
        pixels += lane(number, k)
    return level_sum / pixels if pixels > 0 else np.float32(0.0)


@borrower
def _is_known(raw: Any, law: Any, y: int, x: int) -> Any:
    return abs(np.float32(raw)) < law.full and law.variance[at_row(law.variance, y), x] < 1e12


@borrower
def _variance(law: Any, variance: Any, d: Any) -> Any:
    """σ² of a reading [ADU²], with the pixel's own read noise; `variance` is in photo-electrons over F²."""
    return law.slope * (max(d, np.float32(1.0)) + (variance + np.float32(1.0)) / law.scale)


@borrower
def background(level: Any, per_frame: Any, law: Any, y: int, x: int) -> Any:
    """Corrected background of a pixel [ADU]; 0 where there is none."""
    if not per_frame > 0:
        return np.float32(0.0)
    b = (np.float32(level[y, x]) * per_frame - law.dark[at_row(law.dark, y), x]) * law.flat[
        at_row(law.flat, y), x
    ]
    return b if abs(b) < np.inf else np.float32(0.0)


@kernel
def fill_blanks(data: Any, extra: Any, number: int, side: int, blank: Any) -> None:
    """Make the lanes after the last ROI of its block ROIs without pixels.

    Parameters
    ----------
    data, extra : (16 blocks side²,) float32 arrays
        See `RoiBuffer`; changed in the last block only.
    number, side : int
        ROIs that there are, and their side [px].
    blank : float32
        What marks a pixel that says nothing.
    """
    last = (number + LANES - 1) // LANES * LANES
    for index in range(number, last):
        to = index // LANES * side * side * LANES + index % LANES
        for pixel in range(side * side):
            data[to + pixel * LANES] = blank
            extra[to + pixel * LANES] = blank


@kernel
def pack(
    images: Any,
    variance: Any,
    background: Any,
    weighted: bool,
    first: int,
    number: int,
    data: Any,
    extra: Any,
) -> None:
    """Put `number` ready-made ROIs, from `first` on, side by side.

    Parameters
    ----------
    images : (k, s, s) float32 array
        Photo-electrons.
    variance, background : (k or 1, s or 1, s or 1) float32 arrays
        Read-noise variance [e⁻²] and known background [e⁻].
    weighted : bool
        Whether for weighted least squares, else for maximum likelihood.
    data, extra : (16 blocks side²,) float32 arrays
        Out: see `RoiBuffer`.
    """
    side = images.shape[1]
    for k in range(number):
        roi, v, b = (
            images[first + k],
            variance[at_row(variance, first + k)],
            background[at_row(background, first + k)],
        )
        to = k // LANES * side * side * LANES + k % LANES
        for y in range(side):
            noise, known = v[at_row(v, y)], b[at_row(b, y)]
            for x in range(side):
                _put(
                    roi[y, x], noise[x if noise.shape[0] > 1 else 0], known[x if known.shape[0] > 1 else 0],
                    weighted, data, extra, to,
                )  # fmt: skip
                to += LANES


@borrower
def _put(value: Any, variance: Any, background: Any, weighted: bool, data: Any, extra: Any, to: int) -> None:
    good = abs(value) < 1e20 and 0 <= variance < 1e12 and abs(background) < 1e20
    if not good:
        data[to] = np.float32(0.0) if weighted else UNKNOWN
        extra[to] = np.float32(0.0) if weighted else UNKNOWN
    elif weighted:
        data[to] = value - background
        extra[to] = np.float32(1.0) / np.sqrt(variance + max(value, np.float32(1.0)) + np.float32(1.0))
    else:
        data[to] = max(value + variance, np.float32(0.0))
        extra[to] = background + variance
