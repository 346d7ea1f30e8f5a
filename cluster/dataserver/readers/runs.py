"""From the place of each frame to the few runs of evenly spaced frames that they mostly make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from cluster.dataserver.readers.interface import Run

MOST_RUNS: Final = 4096
Integers = np.ndarray[Any, np.dtype[Any]]


def runs_of(
    offsets: Integers, files: Integers, numbers: Mapping[int, int], frame_bytes: int
) -> tuple[Run, ...] | None:
    """Return the runs of frames, or None if they are more than `MOST_RUNS`.

    Parameters
    ----------
    offsets : (n,) int64 array
        Where each frame begins [bytes]; -1 where it is missing.
    files : (n,) integer array
        In which file, by the reader's numbers.
    numbers : mapping
        From these to the numbers of `SeriesReader.files`.
    frame_bytes : int
        Size of a frame.
    """
    runs: list[Run] = []
    at = 0
    while at < len(offsets):
        if offsets[at] < 0:
            at += 1
            continue
        stop = _end_of_run(offsets, files, at)
        stride = int(offsets[at + 1] - offsets[at]) if stop > at + 1 else frame_bytes
        runs.append(Run(at, stop - at, numbers[int(files[at])], int(offsets[at]), stride))
        if len(runs) > MOST_RUNS:
            return None
        at = stop
    return tuple(runs)


def _end_of_run(offsets: Integers, files: Integers, at: int) -> int:
    """Return the frame after the last that continues evenly, forward, in the same file."""
    stride = offsets[at + 1] - offsets[at] if at + 1 < len(offsets) else 0
    if stride <= 0 or offsets[at + 1] < 0 or files[at + 1] != files[at]:
        return at + 1
    length = 2
    step = 1024
    while at + length < len(offsets):  # in blocks: most series are one run of all frames
        stop = min(len(offsets), at + length + step)
        block = slice(at + length, stop)
        even = (
            (np.diff(offsets[at + length - 1 : stop]) == stride)
            & (files[block] == files[at])
            & (offsets[block] >= 0)
        )
        if not even.all():
            return at + length + int(np.argmin(even))
        length = stop - at
        step *= 2
    return at + length
