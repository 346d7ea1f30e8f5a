r"""Where a molecule may be: local maxima of the band-passed frame over its noise.

The frame less its background, negative values cut off, is band-passed by the difference of two Gaussians, R = (G₁ - G₃) * P. A candidate
is a pixel whose R over the pixel's noise σ exceeds the threshold and all eight neighbours. A factor of 1 therefore
means what it means in PYME, which takes connected regions of R > σ; two molecules whose regions touch stay two candidates here.

At the frame's border the image is reflected. A reflected filter sums fewer independent pixels, so its noise is larger by a known
factor; the threshold is raised by that factor, and molecules are found up to the last pixel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fitting.filters import Filters
from fitting.kernel import device
from fitting.lanes import LANES, lane_bits, load, select, splat, store

BAND = 16
"""Rows that pass through the filters together, few enough to stay in the processor's cache."""
_STRIP = 4 * LANES


class Workspace(NamedTuple):
    """Rows in flight; `stride` floats a row.

    signal: background-subtracted rows with the filter's reach above and below; low, high: rows after the vertical
    pass, with the reach on either side; band: R, and snr: R²/σ², each with the last two rows of the band before, and a column of -1 around.
    pending (2,) int64: the frame whose peaks wait for room, or -1, and their number.
    """

    signal: Any
    low: Any
    high: Any
    band: Any
    snr: Any
    noise: Any
    pending: Any
    stride: int


def make_workspace(width: int, filters: Filters) -> Workspace:
    """Rows for frames of `width` px."""
    reach = len(filters.high) - 1
    strips = -(-width // _STRIP)
    stride = (
        strips + 1 - strips % 2
    ) * _STRIP  # odd: rows of a power of two would share few places in the cache
    side = stride + 2 * _side(reach)
    return Workspace(
        signal=np.zeros((BAND + 2 * reach) * stride, np.float32),
        low=np.zeros(BAND * side, np.float32),
        high=np.zeros(BAND * side, np.float32),
        band=np.zeros((BAND + 3) * (stride + 2 * LANES), np.float32),
        snr=np.zeros((BAND + 3) * (stride + 2 * LANES), np.float32),
        noise=np.zeros(stride, np.float32),
        pending=np.array([-1, 0], np.int64),
        stride=stride,
    )


def _side(reach: int) -> int:
    return -(-reach // LANES) * LANES


@device
def mirror(index: int, length: int) -> int:
    """Where a position beyond the border is reflected to: d c b a | a b c d | d c b a."""
    while index < 0 or index >= length:
        index = -1 - index if index < 0 else 2 * length - 1 - index
    return index


@device
def find_peaks(
    frame: Any,
    level: Any,
    per_frame: Any,
    law: Any,
    filters: Any,
    work: Any,
    least_snr: Any,
    peaks: Any,
    peak_values: Any,
) -> Any:
    """Find the local maxima of a frame.

    Parameters
    ----------
    frame : (h, w) array
        Raw frame [ADU].
    level : (h, w) array
        Background times the number of frames in it [ADU].
    per_frame : float32
        One over that number; 0 for no background: then the dark level is subtracted.
    least_snr : float32
        Threshold on R/σ.
    peaks : (m, 2) int32 array
        Out: y, x [px], in raster order.
    peak_values : (m, 4) float32 array
        Out: y, x [px] by a parabola through R, R [ADU], R/σ [1].

    Returns
    -------
    int
        Number of peaks, at most m.
    """
    height, width = frame.shape
    reach = filters.high.shape[0] - 1
    row_length = work.stride + 2 * LANES
    found, top = np.int64(0), np.int64(0)  # numba would compile a function once more for a literal 0
    _clear(work.snr, top, 2 * row_length)
    for y0 in range(0, height, BAND):
        rows = min(BAND, height - y0)
        _fill_signal(frame, level, per_frame, law, work.signal, work.stride, reach, y0, rows)
        _filter_columns(work.signal, work.low, work.high, filters, work.stride, reach, width, rows)
        _mirror_sides(work.low, work.high, work.stride, reach, width, rows)
        for row in range(rows):
            y = y0 + row
            _noise_row(frame[y], law, y, filters.gain_y[y], filters.gain_x, work.noise)
            _filter_row(work, filters, reach, row, width)
        last = y0 + rows == height
        if last:
            _clear(work.snr, (rows + 2) * row_length, row_length)
        found = _scan(work, y0, rows + 1 if last else rows, width, least_snr, peaks, peak_values, found)
        _copy(work.band, top, rows * row_length, 2 * row_length)
        _copy(work.snr, top, rows * row_length, 2 * row_length)
    return found


@device
def _copy(array: Any, to: Any, source: Any, length: int) -> None:
    for k in range(0, length, LANES):
        store(array, to + k, load(array, source + k))


@device
def _clear(array: Any, to: Any, length: int) -> None:
    for k in range(0, length, LANES):
        store(array, to + k, splat(np.float32(-1.0)))


@device
def _fill_signal(
    frame: Any, level: Any, per_frame: Any, law: Any, signal: Any, stride: int, reach: int, y0: int, rows: int
) -> None:
    """Rows y0 - reach to y0 + rows + reach of max(D - B, 0); those that the band before needed too are moved up."""
    height = frame.shape[0]
    first = y0 + reach
    if y0 == 0:
        first = 0
    else:
        _copy(signal, np.int64(0), BAND * stride, 2 * reach * stride)
    for y in range(first, y0 + rows + reach):
        to = (y - y0 + reach) * stride
        if y < height:
            _signal_row(frame[y], level[y], per_frame, law, y, signal[to : to + stride])
        else:
            source = (mirror(y, height) - y0 + reach) * stride
            _copy(signal, to, source, stride)
    if y0 == 0:
        for y in range(-reach, 0):
            source, to = (mirror(y, height) + reach) * stride, (y + reach) * stride
            _copy(signal, to, source, stride)


@device
def _signal_row(raw: Any, level: Any, per_frame: Any, law: Any, y: int, out: Any) -> None:
    dark, flat = law.dark[y if law.dark.shape[0] > 1 else 0], law.flat[y if law.flat.shape[0] > 1 else 0]
    for x in range(raw.shape[0]):
        reference = np.float32(level[x]) * per_frame if per_frame > 0 else dark[x]
        value = (np.float32(raw[x]) - reference) * flat[x]
        out[x] = value if 0 < value < np.inf else np.float32(0.0)


@device
def _noise_row(raw: Any, law: Any, y: int, gain_y: Any, gain_x: Any, out: Any) -> None:
    """1/σ² of every pixel of a row [1/ADU²], σ² raised by the noise gain at the border."""
    dark, flat = law.dark[y if law.dark.shape[0] > 1 else 0], law.flat[y if law.flat.shape[0] > 1 else 0]
    floor = law.floor[y if law.floor.shape[0] > 1 else 0]
    for x in range(raw.shape[0]):
        reading = (np.float32(raw[x]) - dark[x]) * flat[x]
        reading = reading if reading > 1 else np.float32(1.0)
        out[x] = np.float32(1.0) / ((floor[x] + law.slope * reading) * (gain_y * gain_x[x]))


@device
def _filter_columns(
    signal: Any, low: Any, high: Any, filters: Any, stride: int, reach: int, width: int, rows: int
) -> None:
    """Both Gaussians along y, 64 columns at a time."""
    side = (reach + LANES - 1) // LANES * LANES
    length = stride + 2 * side
    near = filters.low.shape[0]
    for x in range(0, width, _STRIP):
        for row in range(rows):
            at = (row + reach) * stride + x
            weight, wide = filters.low[0], filters.high[0]
            v0, v1, v2, v3 = (
                load(signal, at),
                load(signal, at + 16),
                load(signal, at + 32),
                load(signal, at + 48),
            )
            a0, a1, a2, a3 = v0 * weight, v1 * weight, v2 * weight, v3 * weight
            b0, b1, b2, b3 = v0 * wide, v1 * wide, v2 * wide, v3 * wide
            for k in range(1, reach + 1):
                up, down, wide = at - k * stride, at + k * stride, filters.high[k]
                v0 = load(signal, up) + load(signal, down)
                v1 = load(signal, up + 16) + load(signal, down + 16)
                v2 = load(signal, up + 32) + load(signal, down + 32)
                v3 = load(signal, up + 48) + load(signal, down + 48)
                b0, b1, b2, b3 = b0 + v0 * wide, b1 + v1 * wide, b2 + v2 * wide, b3 + v3 * wide
                if k < near:
                    weight = filters.low[k]
                    a0, a1, a2, a3 = a0 + v0 * weight, a1 + v1 * weight, a2 + v2 * weight, a3 + v3 * weight
            to = row * length + side + x
            _store_strip(low, to, a0, a1, a2, a3)
            _store_strip(high, to, b0, b1, b2, b3)


@device
def _store_strip(array: Any, to: int, a: Any, b: Any, c: Any, d: Any) -> None:
    store(array, to, a)
    store(array, to + 16, b)
    store(array, to + 32, c)
    store(array, to + 48, d)


@device
def _mirror_sides(low: Any, high: Any, stride: int, reach: int, width: int, rows: int) -> None:
    side = (reach + LANES - 1) // LANES * LANES
    for row in range(rows):
        at = row * (stride + 2 * side) + side
        for k in range(1, reach + 1):
            left, right = (
                (k - 1, width - k) if k <= width else (mirror(-k, width), mirror(width - 1 + k, width))
            )
            low[at - k], low[at + width - 1 + k] = low[at + left], low[at + right]
            high[at - k], high[at + width - 1 + k] = high[at + left], high[at + right]


@device
def _filter_row(work: Any, filters: Any, reach: int, row: int, width: int) -> None:
    """Both Gaussians along x, their difference R, and R²/σ² where R is positive."""
    side = (reach + LANES - 1) // LANES * LANES
    at = row * (work.stride + 2 * side) + side
    to = (row + 2) * (work.stride + 2 * LANES) + LANES
    for x in range(0, width, _STRIP):
        a0, a1, a2, a3 = _along_x(work.low, at + x, filters.low)
        b0, b1, b2, b3 = _along_x(work.high, at + x, filters.high)
        r0, r1, r2, r3 = a0 - b0, a1 - b1, a2 - b2, a3 - b3
        _store_strip(work.band, to + x, r0, r1, r2, r3)
        store(work.snr, to + x, _snr(r0, load(work.noise, x)))
        store(work.snr, to + x + 16, _snr(r1, load(work.noise, x + 16)))
        store(work.snr, to + x + 32, _snr(r2, load(work.noise, x + 32)))
        store(work.snr, to + x + 48, _snr(r3, load(work.noise, x + 48)))
    work.snr[to - 1] = np.float32(-1.0)
    work.snr[to + width] = np.float32(-1.0)


@device
def _snr(r: Any, inverse_noise: Any) -> Any:
    return select(r > 0.0, r * r * inverse_noise, 0.0)


@device
def _along_x(rows: Any, at: int, weights: Any) -> Any:
    weight = weights[0]
    a0, a1, a2, a3 = (
        load(rows, at) * weight,
        load(rows, at + 16) * weight,
        load(rows, at + 32) * weight,
        load(rows, at + 48) * weight,
    )
    for k in range(1, weights.shape[0]):
        left, right, weight = at - k, at + k, weights[k]
        a0 = a0 + (load(rows, left) + load(rows, right)) * weight
        a1 = a1 + (load(rows, left + 16) + load(rows, right + 16)) * weight
        a2 = a2 + (load(rows, left + 32) + load(rows, right + 32)) * weight
        a3 = a3 + (load(rows, left + 48) + load(rows, right + 48)) * weight
    return a0, a1, a2, a3


@device
def _scan(
    work: Any, y0: int, stop: int, width: int, least_snr: Any, peaks: Any, peak_values: Any, found: Any
) -> Any:
    """Local maxima of the rows whose lower neighbour is there by now."""
    length = work.stride + 2 * LANES
    threshold = splat(least_snr * least_snr)
    for row in range(1, stop + 1):
        at = row * length + LANES
        for x0 in range(0, width, LANES):
            bits = lane_bits(load(work.snr, at + x0) > threshold)
            x = x0
            while bits != 0:
                if bits & 1 and x < width and found < peaks.shape[0] and _is_peak(work.snr, at + x, length):
                    peaks[found, 0], peaks[found, 1] = y0 + row - 2, x
                    _describe(work, at + x, length, y0 + row - 2, x, peak_values[found])
                    found += 1
                bits >>= 1
                x += 1
    return found


@device
def _is_peak(snr: Any, at: int, length: int) -> bool:
    """Above all eight neighbours; of equal ones the first in raster order is the peak."""
    value = snr[at]
    above = True
    for step in (-length - 1, -length, -length + 1, -1):
        above &= value > snr[at + step]
    for step in (1, length - 1, length, length + 1):
        above &= value >= snr[at + step]
    return above


@device
def _describe(work: Any, at: int, length: int, y: int, x: int, values: Any) -> None:
    """Position by a parabola through R, R and R/σ; the signal-to-noise image may peak one pixel beside R."""
    band, snr = work.band, work.snr
    best = at
    for step in (-length - 1, -length, -length + 1, -1, 1, length - 1, length, length + 1):
        if snr[at + step] >= 0 and band[at + step] > band[best]:
            best = at + step
    dy = 0
    if best - at > length // 2:
        dy = 1
    elif best - at < -(length // 2):
        dy = -1
    dx = best - at - dy * length
    values[0] = np.float32(y + dy) + _vertex(band, snr, best, length)
    values[1] = np.float32(x + dx) + _vertex(band, snr, best, np.int64(1))
    values[2] = band[best]
    values[3] = np.sqrt(snr[at])


@device
def _vertex(band: Any, snr: Any, at: Any, step: Any) -> Any:
    """Where a parabola through three neighbours has its top; 0 beside the border and where the middle is not the highest."""
    if at - step < 0 or at + step >= band.shape[0] or snr[at - step] < 0 or snr[at + step] < 0:
        return np.float32(0.0)
    before, here, after = band[at - step], band[at], band[at + step]
    bend = before - here - here + after
    if not (here >= before and here >= after and bend < 0):
        return np.float32(0.0)
    return np.float32(0.5) * (before - after) / bend
