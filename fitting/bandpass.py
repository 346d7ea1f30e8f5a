r"""The band-pass of detection, R = (G₁ - G₃) * P, a band of rows at a time.

Both Gaussians along y, both along x: each step takes a band of rows that stays in the processor's cache, sixteen pixels at
a time (`fitting.lanes`). The wide Gaussian is made for every second row and column and interpolated between (`fitting.filters`); even and odd columns
of its rows lie apart for that. What it is for, and the order in which the steps run, is in `fitting.detection`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fitting.filters import BETWEEN, ON_ROW, Filters
from fitting.kernel import borrower, inlined
from fitting.lanes import (
    LANES,
    even_lanes,
    lane_bits,
    load,
    lower_woven,
    odd_lanes,
    one_later,
    reversed_lanes,
    splat,
    store,
    upper_woven,
)
from fitting.prefetch import ask_for_signal

STRIP = 4 * LANES
"""Pixels that are filtered together, and whose bits make one word."""
BORDER = np.float32(-1e30)
"""R beyond the frame's border."""
ABOVE = 4
"""Rows of R kept from the band before: a peak two rows above a band is looked at with two rows on either side of it."""
_PIXELS_OF_BAND = 16384
_FEWEST_ROWS, _MOST_ROWS = 8, 32
"""Rows of a band, an even number: the fewer the more often rows are moved up, the more the less stays in the second-level cache."""
_SPARSE_ABOVE, _SPARSE_BELOW = 1, 2  # rows of the sparse grid that interpolation needs beyond the band


class Workspace(NamedTuple):
    """Rows in flight, `stride` floats each and, where filters pass along x, `side` on either side; `band` rows a band.

    signal: P, a ring of `ring` rows: those of a band with `above` and `below` that the filters reach; see `row_in_ring`. low, high: after the
    pass along y. columns: every second pixel of a row of G₃ * P. wide: G₃ * P on its own rows. filtered: R, `ABOVE` rows of the band before first, and `BORDER` around the frame. noise: σ² in
    the same places. bits: pixels over the threshold, a word a strip, two rows of the band before first. pending (2,) int64: the frame
    whose peaks wait for room, or -1, and their number.
    """

    signal: Any
    low: Any
    high: Any
    columns: Any
    wide: Any
    filtered: Any
    noise: Any
    bits: Any
    pending: Any
    stride: int
    side: int
    band: int
    above: int
    below: int
    ring: int


def make_workspace(width: int, filters: Filters) -> Workspace:
    """Rows for frames of `width` px."""
    strips = -(-width // STRIP)
    # Odd: rows of a power of two would share few places in the cache.
    stride = (strips + 1 - strips % 2) * STRIP
    side = (len(filters.high) + 3 + 2 * LANES - 1) // LANES * LANES
    near, far = len(filters.low) - 1, len(filters.sparse) - 1
    above, below = (max(near, far + 2), far + 4) if filters.step == 2 else (max(near, far), max(near, far))
    # Even: rows are filtered in pairs, which the ring may not part.
    above, below = above + above % 2, below + below % 2
    band = min(max(_PIXELS_OF_BAND // width // 2 * 2, _FEWEST_ROWS), _MOST_ROWS)
    sparse = band // filters.step + _SPARSE_ABOVE + _SPARSE_BELOW
    ring = band + above + below
    return Workspace(
        signal=_aligned(ring * stride),
        low=_aligned(band * (stride + 2 * side)),
        high=_aligned((sparse + 1) * (stride + 4 * side)),
        columns=_aligned(stride // 2 + 4 * LANES),
        wide=_aligned(sparse * stride),
        filtered=_aligned((band + ABOVE + 2) * (stride + 2 * LANES)),
        noise=_aligned((band + ABOVE + 2) * (stride + 2 * LANES)),
        bits=np.zeros((band + 2) * (stride // STRIP), np.int64),
        pending=np.array([-1, 0], np.int64),
        stride=stride,
        side=side,
        band=band,
        above=above,
        below=below,
        ring=ring,
    )


def _aligned(length: int) -> npt.NDArray[np.float32]:
    """Zeros that begin where a cache line does: a value of sixteen that lies across two lines takes twice as long to load."""
    array = np.zeros(length + LANES, np.float32)
    first = -array.ctypes.data // array.itemsize % LANES
    return array[first : first + length]


@borrower
def mirror(index: int, length: int) -> int:
    """Where a position beyond the border is reflected to: d c b a | a b c d | d c b a."""
    while index < 0 or index >= length:
        index = -1 - index if index < 0 else 2 * length - 1 - index
    return index


@borrower
def copy_floats(array: Any, to: Any, source: Any, length: int) -> None:
    """Copy `length` numbers, a multiple of 16, within an array; forwards."""
    for k in range(0, length, LANES):
        store(array, to + k, load(array, source + k))


@borrower
def fill_floats(array: Any, to: Any, value: Any, length: int) -> None:
    """Write a value `length` times, a multiple of 16."""
    for k in range(0, length, LANES):
        store(array, to + k, splat(value))


@borrower
def row_in_ring(work: Any, y: int) -> Any:
    """Where row y of P begins, from `above` before the frame's first on; the next is there once the band of this one is done."""
    return (y + work.above) % work.ring * work.stride


@inlined
def filter_columns(
    work: Any, first: int, weights: Any, width: int, rows: int, out: Any, to: Any, length: int
) -> None:  # fmt: skip
    """A symmetric filter of P along y, 64 columns at a time.

    Parameters
    ----------
    work : Workspace
    first : int
        The first row to filter, an even number.
    out : flat float32 array
    to, length : int
        Where its first row begins, and from there to the next.
    """
    signal, stride, end = work.signal, work.stride, work.ring * work.stride
    for x in range(0, width, STRIP):
        for row in range(0, rows, 2):
            at, under = to + row * length + x, to + (row + 1) * length + x
            source = row_in_ring(work, first + row) + x
            for k in range(0, STRIP, 2 * LANES):
                a0, a1, b0, b1 = _along_y(signal, source + k, weights, stride, end)
                store(out, at + k, a0)
                store(out, at + k + LANES, a1)
                store(out, under + k, b0)
                store(out, under + k + LANES, b1)


@inlined
def filter_columns_apart(
    work: Any, first: int, weights: Any, width: int, rows: int, out: Any, to: Any, length: int, odd: int
) -> None:  # fmt: skip
    """`filter_columns` of every second row; what comes out for odd columns is written `odd` after what comes out for even ones."""
    signal, stride, end = work.signal, work.stride, work.ring * work.stride
    for x in range(0, width, 2 * LANES):
        for row in range(0, rows, 2):
            at = to + row * length + x // 2
            source = row_in_ring(work, first + 2 * row) + x
            a0, a1, b0, b1 = _every_second_along_y(signal, source, weights, stride, end)
            store(out, at, even_lanes(a0, a1))
            store(out, at + odd, odd_lanes(a0, a1))
            store(out, at + length, even_lanes(b0, b1))
            store(out, at + length + odd, odd_lanes(b0, b1))


@borrower
def _along_y(signal: Any, at: Any, weights: Any, stride: int, end: int) -> Any:
    """A symmetric filter along y for 32 pixels from `at` on and those below them: what one row reads the other needs one step later.

    The rows are a ring of `end` numbers.
    """
    weight, below = weights[0], at + stride
    u0, u1, d0, d1 = load(signal, at), load(signal, at + 16), load(signal, below), load(signal, below + 16)
    a0, a1, b0, b1 = u0 * weight, u1 * weight, d0 * weight, d1 * weight
    up, down = at, below
    for k in range(1, weights.shape[0]):
        up, down, weight = _above(up, stride, end), _below(down, stride, end), weights[k]
        v0, v1, e0, e1 = load(signal, up), load(signal, up + 16), load(signal, down), load(signal, down + 16)
        a0, a1 = a0 + (v0 + d0) * weight, a1 + (v1 + d1) * weight
        b0, b1 = b0 + (u0 + e0) * weight, b1 + (u1 + e1) * weight
        u0, u1, d0, d1 = v0, v1, e0, e1
    return a0, a1, b0, b1


@borrower
def _above(at: int, stride: int, end: int) -> int:
    return at - stride if at >= stride else at - stride + end


@borrower
def _below(at: int, stride: int, end: int) -> int:
    return at + stride if at + stride < end else at + stride - end


@inlined
def _every_second_along_y(signal: Any, at: Any, weights: Any, stride: int, end: int) -> Any:
    """`_along_y` for 32 pixels from `at` on and those two rows below: what one row reads the other needs two steps later."""
    weight, between = weights[0], _below(at, stride, end)
    below = _below(between, stride, end)
    u0, u1, d0, d1 = load(signal, at), load(signal, at + 16), load(signal, below), load(signal, below + 16)
    m0, m1 = load(signal, between), load(signal, between + 16)
    a0, a1, b0, b1 = u0 * weight, u1 * weight, d0 * weight, d1 * weight
    t0, t1, c0, c1 = m0, m1, m0, m1
    up, down = at, below
    for k in range(1, weights.shape[0]):
        up, down, weight = _above(up, stride, end), _below(down, stride, end), weights[k]
        v0, v1, e0, e1 = load(signal, up), load(signal, up + 16), load(signal, down), load(signal, down + 16)
        a0, a1 = a0 + (v0 + c0) * weight, a1 + (v1 + c1) * weight
        b0, b1 = b0 + (t0 + e0) * weight, b1 + (t1 + e1) * weight
        t0, t1, c0, c1 = u0, u1, d0, d1
        u0, u1, d0, d1 = v0, v1, e0, e1
    return a0, a1, b0, b1


@borrower
def load_strip(array: Any, at: Any) -> Any:
    """The 64 numbers from `at` on, as four values."""
    return load(array, at), load(array, at + 16), load(array, at + 32), load(array, at + 48)


@borrower
def store_strip(array: Any, to: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """Write 64 numbers, four values, from `to` on."""
    store(array, to, a)
    store(array, to + 16, b)
    store(array, to + 32, c)
    store(array, to + 48, d)


@borrower
def mirror_sides(rows: Any, at: Any, length: int, number: int, width: int, reach: int) -> None:
    """Reflect rows at their ends; `at` is where pixel 0 of the first row is."""
    for row in range(number):
        left = at + row * length
        right = left + width
        if width >= LANES and reach <= LANES:
            store(rows, right, reversed_lanes(load(rows, right - LANES)))
            store(rows, left - LANES, reversed_lanes(load(rows, left)))
        else:
            for k in range(1, reach + 1):
                rows[left - k] = rows[left + mirror(-k, width)]
                rows[right - 1 + k] = rows[left + mirror(width - 1 + k, width)]


@inlined
def mirror_sides_apart(
    rows: Any, at: Any, length: int, odd: int, number: int, width: int, reach: int
) -> None:
    """`mirror_sides` of rows whose even and odd columns lie apart."""
    for row in range(number):
        left = at + row * length
        if width % 2 == 0 and width >= 2 * LANES and reach <= 2 * LANES:
            right = left + width // 2
            first, last = load(rows, left), load(rows, right - LANES)
            first_odd, last_odd = load(rows, left + odd), load(rows, right + odd - LANES)
            store(rows, left - LANES, reversed_lanes(first_odd))
            store(rows, left + odd - LANES, reversed_lanes(first))
            store(rows, right, reversed_lanes(last_odd))
            store(rows, right + odd, reversed_lanes(last))
            continue
        for k in range(1, reach + 1):
            for x in (-k, width - 1 + k):
                rows[_apart(left, odd, x)] = rows[_apart(left, odd, mirror(x, width))]


@borrower
def _apart(left: Any, odd: int, x: int) -> Any:
    return left + (x >> 1) + odd * (x & 1)


@borrower
def filter_along_x(rows: Any, at: Any, weights: Any) -> Any:
    """A symmetric filter along x for the 64 pixels from `at` on.

    Numbers to the left are moved on by a lane for each weight, those to the right are loaded: a load across two cache lines counts twice,
    and what loads wait for and what moves wait for are different parts of the processor.
    """
    weight = weights[0]
    l0, l1, l2, l3 = load_strip(rows, at)
    a0, a1, a2, a3 = l0 * weight, l1 * weight, l2 * weight, l3 * weight
    for k in range(1, weights.shape[0]):
        right, weight = at + k, weights[k]
        l1, l2, l3 = one_later(l0, l1), one_later(l1, l2), one_later(l2, l3)
        l0 = load(rows, at - k)
        a0 = a0 + (l0 + load(rows, right)) * weight
        a1 = a1 + (l1 + load(rows, right + 16)) * weight
        a2 = a2 + (l2 + load(rows, right + 32)) * weight
        a3 = a3 + (l3 + load(rows, right + 48)) * weight
    return a0, a1, a2, a3


@inlined
def filter_wide_row(high: Any, at: Any, weights: Any, width: int, wide: Any, to: Any) -> None:
    """G₃ * P of a row, from the row that was filtered along y."""
    for x in range(0, width, STRIP):
        a0, a1, a2, a3 = filter_along_x(high, at + x, weights)
        store_strip(wide, to + x, a0, a1, a2, a3)


@inlined
def filter_wide_row_apart(
    high: Any, at: Any, odd: int, weights: Any, width: int, columns: Any, wide: Any, to: Any
) -> None:
    """G₃ * P of a row for every second column, then for all by interpolation."""
    number = (width + 1) // 2
    for j in range(-1, number + 2, 2 * LANES):  # one before and two after serve the interpolation
        first, second = _every_second(high, at + j, at + j + odd, weights)
        store(columns, LANES + j, first)
        store(columns, 2 * LANES + j, second)
    for j in range(0, number, LANES):
        before, here = load(columns, LANES + j - 1), load(columns, LANES + j)
        after, beyond = load(columns, LANES + j + 1), load(columns, LANES + j + 2)
        on_column = (before + after) * ON_ROW[0] + here * ON_ROW[1]
        between = (before + beyond) * BETWEEN[0] + (here + after) * BETWEEN[1]
        store(wide, to + 2 * j, lower_woven(on_column, between))
        store(wide, to + 2 * j + LANES, upper_woven(on_column, between))


@inlined
def _every_second(rows: Any, even: Any, odd: Any, weights: Any) -> Any:
    """A symmetric filter for 32 even columns, moved and loaded as in `filter_along_x`.

    Even and odd columns are summed apart, so that sums need not wait for each other.
    """
    l0, l1, m0, m1 = load(rows, even), load(rows, even + 16), load(rows, odd), load(rows, odd + 16)
    a0, a1, b0, b1 = l0 * weights[0], l1 * weights[0], splat(0.0), splat(0.0)
    for k in range(1, weights.shape[0], 2):
        half = (k + 1) // 2
        right, weight = odd + half - 1, weights[k]
        m0, m1 = load(rows, odd - half), one_later(m0, m1)
        b0, b1 = b0 + (m0 + load(rows, right)) * weight, b1 + (m1 + load(rows, right + 16)) * weight
        if k + 1 < weights.shape[0]:
            right, weight = even + half, weights[k + 1]
            l0, l1 = load(rows, even - half), one_later(l0, l1)
            a0, a1 = a0 + (l0 + load(rows, right)) * weight, a1 + (l1 + load(rows, right + 16)) * weight
    return a0 + b0, a1 + b1


@inlined
def band_row(
    low: Any, at: Any, weights: Any, wide: Any, middle: Any, stride: int, kind: int, noise: Any, least_snr2: Any, width: int,
    out: Any, to: Any, bits: Any, word: Any, ahead: Any,
) -> None:  # fmt: skip
    """R of a row, and the bits of its pixels where R > 0 and R² is above `least_snr2` times the noise.

    Parameters
    ----------
    wide : flat float32 array
        Rows of G₃ * P, `stride` apart.
    middle : int
        Where the row itself begins in `wide` (kinds 0 and 1), or the next above it (kind 2).
    kind : int
        0: `wide` holds every row; 1: every second, this one among them; 2: every second, and not this one.
    ahead : tuple
        Background, frame, row, coming and leaving frame, which the next band reads; see `fitting.prefetch.ask_for_signal`.
    """
    background, frame, y, coming, leaving = ahead
    for x in range(0, width, STRIP):
        ask_for_signal(background, frame, y, coming, leaving, x)
        r0, r1, r2, r3 = filter_along_x(low, at + x, weights)
        here = middle + x
        r0 = r0 - _interpolated(wide, here, stride, kind)
        r1 = r1 - _interpolated(wide, here + 16, stride, kind)
        r2 = r2 - _interpolated(wide, here + 32, stride, kind)
        r3 = r3 - _interpolated(wide, here + 48, stride, kind)
        store_strip(out, to + x, r0, r1, r2, r3)
        bits[word + x // STRIP] = (
            _over(r0, noise, to + x, least_snr2)
            | _over(r1, noise, to + x + 16, least_snr2) << 16
            | _over(r2, noise, to + x + 32, least_snr2) << 32
            | _over(r3, noise, to + x + 48, least_snr2) << 48
        )
    out[to - 1], out[to + width] = BORDER, BORDER


@borrower
def _over(r: Any, noise: Any, at: Any, least_snr2: Any) -> Any:
    return lane_bits((r > 0.0) & (r * r > load(noise, at) * least_snr2))


@borrower
def _interpolated(wide: Any, at: Any, stride: int, kind: int) -> Any:
    if kind == 0:
        return load(wide, at)
    if kind == 1:
        return (load(wide, at - stride) + load(wide, at + stride)) * ON_ROW[0] + load(wide, at) * ON_ROW[1]
    outer = load(wide, at - stride) + load(wide, at + 2 * stride)
    return outer * BETWEEN[0] + (load(wide, at) + load(wide, at + stride)) * BETWEEN[1]
