"""Result files, derived from committed results: in the order of the frames, whole or not there, made again at will.

Everything here runs in a thread and reads committed blobs only, never an open result file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from cluster.arrays import TaskResult, decode_result
from cluster.errors import Conflict, Invalid
from cluster.protocol import FailedFrames
from cluster.results import h5r
from cluster.results.ledger import Ledger
from cluster.results.metadata_tree import merged_metadata
from cluster.results.provenance import Provenance, software_versions
from cluster.results.publish import IfExists, free_name
from cluster.scheduler.blobs import Blobs
from cluster.scheduler.entries import ResultRow, output_of, results_by_row, results_by_task, rows_before
from cluster.scheduler.journal import Journal
from cluster.scheduler.sheets import Sheet
from fitting.localisations import FrameStatus

_PAGE: Final = 64
_LARGEST_REPLY_ROWS: Final = 200_000


@dataclass(frozen=True)
class Plan:
    """A file to make: of which job, where, and which frames failed for good. A partial one covers what is committed.

    `frames` is the length of the series, of which the job's [start, stop) were to be analysed.
    """

    sheet: Sheet
    path: Path
    given_up: list[FailedFrames]
    frames: int
    start: int
    stop: int
    partial: bool = False


class Results:
    """Committed results, as a stream in either order, and the files made of them."""

    def __init__(self, journal: Journal, blobs: Blobs) -> None:
        self._journal = journal
        self._blobs = blobs

    def by_task(self, job_id: str) -> Iterator[tuple[ResultRow, TaskResult]]:
        """Yield the results of a job in the order of its frames."""
        after = -1
        while page := self._page(job_id, after):
            for row in page:
                yield row, decode_result(self._blobs.load(row.blob))
            after = page[-1].task_id

    def rows_from(self, sheet: Sheet, from_row: int) -> tuple[np.ndarray[Any, Any], int]:
        """Return rows of a job in the order they were committed, and the number of the row after them.

        At most some 200,000 are returned at once, so that no reply is too large to hold.
        """
        parts, at = [], from_row
        for part in self.row_blocks(sheet, from_row):
            parts.append(part)
            at += len(part)
            if at - from_row >= _LARGEST_REPLY_ROWS:
                break
        return (np.concatenate(parts) if parts else np.empty(0, sheet.dtype)), at

    def row_blocks(self, sheet: Sheet, from_row: int = 0) -> Iterator[np.ndarray[Any, Any]]:
        """Yield the rows of a job in the order they were committed, from a row on."""
        at = from_row
        with _Pruned(self._journal, sheet.job_id) as pruned:
            while page := self._page_by_row(sheet.job_id, at):
                for row in page:
                    if row.first_row > at:  # what comes before is committed, but not on the disk yet
                        return
                    rows = self._rows(row, pruned)[at - row.first_row :]
                    at += len(rows)
                    yield rows

    def difference(self, sheet: Sheet, path: Path) -> str | None:
        """Return in what a result file differs from the committed results, None if it holds every row of them.

        Raises
        ------
        NotFound, Invalid
            If there is no such file, or it cannot be read.
        """
        at = 0
        with h5r.Reader(path) as file:
            provenance = file.provenance()
            if provenance is None or provenance.job.get("id") != sheet.job_id:
                return f"{path} is not its file"
            for _, result in self.by_task(sheet.job_id):
                stop = at + len(result.rows)
                if file.rows(at, stop).tobytes() != result.rows.tobytes():
                    return f"{path} has other rows from {at} on"
                at = stop
            return None if at == len(file) else f"{path} has {len(file)} rows, not {at}"

    def make(self, plan: Plan) -> Path:
        """Write the result file of a job and return its name.

        A file of the same job that is there already (a crash came between its rename and the note of it, or failed
        tasks were retried) is replaced; anybody else's is left alone and the next free name is taken.

        Raises
        ------
        OutOfSpace, Invalid
            If the file cannot be written; nothing is left under its name.
        """
        sheet = plan.sheet
        ledger = _opening_ledger(plan)
        cpus: set[str] = set()
        path, if_exists = _name_for(plan.path, sheet.job_id)
        events = h5r.events_table((event.name, event.description, event.time) for event in sheet.events)
        metadata = merged_metadata(sheet.values, sheet.analysis, (sheet.facts.height, sheet.facts.width))
        with h5r.Writer(path, sheet.dtype, metadata, events=events, if_exists=if_exists) as writer:
            for row, result in self.by_task(sheet.job_id):
                ledger.record(result.start, result.frame_status, result.rows, _failures_only(result))
                cpus.add(row.cpu)
                writer.append(result.rows)
                if result.fiducials is not None and len(result.fiducials):
                    writer.append_fiducials(result.fiducials)
            return writer.finish(_provenance(plan, ledger, cpus))

    def _rows(self, row: ResultRow, pruned: _Pruned) -> np.ndarray[Any, Any]:
        if not row.blob.is_pruned:
            with suppress(FileNotFoundError):  # it was pruned since the page was read
                return decode_result(self._blobs.load(row.blob)).rows
        return pruned.rows(row)

    def _page(self, job_id: str, after: int) -> list[ResultRow]:
        return self._journal.read_now(lambda db: results_by_task(db, job_id, after, _PAGE))

    def _page_by_row(self, job_id: str, from_row: int) -> list[ResultRow]:
        return self._journal.read_now(lambda db: results_by_row(db, job_id, from_row, _PAGE))


class _Pruned:
    """The rows of results that were let go: in the job's file, which is opened when the first is asked for."""

    def __init__(self, journal: Journal, job_id: str) -> None:
        self._journal = journal
        self._job_id = job_id
        self._file: h5r.Reader | None = None
        self._before: dict[int, int] = {}

    def rows(self, row: ResultRow) -> np.ndarray[Any, Any]:
        """Return the rows of a task; raises `Conflict` if the file is not there any more."""
        if self._file is None:
            self._before = self._journal.read_now(lambda db: rows_before(db, self._job_id))
            output = self._journal.read_now(lambda db: output_of(db, self._job_id))
            if output is None or not Path(output).is_file():
                raise Conflict(f"{output} is not where job {self._job_id} put it")
            self._file = h5r.Reader(Path(output))
        start = self._before[row.task_id]
        return self._file.rows(start, start + row.rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _opening_ledger(plan: Plan) -> Ledger:
    ledger = Ledger.empty(plan.frames)
    ledger.status[: plan.start] = FrameStatus.SKIPPED
    ledger.status[plan.stop :] = FrameStatus.SKIPPED
    for frames in plan.given_up:
        ledger.fail(frames.start, frames.stop, frames.reason)
    return ledger


def _failures_only(result: TaskResult) -> Mapping[int, str]:
    status = result.frame_status
    return {
        frame: reason
        for frame, reason in result.reasons.items()
        if result.start <= frame < result.stop and status[frame - result.start] == FrameStatus.FAILED
    }


def _provenance(plan: Plan, ledger: Ledger, cpus: set[str]) -> Provenance:
    sheet = plan.sheet
    return Provenance(
        settings=sheet.analysis,
        metadata={key: entry.model_dump() for key, entry in sheet.metadata.items()},
        versions={**software_versions(), "workers_cpu": ", ".join(sorted(cpus))},
        input={"path": sheet.facts.path, "fingerprint": sheet.facts.fingerprint, "maps": sheet.maps},
        job={
            "id": sheet.job_id,
            "name": sheet.name,
            "owner": sheet.owner,
            "machine": sheet.machine,
            "created": sheet.created,
            "partial": plan.partial,
            "notes": sheet.notes,
        },
        ledger=ledger,
    )


def _name_for(path: Path, job_id: str) -> tuple[Path, IfExists]:
    if path.exists() and _is_of_job(path, job_id):
        return path, "replace or number"
    return free_name(path), "number"


def _is_of_job(path: Path, job_id: str) -> bool:
    try:
        with h5r.Reader(path) as reader:
            provenance = reader.provenance()
    except (Invalid, Conflict):
        return False
    return provenance is not None and provenance.job.get("id") == job_id
