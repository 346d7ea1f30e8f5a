"""A frame as detection sees it, a row at a time: P, what exceeds the background, and the noise σ² of every pixel."""

from __future__ import annotations

from typing import Any

import numpy as np

from fitting.background import Background, RunningSum, StillLevel
from fitting.bandpass import STRIP, load_strip, store_strip
from fitting.candidates import at_row
from fitting.kernel import borrower, only_in_kernels, provides
from fitting.lanes import LANES, load, load_numbers, select, slide_sum, store


def put_signal(
    background: Background, frame: Any, y: int, moves: bool, coming: Any, leaving: Any, per_frame: Any, law: Any, out: Any, to: Any
) -> None:  # fmt: skip
    """Write P of row y of a frame [ADU], its background first moved on where that is yet to happen; see `fitting.background.advance`."""
    only_in_kernels(background, frame, y, moves, coming, leaving, per_frame, law, out, to)


@provides(put_signal, StillLevel)
def _put_signal(
    background: Any, frame: Any, y: int, _moves: bool, _coming: Any, _leaving: Any, per_frame: Any, law: Any, out: Any, to: Any
) -> None:  # fmt: skip
    dark, flat = law.dark[at_row(law.dark, y)], law.flat[at_row(law.flat, y)]
    signal_row(frame[y], background.level[y], per_frame, dark, flat, out, to)


@provides(put_signal, RunningSum)
def _put_signal_of_sum(
    background: Any, frame: Any, y: int, moves: bool, coming: Any, leaving: Any, per_frame: Any, law: Any, out: Any, to: Any
) -> None:  # fmt: skip
    level = background.level[y]
    dark, flat = law.dark[at_row(law.dark, y)], law.flat[at_row(law.flat, y)]
    if moves:
        moved_signal_row(frame[y], coming[y], leaving[y], level, per_frame, flat, out, to)
    else:
        signal_row(frame[y], level, per_frame, dark, flat, out, to)


@borrower
def signal_row(raw: Any, level: Any, per_frame: Any, dark: Any, flat: Any, out: Any, to: Any) -> None:
    """P = max(D - B, 0) of a row [ADU]; 0 where it is not known."""
    width = raw.shape[0]
    full = width // LANES * LANES
    for x in range(0, full, LANES):
        reference = load_numbers(level, x) * per_frame if per_frame > 0 else load(dark, x)
        store(out, to + x, _positive((load_numbers(raw, x) - reference) * load(flat, x)))
    for x in range(full, width):
        rest = np.float32(level[x]) * per_frame if per_frame > 0 else dark[x]
        value = (np.float32(raw[x]) - rest) * flat[x]
        out[to + x] = value if 0 < value < np.inf else np.float32(0.0)


@borrower
def moved_signal_row(
    raw: Any, coming: Any, leaving: Any, level: Any, per_frame: Any, flat: Any, out: Any, to: Any
) -> None:
    """`signal_row`, once the running sum has been moved on by a frame: one way through the memory instead of two."""
    width = raw.shape[0]
    full = width // LANES * LANES
    for x in range(0, full, LANES):
        total = slide_sum(level, coming, leaving, x)
        store(out, to + x, _positive((load_numbers(raw, x) - total * per_frame) * load(flat, x)))
    for x in range(full, width):
        level[x] += np.int32(coming[x]) - np.int32(leaving[x])
        value = (np.float32(raw[x]) - np.float32(level[x]) * per_frame) * flat[x]
        out[to + x] = value if 0 < value < np.inf else np.float32(0.0)


@borrower
def _positive(value: Any) -> Any:
    return select((value > 0.0) & (value < np.float32(np.inf)), value, 0.0)


@borrower
def noise_rows(
    raw: Any, dark: Any, flat: Any, floor: Any, slope: Any, gain_x: Any, gain_y: Any, out: Any, to: Any, length: int
) -> None:  # fmt: skip
    """σ² of every pixel of rows that share a row of the camera [ADU²], raised by the noise gain at the border.

    64 columns at a time, whose part of the camera's row is read once; the last 64 may overlap those before. `to`, `length`: see `filter_columns`.
    """
    rows, width = raw.shape
    for left in range(0, width if width >= STRIP else 0, STRIP):
        x = min(left, width - STRIP)
        d0, d1, d2, d3 = load_strip(dark, x)
        f0, f1, f2, f3 = load_strip(flat, x)
        n0, n1, n2, n3 = load_strip(floor, x)
        s0, s1, s2, s3 = load_strip(gain_x, x)
        n0, n1, n2, n3 = n0 * s0, n1 * s1, n2 * s2, n3 * s3
        s0, s1, s2, s3 = s0 * slope, s1 * slope, s2 * slope, s3 * slope
        for row in range(rows):
            line, gain = raw[row], gain_y[row]
            v0 = _noise(load_numbers(line, x), d0, f0, n0, s0) * gain
            v1 = _noise(load_numbers(line, x + 16), d1, f1, n1, s1) * gain
            v2 = _noise(load_numbers(line, x + 32), d2, f2, n2, s2) * gain
            v3 = _noise(load_numbers(line, x + 48), d3, f3, n3, s3) * gain
            store_strip(out, to + row * length + x, v0, v1, v2, v3)
    if width < STRIP:
        for row in range(rows):
            for x in range(width):
                rest = (np.float32(raw[row, x]) - dark[x]) * flat[x]
                rest = rest if rest > 1 else np.float32(1.0)
                out[to + row * length + x] = (floor[x] + slope * rest) * (gain_y[row] * gain_x[x])


@borrower
def _noise(raw: Any, dark: Any, flat: Any, floor: Any, slope: Any) -> Any:
    reading = (raw - dark) * flat
    reading = select(reading > 1.0, reading, 1.0)
    return reading * slope + floor
