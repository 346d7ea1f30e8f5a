"""A series that a parser has open: one more `SeriesReader`. Frames that lie in files as they are served are read here."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.dataserver.parsing import wire
from cluster.dataserver.parsing.process import ParserProcess
from cluster.dataserver.parsing.wire import Opened
from cluster.dataserver.readers.interface import Frames, Progress, Run, SeriesReader, SeriesShape
from cluster.errors import Unavailable
from cluster.frame_runs import open_for_runs, read_runs
from cluster.protocol import SeriesEvent

if TYPE_CHECKING:
    from cluster.dataserver.parsing.parsers import Parsers


class ParsedSeries:
    """An open series whose files another process understands, in which it is open by its number."""

    written = False

    def __init__(
        self, parsers: Parsers, number: int, path: Path, found: Opened, process: ParserProcess
    ) -> None:
        self._parsers = parsers
        self._number = number
        self._path = path
        self._found = found
        self._open_in = [process]
        self._opening = threading.Lock()
        self._flat = _FlatFrames(found) if found.runs is not None and sys.byteorder == "little" else None

    @property
    def shape(self) -> SeriesShape:
        """Return what the series is."""
        return self._found.shape

    @property
    def files(self) -> Sequence[Path]:
        """Return every file whose bytes decide the frames."""
        return self._found.files

    def runs(self) -> tuple[Run, ...] | None:
        """Return where the whole frames lie, or None if these do not lie as they are served."""
        return self._found.runs

    def read(self, start: int, stop: int) -> tuple[Frames, tuple[int, ...]]:
        """Return frames [start, stop) and the numbers of those that could not be read; raises as `Parsers.run` does."""
        shape = self._found.shape
        frames = np.empty((stop - start, shape.height, shape.width), shape.dtype)
        if self._flat is not None:
            return frames, self._flat.read(start, frames)
        question = {"do": "read", "start": start, "stop": stop}
        answer = self._ask(question, self._parsers.limits.reading_s(frames.nbytes), frames)
        return frames, tuple(answer["missing"])

    def events(self) -> list[SeriesEvent]:
        """Return the acquisition's events."""
        if not self._found.shape.events:
            return []
        return wire.as_events(self._ask({"do": "events"}, self._parsers.limits.base_s)["events"])

    def close(self) -> None:
        """Let go of the files, here and there."""
        if self._flat is not None:
            self._flat.close()
        with self._opening:
            processes, self._open_in = self._open_in, []
        for process in processes:
            process.let_go(self._number)

    def _ask(self, question: dict[str, Any], limit_s: float, into: Frames | None = None) -> wire.Message:
        target = None if into is None else into.reshape(-1).view(np.uint8).data
        whole = {**question, "series": self._number, "path": str(self._path)}

        def asking(process: ParserProcess) -> wire.Message:
            self._ensure_open(process)
            return process.ask(whole, limit_s=limit_s, into=target)

        return self._parsers.run(self._path, asking)

    def _ensure_open(self, process: ParserProcess) -> None:
        """Open it in a process that took the place of the one that had it; it must still be the same series."""
        with self._opening:
            if process in self._open_in:
                return
            again = _opened(self._parsers, process, self._number, self._path, written=self.written)
            self._open_in = [one for one in self._open_in if not one.is_gone] + [process]
        if (again.shape, again.files) != (self._found.shape, self._found.files):
            raise Unavailable(f"{self._path.name} changed just now; ask again")


class WrittenSeries(ParsedSeries):
    """A series that another program may still be writing, as it was when it was opened."""

    written = True

    def progress(self, since: int) -> Progress:
        """Return how far the series had come; frames before `since` are known to be whole."""
        limit_s = self._parsers.limits.opening_s(self._path)
        return wire.as_progress(self._ask({"do": "progress", "since": since}, limit_s)["progress"])

    def renewed(self) -> SeriesReader:
        """Return the series as it is now, by what its reader knows of it; raises as `Parsers.open_written` does."""
        number = self._parsers.number()
        question = {"do": "renew", "series": number, "known": self._number, "path": str(self._path)}
        limit_s = self._parsers.limits.opening_s(self._path)

        def renewing(process: ParserProcess) -> tuple[Opened, ParserProcess]:
            self._ensure_open(process)
            return wire.as_opened(process.ask({**question, "written": True}, limit_s=limit_s)), process

        found, process = self._parsers.run(self._path, renewing)
        return _as_found(self._parsers, number, self._path, found, process)


class _FlatFrames:
    """The files in which frames lie as they are served, opened when the first is read."""

    def __init__(self, found: Opened) -> None:
        self._found = found
        self._opening = threading.Lock()
        self._handles: dict[int, int] | None = None
        self._reading: contextlib.AbstractContextManager[object] = (
            threading.Lock() if sys.platform == "win32" else contextlib.nullcontext()
        )

    def read(self, start: int, frames: Frames) -> tuple[int, ...]:
        """Fill an array from frame `start` on; return the numbers of those that no file holds."""
        assert self._found.runs is not None
        with self._opening:
            if self._handles is None:
                self._handles = self._opened()
            handles = self._handles
        with self._reading:
            there = read_runs(self._found.runs, handles, start, frames)
        return tuple(int(start + number) for number in np.flatnonzero(~there))

    def _opened(self) -> dict[int, int]:
        """Return a descriptor of each file that holds frames, by its number; a description is none of them."""
        handles: dict[int, int] = {}
        try:
            for number in {run.file for run in self._found.runs or ()}:
                handles[number] = open_for_runs(self._found.files[number])
        except BaseException:
            for handle in handles.values():
                os.close(handle)
            raise
        return handles

    def close(self) -> None:
        """Let go of the files."""
        with self._opening:
            handles, self._handles = self._handles or {}, {}
        for handle in handles.values():
            os.close(handle)


def open_parsed(parsers: Parsers, path: Path, *, written: bool) -> SeriesReader:
    """Have a series opened; raises as `Parsers.open` does."""
    number = parsers.number()

    def opening(process: ParserProcess) -> tuple[Opened, ParserProcess]:
        return _opened(parsers, process, number, path, written=written), process

    found, process = parsers.run(path, opening)
    return _as_found(parsers, number, path, found, process)


def _as_found(
    parsers: Parsers, number: int, path: Path, found: Opened, process: ParserProcess
) -> SeriesReader:
    kind = WrittenSeries if found.grows else ParsedSeries
    return kind(parsers, number, path, found, process)


def _opened(parsers: Parsers, process: ParserProcess, number: int, path: Path, *, written: bool) -> Opened:
    question = {"do": "open", "series": number, "path": str(path), "written": written}
    return wire.as_opened(process.ask(question, limit_s=parsers.limits.opening_s(path)))
