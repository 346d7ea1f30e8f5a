r"""Where the images of one molecule lie when a beam splitter puts several channels side by side on the camera.

Channel c shows the same field as channel 0, moved, maybe upside down, and a little distorted: a molecule at x [px of channel 0] is at

.. math:: s_c \, (x - d_c(x)) + a_c

in the frame, with :math:`s_c = \pm 1` and :math:`a_c` from the rectangles of the channels, whole numbers, and :math:`d_c` the shift field,
taken at the place on the chip. Fields bend so little that a table of every fourth pixel, linear in between, holds them to 10⁻⁴ px. Flipped or not, a spot at the centre of a pixel is at the centre of a pixel.

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
from fitting.kernel import borrower, only_in_kernels, provides
from fitting.shift_field import ShiftField

LEAST_RADIUS_PX = 2.0
"""Peaks of two channels that are closer than this are one molecule, whatever the debounce radius."""
_PITCH = 4.0  # [px] of the tables of shifts
_MOST_STEPS = 3  # of the inversion of a shift field, whose slope is a few per cent


class WholeFrame(NamedTuple):
    """One channel that fills the frame, as the kernels see it; a type of its own, so that the common case does not wait until the sorting of several channels is compiled.

    bounds (1, 4) int64: top, bottom, left, right [px]; start, sign (1, 2) int64: y, x, which are 0 and 1.
    """

    bounds: Any
    start: Any
    sign: Any


class Channels(NamedTuple):
    """Several channels as the kernels see them.

    number: C; bounds (C, 4) int64: top, bottom, left, right [px]; start, sign (C, 2) int64: y, x; dx, dy (C, rows, columns)
    float64: the shift fields [px] at every fourth pixel of channel 0 from `corner` (2,) y, x on [px].
    """

    number: int
    bounds: Any
    start: Any
    sign: Any
    dx: Any
    dy: Any
    corner: Any


Geometry = WholeFrame | Channels


def whole_frame(shape: tuple[int, int]) -> WholeFrame:
    """One channel that fills frames of `shape` (h, w)."""
    return WholeFrame(
        np.array([[0, shape[0], 0, shape[1]]]), np.zeros((1, 2), np.int64), np.ones((1, 2), np.int64)
    )


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
    top, bottom, left, right = placed.bounds[0].tolist()
    y, x = (
        first + np.arange(-_PITCH, last - first + 2 * _PITCH, _PITCH)
        for first, last in ((top, bottom), (left, right))
    )
    dx, dy = np.zeros((2, len(placed.bounds), len(y), len(x)))
    for c, field in enumerate(fields):
        if field is not None and c > 0:
            by_x, by_y = np.meshgrid((x + chip[0]) * pixel_nm[0], (y + chip[1]) * pixel_nm[1])
            shift = field.at(by_x, by_y)
            dx[c], dy[c] = shift[0] / pixel_nm[0], shift[1] / pixel_nm[1]
    return Channels(len(rectangles), placed.bounds, placed.start, placed.sign, dx, dy, np.array([y[0], x[0]]))


@borrower
def shift_px(channels: Any, c: int, y: Any, x: Any) -> Any:
    """dy, dx [px] of channel c at a place of channel 0 [px of the frame]."""
    if c == 0:
        return 0.0, 0.0
    v, u = (y - channels.corner[0]) / _PITCH, (x - channels.corner[1]) / _PITCH
    row = min(max(int(np.floor(v)), 0), channels.dx.shape[1] - 2)
    column = min(max(int(np.floor(u)), 0), channels.dx.shape[2] - 2)
    v, u = v - row, u - column
    return _between(channels.dy[c], row, column, v, u), _between(channels.dx[c], row, column, v, u)


@borrower
def _between(table: Any, row: int, column: int, v: Any, u: Any) -> Any:
    """Linear between four entries of a table, v of the way down and u of the way across."""
    upper = (1.0 - u) * table[row, column] + u * table[row, column + 1]
    lower = (1.0 - u) * table[row + 1, column] + u * table[row + 1, column + 1]
    return (1.0 - v) * upper + v * lower


def to_first_channel(channels: Geometry, peaks: Any, found: int) -> int:
    """Move the peaks of a frame to where their molecules are in channel 0; gives how many are left.

    Those outside of all channels are dropped, the others put in raster order again.
    """
    only_in_kernels(channels, peaks, found)


@provides(to_first_channel, WholeFrame)
def _as_they_are(_channels: Any, _peaks: Any, found: int) -> int:
    return found


@provides(to_first_channel, Channels)
def _moved(channels: Any, peaks: Any, found: int) -> int:
    left = 0
    for i in range(found):
        c = channel_of(channels, peaks.place[i, 0], peaks.place[i, 1])
        if c < 0:
            continue
        y, x = in_first_channel(channels, c, peaks.values[i, 0], peaks.values[i, 1])
        row, column = round(y), round(x)
        if channel_of(channels, row, column) == 0:
            peaks.place[left, 0], peaks.place[left, 1] = row, column
            peaks.values[left, 0], peaks.values[left, 1] = y, x
            peaks.values[left, 2], peaks.values[left, 3] = peaks.values[i, 2], peaks.values[i, 3]
            left += 1
    _sort(peaks.place, peaks.values, left)
    return left


@borrower
def _sort(place: Any, values: Any, number: int) -> None:
    """Put peaks in raster order, in place: a heap, for kernels that may not allocate."""
    for root in range(number // 2 - 1, -1, -1):
        _sink(place, values, root, number)
    for last in range(number - 1, 0, -1):
        _swap(place, values, 0, last)
        _sink(place, values, 0, last)


@borrower
def _sink(place: Any, values: Any, root: int, number: int) -> None:
    """Let a peak sink below those that come after it."""
    while 2 * root + 1 < number:
        child = 2 * root + 1
        if child + 1 < number and _precedes(place, values, child, child + 1):
            child += 1
        if not _precedes(place, values, root, child):
            return
        _swap(place, values, root, child)
        root = child


@borrower
def _precedes(place: Any, values: Any, i: int, j: int) -> Any:
    """By pixel; of those at the same pixel, by what else is known of them, so that no order but one is possible."""
    for k in range(2):
        if place[i, k] != place[j, k]:
            return place[i, k] < place[j, k]
    for k in range(4):
        if values[i, k] != values[j, k]:
            return values[i, k] < values[j, k]
    return False


@borrower
def _swap(place: Any, values: Any, i: int, j: int) -> None:
    for k in range(2):
        place[i, k], place[j, k] = place[j, k], place[i, k]
    for k in range(4):
        values[i, k], values[j, k] = values[j, k], values[i, k]


@borrower
def channel_of(channels: Any, y: int, x: int) -> int:
    """The channel that a pixel belongs to, -1 for none."""
    for c in range(channels.number):
        of = channels.bounds[c]
        if of[0] <= y < of[1] and of[2] <= x < of[3]:
            return c
    return -1


@borrower
def in_first_channel(channels: Any, c: int, y: Any, x: Any) -> Any:
    """Where a molecule that is at (y, x) of the frame in channel c is in channel 0; both [px of the frame]."""
    own_y = np.float64((y - channels.start[c, 0]) * channels.sign[c, 0])
    own_x = np.float64((x - channels.start[c, 1]) * channels.sign[c, 1])
    to_y, to_x = own_y, own_x
    for _ in range(_MOST_STEPS):
        dy, dx = shift_px(channels, c, to_y, to_x)
        to_y, to_x = own_y + dy, own_x + dx
    return to_y, to_x
