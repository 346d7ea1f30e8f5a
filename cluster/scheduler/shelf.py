"""Columns of large jobs that have ended, kept as files: whoever looks at one later, or after a restart, is not made to wait until all rows are decoded."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from cluster import held_files
from cluster.errors import ClusterError, Invalid
from cluster.results.column_file import read_columns, write_columns
from cluster.results.columns import Columns
from cluster.results.publish import check_room
from cluster.results.quantities import Calibration
from cluster.scheduler.results import Results
from cluster.scheduler.sheets import Sheet
from cluster.scheduler.state import State

logger = logging.getLogger(__name__)

LEAST_ROWS: Final = 200_000  # fewer are decoded while one blinks
_MOST_BYTES: Final = 2 << 30
_BLOCK_ROWS: Final = 1 << 20
_BYTES_PER_ROW: Final = 40
_SUFFIX: Final = ".columns"


class Shelf:
    """The files, within a bound of disk: those looked at longest ago go first. Everything here may run in any thread."""

    def __init__(self, folder: Path, results: Results, *, most_bytes: int = _MOST_BYTES) -> None:
        self._folder = folder
        self._results = results
        self._most_bytes = most_bytes

    def take(self, job_id: str) -> tuple[list[Columns], int]:
        """Return the columns that there are of a job, and of how many of its rows they are, in the order of their commits."""
        path = self._path(job_id)
        try:
            found = read_columns(path)
            os.utime(path)
        except FileNotFoundError:
            return [], 0
        except (Invalid, OSError) as error:
            logger.warning("the columns of job %s are made anew: %s", job_id, error)
            return [], 0
        return found

    def put(self, sheet: Sheet, rows: int) -> None:
        """Keep the columns of a job that has so many rows; raises `OutOfSpace` where there is no room for them."""
        path = self._path(sheet.job_id)
        self._folder.mkdir(exist_ok=True)
        check_room(path, rows * _BYTES_PER_ROW)
        write_columns(path, self._parts(sheet))
        self._let_go()

    def sweep(self) -> None:
        """Remove what a crash has left half written."""
        for path in self._folder.glob(f".*{_SUFFIX}.*.part"):
            with suppress(OSError):
                held_files.remove(path)

    def _parts(self, sheet: Sheet) -> Iterator[tuple[int, Columns]]:
        calibration = Calibration.from_metadata(sheet.values)
        rows, waiting = 0, list[Columns]()
        for block in self._results.row_blocks(sheet):
            rows += len(block)
            waiting.append(Columns.of(block, calibration))
            if rows >= _BLOCK_ROWS:
                yield rows, Columns.joined(waiting)
                rows, waiting = 0, []
        if waiting:
            yield rows, Columns.joined(waiting)

    def _let_go(self) -> None:
        files = sorted(self._folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
        total = sum(path.stat().st_size for path in files)
        for path in files[:-1]:
            if total <= self._most_bytes:
                return
            total -= path.stat().st_size
            with suppress(OSError):
                held_files.remove(path)

    def _path(self, job_id: str) -> Path:
        return self._folder / f"{job_id}{_SUFFIX}"


class Shelver:
    """Puts the jobs that it is told of onto the shelf, one at a time."""

    def __init__(self, state: State, shelf: Shelf, *, least_rows: int) -> None:
        self._state = state
        self._shelf = shelf
        self._least_rows = least_rows
        self._one_at_a_time = asyncio.Semaphore(1)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, job_id: str) -> None:
        """Keep the columns of a job that has just ended, if it is large."""
        if job_id not in self._state.known or self._rows(job_id) < self._least_rows:
            return
        task = asyncio.create_task(self._keep(job_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Finish the one that is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _rows(self, job_id: str) -> int:
        return self._state.core.job(job_id).tally.rows

    async def _keep(self, job_id: str) -> None:
        async with self._one_at_a_time:
            if self._state.signals.closing or job_id not in self._state.known:
                return
            try:
                sheet = await self._state.sheet(job_id)
                await asyncio.to_thread(self._shelf.put, sheet, self._rows(job_id))
            except (ClusterError, OSError) as error:
                logger.warning("the first look at job %s will take its time: %s", job_id, error)
