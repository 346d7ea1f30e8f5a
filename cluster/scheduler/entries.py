"""The core's records as rows of the journal, and back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cluster.protocol import DataServerInfo, FailedFrames, WorkerRegistration
from cluster.scheduler.blobs import Blob
from cluster.scheduler.core import Counts, Growth, WorkerOrder
from cluster.scheduler.core.phases import (
    Broken,
    Cancelled,
    Cancelling,
    Finished,
    Merging,
    Phase,
    Queued,
    Running,
)
from cluster.scheduler.core.records import TaskSaved, WorkerSaved
from cluster.scheduler.core.tasks import Done, Failed, Grant, Leased, Ready, TaskState, Toll, done
from cluster.scheduler.journal import Statement
from cluster.scheduler.progress import Progress
from cluster.scheduler.sheets import Sheet

_PHASES: Mapping[str, type[Any]] = {
    kind.__name__: kind for kind in (Queued, Running, Merging, Cancelling, Finished, Broken, Cancelled)
}


@dataclass(frozen=True)
class JobRow:
    """A job as it lies in the journal."""

    sheet: Sheet
    phase: Phase
    progress: Progress
    idempotency_key: str | None
    digest: str | None
    growth: Growth | None = None


@dataclass(frozen=True)
class ResultRow:
    """A committed result: where its bytes are, which rows of the job it holds, and which of its frames failed."""

    job_id: str
    task_id: int
    attempt: int
    sha256: str
    first_row: int
    rows: int
    blob: Blob
    reasons: list[FailedFrames]
    cpu: str


# --- to the journal ---------------------------------------------------------------------------------------------


def job_statement(row: JobRow) -> Statement:
    """Save a job; a new one behind all others. The core's own count is not for the disk: Tests take numbers that are not kept, and a restart begins anew."""
    sql = (
        "INSERT INTO jobs VALUES (?, (SELECT COALESCE(MAX(position), 0) + 1 FROM jobs), ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (job_id) DO UPDATE SET "
        "phase = excluded.phase, started = excluded.started, finished = excluded.finished, "
        "output = excluded.output, growth = excluded.growth"
    )
    progress = row.progress
    values = (
        row.sheet.job_id,
        row.sheet.model_dump_json(),
        _phase_text(row.phase),
        row.idempotency_key,
        row.digest,
        progress.started,
        progress.finished,
        progress.output,
        None if row.growth is None else json.dumps(asdict(row.growth)),
    )
    return Statement(("job", row.sheet.job_id), sql, values)


def forget_job_statements(job_id: str) -> list[Statement]:
    """Drop a job that was never acknowledged, and the tasks of it that workers may have leased meanwhile."""
    return [
        Statement(("forgotten results", job_id), "DELETE FROM results WHERE job_id = ?", (job_id,)),
        Statement(("forgotten tasks", job_id), "DELETE FROM tasks WHERE job_id = ?", (job_id,)),
        Statement(("job", job_id), "DELETE FROM jobs WHERE job_id = ?", (job_id,)),
    ]


def task_statement(record: TaskSaved) -> Statement:
    """Save a task."""
    sql = (
        "INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job_id, task_id) DO UPDATE SET "
        "state = excluded.state, counts = excluded.counts, first_row = excluded.first_row"
    )
    counts = json.dumps(asdict(record.counts)) if isinstance(record.state, Done) else None
    values = (
        record.job_id,
        record.task_id,
        record.start,
        record.stop,
        _state_text(record.state),
        counts,
        record.first_row,
    )
    return Statement(record.key, sql, values)


def result_statement(row: ResultRow) -> Statement:
    """Save a committed result; the first of a task stays."""
    sql = "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
    reasons = json.dumps([[frames.start, frames.stop, frames.reason] for frames in row.reasons])
    values = (
        row.job_id,
        row.task_id,
        row.attempt,
        row.sha256,
        row.first_row,
        row.rows,
        row.blob.file,
        row.blob.body,
        reasons,
        row.cpu,
    )
    return Statement(("result", row.job_id, str(row.task_id)), sql, values)


def prune_statement(job_id: str) -> Statement:
    """Let go of what was handed in of a job; which rows came when stays.

    The rows are written anew: made smaller where they are, they would keep the pages that their bodies filled.
    """
    sql = (
        "INSERT OR REPLACE INTO results SELECT job_id, task_id, attempt, sha256, first_row, rows, NULL, NULL, reasons, cpu "
        "FROM results WHERE job_id = ?"
    )
    return Statement(("pruned", job_id), sql, (job_id,))


def worker_statement(record: WorkerSaved, card: WorkerRegistration) -> Statement:
    """Save a worker."""
    sql = "INSERT INTO workers VALUES (?, ?, ?) ON CONFLICT (worker_id) DO UPDATE SET excluded = excluded.excluded"
    values = (record.order.worker_id, card.model_dump_json(), record.excluded)
    return Statement(record.key, sql, values)


def forget_worker_statement(worker_id: str) -> Statement:
    """Drop a worker."""
    return Statement(("worker", worker_id), "DELETE FROM workers WHERE worker_id = ?", (worker_id,))


def dataserver_statement(info: DataServerInfo) -> Statement:
    """Save where a data server is."""
    sql = "INSERT INTO dataservers VALUES (?, ?) ON CONFLICT (server_id) DO UPDATE SET info = excluded.info"
    return Statement(("dataserver", info.id), sql, (info.id, info.model_dump_json()))


def admitted_statement(secret_digest: str, card: str) -> Statement:
    """Save that a machine was let in."""
    sql = "INSERT INTO admitted VALUES (?, ?) ON CONFLICT DO NOTHING"
    return Statement(("admitted", secret_digest), sql, (secret_digest, card))


def start_statement(epoch: int, started: float) -> Statement:
    """Save that the scheduler was started."""
    return Statement(("start", str(epoch)), "INSERT INTO starts VALUES (?, ?)", (epoch, started))


def _phase_text(phase: Phase) -> str:
    return json.dumps({"phase": type(phase).__name__, **asdict(phase)})


def _state_text(state: TaskState) -> str:
    match state:
        case Done(attempt=attempt):
            return json.dumps({"state": "Done", "attempt": attempt})
        case Failed(attempts=attempts, reason=reason):
            return json.dumps({"state": "Failed", "attempts": attempts, "reason": reason})
        case Ready(attempts=attempts, toll=toll):
            return json.dumps({"state": "Ready", "attempts": attempts, "toll": _toll_values(toll)})
        case Leased(grants=grants, attempts=attempts, toll=toll):
            held = [[grant.worker, grant.attempt] for grant in grants]
            return json.dumps(
                {"state": "Leased", "attempts": attempts, "toll": _toll_values(toll), "grants": held}
            )


def _toll_values(toll: Toll) -> dict[str, Any]:
    return {"errors": toll.errors, "losses": toll.losses, "tried": sorted(toll.tried), "reason": toll.reason}


# --- from the journal -------------------------------------------------------------------------------------------


def load_jobs(connection: sqlite3.Connection) -> Iterator[JobRow]:
    """Yield the jobs as they were submitted, one at a time: their sheets may be large."""
    rows = connection.execute(
        "SELECT sheet, phase, idempotency_key, request_digest, started, finished, output, growth FROM jobs ORDER BY position"
    )
    for sheet, phase, key, digest, started, finished, output, growth in rows:
        yield JobRow(
            sheet=Sheet.model_validate_json(sheet),
            phase=_phase(phase),
            progress=Progress(started=started, finished=finished, output=output),
            idempotency_key=key,
            digest=digest,
            growth=None if growth is None else _growth(json.loads(growth)),
        )


def load_sheet(connection: sqlite3.Connection, job_id: str) -> Sheet | None:
    """Return the sheet of a job, None if there is no such job."""
    row = connection.execute("SELECT sheet FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    return None if row is None else Sheet.model_validate_json(row[0])


def _growth(said: dict[str, Any]) -> Growth:
    events = tuple((str(name), str(about), float(time)) for name, about, time in said.pop("events", ()))
    return Growth(**said, events=events)


def load_tasks(connection: sqlite3.Connection) -> list[TaskSaved]:
    """Return the tasks of all jobs, each job's by number."""
    rows = connection.execute("SELECT * FROM tasks ORDER BY job_id, task_id")
    return [
        TaskSaved(
            job_id=job_id,
            task_id=task_id,
            start=start,
            stop=stop,
            state=_state(state),
            counts=Counts(**json.loads(counts)) if counts else Counts(),
            first_row=first_row,
        )
        for job_id, task_id, start, stop, state, counts, first_row in rows
    ]


def load_workers(connection: sqlite3.Connection) -> list[tuple[WorkerSaved, WorkerRegistration]]:
    """Return the workers and what they said of themselves."""
    found = []
    for worker_id, text, excluded in connection.execute("SELECT worker_id, card, excluded FROM workers"):
        card = WorkerRegistration.model_validate_json(text)
        found.append((WorkerSaved(WorkerOrder(worker_id, frozenset(card.fits)), excluded), card))
    return found


def load_dataservers(connection: sqlite3.Connection) -> list[DataServerInfo]:
    """Return the data servers."""
    rows = connection.execute("SELECT info FROM dataservers")
    return [DataServerInfo.model_validate_json(info) for (info,) in rows]


def load_admitted(connection: sqlite3.Connection) -> set[str]:
    """Return the digests of the secrets of the machines that were let in."""
    return {digest for (digest,) in connection.execute("SELECT secret_digest FROM admitted")}


def load_epoch(connection: sqlite3.Connection) -> int:
    """Return how often the scheduler was started before."""
    (epoch,) = connection.execute("SELECT coalesce(max(epoch), 0) FROM starts").fetchone()
    return int(epoch)


def load_result_files(connection: sqlite3.Connection) -> set[str]:
    """Return the files that commits refer to."""
    return {file for (file,) in connection.execute("SELECT file FROM results WHERE file IS NOT NULL")}


def load_failures(connection: sqlite3.Connection) -> Iterator[tuple[str, FailedFrames]]:
    """Yield the failed frames of committed results, with their jobs."""
    rows = connection.execute(
        "SELECT job_id, reasons FROM results WHERE reasons != '[]' ORDER BY job_id, task_id"
    )
    for job_id, reasons in rows.fetchall():
        for frames in _reasons(reasons):
            yield job_id, frames


def load_cpus(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return which processors took part in which jobs."""
    return connection.execute("SELECT DISTINCT job_id, cpu FROM results").fetchall()


def load_kept_results(connection: sqlite3.Connection) -> list[str]:
    """Return the jobs of which something that was handed in is kept."""
    sql = "SELECT DISTINCT job_id FROM results WHERE file IS NOT NULL OR body IS NOT NULL"
    return [job_id for (job_id,) in connection.execute(sql)]


def rows_before(connection: sqlite3.Connection, job_id: str) -> dict[int, int]:
    """Return at which row of the result file the rows of each task begin: the file is in the order of the tasks."""
    sql = "SELECT task_id, rows FROM results WHERE job_id = ? ORDER BY task_id"
    before, found = 0, {}
    for task_id, rows in connection.execute(sql, (job_id,)):
        found[task_id] = before
        before += rows
    return found


def output_of(connection: sqlite3.Connection, job_id: str) -> str | None:
    """Return the result file of a job, as far as it has one."""
    row = connection.execute("SELECT output FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    return None if row is None else row[0]


def results_by_task(
    connection: sqlite3.Connection, job_id: str, after_task: int, limit: int
) -> list[ResultRow]:
    """Return up to `limit` results of a job in the order of its tasks, which is that of its frames."""
    rows = connection.execute(
        "SELECT * FROM results WHERE job_id = ? AND task_id > ? ORDER BY task_id LIMIT ?",
        (job_id, after_task, limit),
    )
    return [_result(row) for row in rows]


def results_by_row(connection: sqlite3.Connection, job_id: str, from_row: int, limit: int) -> list[ResultRow]:
    """Return up to `limit` results of a job in the order of their commits, beginning with the one that holds a row."""
    rows = connection.execute(
        "SELECT * FROM results WHERE job_id = ? AND first_row + rows > ? ORDER BY first_row LIMIT ?",
        (job_id, from_row, limit),
    )
    return [_result(row) for row in rows]


def _result(row: tuple[Any, ...]) -> ResultRow:
    job_id, task_id, attempt, sha256, first_row, rows, file, body, reasons, cpu = row
    return ResultRow(
        job_id, task_id, attempt, sha256, first_row, rows, Blob(file, body), _reasons(reasons), cpu
    )


def _reasons(text: str) -> list[FailedFrames]:
    return [FailedFrames(start=start, stop=stop, reason=reason) for start, stop, reason in json.loads(text)]


def _phase(text: str) -> Phase:
    values = json.loads(text)
    phase: Phase = _PHASES[values.pop("phase")](**values)
    return phase


def _state(text: str) -> TaskState:
    values = json.loads(text)
    match values.pop("state"):
        case "Done":
            return done(values["attempt"])
        case "Failed":
            return Failed(**values)
        case "Ready":
            return Ready(values["attempts"], _toll(values["toll"]))
        case _:
            grants = tuple(Grant(worker, attempt) for worker, attempt in values["grants"])
            return Leased(grants, values["attempts"], _toll(values["toll"]))


def _toll(values: Mapping[str, Any]) -> Toll:
    return Toll(values["errors"], values["losses"], frozenset(values["tried"]), values["reason"])
