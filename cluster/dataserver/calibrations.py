"""Calibrations that the cluster is asked for: made here, where the files are, one at a time, each in a process of its own.

What was made is on the disk, and so is what is known of the making (`cluster.dataserver.calibration_records`): a list that outlives this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from cluster import held_files
from cluster.calibrating.kinds import KINDS, check
from cluster.dataserver.calibration_outputs import Placed, Placing
from cluster.dataserver.calibration_records import Record, Records
from cluster.dataserver.store import SeriesStore
from cluster.errors import Conflict, NotFound, TooManyRequests, Unavailable
from cluster.interpreter import RUN_MODULE
from cluster.protocol import CalibrationFinding, CalibrationOrder, CalibrationRun
from cluster.results.publish import unfinished
from cluster.supervisor import process_options

logger = logging.getLogger(__name__)

LONGEST_S: Final = 3600.0
_MOST_OPEN: Final = 32
_MOST_KEPT: Final = 200
_MOST_ANSWER_BYTES: Final = 8 << 20
_MOST_PICTURE_BYTES: Final = 32 << 20
_MOST_LOG_BYTES: Final = 16 << 10
_INTERRUPTED: Final = "interrupted: the data server was stopped before it was done; ask for it again"
_PROGRAM: Final = (*RUN_MODULE, "cluster.calibrating")


@dataclass
class _Entry:
    """A calibration: what everyone sees of it, where its files are, and the task that sees to it."""

    run: CalibrationRun
    placed: Placed
    task: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        return self.run.state in {"queued", "running"}


class Calibrations:
    """The calibrations of one data server."""

    def __init__(
        self,
        roots: Sequence[Path],
        store: SeriesStore,
        *,
        records: Path | None = None,
        wall: Callable[[], float] = time.time,
        longest_s: float = LONGEST_S,
        program: Sequence[str] = _PROGRAM,
    ) -> None:
        self._placing = Placing(roots, store)
        self._wall = wall
        self._longest_s = longest_s
        self._program = tuple(program)
        self._records = Records(records)
        self._entries: dict[str, _Entry] = {}
        self._starting = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._closing = False
        self._take_up()

    async def start(self, order: CalibrationOrder) -> CalibrationRun:
        """Queue a calibration; an order that is known already is not made twice.

        Raises
        ------
        Invalid, Conflict
            If a field is wrong or the output exists; names it.
        NotFound
            If there is no such series.
        TooManyRequests
            If too many wait already.
        """
        request = order.request
        check(request)
        async with self._starting:
            if order.id in self._entries:
                return self._entries[order.id].run
            if self._closing:
                raise Unavailable("the data server is stopping")
            if sum(entry.is_open for entry in self._entries.values()) >= _MOST_OPEN:
                raise TooManyRequests(f"{_MOST_OPEN} calibrations wait already; ask again later")
            placed = await asyncio.to_thread(self._placing.place, request, self._taken())
            run = CalibrationRun(
                id=order.id,
                kind=request.kind,
                state="queued",
                series=request.series,
                options=request.options,
                metadata=request.metadata,
                output=placed.named(placed.output),
                created=self._wall(),
            )
            entry = self._entries[order.id] = _Entry(run, placed)
            self._records.keep(_record(entry))
            self._forget_old()
            entry.task = asyncio.create_task(self._see_to(entry), name=f"calibration {order.id}")
        return run

    def runs(self) -> list[CalibrationRun]:
        """Return all that are known, newest first, without their numbers."""
        newest = sorted(self._entries.values(), key=lambda entry: -entry.run.created)
        return [entry.run.model_copy(update={"numbers": {}}) for entry in newest]

    def run(self, run_id: str) -> CalibrationRun:
        """Return one; raises `NotFound`."""
        return self._entry(run_id).run

    async def picture(self, run_id: str) -> bytes:
        """Return the report as a PNG.

        Raises
        ------
        Conflict
            If there is none (yet).
        NotFound
            If there is no such calibration, or its picture is gone.
        """
        entry = self._entry(run_id)
        if entry.run.state != "done":
            raise Conflict(
                f"calibration {run_id} is {entry.run.state}: it has no report", state=entry.run.state
            )
        return await asyncio.to_thread(_read_picture, entry.placed.targets["picture"])

    async def cancel(self, run_id: str) -> CalibrationRun:
        """End one that is queued or running; whole files stay. One that has ended stays as it is. Raises `NotFound`."""
        entry = self._entry(run_id)
        if entry.is_open and entry.task is not None:
            entry.task.cancel()
            await asyncio.gather(entry.task, return_exceptions=True)
        if entry.is_open:
            self._change(entry, state="cancelled", finished=self._wall(), doing=None, fraction=None)
        return entry.run

    async def close(self) -> None:
        """Stop; what runs is ended, and whole files stay."""
        self._closing = True
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _entry(self, run_id: str) -> _Entry:
        try:
            return self._entries[run_id]
        except KeyError:
            raise NotFound(
                f"there is no calibration {run_id!r}: a data server knows its latest {_MOST_KEPT}; files that were written stay"
            ) from None

    def _taken(self) -> set[Path]:
        return {
            path
            for entry in self._entries.values()
            if entry.is_open
            for path in entry.placed.targets.values()
        }

    def _forget_old(self) -> None:
        ended = [run_id for run_id, entry in self._entries.items() if not entry.is_open]
        for run_id in ended[: max(0, len(self._entries) - _MOST_KEPT)]:
            del self._entries[run_id]
            self._records.drop(run_id)

    def _take_up(self) -> None:
        """Know again what was known before this server was started; what was under way then was interrupted."""
        for record in self._records.all():
            placed = Placed(record.root, (), record.output, KINDS[record.run.kind].targets(record.output))
            entry = self._entries[record.run.id] = _Entry(record.run, placed)
            if entry.is_open:
                self._change(
                    entry,
                    state="failed",
                    error=_INTERRUPTED,
                    finished=self._wall(),
                    doing=None,
                    fraction=None,
                )
        self._forget_old()

    def _change(self, entry: _Entry, **changes: Any) -> None:
        _change(entry, **changes)
        self._records.keep(_record(entry))

    async def _see_to(self, entry: _Entry) -> None:
        async with self._turn:
            self._change(entry, state="running", started=self._wall())
            try:
                answer = await self._answer(entry)
                changes = _outcome(entry.placed, answer)
            except Exception as error:  # the task's outermost: the run must end, whatever the fault
                logger.exception("calibration %s failed", entry.run.id)
                changes = {"state": "failed", "error": f"the data server met a fault of its own: {error}"}
            self._change(entry, finished=self._wall(), doing=None, fraction=None, **changes)

    async def _answer(self, entry: _Entry) -> dict[str, Any]:
        """Have a process make it; return what it says, or why it said nothing."""
        with tempfile.TemporaryFile() as log:
            process = await asyncio.create_subprocess_exec(
                *self._program,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_MOST_ANSWER_BYTES,
                **process_options(),
            )
            try:
                await _ask(process, entry)
                answer = await asyncio.wait_for(_listen(process, entry), self._longest_s)
            except TimeoutError:
                return {"error": f"it was not done within {self._longest_s:g} s, and was ended"}
            finally:
                await _end(process)
                _remove_unfinished(entry.placed)
            if process.returncode == 0 and answer:
                return answer
            logger.error("calibration %s: %s", entry.run.id, _end_of(log))
        return {
            "error": f"its process died (status {process.returncode}): out of memory, or a fault that the data server's log tells"
        }


def _record(entry: _Entry) -> Record:
    return Record(entry.run, entry.placed.root, entry.placed.output)


def _change(entry: _Entry, **changes: Any) -> None:
    entry.run = entry.run.model_copy(update=changes)


async def _ask(process: asyncio.subprocess.Process, entry: _Entry) -> None:
    assert process.stdin is not None
    question = {
        "kind": entry.run.kind,
        "series": [str(file) for file in entry.placed.series],
        "options": entry.run.options,
        "metadata": entry.run.metadata,
        "output": str(entry.placed.output),
    }
    process.stdin.write(json.dumps(question).encode() + b"\n")
    with contextlib.suppress(ConnectionError):  # it has died already: its status says so
        await process.stdin.drain()


async def _listen(process: asyncio.subprocess.Process, entry: _Entry) -> dict[str, Any]:
    """Note how far it is, until it ends; return its answer, which may be missing."""
    assert process.stdout is not None
    answer: dict[str, Any] = {}
    async for line in process.stdout:
        with contextlib.suppress(json.JSONDecodeError):  # it died in the middle of a line: its status says so
            said = json.loads(line)
            if "doing" in said:
                _change(entry, doing=said["doing"], fraction=said["fraction"])
            else:
                answer = said
    await process.wait()
    return answer


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _remove_unfinished(placed: Placed) -> None:
    """Remove what a process that was ended had begun to write; whole files have their names by then."""
    for target in placed.targets.values():
        for path in unfinished(target):
            with contextlib.suppress(OSError):
                held_files.patiently(path.unlink)


def _outcome(placed: Placed, answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        return {"state": "failed", "error": str(answer["error"])}
    return {
        "state": "done",
        "files": {what: placed.named(Path(path)) for what, path in answer["files"].items()},
        "findings": [CalibrationFinding.model_validate(finding) for finding in answer["findings"]],
        "numbers": answer["numbers"],
    }


def _end_of(log: IO[bytes]) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _MOST_LOG_BYTES))
    return log.read().decode("utf-8", "replace").strip()


def _read_picture(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            picture = file.read(_MOST_PICTURE_BYTES)
    except OSError as error:
        raise NotFound(f"{path.name} is not where the calibration put it: {error.strerror}") from error
    return picture
