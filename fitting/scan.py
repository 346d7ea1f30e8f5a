"""From frames to ROIs: background, detection and cutting, frame by frame, without coming back to Python.

The background is either the running sum of integer frames, which is kept here, or an image that was made outside. When a
buffer is too full for a frame that frame is given back; once there is room it goes on with the peaks that were found.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fitting.background import advance
from fitting.candidates import KEPT, UNDECIDED, debounce
from fitting.channels import to_first_channel
from fitting.detection import find_peaks
from fitting.kernel import borrower, borrowing_kernel
from fitting.prefetch import prefetch
from fitting.rois import put_rois

_AHEAD = 8  # peaks: as long as it takes until memory has answered


class Plan(NamedTuple):
    """What is looked for: threshold on R/σ, debounce radius [px], `sharpest_neighbour`, side of a ROI [px]; whether ROIs have their
    background subtracted (or in the model), whether they are for weighted least squares, and whether what is not kept has ROIs too, as a
    neighbour of what is; where the channels lie.
    """

    least_snr: Any
    radius: Any
    least_neighbour: Any
    side: int
    subtract: bool
    weighted: bool
    neighbours: bool
    channels: Any


class Peaks(NamedTuple):
    """Peaks of one frame: place (m, 2) int32 y, x; values (m, 4) float32 y, x [px], R [ADU], R/σ; state (m,) uint8."""

    place: Any
    values: Any
    state: Any


class Sink(NamedTuple):
    """Where ROIs and candidates go, and how many there are.

    data, extra, place, level, middles, shifts: see `fitting.rois.RoiBuffer`; frame (c,) int32, values (c, 3) float32 y, x, R/σ and fitted (c,) uint8 of the
    candidates; count (2,) int64: ROIs, candidates.
    """

    data: Any
    extra: Any
    place: Any
    level: Any
    middles: Any
    shifts: Any
    frame: Any
    values: Any
    fitted: Any
    count: Any


@borrowing_kernel
def scan(
    stack: Any, present: Any, windows: Any, first: int, last: int, background: Any,
    law: Any, filters: Any, work: Any, plan: Any, peaks: Any, sink: Any,
) -> int:  # fmt: skip
    """Scan the frames [first, last) of a stack that are present; gives the frame to go on with.

    Parameters
    ----------
    stack : (n, h, w) array
        Raw frames [ADU].
    present : (n,) uint8 array
    windows : (n, 2) int64 array
        The frames of each frame's background.
    background : fitting.background.Background
        A running sum, kept here, or what stays for all frames.
    law, filters, work
        The camera's `fitting.camera.PixelLaw`, `fitting.filters.Filters` and what `fitting.bandpass.make_workspace` gives.
    plan, peaks, sink : Plan, Peaks, Sink
        What is looked for, room for the peaks of a frame, and where ROIs and candidates go.
    """
    for t in range(first, last):
        if not present[t]:
            continue
        moves, leaving, coming = advance(background, stack, present, windows[t, 0], windows[t, 1])
        used = background.state[2]
        per_frame = np.float32(1.0) / np.float32(used) if used > 0 else np.float32(0.0)
        frame = stack[t]
        found = work.pending[1]
        if work.pending[0] != t:
            found = find_peaks(
                frame, background, per_frame, moves, stack[coming], stack[leaving], law, filters, work,
                plan.least_snr, plan.least_neighbour, peaks.place, peaks.values,
            )  # fmt: skip
            found = to_first_channel(plan.channels, peaks, found)
        work.pending[0] = -1
        rois, candidates = sink.count[0], sink.count[1]
        if rois + found > sink.place.shape[0] or candidates + found > sink.frame.shape[0]:
            work.pending[0], work.pending[1] = t, found
            return t
        put_found(frame, background.level, per_frame, law, plan, peaks, found, sink, t)
    return last


@borrowing_kernel
def put_found(
    frame: Any, level: Any, per_frame: Any, law: Any, plan: Any, peaks: Any, found: int, sink: Any, t: int
) -> None:  # fmt: skip
    """Write the candidates of frame `t`, and the ROIs of those that are not too close to a brighter one; there is room for all.

    Parameters
    ----------
    frame : (h, w) array
        Raw frame [ADU].
    level : (h, w) array
        Background times the number of frames in it [ADU].
    per_frame : float32
        One over that number; 0 for no background.
    law, plan, peaks, sink
        As `scan` has them.
    found : int
        Peaks of the frame.
    """
    peaks.state[:found] = UNDECIDED
    debounce(peaks.place, peaks.values, found, plan.radius, peaks.state)
    rois, candidates = sink.count[0], sink.count[1]
    for i in range(min(found, _AHEAD)):
        _ask_for_roi(frame, level, peaks.values[i], plan.side)
    for i in range(found):
        if i + _AHEAD < found:
            _ask_for_roi(frame, level, peaks.values[i + _AHEAD], plan.side)
        kept = peaks.state[i] == KEPT
        sink.frame[candidates + i] = t
        sink.values[candidates + i, 0] = peaks.values[i, 0]
        sink.values[candidates + i, 1] = peaks.values[i, 1]
        sink.values[candidates + i, 2] = peaks.values[i, 3]
        sink.fitted[candidates + i] = 1 if kept else 0
        if kept or plan.neighbours:
            y, x = peaks.values[i, 0], peaks.values[i, 1]
            put_rois(plan.channels, frame, level, per_frame, law, plan, sink, t, y, x, rois)
            sink.place[rois, 3] = 1 if kept else 0
            rois += 1
    sink.count[0], sink.count[1] = rois, candidates + found


@borrower
def _ask_for_roi(frame: Any, level: Any, values: Any, side: int) -> None:
    """Ask for the lines of a ROI of the first channel; frames are larger than the cache by the time that their peaks are known."""
    y0, x0 = round(values[0]) - side // 2, round(values[1]) - side // 2
    for y in range(max(y0, 0), min(y0 + side, frame.shape[0])):
        prefetch(frame[y], x0, 1)
        prefetch(frame[y], x0 + side - 1, 1)
        prefetch(level[y], x0, 1)
        prefetch(level[y], x0 + side - 1, 1)
