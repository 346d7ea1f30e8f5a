"""A series that grows: frames are appended in any order, acknowledged when they are on the disk, and never rewritten."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from cluster.blocks import sealed
from cluster.dataserver.live import archive
from cluster.dataserver.live.blocks import Frames, decode_chunk, encode_chunk
from cluster.dataserver.live.durable import append_synced, is_leftover, remove, write_whole
from cluster.dataserver.live.events import read_events
from cluster.dataserver.live.layout import (
    ARCHIVE,
    ARRAY,
    DOCUMENT,
    EVENTS,
    STAGED,
    Record,
    array_document,
    chunk_name,
    group_document,
    read_record,
    staged_name,
)
from cluster.dataserver.live.noise_steps import rounded
from cluster.dataserver.live.presence import Ranges, end_of, find, gaps, present, said
from cluster.dataserver.live.staged import StagedChunk, runs
from cluster.errors import ChecksumMismatch, Conflict, Invalid
from cluster.protocol import Appended, SeriesEvent

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]
_SHAPE_EVERY_S: Final = 2.0
_MOST_FRAMES: Final = 2**31 - 1


class AcquiredSeries:
    """The one writer of a series' folder; safe to use from several threads, which write different chunks at once."""

    def __init__(self, folder: Path, path: str) -> None:
        record = read_record(folder)
        if record is None:
            raise Invalid(f"{path} was not acquired through this server, which adds nothing to it")
        self.folder = folder
        self.path = path
        self._record = record
        self._layout = record.layout
        _tidy(folder, record)
        found = find(folder, record)
        self._whole, self._staged = found.whole, found.staged
        self._free = threading.Condition()
        self._busy: set[int] = set()
        self._alone = False
        self._touched_ns = folder.stat().st_mtime_ns
        self._shape_at = time.monotonic()
        if record.complete:
            self._fold_all()

    @property
    def record(self) -> Record:
        """Return what the folder says of the series."""
        return self._record

    def append(self, start: int, frames: Frames, compressed: bytes | None = None) -> Appended:
        """Add frames from `start` on; returns once they are on the disk. `compressed` are the same frames, as blosc made them.

        Raises
        ------
        Conflict
            If some are there already and differ (names them), or the series is complete.
        Invalid
            If the frames are not of this series' shape.
        """
        stop = start + len(frames)
        self._check(frames, stop)
        lossy = self._record.created.lossy
        if lossy:
            frames, compressed = rounded(frames, lossy), None
        chunks = self._layout.chunks(start, stop)
        with self._claimed(chunks):
            differing: Ranges = []
            new = {chunk: self._new_frames(chunk, start, frames, differing) for chunk in chunks}
            if differing:
                raise Conflict(
                    f"frames {said(differing)} of {self.path} are there already, with other pixels; nothing is written over",
                    frames=differing[:1000],
                )
            count = sum(int(wanted.sum()) for wanted in new.values())
            if count and self._record.complete:
                raise Conflict(f"{self.path} is complete: frames {said([(start, stop)])} came too late")
            for chunk, wanted in new.items():
                if wanted.any():
                    self._store(chunk, start, frames, wanted, compressed)
            if count:
                self._touch()
        self._show_shape()
        return Appended(start=start, stop=stop, new=count)

    def complete(self, frames: int | None) -> None:
        """Say that no more frames come. Those of `frames` that are not there are listed as missing.

        Raises
        ------
        Conflict
            If more frames than that are there, or it was completed with another number.
        """
        with self._claimed_alone():
            record = self._record
            if record.complete:
                if frames not in {None, record.frames}:
                    raise Conflict(f"{self.path} was completed with {record.frames} frames, not {frames}")
                return
            there = present(self._layout, self._whole, self._staged)
            end = end_of(there)
            total = end if frames is None else frames
            if total < end:
                raise Conflict(f"{self.path} has frames up to {end - 1}; it cannot be complete with {total}")
            write_whole(self.folder / ARRAY / DOCUMENT, [array_document(self._layout, total)])
            done = replace(record, complete=True, frames=total, missing=tuple(gaps(there, total)))
            self._write_record(done)  # before the pieces become chunks, which do not tell what is missing
            self._fold_all()
            self._touch()

    def add_events(self, events: Sequence[SeriesEvent]) -> int:
        """Add events; those that are there already are not added again. Returns how many are new."""
        with self._claimed_alone():
            known = read_events(self.folder)
            new = [event for event in events if event not in known]
            if new:
                lines = "".join(json.dumps(event.model_dump()) + "\n" for event in new).encode()
                file = self.folder / EVENTS
                append_synced(file, [lines], _whole_lines(file))
                self._touch()
            return len(new)

    def archive(self) -> None:
        """Put many chunks into each file, compare all of them, and only then let go of the single ones.

        Raises
        ------
        Conflict
            If the series still grows, or a chunk is damaged.
        """
        with self._claimed_alone():
            if not self._record.complete:
                raise Conflict(f"{self.path} still grows; complete it first")
            if self._record.array == ARCHIVE:
                return
            archive.make(self.folder, self._layout, self._record.frames, self._whole)
            self._write_record(replace(self._record, array=ARCHIVE))
            self._whole = set()
            _tidy(self.folder, self._record)
            self._touch()

    # --- appending ---

    def _check(self, frames: Frames, stop: int) -> None:
        layout = self._layout
        if frames.ndim != 3 or frames.shape[1:] != (layout.height, layout.width):
            raise Invalid(
                f"{self.path} has frames of {layout.height}×{layout.width}, not {frames.shape[1:]}",
                field="shape",
            )
        if frames.dtype.name != layout.dtype.name:
            raise Invalid(
                f"{self.path} has frames of {layout.dtype.name}, not {frames.dtype.name}", field="dtype"
            )
        if not len(frames) or stop > _MOST_FRAMES:
            raise Invalid(
                f"an append to {self.path} must hold frames, below number {_MOST_FRAMES}", field="start"
            )

    def _new_frames(self, chunk: int, start: int, frames: Frames, differing: Ranges) -> Mask:
        """Return which frames of a chunk are to be stored; add those that are there with other pixels to `differing`."""
        first, last = self._layout.bounds(chunk)
        asked = np.zeros(self._layout.chunk_frames, bool)
        asked[max(start, first) - first : min(start + len(frames), last) - first] = True
        there = asked & self._has(chunk)
        if there.any():
            numbers = np.flatnonzero(there)
            same = _same(self._frames_of(chunk)[numbers], frames[first + numbers - start])
            there_differing = np.zeros_like(there)
            there_differing[numbers[~same]] = True
            differing += [(first + begin, first + end) for begin, end in runs(there_differing)]
        return asked & ~there

    def _has(self, chunk: int) -> Mask:
        if chunk in self._staged:
            return self._staged[chunk].has.copy()
        has = np.full(self._layout.chunk_frames, chunk in self._whole)
        first, last = self._layout.bounds(chunk)
        if self._record.complete:
            has[:] = True
            for start, stop in [*self._record.missing, (self._record.frames, _MOST_FRAMES)]:
                has[max(start, first) - first : max(min(stop, last) - first, 0)] = False
        return has

    def _frames_of(self, chunk: int) -> Frames:
        if chunk in self._staged:
            return self._staged[chunk].frames()
        try:
            if self._record.array == ARCHIVE:
                data = archive.chunk_bytes(self.folder, self._layout, chunk)
            else:
                data = (self.folder / ARRAY / chunk_name(chunk)).read_bytes()
            return decode_chunk(self._layout, data, f"{self.path}, chunk {chunk}")
        except (ChecksumMismatch, FileNotFoundError) as error:
            bounds = [self._layout.bounds(chunk)]
            raise Conflict(
                f"frames {said(bounds)} of {self.path} cannot be compared: they are damaged"
            ) from error

    def _store(
        self,
        chunk: int,
        start: int,
        frames: Frames,
        wanted: Mask,
        compressed: bytes | None,
    ) -> None:
        first, last = self._layout.bounds(chunk)
        if start <= first and last <= start + len(frames):
            as_it_came = compressed is not None and len(frames) == self._layout.chunk_frames
            parts = (
                sealed(compressed)
                if as_it_came and compressed
                else encode_chunk(self._layout, frames[first - start : last - start])
            )
            self._write_chunk(chunk, parts)
            return
        staged = self._staged.get(chunk)
        if staged is None:
            staged = StagedChunk(self.folder / STAGED / staged_name(chunk), self._layout, chunk)
        for run_start, run_stop in runs(wanted):
            staged.append(first + run_start, frames[first + run_start - start : first + run_stop - start])
            with self._free:
                self._staged[chunk] = staged
        if staged.is_whole:
            self._write_chunk(chunk, encode_chunk(self._layout, staged.frames()))

    def _write_chunk(self, chunk: int, parts: list[bytes]) -> None:
        write_whole(self.folder / ARRAY / chunk_name(chunk), parts)
        with self._free:
            self._whole.add(chunk)
            staged = self._staged.pop(chunk, None)
        if staged is not None:
            remove(self.folder / STAGED / staged_name(chunk))

    def _fold_all(self) -> None:
        for chunk, staged in sorted(self._staged.items()):
            self._write_chunk(chunk, encode_chunk(self._layout, staged.frames()))

    # --- who may write when ---

    @contextlib.contextmanager
    def _claimed(self, chunks: range) -> Iterator[None]:
        with self._free:
            self._free.wait_for(lambda: not self._alone and self._busy.isdisjoint(chunks))
            self._busy.update(chunks)
        try:
            yield
        finally:
            with self._free:
                self._busy.difference_update(chunks)
                self._free.notify_all()

    @contextlib.contextmanager
    def _claimed_alone(self) -> Iterator[None]:
        with self._free:
            self._free.wait_for(lambda: not self._alone)
            self._alone = True
            self._free.wait_for(lambda: not self._busy)
        try:
            yield
        finally:
            with self._free:
                self._alone = False
                self._free.notify_all()

    # --- what others see ---

    def _write_record(self, record: Record) -> None:
        write_whole(self.folder / DOCUMENT, [group_document(self.folder.name, record)])
        self._record = record

    def _touch(self) -> None:
        """Give the folder a time that it never had: readers look again when it changes."""
        with self._free, contextlib.suppress(OSError):
            self._touched_ns = max(time.time_ns(), self._touched_ns + 1000)
            os.utime(self.folder, ns=(self._touched_ns, self._touched_ns))

    def _show_shape(self) -> None:
        """Now and then tell other programs, which go by the array's shape, how far it has come."""
        with self._free:
            now = time.monotonic()
            if now - self._shape_at < _SHAPE_EVERY_S or self._record.complete or self._alone:
                return
            self._shape_at = now
            # within the lock, so that it cannot come after the final shape; it is once in a while
            end = end_of(present(self._layout, self._whole, self._staged))
            shown = max(end, self._record.created.frames or 0)
            with contextlib.suppress(OSError):
                write_whole(self.folder / ARRAY / DOCUMENT, [array_document(self._layout, shown)])


def _tidy(folder: Path, record: Record) -> None:
    """Remove what a crash left: half-written files, pieces of chunks that are whole, an array that is not in use."""
    for place in (folder, folder / ARRAY, folder / STAGED, folder / ARCHIVE):
        with contextlib.suppress(FileNotFoundError), os.scandir(place) as entries:
            for entry in [found for found in entries if is_leftover(found.name)]:
                remove(place / entry.name)
    whole = find(folder, record).whole
    for chunk in whole:
        file = folder / STAGED / staged_name(chunk)
        if file.exists():
            remove(file)
    archive.remove_unused(folder, record.array)


def _same(kept: Frames, sent: Frames) -> Mask:
    """Return which frames are the same to the bit, which of floating-point numbers `==` does not say."""
    a, b = (np.ascontiguousarray(found).view(np.uint8).reshape(len(found), -1) for found in (kept, sent))
    same: Mask = (a == b).all(axis=1)
    return same


def _whole_lines(file: Path) -> int:
    """Return where the last whole line of a file ends."""
    try:
        return file.read_bytes().rfind(b"\n") + 1
    except FileNotFoundError:
        return 0
