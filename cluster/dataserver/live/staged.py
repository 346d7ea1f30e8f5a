"""Frames that arrived in pieces of a chunk: a file of checksummed pieces, each on the disk before it is acknowledged.

A piece is `MAGIC, first frame, frames, crc32c of the pixels` and the pixels. The first piece that is cut short or
damaged ends the file: nothing behind it was ever acknowledged, for pieces are written one after the other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from cluster.blocks import crc32c
from cluster.dataserver.live.blocks import Frames, as_frames
from cluster.dataserver.live.durable import append_synced
from cluster.dataserver.live.layout import Layout

_PIECE: Final = struct.Struct("<4sQI4s")
_MAGIC: Final = b"C1PC"


@dataclass(frozen=True)
class Piece:
    """Frames [start, stop), whose pixels lie at an offset of the file."""

    start: int
    stop: int
    offset: int


class StagedChunk:
    """The pieces of one chunk. Not for use from several threads."""

    def __init__(self, path: Path, layout: Layout, chunk: int) -> None:
        self._path = path
        self._layout = layout
        self._start, self._stop = layout.bounds(chunk)
        self._pieces: list[Piece] = []
        self._end = 0
        self.has = np.zeros(layout.chunk_frames, bool)
        for piece in self._found():
            self._remember(piece)

    @property
    def is_whole(self) -> bool:
        """Return whether every frame of the chunk is there."""
        return bool(self.has.all())

    def append(self, start: int, frames: Frames) -> None:
        """Write frames, none of which is there; returns once they are on the disk."""
        little = np.ascontiguousarray(frames, self._layout.dtype.newbyteorder("<"))
        pixels = little.tobytes()
        head = _PIECE.pack(_MAGIC, start, len(frames), crc32c(pixels))
        append_synced(self._path, [head, pixels], self._end)
        self._remember(Piece(start, start + len(frames), self._end + _PIECE.size))

    def frames(self) -> Frames:
        """Return all frames of the chunk; those that are not there are black."""
        whole = np.zeros(
            (self._layout.chunk_frames, self._layout.height, self._layout.width), self._layout.dtype
        )
        if not self._pieces:
            return whole
        with self._path.open("rb") as file:
            for piece in self._pieces:
                file.seek(piece.offset)
                pixels = file.read((piece.stop - piece.start) * self._layout.frame_bytes)
                whole[piece.start - self._start : piece.stop - self._start] = as_frames(self._layout, pixels)
        return whole

    def _remember(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._end = piece.offset + (piece.stop - piece.start) * self._layout.frame_bytes
        self.has[piece.start - self._start : piece.stop - self._start] = True

    def _found(self) -> Iterator[Piece]:
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            while (piece := self._next(file)) is not None:
                yield piece

    def _next(self, file: BinaryIO) -> Piece | None:
        head = file.read(_PIECE.size)
        if len(head) < _PIECE.size:
            return None
        magic, start, count, checksum = _PIECE.unpack(head)
        if magic != _MAGIC or not self._start <= start < start + count <= self._stop:
            return None
        offset = file.tell()
        pixels = file.read(count * self._layout.frame_bytes)
        if len(pixels) < count * self._layout.frame_bytes or crc32c(pixels) != checksum:
            return None
        return Piece(start, start + count, offset)


def runs(wanted: Sequence[bool] | np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[tuple[int, int]]:
    """Return the half-open ranges where something is true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], wanted, [False])).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
