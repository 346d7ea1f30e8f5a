"""Frames read from the files in which they lie as they are served: plain reads at offsets, no parser.

Not a memory map: a mapped file that is cut short under us would end the process; a read that comes up short is told.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class EvenRun(Protocol):
    """Frames [frame, frame + count) lie in file number `file`, each `stride` bytes after the one before."""

    @property
    def frame(self) -> int: ...  # noqa: D102 -- the class says it
    @property
    def count(self) -> int: ...  # noqa: D102
    @property
    def file(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def stride(self) -> int: ...  # noqa: D102


class Handles(Protocol):
    """The open descriptor of each file, by its number."""

    def __getitem__(self, number: int, /) -> int: ...


def open_for_runs(file: Path) -> int:
    """Return a descriptor to read from; close it with `os.close`."""
    return os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def read_runs(
    runs: Iterable[EvenRun], handles: Handles, start: int, frames: np.ndarray[Any, Any]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Fill `frames`, an (n, h, w) array of frames [start, start + n); return which were there. The others are zeroed.

    On Windows not for several threads at once: there are no reads at an offset.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    stop = start + len(frames)
    there = np.zeros(len(frames), bool)
    for run in runs:
        a, b = max(start, run.frame), min(stop, run.frame + run.count)
        if a < b:
            got = _read_run(run, handles[run.file], a, frames[a - start : b - start])
            there[a - start : a - start + got] = True
    frames[~there] = 0
    return there


def _read_run(run: EvenRun, handle: int, first: int, out: np.ndarray[Any, Any]) -> int:
    """Fill `out` with frames from `first` on; return how many were whole."""
    size = out[0].nbytes
    offset = run.offset + (first - run.frame) * run.stride
    if run.stride == size:
        whole: int = _fill(handle, offset, out) // size
        return whole
    for number, frame in enumerate(out):
        if _fill(handle, offset + number * run.stride, frame) < size:
            return number
    return len(out)


def _fill(handle: int, offset: int, out: np.ndarray[Any, Any]) -> int:
    """Fill an array from a file; return how many bytes there were."""
    target = out.reshape(-1).view(np.uint8).data
    filled = 0
    while filled < target.nbytes:
        got = read_at(handle, offset + filled, target[filled:])
        if not got:
            break
        filled += got
    return filled


if sys.platform == "win32":

    def read_at(handle: int, offset: int, target: memoryview) -> int:
        """Fill a part of a buffer from a place in a file; return how many bytes that were, 0 at its end."""
        os.lseek(handle, offset, os.SEEK_SET)
        with open(handle, "rb", buffering=0, closefd=False) as file:
            return file.readinto(target) or 0

else:

    def read_at(handle: int, offset: int, target: memoryview) -> int:
        """Fill a part of a buffer from a place in a file; return how many bytes that were, 0 at its end."""
        return os.preadv(handle, [target], offset)
