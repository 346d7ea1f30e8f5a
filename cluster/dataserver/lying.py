"""Frames that can be sent from the files in which they lie: which pieces of which files, and their checksum."""

from __future__ import annotations

import io
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from isal import isal_zlib

from cluster.arrays import raw_frames_head
from cluster.dataserver.readers.interface import SeriesReader
from cluster.frame_runs import EvenRun, read_at

_BLOCK_BYTES: Final = 1 << 19  # what is read at once stays in the cache of one core
_UNKNOWN: Final = -1
_LEAST_PIECE_BYTES: Final = 1 << 20  # smaller ones cost more to ask the system for than to copy
CAN_SEND_FILES: Final = sys.platform != "win32" and sys.byteorder == "little"


@dataclass(frozen=True)
class Place:
    """Bytes [offset, offset + count) of file number `file`."""

    file: int
    offset: int
    count: int


class KeptSums:
    """The CRC-32 of each whole block of a series' files, once it was found: 8 bytes for each 512 KiB.

    They hold for the files as they were when the series was opened. Bytes that change while size and time of change stay are sent
    with the sum of those that were there before, and refused by whoever reads them.
    """

    def __init__(self) -> None:
        self._of: dict[int, array[int]] = {}

    def of(self, number: int, file: Path) -> array[int]:
        """Return the sums of a file, by block, -1 where none is known; raises OSError."""
        found = self._of.get(number)
        if found is None:
            blocks = file.stat().st_size // _BLOCK_BYTES
            found = self._of.setdefault(number, array("q", [_UNKNOWN]) * blocks)
        return found


@dataclass(frozen=True)
class Piece:
    """Bytes [offset, offset + count) of an open file, of which some blocks' sums may be known."""

    file: io.FileIO
    offset: int
    count: int
    sums: array[int]


@dataclass(frozen=True)
class LyingFrames:
    """Frames to send from the files in which they lie, after what comes before them; whoever has them closes them."""

    count: int
    head: bytes
    pieces: Sequence[Piece]

    @property
    def nbytes(self) -> int:
        """Return the length of all that is sent."""
        return len(self.head) + sum(piece.count for piece in self.pieces)

    def close(self) -> None:
        """Close the files."""
        close(self.pieces)


def lying_frames(
    runs: Sequence[EvenRun] | None, reader: SeriesReader, start: int, stop: int, kept: KeptSums
) -> LyingFrames | None:
    """Return frames [start, stop), of which `runs` tells where they lie, as pieces of files, or None if they must be read; raises OSError."""
    shape = reader.shape
    if runs is None or any(first < stop and start < last for first, last in shape.missing):
        return None
    places = places_of(runs, shape.frame_bytes, start, stop)
    if places is None:
        return None
    pieces = opened(places, reader.files, kept)
    try:
        crc = checksum(pieces)
    except BaseException:
        close(pieces)
        raise
    if crc is None:
        close(pieces)
        return None
    head = raw_frames_head(start, (stop - start, shape.height, shape.width), shape.dtype, crc)
    return LyingFrames(stop - start, head, pieces)


def places_of(runs: Iterable[EvenRun], frame_bytes: int, start: int, stop: int) -> list[Place] | None:
    """Return where frames [start, stop) lie, in order, or None if one lies nowhere or they are too scattered to be worth it."""
    places: list[Place] = []
    at = start
    for run in sorted(runs, key=lambda run: run.frame):
        first, after = max(at, run.frame), min(stop, run.frame + run.count)
        if first >= after:
            continue
        if first > at:
            return None
        offset, count = run.offset + (first - run.frame) * run.stride, after - first
        if run.stride == frame_bytes:
            places.append(Place(run.file, offset, count * frame_bytes))
        elif frame_bytes < _LEAST_PIECE_BYTES:
            return None
        else:
            places += [Place(run.file, offset + n * run.stride, frame_bytes) for n in range(count)]
        at = after
    worth = sum(place.count for place in places) >= _LEAST_PIECE_BYTES * len(places)
    return places if at == stop and worth else None


def opened(places: Sequence[Place], files: Sequence[Path], kept: KeptSums) -> list[Piece]:
    """Return the places as pieces of files opened for this; each must be closed. Raises OSError."""
    pieces: list[Piece] = []
    try:
        for number, group in groupby(places, key=lambda place: place.file):
            file = files[number].open("rb", buffering=0)
            sums = kept.of(number, files[number])
            pieces += [Piece(file, place.offset, place.count, sums) for place in group]
    except BaseException:
        close(pieces)
        raise
    return pieces


def close(pieces: Iterable[Piece]) -> None:
    """Close the files."""
    for piece in pieces:
        piece.file.close()


def checksum(pieces: Iterable[Piece]) -> int | None:
    """Return the CRC-32 of all pieces one after the other, or None if a file ends before; raises OSError.

    Reads through one small buffer, which stays in the processor's cache: the bytes themselves are sent by the system. A
    block whose sum is known is not read.
    """
    crc = 0
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    for piece in pieces:
        for offset, count in _steps(piece):
            block = offset // _BLOCK_BYTES
            keeps = count == _BLOCK_BYTES and block < len(piece.sums)
            found = piece.sums[block] if keeps else _UNKNOWN
            if found == _UNKNOWN:
                if read_at(piece.file.fileno(), offset, buffer[:count]) != count:
                    return None
                found = isal_zlib.crc32(buffer[:count])
                if keeps:
                    piece.sums[block] = found
            crc = isal_zlib.crc32_combine(crc, found, count)
    return crc


def _steps(piece: Piece) -> Iterator[tuple[int, int]]:
    """Yield the blocks of a piece, and the parts of blocks at its ends."""
    at, end = piece.offset, piece.offset + piece.count
    while at < end:
        count = min(_BLOCK_BYTES - at % _BLOCK_BYTES, end - at)
        yield at, count
        at += count
