"""The background of a frame: what the frames around it have in common.

Integer frames keep a running sum, which is exact, so that a window gives the same number however it was reached. Float frames
are summed anew for every frame, in the order of their numbers: slower, and equally independent of where a task
began. A percentile is an order statistic of the window, and exact as it is.

Frames without content (missing, or all zero) are left out; `count` is the number of frames that were used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fitting.kernel import borrower, device, inlined, kernel, only_in_kernels, provides
from fitting.lanes import LANES, load, load_numbers, select, store

_SORTED_PX = 2 * LANES
"""Pixels that are sorted side by side: one sixteen waits for memory while the other is compared."""


class Background(NamedTuple):
    """What is subtracted from a frame, as the kernels see it.

    level (h, w): the background times the number of frames in it [ADU]; state (3,) int64: the frames in it, [state[0], state[1]), and how many
    of those are present. Its type says how it changes from frame to frame, so that the other way is not compiled.
    """

    level: Any
    state: Any


class RunningSum(Background):
    """The sum of integer frames, int32, which kernels move on."""

    __slots__ = ()


class StillLevel(Background):
    """An image, float32, that was made for all frames that kernels are handed; only state[2] counts, 0 for none."""

    __slots__ = ()


@kernel
def has_content(stack: Any, present: Any) -> None:
    """Clear `present` of the frames that hold nothing but zero or NaN.

    Parameters
    ----------
    stack : (n, h, w) array
        Raw frames [ADU].
    present : (n,) uint8 array
        In: the frames to look at. Out: those of them that have content.
    """
    frames, height, width = stack.shape
    for t in range(frames):
        if present[t]:
            present[t] = _any_content(stack[t], height, width)


@device
def _any_content(frame: Any, height: int, width: int) -> Any:
    for y in range(height):
        row = frame[y]
        for x in range(width):
            value = row[x]
            if value != 0 and value == value:
                return True
    return False


def advance(background: Background, stack: Any, present: Any, start: int, stop: int) -> tuple[bool, int, int]:
    """Bring the background to the frames [start, stop).

    Where it gets there by one frame that leaves and one that comes, which is the usual step of a running sum, the level itself is left to
    `fitting.pixel_rows.put_signal`, which takes it along on its way through the frame: that saves one through the memory.

    Parameters
    ----------
    background : Background
    stack : (n, h, w) array
    present : (n,) uint8 array
        Frames that have content.

    Returns
    -------
    (bool, int, int)
        Whether the level is yet to move, the frame that leaves it and the one that comes.
    """
    only_in_kernels(background, stack, present, start, stop)


@provides(advance, StillLevel)
def _stay(_background: Any, _stack: Any, _present: Any, _start: int, _stop: int) -> tuple[bool, int, int]:
    return False, 0, 0


@provides(advance, RunningSum)
def _slide_or_move(background: Any, stack: Any, present: Any, start: int, stop: int) -> tuple[bool, int, int]:
    state = background.state
    old, new = state[0], state[1]
    if start == old + 1 and stop == new + 1 and old < new and present[old] and present[new]:
        state[0], state[1] = start, stop
        return True, old, new
    move_window(background.level, state, stack, present, start, stop)
    return False, 0, 0


@inlined
def move_window(sums: Any, state: Any, stack: Any, present: Any, start: int, stop: int) -> None:
    """Bring the running sum to the frames [start, stop).

    Parameters
    ----------
    sums : (h, w) int32 array
        Sum of the frames [state[0], state[1]) that are present [ADU].
    state : (3,) int64 array
        That range and the number of frames in the sum.
    stack : (n, h, w) integer array
    present : (n,) uint8 array
        Frames that have content.
    """
    if start >= state[1] or stop <= state[0]:
        sums[:] = 0
        state[0], state[1], state[2] = start, start, 0
    while state[0] != start or state[1] != stop:
        sign = 1
        if state[1] < stop:
            frame = state[1]
            state[1] += 1
        elif state[0] > start:
            state[0] -= 1
            frame = state[0]
        elif state[0] < start:
            frame, sign = state[0], -1
            state[0] += 1
        else:
            state[1] -= 1
            frame, sign = state[1], -1
        if present[frame]:
            _add_frame(sums, stack[frame], np.int32(sign))
            state[2] += sign


@borrower
def _add_frame(sums: Any, frame: Any, sign: Any) -> None:
    for y in range(sums.shape[0]):
        total, row = sums[y], frame[y]
        for x in range(total.shape[0]):
            total[x] += sign * np.int32(row[x])


@kernel
def mean_level(stack: Any, present: Any, start: int, stop: int, level: Any) -> int:
    """Mean of the frames [start, stop), pixel by pixel, NaN left out; gives the number of frames.

    Parameters
    ----------
    stack : (n, h, w) array
        Raw frames [ADU].
    present : (n,) uint8 array
        Frames that have content; the others are left out.
    level : (h, w) float32 array
        Out: the mean [ADU]; NaN where no frame has a value.
    """
    height, width = level.shape
    total, count = np.empty(width, np.float64), np.empty(width, np.float64)
    used = 0
    for t in range(start, stop):
        used += 1 if present[t] else 0
    for y in range(height):
        total[:] = 0.0
        count[:] = 0.0
        for t in range(start, stop):
            if present[t]:
                row = stack[t, y]
                for x in range(width):
                    value = np.float64(row[x])
                    known = abs(value) < np.inf
                    total[x] += value if known else 0.0
                    count[x] += 1.0 if known else 0.0
        for x in range(width):
            level[y, x] = np.float32(total[x] / count[x])
    return used


@kernel
def percentile_level(stack: Any, present: Any, start: int, stop: int, fraction: float, level: Any) -> int:
    """A percentile of the frames [start, stop), raised to the median's level; gives the number of frames.

    Of N frames the value of rank int(N fraction) is taken (at least the smallest). One number is then added to the
    whole image, the mean over the pixels of the difference between median and percentile, so that the level is that of the
    median: a percentile alone lies below the background by a part of its noise.

    Parameters
    ----------
    stack : (n, h, w) array
        Raw frames [ADU].
    present : (n,) uint8 array
        Frames that have content; the others are left out.
    fraction : float
        The percentile over 100 [1].
    level : (h, w) float32 array
        Out: the level [ADU]; as it was where no frame is present.
    """
    frames = np.empty(stop - start, np.int64)
    used = 0
    for t in range(start, stop):
        if present[t]:
            frames[used] = t
            used += 1
    if used == 0:
        return 0
    rank = min(max(int(used * fraction), 1), used) - 1
    height, width = level.shape
    values = np.zeros(used * _SORTED_PX, np.float32)
    raised = 0.0
    for y in range(height):
        for x0 in range(0, width, _SORTED_PX):
            number = min(_SORTED_PX, width - x0)
            for k in range(used):
                row, to = stack[frames[k], y], k * _SORTED_PX
                if number == _SORTED_PX:
                    store(values, to, load_numbers(row, x0))
                    store(values, to + LANES, load_numbers(row, x0 + LANES))
                else:
                    for x in range(number):
                        values[to + x] = np.float32(row[x0 + x])
            _sort_pixels(values, used)
            for x in range(number):
                low = values[rank * _SORTED_PX + x]
                median = (
                    values[(used - 1) // 2 * _SORTED_PX + x] + values[used // 2 * _SORTED_PX + x]
                ) * np.float32(0.5)
                level[y, x0 + x] = low
                raised += np.float64(median - low)
    level += np.float32(raised / (height * width))
    return used


@device
def _sort_pixels(values: Any, number: int) -> None:
    """Sort the values of each of 32 pixels, by Batcher's merge exchange (Knuth, The Art of Computer Programming, 5.2.2, algorithm M)."""
    top = 1
    while top * 2 < number:
        top *= 2
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            for i in range(number - d):
                if i & p == r:
                    _exchange(values, i * _SORTED_PX, (i + d) * _SORTED_PX)
                    _exchange(values, i * _SORTED_PX + LANES, (i + d) * _SORTED_PX + LANES)
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2


@device
def _exchange(values: Any, low: int, high: int) -> None:
    a, b = load(values, low), load(values, high)
    swap = a > b
    store(values, low, select(swap, b, a))
    store(values, high, select(swap, a, b))
