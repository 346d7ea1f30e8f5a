"""Disks that may end the process at any point of a write, be full for a while, and keep what was synced.

The journal is the real one, on real SQLite; only its thread is missing: it serves from the event loop, some time after
it was asked, so that many writers come together in one transaction as they do in a busy cluster.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from random import Random
from typing import Any

from cluster.errors import OutOfSpace
from cluster.scheduler.blobs import Blob
from cluster.scheduler.journal import Journal
from tests.simulation.virtual_time import Crashed, Process

INLINE_BYTES = 2500  # small, so that results of both kinds occur
Label = Callable[[str], None]


class SimulatedJournal(Journal):
    """The scheduler's journal, served by the event loop of the process that owns it."""

    def __init__(self, folder: Path, owner: Process, chance: Random, at: Label) -> None:
        self._owner = owner
        self._chance = chance
        self._waiting: list[Any] = []
        self._due: asyncio.TimerHandle | None = None
        super().__init__(folder, at=at)

    def _started(self) -> threading.Thread:
        return threading.Thread(target=lambda: None)  # never started

    def _put(self, item: Any) -> None:
        if not self._owner.alive:
            raise Crashed
        closed = self._closed
        if closed:
            super()._put(item)
        self._waiting.append(item)
        if self._due is None:
            loop = asyncio.get_running_loop()
            slow = self._chance.random() < 0.02
            self._due = loop.call_later(self._chance.uniform(0.0, 2.0 if slow else 0.01), self.flush)

    def read_now(self, query: Any) -> Any:
        if not self._owner.alive:
            raise Crashed
        self.flush()
        return query(self._connection)

    def flush(self) -> None:
        """Do what was asked for so far."""
        if self._due is not None:
            self._due.cancel()
        batch, self._waiting, self._due = self._waiting, [], None
        if self._owner.alive:
            self._serve(batch)

    def close(self) -> None:
        if self._closed:
            return
        self.flush()
        self.abandon()

    def abandon(self) -> None:
        """Let go of the files as the system does when a process dies: what is not committed is lost."""
        self._closed = True
        self._connection.close()
        self._lock.release()

    def image(self, folder: Path) -> None:
        """Copy what is on the disk at this moment, while the process may be in the middle of a write."""
        folder.mkdir()
        for path in self.folder.glob("journal.sqlite*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, folder / path.name)


class SimulatedBlobs:
    """`Blobs` in memory: a write, a sync, a rename, and a crash or a full disk wherever the world says so."""

    def __init__(self, files: dict[str, bytes], at: Label) -> None:
        self._files = files
        self._at = at

    def store(self, job_id: str, task_id: int, attempt: int, body: bytes) -> Blob:
        if len(body) <= INLINE_BYTES:
            return Blob(body=body)
        name = f"{job_id}/{task_id}.{attempt}.result"
        try:
            self._at("blob begun")
        except sqlite3.OperationalError as error:
            raise OutOfSpace(f"{name}: {error}") from error
        self._files[name + ".tmp"] = body[: len(body) // 2]
        self._at("blob half written")
        self._files[name + ".tmp"] = body
        self._at("blob written")
        self._files[name] = self._files.pop(name + ".tmp", body)
        self._at("blob in place")
        return Blob(file=name)

    def load(self, blob: Blob) -> bytes:
        return blob.body if blob.body is not None else self._files[str(blob.file)]

    def drop(self, blob: Blob) -> None:
        if blob.file is not None:
            self._files.pop(blob.file, None)

    def sweep(self, referred: Collection[str]) -> int:
        orphans = [name for name in self._files if name not in referred]
        for name in orphans:
            del self._files[name]
        return len(orphans)
