"""Results of tasks as they came in, kept until their job's file holds every row of them (`pruning`).

A small one lives in the journal and is as durable as its commit. A large one is a file: written under a temporary
name, synced, renamed, its folder synced, and only then does the journal refer to it. A file nobody refers to is left
over from a commit that was never acknowledged; it is removed at start.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster import held_files
from cluster.results.publish import clear_errors, publish, sync_folder, temporary_for

INLINE_BYTES: Final = 32 << 10


@dataclass(frozen=True)
class Blob:
    """A stored result: inline, or the name of its file in the store; neither once the result file has its rows."""

    file: str | None = None
    body: bytes | None = None

    @property
    def is_pruned(self) -> bool:
        """Return whether it was let go."""
        return self.file is None and self.body is None


class Blobs:
    """The result files under a folder, one sub-folder a job. `at` is told where a write is, for tests."""

    def __init__(self, folder: Path, *, at: Callable[[str], None] = lambda _: None) -> None:
        self._folder = folder
        self._at = at
        self._counting = threading.Lock()
        self._bytes = 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def size_bytes(self) -> int:
        """Return the size of the files, as counted since `sweep`."""
        return self._bytes

    def store(self, job_id: str, task_id: int, attempt: int, body: bytes) -> Blob:
        """Return a blob that is on the disk, or small enough to go there with its commit.

        Raises
        ------
        OutOfSpace
            If the disk is full; nothing is left of it then.
        """
        if len(body) <= INLINE_BYTES:
            return Blob(body=body)
        name = f"{job_id}/{task_id}.{attempt}.result"
        path = self._folder / name
        self._make_folder(path.parent)
        temporary = temporary_for(path, if_exists="replace")
        try:
            with clear_errors(path):
                temporary.write_bytes(body)
            self._at("blob written")
            replaced = size_of(path)
            publish(temporary, path, if_exists="replace")
            self._at("blob in place")
            self._count(len(body) - replaced)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return Blob(file=name)

    def load(self, blob: Blob) -> bytes:
        """Return the bytes of a blob."""
        return blob.body if blob.body is not None else (self._folder / str(blob.file)).read_bytes()

    def drop(self, blob: Blob) -> None:
        """Remove a blob that did not become a commit."""
        if blob.file is not None:
            self._remove(self._folder / blob.file)

    def drop_job(self, job_id: str) -> None:
        """Remove the files of a job."""
        folder = self._folder / job_id
        if folder.is_dir():
            for file in list(folder.iterdir()):
                self._remove(file)
            with contextlib.suppress(OSError):
                folder.rmdir()

    def sweep(self, referred: Collection[str]) -> int:
        """Remove the files that no commit refers to; return how many."""
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        self._bytes = sum(map(size_of, files))
        orphans = [path for path in files if path.relative_to(self._folder).as_posix() not in referred]
        for path in orphans:
            self._remove(path)
        for folder in self._folder.iterdir():
            if folder.is_dir() and not any(folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
        return len(orphans)

    def _remove(self, file: Path) -> None:
        size = size_of(file)
        with contextlib.suppress(OSError):
            held_files.remove(file)
            self._count(-size)

    def _count(self, more_bytes: int) -> None:
        with self._counting:
            self._bytes += more_bytes

    def _make_folder(self, folder: Path) -> None:
        if folder.exists():
            return
        with clear_errors(folder):
            folder.mkdir(exist_ok=True)
            sync_folder(self._folder)


def size_of(file: Path) -> int:
    """Return the size of a file; of one that is not there, none."""
    try:
        return file.stat().st_size
    except OSError:
        return 0
