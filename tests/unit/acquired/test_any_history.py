"""Appends, duplicates, conflicts, crashes and restarts in any order: what is on the disk is what was acknowledged."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.dataserver.live.acquisitions import Acquisitions
from cluster.dataserver.live.series import AcquiredSeries
from cluster.dataserver.readers.acquired import AcquiredZarr
from cluster.errors import Conflict
from cluster.protocol import NewSeries
from cluster.stored_frames import decode, encode_stored

HEIGHT, WIDTH, CHUNK, MOST = 3, 4, 4, 18


class Crash(BaseException):
    """The process is gone: nothing that follows reaches the disk."""


class FailingDisk:
    """Counts what reaches the disk, and lets the process die at a chosen point; after that nothing is written."""

    WATCHED = (
        (os, "fsync"),
        (os, "write"),
        (os, "replace"),
        (os, "rename"),
        (os, "unlink"),
        (os, "utime"),
        (os, "mkdir"),
    )

    def __init__(self) -> None:
        self.left: int | None = None
        self._real: dict[str, Any] = {}

    def __enter__(self) -> Self:
        for module, name in self.WATCHED:
            self._real[name] = getattr(module, name)
            setattr(module, name, self._counted(name))
        return self

    def __exit__(self, *_: object) -> None:
        for module, name in self.WATCHED:
            setattr(module, name, self._real[name])

    def _counted(self, name: str) -> Any:
        real = self._real[name]

        def call(*arguments: Any, **named: Any) -> Any:
            if self.left is not None:
                if self.left <= 0:
                    if name == "write" and self.left == 0:  # a write that is torn
                        self.left = -1
                        real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                    self.left = -1
                    raise Crash(name)
                self.left -= 1
            return real(*arguments, **named)

        return call


def frame(number: int, version: int = 0) -> np.ndarray[Any, Any]:
    return np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) + 100 * number + 7 * version + 1


def frames(start: int, count: int, version: int = 0) -> np.ndarray[Any, Any]:
    return np.stack([frame(start + offset, version) for offset in range(count)])


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "cell.zarr"
        self.there: set[int] = set()
        self.maybe: set[int] = set()  # sent, and not acknowledged when the process died
        self.completed: int | None = None
        self.series: AcquiredSeries

    @initialize()
    def create(self) -> None:
        wanted = NewSeries(height=HEIGHT, width=WIDTH, chunk_frames=CHUNK)
        assert Acquisitions([self.root], reserve_bytes=0).create("cell.zarr", wanted)
        self.reopen()

    def reopen(self) -> None:
        self.series = AcquiredSeries(self.folder, "cell.zarr")
        self._settle()

    def _settle(self) -> None:
        """What was not acknowledged may or may not be there; what is there is true."""
        reader = AcquiredZarr(self.folder)
        lost = {n for first, last in reader.shape.missing for n in range(first, last)}
        found = set(range(reader.shape.frames)) - lost
        assert self.there <= found <= self.there | self.maybe
        self.there, self.maybe = found, set()
        if reader.shape.complete and self.completed is None:
            self.completed = reader.shape.frames

    @rule(start=st.integers(0, MOST - 1), count=st.integers(1, 10))
    def append(self, start: int, count: int) -> None:
        asked = set(range(start, start + count))
        if self.completed is not None and asked - self.there:
            with pytest.raises(Conflict, match="complete"):
                self.series.append(start, frames(start, count))
            return

        done = self.series.append(start, frames(start, count))

        assert (done.start, done.stop, done.new) == (start, start + count, len(asked - self.there))
        self.there |= asked

    @rule(start=st.integers(0, MOST - 1), count=st.integers(1, 10))
    def append_other_pixels(self, start: int, count: int) -> None:
        asked = set(range(start, start + count))
        if not asked & self.there:
            return
        with pytest.raises(Conflict, match="other pixels") as refusal:
            self.series.append(start, frames(start, count, version=1))
        named = {n for first, last in refusal.value.facts["frames"] for n in range(first, last)}
        assert named == asked & self.there

    @rule(start=st.integers(0, MOST - 1), count=st.integers(1, 10), steps=st.integers(0, 12))
    def die_while_appending(self, start: int, count: int, steps: int) -> None:
        if self.completed is not None:
            return
        with FailingDisk() as disk:
            disk.left = steps
            try:
                self.series.append(start, frames(start, count))
            except Crash:
                self.maybe = set(range(start, start + count)) - self.there
            else:
                self.there |= set(range(start, start + count))
        self.reopen()

    @precondition(lambda self: self.completed is None)
    @rule(beyond=st.integers(0, 5), steps=st.none() | st.integers(0, 20))
    def complete(self, beyond: int, steps: int | None) -> None:
        total = max(self.there, default=-1) + 1 + beyond
        with FailingDisk() as disk:
            disk.left = steps
            try:
                self.series.complete(total)
            except Crash:
                pass
            else:
                self.completed = total
        self.reopen()

    @precondition(lambda self: self.completed is not None)
    @rule(steps=st.none() | st.integers(0, 40))
    def archive(self, steps: int | None) -> None:
        with FailingDisk() as disk:
            disk.left = steps
            with contextlib.suppress(Crash):
                self.series.archive()
        self.reopen()

    @rule()
    def restart(self) -> None:
        self.reopen()

    @invariant()
    def the_folder_alone_says_what_is_there(self) -> None:
        if not self.folder.exists():
            return
        shape = (reader := AcquiredZarr(self.folder)).shape
        lost = {n for first, last in shape.missing for n in range(first, last)}
        assert set(range(shape.frames)) - lost == self.there
        end = max(self.there, default=-1) + 1
        assert shape.frames == (end if self.completed is None else self.completed)
        assert shape.complete == (self.completed is not None)
        if shape.frames:
            read, unreadable = reader.read(0, shape.frames)
            assert unreadable == ()
            for number in range(shape.frames):
                expected = frame(number) if number in self.there else np.zeros((HEIGHT, WIDTH))
                assert np.array_equal(read[number], expected)
            sent = decode(b"".join(encode_stored(reader.stored(1, shape.frames))))
            assert (sent.start, sent.missing) == (1, ())
            assert np.array_equal(sent.frames, read[1:])

    def teardown(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=50,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
