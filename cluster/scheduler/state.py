"""The scheduler's state has one owner, the event loop; this is it.

Each command of the core runs without an `await` between reading and changing, and what it returns is handed to the
journal in the same breath. `settled` answers only once that is on the disk.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from cluster.errors import NotFound
from cluster.protocol import FailedFrames, Job, JobDetail, WorkerRegistration
from cluster.scheduler import entries, progress
from cluster.scheduler.core import Decided, Record, Rules, Scheduler
from cluster.scheduler.core.phases import Broken, Cancelled, Cancelling, Finished, Merging, Queued, Running
from cluster.scheduler.core.records import (
    JobForgotten,
    JobSaved,
    TaskSaved,
    WorkerForgotten,
    WorkerSaved,
)
from cluster.scheduler.core.tasks import Ready
from cluster.scheduler.entries import JobRow
from cluster.scheduler.journal import Journal, Statement
from cluster.scheduler.progress import Progress
from cluster.scheduler.sheets import Brief, Sheet
from cluster.scheduler.signals import Signals

logger = logging.getLogger(__name__)

T = TypeVar("T")
_EPHEMERAL: Final = "preview"


@dataclass(frozen=True)
class Clocks:
    """Where time comes from: `now` in monotonic seconds, `wall` in Unix seconds."""

    now: Callable[[], float]
    wall: Callable[[], float]


@dataclass(slots=True)
class Known:
    """What the shell knows of a job beside the core.

    The sheet is held until the job ends. Then it lies in the journal alone: it is tens of kilobytes, and grows with
    the metadata of a series, while what a list shows does not.
    """

    brief: Brief
    held: Sheet | None
    progress: Progress = field(default_factory=Progress)
    idempotency_key: str | None = None
    digest: str | None = None

    @property
    def sheet(self) -> Sheet:
        """Return the sheet of a job that has not ended."""
        assert self.held is not None, f"job {self.brief.job_id} has ended"
        return self.held


class State:
    """Core, journal, sheets and signals, always in step."""

    def __init__(self, rules: Rules, journal: Journal, clocks: Clocks) -> None:
        self.core = Scheduler(rules)
        self.journal = journal
        self.clocks = clocks
        self.signals = Signals()
        self.known: dict[str, Known] = {}
        self.cards: dict[str, WorkerRegistration] = {}
        self.on_settled: Callable[[str], None] = lambda _: None
        self.on_ended: Callable[[str], None] = lambda _: None

    # --- looking -----------------------------------------------------------------------------------------------

    def job(self, job_id: str) -> Known:
        """Return what is known of a job; raises `NotFound`."""
        known = self.known.get(job_id)
        if known is None:
            raise NotFound(f"there is no job {job_id}")
        return known

    def view(self, job_id: str) -> Job:
        """Return a job as everyone sees it; raises `NotFound`."""
        known = self.job(job_id)
        return progress.view(known.brief, self.core.job(job_id), known.progress, self.clocks.now())

    async def detail(self, job_id: str) -> JobDetail:
        """Return a job with all that decides its result; raises `NotFound`, and `Unavailable` if the journal cannot be read."""
        sheet = await self.sheet(job_id)
        known = self.job(job_id)
        return progress.detail(sheet, self.core.job(job_id), known.progress, self.clocks.now())

    async def sheet(self, job_id: str) -> Sheet:
        """Return the sheet of any job; raises `NotFound`, and `Unavailable` if the journal cannot be read."""
        held = self.job(job_id).held
        return held or _found(job_id, await self.journal.read(lambda db: entries.load_sheet(db, job_id)))

    def sheet_now(self, job_id: str) -> Sheet:
        """Return the sheet of any job, waiting for it here: for threads; raises as `sheet`."""
        held = self.job(job_id).held
        return held or _found(job_id, self.journal.read_now(lambda db: entries.load_sheet(db, job_id)))

    def has_ended(self, job_id: str) -> bool:
        """Return whether a job will not change any more by itself."""
        return isinstance(self.core.job(job_id).phase, Finished | Broken | Cancelled)

    def has_running_jobs(self) -> bool:
        """Return whether a job runs, follows its series, or has its file written; one that no worker has begun may wait asleep."""
        return any(
            isinstance(job.phase, Running | Merging | Cancelling)
            or (isinstance(job.phase, Queued) and job.is_growing)
            for job in self.core.jobs.values()
        )

    # --- changing ----------------------------------------------------------------------------------------------

    async def settled(self, decided: Decided[T], also: Sequence[Statement] = ()) -> T:
        """Return what the core decided, once that and everything before it is on the disk.

        Raises
        ------
        OutOfSpace, Unavailable
            If the disk refuses; it is written as soon as the disk takes it.
        """
        statements = [*self._noted(decided.records), *also]
        await self.journal.write(statements)
        return decided.value

    def posted(self, decided: Decided[T]) -> T:
        """Return what the core decided without waiting for the disk: for what nobody is told."""
        self.journal.post(self._noted(decided.records))
        return decided.value

    def restore(self) -> None:
        """Read the journal; live leases get one fresh term, files half made are made again."""
        saved = self.journal.read_now(self._taken_up)
        workers = self.journal.read_now(entries.load_workers)
        self.cards = {record.order.worker_id: card for record, card in workers}
        records = [record for record, _ in workers]
        tasks = self.journal.read_now(entries.load_tasks)
        self.core.restore([*records, *saved, *tasks], now=self.clocks.now())
        for job_id, frames in self.journal.read_now(lambda db: list(entries.load_failures(db))):
            self.note_failures(job_id, [frames])
        for job_id, cpu in self.journal.read_now(entries.load_cpus):
            self.job(job_id).progress.cpus.add(cpu)
        for record in saved:
            if isinstance(record.phase, Merging | Cancelling):
                self.on_settled(record.order.job_id)

    def note_failures(self, job_id: str, failures: list[FailedFrames]) -> None:
        """Remember the failed frames of a committed result."""
        self.job(job_id).progress.failed_frames += failures

    def _taken_up(self, connection: sqlite3.Connection) -> list[JobSaved]:
        """Note the jobs of the journal, and return their records."""
        saved = []
        for row in entries.load_jobs(connection):
            sheet, ended = row.sheet, isinstance(row.phase, Finished | Broken | Cancelled)
            self.known[sheet.job_id] = Known(
                sheet.brief, None if ended else sheet, row.progress, row.idempotency_key, row.digest
            )
            saved.append(JobSaved(sheet.order(), row.phase, row.growth))
        return saved

    def _noted(self, records: tuple[Record, ...]) -> list[Statement]:
        return [statement for record in records for statement in self._note(record)]

    def _note(self, record: Record) -> list[Statement]:
        match record:
            case JobSaved():
                return self._note_job(record)
            case JobForgotten(job_id=job_id):
                known = self.known.pop(job_id)
                self.signals.forget(job_id)
                return [] if known.brief.kind == _EPHEMERAL else entries.forget_job_statements(job_id)
            case TaskSaved():
                return self._note_task(record)
            case WorkerSaved():
                return [entries.worker_statement(record, self.cards[record.order.worker_id])]
            case WorkerForgotten(worker_id=worker_id):
                self.cards.pop(worker_id, None)
                return [entries.forget_worker_statement(worker_id)]

    def _note_job(self, record: JobSaved) -> list[Statement]:
        job_id = record.order.job_id
        known = self.known[job_id]
        self._stamp(known.progress, record)
        self.signals.changed(job_id)
        phase = type(record.phase).__name__.lower()
        if phase != known.progress.phase:
            known.progress.phase = phase
            logger.info("job %s is %s", job_id, phase)
        if isinstance(record.phase, Queued | Running):
            self.signals.work.pulse()
        if isinstance(record.phase, Merging | Cancelling):
            self.on_settled(job_id)
        if isinstance(record.phase, Finished | Broken | Cancelled):
            self.on_ended(job_id)
        if known.brief.kind == _EPHEMERAL:
            return []
        row = JobRow(
            known.sheet, record.phase, known.progress, known.idempotency_key, known.digest, record.growth
        )
        statement = entries.job_statement(row)
        if isinstance(record.phase, Finished | Broken | Cancelled):
            known.held = None
            known.progress.forget_commits()
        return [statement]

    def _stamp(self, noted: Progress, record: JobSaved) -> None:
        match record.phase:
            case Running():
                noted.started = noted.started or self.clocks.wall()
                noted.finished = None
            case Finished() | Broken() | Cancelled():
                noted.finished = self.clocks.wall()
            case _:
                pass

    def _note_task(self, record: TaskSaved) -> list[Statement]:
        self.signals.changed(record.job_id)
        if isinstance(record.state, Ready):
            self.signals.work.pulse()
        known = self.known.get(record.job_id)
        ephemeral = known is None or known.brief.kind == _EPHEMERAL
        return [] if ephemeral else [entries.task_statement(record)]


def _found(job_id: str, sheet: Sheet | None) -> Sheet:
    if sheet is None:
        raise NotFound(f"there is no job {job_id}")
    return sheet
