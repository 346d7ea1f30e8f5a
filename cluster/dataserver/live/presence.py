"""Which frames of an acquired series are there: told by the names of its files alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.dataserver.live.layout import (
    ARRAY,
    STAGED,
    Layout,
    Record,
    chunk_name,
    chunk_of,
    staged_chunk_of,
    staged_name,
)
from cluster.dataserver.live.staged import StagedChunk, runs

Ranges = list[tuple[int, int]]


@dataclass(frozen=True)
class Found:
    """The chunks that are whole, those of which pieces are there, and the bytes that all of them take."""

    whole: set[int]
    staged: dict[int, StagedChunk]
    bytes: int


def find(folder: Path, record: Record) -> Found:
    """Look through a series' folder. A chunk that is both whole and in pieces is whole."""
    # the pieces first: a chunk that becomes whole meanwhile is then seen twice, and not overlooked
    pieces, staged_bytes = _numbered(folder / STAGED, staged_chunk_of)
    whole, bytes_whole = _numbered(folder / ARRAY, chunk_of) if record.array == ARRAY else (set[int](), 0)
    layout = record.layout
    staged = {}
    for chunk in sorted(pieces - whole):
        found = StagedChunk(folder / STAGED / staged_name(chunk), layout, chunk)
        # the pieces are removed once the chunk is whole, which may be since it was looked for
        if not found.has.any() and (folder / record.array / chunk_name(chunk)).exists():
            whole.add(chunk)
        else:
            staged[chunk] = found
    return Found(whole, staged, staged_bytes + bytes_whole)


def present(layout: Layout, whole: Iterable[int], staged: Mapping[int, StagedChunk]) -> Ranges:
    """Return the ranges of frames that are there, ascending and apart."""
    found = [layout.bounds(chunk) for chunk in whole]
    for chunk, pieces in staged.items():
        first = layout.bounds(chunk)[0]
        found += [(first + start, first + stop) for start, stop in runs(pieces.has)]
    joined: Ranges = []
    for start, stop in sorted(found):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined


def gaps(there: Ranges, stop: int) -> Ranges:
    """Return the ranges below `stop` that are not there."""
    missing: Ranges = []
    at = 0
    for first, last in there:
        if first > at:
            missing.append((at, min(first, stop)))
        at = last
        if at >= stop:
            return missing
    return [*missing, (at, stop)] if at < stop else missing


def end_of(there: Ranges) -> int:
    """Return the number after the last frame that is there."""
    return there[-1][1] if there else 0


def said(ranges: Ranges, most: int = 10) -> str:
    """Return ranges as a person writes them: 4, 7 to 9."""
    words = [str(start) if stop == start + 1 else f"{start} to {stop - 1}" for start, stop in ranges[:most]]
    return ", ".join(words) + (f" and {len(ranges) - most} more ranges" if len(ranges) > most else "")


def _numbered(folder: Path, number_of: Callable[[str], int | None]) -> tuple[set[int], int]:
    numbers: set[int] = set()
    size = 0
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return numbers, size
    with entries:
        for entry in entries:
            number = number_of(entry.name)
            if number is not None:
                numbers.add(number)
                size += _size(entry)
    return numbers, size


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # it went into its chunk meanwhile
        return 0
