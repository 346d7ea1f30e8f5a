r"""Where the images of one molecule lie when a beam splitter puts several channels side by side on the camera.

Channel c shows the same field as channel 0, moved, maybe upside down, and a little distorted: a molecule at x [px of channel 0] is at

.. math:: s_c \, (x - d_c(x)) + a_c

in the frame, with :math:`s_c = \pm 1` and :math:`a_c` from the rectangles of the channels, whole numbers, and :math:`d_c` the shift field,
a polynomial in the place on the chip. Flipped or not, a spot at the centre of a pixel is at the centre of a pixel.

Peaks are looked for in the whole frame. Each is moved to where its molecule is in channel 0, and only then are those that are too
close to each other sifted: a molecule seen in any channel is found, and one seen in several is found once, where it is brightest. The ROI in
channel c is cut around the pixel nearest to the molecule's place there; what is left of the shift, half a pixel at most,
goes into the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fitting.geometry import Rectangle, place
from fitting.kernel import device
from fitting.shift_field import ShiftField

LEAST_RADIUS_PX = 2.0
"""Peaks of two channels that are closer than this are one molecule, whatever the debounce radius."""
_POWERS = 6
_MOST_STEPS = 3  # of the inversion of a shift field, whose slope is a few per cent


class Channels(NamedTuple):
    """The channels as the kernels see them; one that fills the frame is the common case.

    number: C; bounds (C, 4) int64: top, bottom, left, right [px]; start, sign (C, 2) int64: y, x; dx, dy (C, 6, 6) float64: coefficients of the
    shift fields [px], around `centre` (C, 2) x, y [px of channel 0] in units of `scale` (C, 2) x, y [px].
    """

    number: int
    bounds: Any
    start: Any
    sign: Any
    dx: Any
    dy: Any
    centre: Any
    scale: Any


def whole_frame(shape: tuple[int, int]) -> Channels:
    """One channel that fills frames of `shape` (h, w)."""
    return arrange((Rectangle(0, 0, shape[1], shape[0]),), (None,), shape, (0, 0), (1.0, 1.0))


def arrange(
    rectangles: Sequence[Rectangle],
    fields: Sequence[ShiftField | None],
    shape: tuple[int, int],
    chip: tuple[int, int],
    pixel_nm: tuple[float, float],
    part: tuple[int, int, int, int] | None = None,
) -> Channels:
    """Arrange channels for the kernels: of each the part whose counterpart is in the frame in every channel.

    Parameters
    ----------
    rectangles : sequence of Rectangle
        Of one size; the first is channel 0, which is not upside down.
    fields : sequence of ShiftField
        Of each channel, None for none; the first is not used.
    shape : (int, int)
        Height and width of the frames [px].
    chip : (int, int)
        x, y on the chip of the frames' first pixel [px].
    pixel_nm : (float, float)
        Width and height of a pixel [nm].
    part : (x0, y0, x1, y1), optional
        Only what lies there in channel 0 [px of the frame].

    Raises
    ------
    InvalidSettings
        If the rectangles differ in size, or have no common part in the frame.
    """
    placed = place(rectangles, shape, chip, part)
    return Channels(
        len(rectangles),
        placed.bounds,
        placed.start,
        placed.sign,
        *_fields(fields, len(rectangles), chip, pixel_nm),
    )


def _fields(
    fields: Sequence[ShiftField | None], number: int, chip: tuple[int, int], pixel_nm: tuple[float, float]
) -> tuple[Any, ...]:
    """Coefficients in pixels. A field counts from the chip's first pixel, and the kernels from the frame's."""
    dx, dy = np.zeros((number, _POWERS, _POWERS)), np.zeros((number, _POWERS, _POWERS))
    centre, scale = np.zeros((number, 2)), np.ones((number, 2))
    for c, shift in enumerate(fields):
        if shift is None or c == 0:
            continue
        for to, coefficients, pitch in ((dx, shift.dx_nm, pixel_nm[0]), (dy, shift.dy_nm, pixel_nm[1])):
            table = np.atleast_2d(coefficients)
            to[c, : table.shape[0], : table.shape[1]] = table / pitch
        centre[c] = [shift.centre_nm[axis] / pixel_nm[axis] - chip[axis] for axis in (0, 1)]
        scale[c] = [shift.scale_nm / pitch for pitch in pixel_nm]
    return dx, dy, centre, scale


@device
def shift_px(channels: Any, c: int, y: Any, x: Any) -> Any:
    """dy, dx [px] of channel c at a place of channel 0 [px of the frame]."""
    if c == 0:
        return 0.0, 0.0
    u = (x - channels.centre[c, 0]) / channels.scale[c, 0]
    v = (y - channels.centre[c, 1]) / channels.scale[c, 1]
    return _polynomial(channels.dy[c], u, v), _polynomial(channels.dx[c], u, v)


@device
def _polynomial(table: Any, u: Any, v: Any) -> Any:
    total = 0.0
    for i in range(_POWERS - 1, -1, -1):
        row = 0.0
        for j in range(_POWERS - 1, -1, -1):
            row = row * v + table[i, j]
        total = total * u + row
    return total


@device
def to_first_channel(channels: Any, peaks: Any, found: int) -> int:
    """Move the peaks of a frame to where their molecules are in channel 0; gives how many are left.

    Those outside of all channels are dropped, the others put in raster order again.
    """
    if channels.number == 1:
        return found
    place, values = peaks.place[:found].copy(), peaks.values[:found].copy()
    order = np.empty(found, np.int64)
    left = 0
    for i in range(found):
        c = channel_of(channels, place[i, 0], place[i, 1])
        if c < 0:
            continue
        y, x = in_first_channel(channels, c, values[i, 0], values[i, 1])
        row, column = round(y), round(x)
        if channel_of(channels, row, column) == 0:
            order[left] = (row * (channels.bounds[0, 3] + 1) + column) * channels.number + c
            place[left, 0], place[left, 1] = row, column
            values[left, 0], values[left, 1] = y, x
            values[left, 2], values[left, 3] = values[i, 2], values[i, 3]
            left += 1
    ranked = np.argsort(order[:left], kind="mergesort")
    for to in range(left):
        i = ranked[to]
        peaks.place[to, 0], peaks.place[to, 1] = place[i, 0], place[i, 1]
        for k in range(4):
            peaks.values[to, k] = values[i, k]
    return left


@device
def channel_of(channels: Any, y: int, x: int) -> int:
    """The channel that a pixel belongs to, -1 for none."""
    for c in range(channels.number):
        of = channels.bounds[c]
        if of[0] <= y < of[1] and of[2] <= x < of[3]:
            return c
    return -1


@device
def in_first_channel(channels: Any, c: int, y: Any, x: Any) -> Any:
    """Where a molecule that is at (y, x) of the frame in channel c is in channel 0; both [px of the frame]."""
    own_y = np.float64((y - channels.start[c, 0]) * channels.sign[c, 0])
    own_x = np.float64((x - channels.start[c, 1]) * channels.sign[c, 1])
    to_y, to_x = own_y, own_x
    for _ in range(_MOST_STEPS):
        dy, dx = shift_px(channels, c, to_y, to_x)
        to_y, to_x = own_y + dy, own_x + dx
    return to_y, to_x
