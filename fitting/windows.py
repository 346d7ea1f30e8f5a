"""Which frames are localised, and which frames each of them needs.

Everything here is a function of absolute frame numbers, the settings and the metadata, never of how a series is cut
into tasks; that is what lets a worker reproduce the background of the first frame of its task exactly.
All ranges are half open: (first, after last).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from fitting.errors import InvalidMetadata

_REFRESHED_EVERY = 10  # frames, at most: a percentile takes as long as localising twenty frames
FIDUCIAL_REACH = 10  # frames before and after that the fiducials' product image uses

Range = tuple[int, int]


def laser_on(metadata: Mapping[str, object]) -> int:
    """Frame at which the laser was switched on; 0 where the metadata do not say.

    Raises
    ------
    InvalidMetadata
        If the metadata name something that is not a frame number.
    """
    estimated = frame_number(metadata, "EstimatedLaserOnFrameNo")
    if estimated is None:
        estimated = frame_number(metadata, "Protocol.DataStartsAt")
    return estimated or 0


def first_data_frame(metadata: Mapping[str, object]) -> int:
    """Frame at which "auto" starts: where the protocol says data start, else at laser-on, else 0.

    Raises
    ------
    InvalidMetadata
        If the metadata name something that is not a frame number.
    """
    starts_at = frame_number(metadata, "Protocol.DataStartsAt")
    return laser_on(metadata) if starts_at is None else starts_at


def frame_number(metadata: Mapping[str, object], key: str) -> int | None:
    """Read a frame number from the metadata; None where there is none, and 0 for a negative one."""
    value = metadata.get(key)
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return None
    whole = isinstance(value, int) or (
        isinstance(value, float) and math.isfinite(value) and value == int(value)
    )
    if isinstance(value, bool) or not isinstance(value, int | float) or not whole:
        raise InvalidMetadata((key,), f"{key} must be a frame number, not {value!r}")
    return max(0, int(value))


def background_window(settings: Mapping[str, object]) -> Range | None:
    """Frames of the background relative to the frame, (-30, 0) for "-30:0"; None for no background."""
    window = settings["background"]
    if not isinstance(window, str):
        return None
    a, b = window.split(":")
    return int(a), int(b)


def analysed_range(settings: Mapping[str, object], metadata: Mapping[str, object], frames: int) -> Range:
    """Frames that are localised, of a series of `frames` frames; the others are skipped."""
    start_at = settings["start_at"]
    start = start_at if isinstance(start_at, int) else first_data_frame(metadata)
    stop_at = settings["stop_at"]
    stop = min(stop_at, frames) if isinstance(stop_at, int) else frames
    return min(start, stop), stop


def background_limits(settings: Mapping[str, object], metadata: Mapping[str, object], series: Range) -> Range:
    """Frames that a background may be made of: light on, analysed, present."""
    start, stop = analysed_range(settings, metadata, series[1])
    first = max(start, laser_on(metadata), series[0])
    return min(first, stop), stop


def window_for(frame: int, window: Range | None, limits: Range) -> Range:
    """Frames that make the background of `frame`.

    At either end of `limits` the window slides inwards and keeps its length, so that it may hold the frame itself.

    Parameters
    ----------
    frame : int
        Absolute frame number.
    window : (int, int) or None
        Window relative to the frame; None for no background.
    limits : (int, int)
        Frames that may be used.

    Returns
    -------
    (int, int)
        Absolute range; all of `limits` where that is shorter than the window; (0, 0) for no background, which is also
        what a single frame gets.

    Examples
    --------
    >>> window_for(100, (-30, 0), (0, 500)), window_for(5, (-30, 0), (0, 500))
    ((70, 100), (0, 30))
    """
    first, stop = limits
    if window is None or window[0] >= window[1] or stop - first < 2:
        return 0, 0
    length = min(window[1] - window[0], stop - first)
    start = min(max(frame + window[0], first), stop - length)
    return start, start + length


def windows_for(
    frames: range, settings: Mapping[str, object], metadata: Mapping[str, object], series: Range
) -> list[Range]:
    """Frames that make the background of each of `frames`.

    A percentile is made anew for every tenth frame of the series only, counted from frame 0 (every fourth for a window of
    twelve, and so on: a third of the window), and serves until the next; a mean moves with every frame.
    """
    window, limits = background_window(settings), background_limits(settings, metadata, series)
    every = _refreshed_every(settings, window)
    return [window_for(frame - frame % every, window, limits) for frame in frames]


def _refreshed_every(settings: Mapping[str, object], window: Range | None) -> int:
    if window is None or settings["background_percentile"] is None:
        return 1
    return max(1, min(_REFRESHED_EVERY, (window[1] - window[0]) // 3))


def settled_until(settings: Mapping[str, object], metadata: Mapping[str, object], frames: int) -> int:
    """Frame before which localising a series that still grows gives what it will give when the series is whole.

    That is as long as every frame it takes is there: all of the background's window, which slides inwards at the
    start of the series as ever but must not do so at an end that is not the end.

    Parameters
    ----------
    settings : mapping
        Complete settings.
    metadata : mapping
        The metadata of the series.
    frames : int
        How many frames there are so far, without a gap.

    Returns
    -------
    int
        0 to `frames`; no window need be waited for once `stop_at` is among them.
    """
    settled = max(0, frames - FIDUCIAL_REACH if settings["track_fiducials"] else frames)
    window, stop_at = background_window(settings), settings["stop_at"]
    if isinstance(stop_at, int) and stop_at <= frames:
        return settled
    if window is None or window[0] >= window[1]:
        return settled
    first, _ = background_limits(settings, metadata, (0, frames))
    if frames - first < max(2, window[1] - window[0]):
        return 0
    every = _refreshed_every(settings, window)
    last_renewal = (frames - window[1]) // every * every
    return max(0, min(settled, last_renewal + every))


def context_range(
    settings: Mapping[str, object], metadata: Mapping[str, object], series: Range, start: int, stop: int
) -> Range:
    """Frames that localising [start, stop) needs, those frames included.

    The range of a whole series is the union of the ranges of any tasks that it is cut into.

    Parameters
    ----------
    settings : mapping
        Complete settings, from `fitting.fits.resolve`.
    metadata : mapping
        The metadata of the series.
    series : (int, int)
        First frame of the series, frame after its last.
    start, stop : int
        Frames of the task.
    """
    analysed = analysed_range(settings, metadata, series[1])
    first, last = max(start, analysed[0]), min(stop, analysed[1]) - 1
    if first > last:
        return start, stop
    ranges = [(start, stop)]
    ends = range(first, last + 1, max(last - first, 1))
    ranges += [used for used in windows_for(ends, settings, metadata, series) if used[0] < used[1]]
    if settings["track_fiducials"]:
        ranges.append((max(first - FIDUCIAL_REACH, series[0]), min(last + 1 + FIDUCIAL_REACH, series[1])))
    return min(a for a, _ in ranges), max(b for _, b in ranges)
