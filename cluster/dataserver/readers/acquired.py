"""Series that were acquired through a data server, or still are: chunk files read as they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from cluster.dataserver.live import archive
from cluster.dataserver.live.blocks import decode_chunk, encode_chunk
from cluster.dataserver.live.events import read_events
from cluster.dataserver.live.layout import ARCHIVE, ARRAY, STAGED, Record, chunk_name, read_record
from cluster.dataserver.live.presence import end_of, find, gaps, present
from cluster.dataserver.readers.interface import Frames, SeriesShape, values_from
from cluster.errors import ChecksumMismatch, Invalid, Unavailable
from cluster.protocol import SeriesEvent
from cluster.stored_frames import StoredRange

FORMAT: Final = "acquired zarr"


class AcquiredZarr:
    """The frames that are there now; a series that has grown since is opened anew."""

    def __init__(self, folder: Path) -> None:
        record = read_record(folder)
        if record is None:
            raise Invalid(f"{folder.name} is a Zarr that was not acquired through a data server")
        self.files = (folder, folder / record.array, folder / STAGED)
        self._folder = folder
        self._record = record
        self._layout = record.layout
        self._found = find(folder, record)
        self._events = read_events(folder)
        self.shape = self._shape()

    def read(self, start: int, stop: int) -> tuple[Frames, tuple[int, ...]]:
        """Return frames; those of a chunk that is damaged are black and listed."""
        frames = np.zeros((stop - start, self._layout.height, self._layout.width), self._layout.dtype)
        lost: list[int] = []
        for chunk in self._layout.chunks(start, stop):
            first, last = self._layout.bounds(chunk)
            begin, end = max(start, first), min(stop, last)
            try:
                found = self._chunk(chunk)
            except ChecksumMismatch:
                lost += range(begin, end)
                continue
            if found is not None:
                frames[begin - start : end - start] = found[begin - first : end - first]
        return frames, tuple(lost)

    def stored(self, start: int, stop: int) -> StoredRange:
        """Return the chunks' bytes; whether they are damaged is for the one to see who unpacks them."""
        layout, blocks, lost = self._layout, list[tuple[int, bytes]](), list[int]()
        for chunk in layout.chunks(start, stop):
            first, last = layout.bounds(chunk)
            try:
                data = self._stored(chunk)
            except ChecksumMismatch:
                lost += range(max(start, first), min(stop, last))
                continue
            if data is not None:
                blocks.append((first, data))
        size = (layout.height, layout.width, layout.dtype, layout.chunk_frames)
        return StoredRange(start, stop, *size, tuple(blocks), tuple(lost))

    def events(self) -> list[SeriesEvent]:
        """Return the events that were there when it was opened."""
        return self._events

    def close(self) -> None:
        """Nothing is kept open."""

    def _shape(self) -> SeriesShape:
        record, layout = self._record, self._layout
        there = present(layout, self._found.whole, self._found.staged)
        frames = record.frames if record.complete else end_of(there)
        return SeriesShape(
            format=FORMAT,
            height=layout.height,
            width=layout.width,
            dtype=layout.dtype,
            frames=frames,
            missing=tuple(self._lost(record, there, frames)),
            metadata=values_from("acquisition", record.created.metadata),
            events=len(self._events),
            complete=record.complete,
            identity=record.identity,
            stored_bytes=self._found.bytes or archive.size(self._folder),
        )

    def _lost(self, record: Record, there: list[tuple[int, int]], frames: int) -> list[tuple[int, int]]:
        """Return what never came, and what came and is gone."""
        if record.array == ARCHIVE:
            return list(record.missing)
        absent = [*record.missing, *gaps(there, frames)]
        numbers = sorted(absent)
        joined: list[tuple[int, int]] = []
        for start, stop in numbers:
            if joined and joined[-1][1] >= start:
                joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
            else:
                joined.append((start, stop))
        return joined

    def _chunk(self, chunk: int) -> Frames | None:
        """Return the frames of a chunk, or None if none of them ever came."""
        staged = self._staged(chunk)
        if staged is not None:
            return staged
        data = self._whole(chunk)
        return (
            None if data is None else decode_chunk(self._layout, data, f"{self._folder.name}, chunk {chunk}")
        )

    def _stored(self, chunk: int) -> bytes | None:
        """Return a chunk as it lies, or as it would lie if all of its frames had come; None if none ever came."""
        staged = self._staged(chunk)
        return self._whole(chunk) if staged is None else b"".join(encode_chunk(self._layout, staged))

    def _staged(self, chunk: int) -> Frames | None:
        """Return the frames of a chunk that came in pieces, unless it is whole."""
        pieces = self._found.staged.get(chunk)
        try:
            return None if pieces is None else pieces.frames()
        except FileNotFoundError:  # it has become whole since
            return None

    def _whole(self, chunk: int) -> bytes | None:
        """Return the bytes of a whole chunk, or None if none of its frames ever came."""
        if self._record.array == ARRAY and chunk not in self._found.whole and chunk not in self._found.staged:
            return None
        try:
            if self._record.array == ARCHIVE:
                return archive.chunk_bytes(self._folder, self._layout, chunk)
            return (self._folder / ARRAY / chunk_name(chunk)).read_bytes()
        except FileNotFoundError as error:
            if self._record.array == ARCHIVE:
                self._check_never_there(chunk)
                return None
            if read_record(self._folder) != self._record:
                raise Unavailable(
                    f"{self._folder.name} was archived or completed just now; ask again"
                ) from error
            raise ChecksumMismatch(f"chunk {chunk} of {self._folder.name} is gone") from error

    def _check_never_there(self, chunk: int) -> None:
        """An archive holds no chunk of which every frame is missing; any other that is absent was lost."""
        first, last = self._layout.bounds(chunk)
        last = min(last, self._record.frames)
        if not any(start <= first and last <= stop for start, stop in self._record.missing):
            raise ChecksumMismatch(f"chunk {chunk} of {self._folder.name} is gone")


def open_acquired(folder: Path) -> AcquiredZarr:
    """Open a series that was acquired through a data server; raises as the reader does."""
    return AcquiredZarr(folder)
