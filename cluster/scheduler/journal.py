"""The scheduler's memory: SQLite, one connection on one thread, and what is acknowledged is on the disk.

Writers hand in statements and wait. The thread takes all that have come in since the last time, runs them in one
transaction and syncs once (group commit), then wakes everyone. Statements are upserts of the newest state of one thing
each, so that a transaction which the disk refused is simply tried again together with the next one.

Why WAL is safe here, with a SQLite that may predate the repair of its WAL-reset bug: see docs/adr/0004-journal.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from filelock import FileLock, Timeout

from cluster.errors import ClusterError, Conflict, Internal, OutOfSpace, Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")
Query = Callable[[sqlite3.Connection], T]
Label = Callable[[str], None]

SCHEMA_VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY, position INTEGER NOT NULL UNIQUE, sheet TEXT NOT NULL, phase TEXT NOT NULL,
    idempotency_key TEXT UNIQUE, request_digest TEXT, started REAL, finished REAL, output TEXT, growth TEXT
) WITHOUT ROWID;
CREATE TABLE tasks (
    job_id TEXT NOT NULL, task_id INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
    state TEXT NOT NULL, counts TEXT, first_row INTEGER NOT NULL, PRIMARY KEY (job_id, task_id)
) WITHOUT ROWID;
CREATE TABLE results (
    job_id TEXT NOT NULL, task_id INTEGER NOT NULL, attempt INTEGER NOT NULL, sha256 TEXT NOT NULL,
    first_row INTEGER NOT NULL, rows INTEGER NOT NULL, file TEXT, body BLOB, reasons TEXT NOT NULL, cpu TEXT NOT NULL,
    UNIQUE (job_id, task_id)
);
CREATE INDEX results_by_row ON results (job_id, first_row);
CREATE TABLE workers (worker_id TEXT PRIMARY KEY, card TEXT NOT NULL, excluded TEXT) WITHOUT ROWID;
CREATE TABLE admitted (secret_digest TEXT PRIMARY KEY, card TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE starts (epoch INTEGER PRIMARY KEY, started REAL NOT NULL);
CREATE TABLE dataservers (server_id TEXT PRIMARY KEY, info TEXT NOT NULL) WITHOUT ROWID;
"""


_UPGRADES: Final = {1: "ALTER TABLE jobs ADD COLUMN growth TEXT;"}  # by the version that they start from
_EVERYTHING: Final = ("everything",)


class Statement(NamedTuple):
    """A write; of several with the same key only the last counts."""

    key: tuple[str, ...]
    sql: str
    values: tuple[Any, ...]


class _Write(NamedTuple):
    statements: Sequence[Statement]
    done: Future[None]


class _Read(NamedTuple):
    query: Query[Any]
    done: Future[Any]


class Journal:
    """The journal in a folder. Close it to free the lock.

    `at` is told where the writer is ("begin", "before commit", "committed"), so that tests may end the process there.

    Raises
    ------
    Conflict
        If another scheduler holds the folder, or a newer version wrote the journal.
    """

    def __init__(self, folder: Path, *, at: Label = lambda _: None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._at = at
        self._lock = _locked(folder)
        try:
            self._connection = _opened(folder / "journal.sqlite")
        except BaseException:
            self._lock.release()
            raise
        self._queue: queue.SimpleQueue[_Write | _Read | None] = queue.SimpleQueue()
        self._unsaved: dict[tuple[str, ...], Statement] = {}
        self._closed = False
        self._thread = self._started()

    async def write(self, statements: Sequence[Statement]) -> None:
        """Return once the statements, and all that were handed in before, are on the disk.

        Raises
        ------
        OutOfSpace
            If the disk is full; they are written with the next ones, as soon as there is room.
        Unavailable
            If the disk fails in another way.
        """
        done: Future[None] = Future()
        self._put(_Write(tuple(statements), done))
        await asyncio.wrap_future(done)

    def post(self, statements: Sequence[Statement]) -> None:
        """Hand statements in without waiting; what the disk refuses is tried again with the next ones."""
        if statements:
            self._put(_Write(tuple(statements), Future()))

    async def read(self, query: Query[T]) -> T:
        """Return what a query finds; it sees everything handed in before."""
        done: Future[T] = Future()
        self._put(_Read(query, done))
        return await asyncio.wrap_future(done)

    def read_now(self, query: Query[T]) -> T:
        """Return what a query finds, waiting for it here: for start-up and for threads."""
        done: Future[T] = Future()
        self._put(_Read(query, done))
        return done.result()

    def close(self) -> None:
        """Write what is waiting and let go of the folder."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        self._connection.close()
        self._lock.release()

    def _put(self, item: _Write | _Read) -> None:
        if self._closed:
            raise Unavailable("the scheduler is stopping")
        self._queue.put(item)

    def _started(self) -> threading.Thread:
        thread = threading.Thread(target=self._work, name="journal", daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        while self._serve(self._taken()):
            pass

    def _serve(self, batch: list[_Write | _Read | None]) -> bool:
        """Write what there is to write, in one transaction, then answer; return whether to go on."""
        self._write_all([item for item in batch if isinstance(item, _Write)])
        for item in batch:
            if isinstance(item, _Read):
                self._answer(item)
        return None not in batch

    def _taken(self) -> list[_Write | _Read | None]:
        batch = [self._queue.get()]
        while not self._queue.empty():
            batch.append(self._queue.get())
        return batch

    def _write_all(self, writes: list[_Write]) -> None:
        if not writes:
            return
        for write in writes:
            for statement in write.statements:
                self._unsaved.pop(statement.key, None)
                self._unsaved[statement.key] = statement
        refused = self._save_all()
        for write in writes:
            if not write.done.set_running_or_notify_cancel():
                continue
            keys = {statement.key for statement in write.statements}
            error = refused.get(_EVERYTHING) or next((refused[key] for key in keys & refused.keys()), None)
            if error is None:
                write.done.set_result(None)
            else:
                write.done.set_exception(error)

    def _save_all(self) -> dict[tuple[str, ...], ClusterError]:
        """Save what is unsaved and return what was refused: everything, to be tried again, or single statements."""
        refused: dict[tuple[str, ...], ClusterError] = {}
        while self._unsaved:
            culprit, error = self._save()
            if error is None:
                break
            if culprit is None:
                return {_EVERYTHING: error}
            refused[culprit] = error
            del self._unsaved[
                culprit
            ]  # it contradicts the journal and always will; the others must not wait for it
        self._unsaved.clear()
        return refused

    def _save(self) -> tuple[tuple[str, ...] | None, ClusterError | None]:
        """Run everything unsaved in one transaction; return which statement broke it, if one did, and the error."""
        statement: Statement | None = None
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._at("begin")
            for statement in self._unsaved.values():
                self._connection.execute(statement.sql, statement.values)
            self._at("before commit")
            self._connection.execute("COMMIT")
            self._at("committed")
        except (sqlite3.Error, ValueError, OverflowError) as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            logger.warning("the journal could not be written: %s", error)
            if isinstance(error, sqlite3.OperationalError) or statement is None:
                return None, _translated(error, self.folder)
            return statement.key, Internal(f"the journal refuses {statement.key}: {error}")
        return None, None

    def _answer(self, read: _Read) -> None:
        if not read.done.set_running_or_notify_cancel():
            return
        try:
            read.done.set_result(read.query(self._connection))
        except sqlite3.Error as error:
            read.done.set_exception(_translated(error, self.folder))
        except Exception as error:  # noqa: BLE001 - the thread's outermost loop: the fault is the asker's
            read.done.set_exception(error)


def _locked(folder: Path) -> FileLock:
    lock, holder = FileLock(folder / "scheduler.lock"), folder / "scheduler.pid"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        pid = holder.read_text(encoding="utf-8").strip() if holder.exists() else "unknown"
        raise Conflict(
            f"another scheduler (process {pid}) keeps its state in {folder}; stop it, or give this one another --name"
        ) from None
    holder.write_text(str(os.getpid()), encoding="utf-8")
    return lock


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        # exclusive before the first access: the WAL's index then lives in this process, and no other can open the file
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise _translated(error, path.parent) from error
    except BaseException:
        connection.close()
        raise
    logger.info("journal %s, SQLite %s", path, sqlite3.sqlite_version)
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise Conflict(f"{path} was written by a newer clusterofone; use that one, or give another --name")
    if version == 0:
        connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
        return
    for older in range(version, SCHEMA_VERSION):
        connection.executescript(f"BEGIN;{_UPGRADES[older]}PRAGMA user_version = {older + 1};COMMIT;")


def _translated(error: Exception, folder: Path) -> ClusterError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return OutOfSpace(f"the disk is full: the journal in {folder} could not be written")
    return Unavailable(f"the journal in {folder} cannot be used: {error}")
