r"""Where a molecule may be: local maxima of the band-passed frame over its noise.

The frame less its background, negative values cut off, is band-passed by the difference of two Gaussians, R = (G₁ - G₃) * P. A candidate
is a pixel whose R over the pixel's noise σ exceeds the threshold and all eight neighbours. A factor of 1 therefore
means what it means in PYME, which takes connected regions of R > σ; two molecules whose regions touch stay two candidates here.

At the frame's border the image is reflected. A reflected filter sums fewer independent pixels, so its noise is larger by a known
factor; the threshold is raised by that factor, and molecules are found up to the last pixel.

The filters' steps are in `fitting.bandpass`, what they work on in `fitting.pixel_rows`. They leave R, σ² and, for every pixel, a bit that says whether it is above the threshold. Few are, so that
only there neighbours are compared, as R₁² σ₂² > R₂² σ₁².
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fitting.bandpass import (
    ABOVE,
    BORDER,
    STRIP,
    band_row,
    copy_floats,
    fill_floats,
    filter_columns,
    filter_columns_apart,
    filter_wide_row,
    filter_wide_row_apart,
    mirror,
    mirror_sides,
    mirror_sides_apart,
    row_in_ring,
)
from fitting.candidates import at_row, is_molecule
from fitting.filters import EveryRow, EverySecondRow, Filters
from fitting.kernel import borrower, inlined, only_in_kernels, provides
from fitting.lanes import LANES, lowest_bit
from fitting.pixel_rows import noise_rows, put_signal

_INSIDE = np.float32(0.5 * BORDER)  # what is above lies in the frame


@inlined
def find_peaks(
    frame: Any, background: Any, per_frame: Any, moves: bool, coming: Any, leaving: Any, law: Any, filters: Any, work: Any,
    least_snr: Any, least_neighbour: Any, peaks: Any, peak_values: Any,
) -> Any:  # fmt: skip
    """Find the local maxima of a frame that may be molecules.

    Parameters
    ----------
    frame : (h, w) array
        Raw frame [ADU].
    background : fitting.background.Background
    per_frame : float32
        One over the number of frames in it; 0 for no background: then the dark level is subtracted.
    moves : bool
        Whether it, a sum, must first lose the frame `leaving` and take in the frame `coming`.
    least_snr : float32
        Threshold on R/σ.
    least_neighbour : float32
        See `fitting.candidates.sharpest_neighbour`.
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
    length = work.stride + 2 * LANES
    words = work.stride // STRIP
    found, top = np.int64(0), np.int64(0)  # numba would compile a function once more for a literal 0
    fill_floats(work.filtered, top, BORDER, ABOVE * length)
    work.bits[: 2 * words] = 0
    for y0 in range(0, height, work.band):
        rows = min(work.band, height - y0)
        fill_signal(frame, background, per_frame, moves, coming, leaving, law, work, y0, rows)
        filter_wide(filters, work, width, y0, rows)
        filter_band(frame, background, coming, leaving, law, filters, work, least_snr * least_snr, y0, rows)
        last = y0 + rows == height
        if last:
            fill_floats(work.filtered, (ABOVE + rows) * length, BORDER, 2 * length)
        stop = rows + 2 if last else rows
        found = pick_peaks(
            frame,
            background.level,
            per_frame,
            law,
            least_neighbour,
            work,
            y0,
            stop,
            peaks,
            peak_values,
            found,
        )
        copy_floats(work.filtered, top, rows * length, ABOVE * length)
        copy_floats(work.noise, top, rows * length, ABOVE * length)
        for k in range(2 * words):
            work.bits[k] = work.bits[rows * words + k]
    return found


@borrower
def fill_signal(
    frame: Any, background: Any, per_frame: Any, moves: bool, coming: Any, leaving: Any, law: Any, work: Any, y0: int, rows: int
) -> None:  # fmt: skip
    """Rows of P that the band needs and the band before did not."""
    height = frame.shape[0]
    for y in range(0 if y0 == 0 else y0 + work.below, y0 + rows + work.below):
        to = row_in_ring(work, y)
        if y < height:
            put_signal(background, frame, y, moves, coming, leaving, per_frame, law, work.signal, to)
        else:
            copy_floats(work.signal, to, row_in_ring(work, mirror(y, height)), work.stride)
    if y0 == 0:
        for y in range(-work.above, 0):
            copy_floats(work.signal, row_in_ring(work, y), row_in_ring(work, mirror(y, height)), work.stride)


def filter_wide(filters: Filters, work: Any, width: int, y0: int, rows: int) -> None:
    """Rows of G₃ * P: all of the band, or every second and those around it that interpolation needs."""
    only_in_kernels(filters, work, width, y0, rows)


@provides(filter_wide, EveryRow)
def _filter_every_row(filters: Any, work: Any, width: int, y0: int, rows: int) -> None:
    stride, to = work.stride, np.int64(work.side)
    length = stride + 4 * work.side
    filter_columns(work, y0, filters.high, width, rows, work.high, to, length)
    mirror_sides(work.high, to, length, rows, width, filters.high.shape[0] - 1)
    for k in range(rows):
        filter_wide_row(work.high, to + k * length, filters.high, width, work.wide, k * stride)


@provides(filter_wide, EverySecondRow)
def _filter_every_second_row(filters: Any, work: Any, width: int, y0: int, rows: int) -> None:
    stride, side = work.stride, work.side
    length = stride + 4 * side
    start, number = 0, (rows + 1) // 2 + 3
    if y0 > 0:  # the band before made the first three
        start = 3
        copy_floats(work.wide, np.int64(0), work.band // 2 * stride, 3 * stride)
    first, to = y0 + 2 * start - 2, start * length + side
    odd, new = stride // 2 + 2 * side, number - start
    filter_columns_apart(work, first, filters.sparse, width, new, work.high, to, length, odd)
    mirror_sides_apart(work.high, to, length, odd, new, width, filters.sparse.shape[0] + 3)
    for k in range(start, number):
        at, wide = k * length + side, k * stride
        filter_wide_row_apart(work.high, at, odd, filters.sparse, width, work.columns, work.wide, wide)


@borrower
def filter_band(
    frame: Any, background: Any, coming: Any, leaving: Any, law: Any, filters: Any, work: Any, least_snr2: Any, y0: int, rows: int
) -> None:  # fmt: skip
    """R of the band, and what is above the threshold; meanwhile the rows come that the next band has to read."""
    width, stride, side = frame.shape[1], work.stride, work.side
    length, words, near = stride + 2 * side, stride // STRIP, np.int64(side)
    filter_columns(work, y0, filters.low, width, rows, work.low, near, length)
    mirror_sides(work.low, near, length, rows, width, filters.low.shape[0] - 1)
    pitch = stride + 2 * LANES
    shared = rows if max(law.dark.shape[0], law.flat.shape[0], law.floor.shape[0]) == 1 else 1
    for row in range(0, rows, shared):
        y, to = y0 + row, (ABOVE + row) * pitch + LANES
        dark, flat = law.dark[at_row(law.dark, y)], law.flat[at_row(law.flat, y)]
        floor, gain_y = law.floor[at_row(law.floor, y)], filters.gain_y[y:]
        noise_rows(
            frame[y : y + shared], dark, flat, floor, law.slope, filters.gain_x, gain_y, work.noise, to, pitch
        )
    for row in range(rows):
        to = (ABOVE + row) * pitch + LANES
        kind, middle = 0, row * stride
        if filters.step == 2:
            kind, middle = 1 + row % 2, (1 + row // 2) * stride
        next_row = min(y0 + rows + work.below + row, frame.shape[0] - 1)
        band_row(
            work.low, near + row * length, filters.low, work.wide, middle, stride, kind, work.noise, least_snr2, width,
            work.filtered, to, work.bits, (2 + row) * words, (background, frame, next_row, coming, leaving),
        )  # fmt: skip


@borrower
def pick_peaks(
    frame: Any, level: Any, per_frame: Any, law: Any, least_neighbour: Any, work: Any, y0: int, stop: int, peaks: Any, values: Any, found: Any
) -> Any:  # fmt: skip
    """Add the peaks of a band that may be molecules to those of the bands before; gives how many there are then.

    Parameters
    ----------
    frame, level, per_frame, law, least_neighbour, peaks, values
        As `find_peaks` has them; `level` (h, w) [ADU] is that of its background.
    work : fitting.bandpass.Workspace
        Holds R, σ² and what is above the threshold.
    y0, stop : int
        The band's first row, and how many rows to look at, from two above it on [px].
    found : int
        Peaks of the bands before.
    """
    last = _find_maxima(work, frame.shape[1], y0, stop, peaks, values, found)
    return _keep_molecules(frame, level, per_frame, law, least_neighbour, peaks, values, found, last)


@inlined
def _find_maxima(work: Any, width: int, y0: int, stop: int, peaks: Any, values: Any, found: Any) -> Any:
    """Local maxima from two rows above the band to two above its end, whose neighbours are all there by now."""
    filtered, noise, bits = work.filtered, work.noise, work.bits
    length, words = work.stride + 2 * LANES, work.stride // STRIP
    for row in range(stop):
        y = y0 + row - 2
        at = (row + ABOVE - 2) * length + LANES
        for word in range(words):
            left = bits[row * words + word]
            while left != 0:
                x = word * STRIP + lowest_bit(left)
                left &= left - 1
                if x < width and found < peaks.shape[0] and _is_peak(filtered, noise, at + x, length):
                    peaks[found, 0], peaks[found, 1] = y, x
                    _describe(filtered, noise, at + x, length, y, x, values[found])
                    found += 1
    return found


@inlined
def _is_peak(filtered: Any, noise: Any, at: Any, length: int) -> bool:
    """Above all eight neighbours in R/σ; of equal ones the first in raster order is the peak."""
    here, variance = filtered[at] * filtered[at], noise[at]
    for step in (1, -1, length, -length, length + 1, length - 1, 1 - length, -1 - length):
        r = filtered[at + step]
        if r > 0:
            theirs, ours = r * r * variance, here * noise[at + step]
            if theirs > ours or (theirs == ours and step < 0):
                return False
    return True


@inlined
def _describe(filtered: Any, noise: Any, at: Any, length: int, y: int, x: int, values: Any) -> None:
    """Position by a parabola through R, R and R/σ; the signal-to-noise image may peak one pixel beside R."""
    best, down, right = at, 0, 0
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            if filtered[at + dy * length + dx] > filtered[best]:
                best, down, right = at + dy * length + dx, dy, dx
    values[0] = np.float32(y + down) + _vertex(filtered, best, length)
    values[1] = np.float32(x + right) + _vertex(filtered, best, np.int64(1))
    values[2] = filtered[best]
    values[3] = filtered[at] / np.sqrt(noise[at])


@inlined
def _keep_molecules(
    frame: Any, level: Any, per_frame: Any, law: Any, least_neighbour: Any, peaks: Any, values: Any, first: Any, last: Any
) -> Any:  # fmt: skip
    """Of the peaks [first, last) close the ranks of those that may be molecules, while their pixels are in the cache."""
    kept = first
    for i in range(first, last):
        y, x = round(values[i, 0]), round(values[i, 1])
        if is_molecule(frame, level, per_frame, law, y, x, least_neighbour):
            peaks[kept, 0], peaks[kept, 1] = peaks[i, 0], peaks[i, 1]
            for k in range(4):
                values[kept, k] = values[i, k]
            kept += 1
    return kept


@borrower
def _vertex(filtered: Any, at: Any, step: Any) -> Any:
    """Where a parabola through three neighbours has its top; 0 beside the border and where the middle is not the highest."""
    before, here, after = filtered[at - step], filtered[at], filtered[at + step]
    bend = before - here - here + after
    if before < _INSIDE or after < _INSIDE or not (here >= before and here >= after and bend < 0):
        return np.float32(0.0)
    return np.float32(0.5) * (before - after) / bend
