"""Regions cut out for fitting, sixteen side by side; a molecule has one in each channel.

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
from fitting.channels import Channels, Geometry, WholeFrame, shift_px
from fitting.kernel import borrower, inlined, kernel, only_in_kernels, provides
from fitting.lanes import LANES, absolute, lane, load, load_numbers, select, splat, square_root
from fitting.poisson import UNKNOWN

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RoiBuffer:
    """Room for `capacity` ROIs of a side in each of C channels; those of channel c come after those of the channels before it.

    Attributes
    ----------
    data, extra : (C capacity side²,) float32 arrays
    place : (capacity, 4) int32 array
        Frame, y, x of the middle pixel in channel 0; 1 where the fit becomes a row, 0 where it only serves those of its neighbours.
    level : (C capacity,) float32 array
        Mean background of the ROI [ADU].
    middles : (capacity, C, 2) int32 array
        y, x of the middle pixel in each channel [px of the frame].
    shifts : (capacity, C, 2) float32 array
        dx, dy: a molecule at (x, y) from the middle of channel 0's ROI is at (x + dx, y + dy) from that of the channel's [px].
    """

    side: int
    capacity: int
    data: FloatArray
    extra: FloatArray
    place: npt.NDArray[np.int32]
    level: FloatArray
    middles: npt.NDArray[np.int32]
    shifts: FloatArray

    @classmethod
    def with_room(cls, capacity: int, side: int, channels: int = 1) -> RoiBuffer:
        """Room for at least `capacity` ROIs in each channel."""
        capacity = -(-capacity // LANES) * LANES
        pixels = channels * capacity * side * side
        return cls(
            side,
            capacity,
            np.empty(pixels, np.float32),
            np.empty(pixels, np.float32),
            np.empty((capacity, 4), np.int32),
            np.empty(channels * capacity, np.float32),
            np.empty((capacity, channels, 2), np.int32),
            np.empty((capacity, channels, 2), np.float32),
        )


def put_rois(
    channels: Geometry, frame: Any, level: Any, per_frame: Any, law: Any, plan: Any, sink: Any, t: int, at_y: Any, at_x: Any, index: int
) -> None:  # fmt: skip
    """Write the ROIs of the molecule at (at_y, at_x) [px] of channel 0, one a channel, as number `index`."""
    only_in_kernels(channels, frame, level, per_frame, law, plan, sink, t, at_y, at_x, index)


@provides(put_rois, WholeFrame)
def _put_one(
    channels: Any, frame: Any, level: Any, per_frame: Any, law: Any, plan: Any, sink: Any, t: int, at_y: Any, at_x: Any, index: int
) -> None:  # fmt: skip
    y, x = round(at_y), round(at_x)
    sink.place[index, 0], sink.place[index, 1], sink.place[index, 2] = t, y, x
    sink.shifts[index, 0, 0], sink.shifts[index, 0, 1] = np.float32(0.0), np.float32(0.0)
    sink.middles[index, 0, 0], sink.middles[index, 0, 1] = y, x
    sink.level[index] = cut(
        frame, level, per_frame, law, plan.subtract, plan.weighted, y, x, channels.sign[0], channels.bounds[0],
        plan.side, sink.data, sink.extra, index,
    )  # fmt: skip


@provides(put_rois, Channels)
def _put_one_a_channel(
    channels: Any, frame: Any, level: Any, per_frame: Any, law: Any, plan: Any, sink: Any, t: int, at_y: Any, at_x: Any, index: int
) -> None:  # fmt: skip
    y, x = round(at_y), round(at_x)
    sink.place[index, 0], sink.place[index, 1], sink.place[index, 2] = t, y, x
    for c in range(channels.number):
        dy, dx = shift_px(channels, c, at_y, at_x)
        near_y, near_x = round(y - dy), round(x - dx)
        sink.shifts[index, c, 0] = np.float32(x - dx - near_x)
        sink.shifts[index, c, 1] = np.float32(y - dy - near_y)
        own_y = channels.start[c, 0] + channels.sign[c, 0] * near_y
        own_x = channels.start[c, 1] + channels.sign[c, 1] * near_x
        sink.middles[index, c, 0], sink.middles[index, c, 1] = own_y, own_x
        number = c * sink.place.shape[0] + index
        sink.level[number] = cut(
            frame, level, per_frame, law, plan.subtract, plan.weighted, own_y, own_x, channels.sign[c], channels.bounds[c],
            plan.side, sink.data, sink.extra, number,
        )  # fmt: skip


@borrower
def cut(
    frame: Any, level: Any, per_frame: Any, law: Any, subtract: bool, weighted: bool,
    y0: int, x0: int, sign: Any, bounds: Any, side: int, data: Any, extra: Any, index: int,
) -> Any:  # fmt: skip
    """Write the ROI around (y0, x0) as number `index`; gives its mean background [ADU].

    Parameters
    ----------
    sign : (2,) array
        1, or -1 where rows or columns of the ROI run against those of the frame.
    bounds : (4,) array
        top, bottom, left, right: pixels outside are unknown.
    """
    half = side // 2
    whole_lines = side <= LANES and sign[1] > 0 and x0 - half + LANES <= frame.shape[1]
    if (
        whole_lines
        and bounds[0] <= y0 - half
        and y0 + half < bounds[1]
        and bounds[2] <= x0 - half
        and x0 + half < bounds[3]
    ):
        return _cut_inside(
            frame, level, per_frame, law, subtract, weighted, y0, x0, sign[0], side, data, extra, index
        )
    total, number = np.float32(0.0), np.float32(0.0)
    to = index // LANES * side * side * LANES + index % LANES
    for row in range(-half, half + 1):
        y = y0 + sign[0] * row
        for column in range(-half, half + 1):
            x = x0 + sign[1] * column
            inside = bounds[0] <= y < bounds[1] and bounds[2] <= x < bounds[3]
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


@inlined
def _cut_inside(
    frame: Any, level: Any, per_frame: Any, law: Any, subtract: bool, weighted: bool,
    y0: int, x0: int, down: int, side: int, data: Any, extra: Any, index: int,
) -> Any:  # fmt: skip
    """`cut` where sixteen pixels from the left of each line on lie in the frame: a line at a time, `down` 1 or -1 from one to the next."""
    half = side // 2
    x = x0 - half
    to = index // LANES * side * side * LANES + index % LANES
    total, number = splat(0.0), splat(0.0)
    darks, flats, variances = law.dark, law.flat, law.variance
    for row in range(-half, half + 1):
        y = y0 + down * row
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
