"""The scheduler's books: jobs, workers, who holds what, and the records of what has changed since last asked.

Nothing here decides; it keeps the books in step with each other. A task that changes leaves its old book, enters its
new one, is taken out of its worker's hands, and is recorded, all in `change`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from cluster.errors import NotFound
from cluster.scheduler.core.jobs import Job
from cluster.scheduler.core.phases import Queued, Running
from cluster.scheduler.core.records import (
    Counts,
    JobOrder,
    JobSaved,
    Record,
    TaskSaved,
    WorkerForgotten,
    WorkerSaved,
)
from cluster.scheduler.core.rules import Rules
from cluster.scheduler.core.shares import Shares
from cluster.scheduler.core.tasks import Grant, Leased, TaskState
from cluster.scheduler.core.workers import Worker


class Books:
    """What there is, and what of it must be journaled."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.jobs: dict[str, Job] = {}
        self.workers: dict[str, Worker] = {}
        self.open: dict[str, Job] = {}  # the jobs whose tasks may be leased
        self.shares = Shares()
        self.no_straggler_before = 0.0  # when to look for slow tasks again
        self._sequence = 0
        self._next_expiry = math.inf
        self._looked: float | None = None
        self._records: list[Record] = []

    def record(self, record: Record) -> None:
        """Remember what must be journaled."""
        self._records.append(record)

    def taken_records(self) -> tuple[Record, ...]:
        """Return what must be journaled, and forget it."""
        records, self._records = tuple(self._records), []
        return records

    # --- looking up --------------------------------------------------------------------------------------------

    def job(self, job_id: str) -> Job:
        """Return a job; raises `NotFound`."""
        job = self.jobs.get(job_id)
        if job is None:
            raise NotFound(f"there is no job {job_id}")
        return job

    def worker(self, worker_id: str) -> Worker:
        """Return a worker; raises `NotFound`."""
        worker = self.workers.get(worker_id)
        if worker is None:
            raise NotFound(f"there is no worker {worker_id}; register again")
        return worker

    def heard_of(self, worker_id: str, now: float) -> Worker:
        """Return a worker that has just spoken; raises `NotFound`."""
        worker = self.worker(worker_id)
        worker.last_seen = max(worker.last_seen, now)
        worker.lost = False
        return worker

    def able(self, job: Job, worker: Worker, now: float) -> bool:
        """Return whether a worker may be given tasks of a job."""
        return (
            worker.may_work
            and job.order.fit in worker.order.fits
            and not worker.refuses(job.order.job_id, now)
        )

    # --- jobs and workers come and go --------------------------------------------------------------------------

    def admit(self, order: JobOrder) -> Job:
        """Take in a job."""
        self._sequence += 1
        job = Job(order, self._sequence)
        self.jobs[order.job_id] = job
        self.reopen(job)
        return job

    def reopen(self, job: Job) -> None:
        """Let the tasks of a job be leased."""
        self.shares.admit(job, self.open.values())
        self.open[job.order.job_id] = job

    def close(self, job: Job) -> None:
        """Let no task of a job be leased any more."""
        self.open.pop(job.order.job_id, None)
        job.forget_workers()
        self.shares.forget(job)
        for worker in self.workers.values():
            worker.refused.pop(job.order.job_id, None)

    def settle(self, job: Job) -> None:
        """Close a job whose last task has just ended, and say so."""
        if not isinstance(job.phase, Queued | Running) or not job.is_settled:
            return
        job.phase = job.phase.settle()
        self.close(job)
        self.record(job.saved())

    def forget_worker(self, worker: Worker) -> None:
        """Drop a worker."""
        del self.workers[worker.worker_id]
        self.record(WorkerForgotten(worker.worker_id))

    # --- tasks -------------------------------------------------------------------------------------------------

    def grant(self, job: Job, task_id: int, state: Leased, worker: Worker) -> None:
        """Enter the newest grant of a task."""
        grant = state.grants[-1]
        job.put(task_id, state)
        worker.held[job.order.job_id, task_id] = grant.attempt
        self._next_expiry = min(self._next_expiry, grant.until)
        job.tally.retries += grant.attempt > 1
        self.record(job.record(task_id))

    def change(self, job: Job, task_id: int, after: TaskState, counts: Counts | None = None) -> None:
        """Move a task to its next state; grants that it has no more leave their workers' hands."""
        kept = after.grants if isinstance(after, Leased) else ()
        before = job.leased.get(task_id)
        if before is not None:
            self._take_from_workers(job, task_id, before, kept)
        job.put(task_id, after)
        start, stop = job.bounds(task_id)
        first_row = job.count(counts, stop - start) if counts is not None else 0
        self.record(job.record(task_id, counts, first_row))
        self.settle(job)

    def renew(self, worker: Worker, job_id: str, task_id: int, attempt: int, now: float) -> bool:
        """Give a worker's grant a fresh term; return whether it is still its own."""
        if worker.held.get((job_id, task_id)) != attempt:
            return False
        job = self.jobs[job_id]
        job.put(task_id, job.leased[task_id].renew(attempt, until=now + self.rules.lease_s))
        return True

    def expire(self, now: float) -> None:
        """Take back the grants that ran out; if this machine slept, nobody could be heard: all get a fresh term."""
        slept = self._looked is not None and now - self._looked > self.rules.asleep_s
        self._looked = now
        if slept:
            self._resume(now)
        if now < self._next_expiry:
            return
        for job in list(self.open.values()):
            for task_id, leased in job.live():
                for grant in leased.grants:
                    if grant.until <= now:
                        self._lose(job, task_id, grant, now)
        live = (
            grant.until
            for job in self.open.values()
            for leased in job.leased.values()
            for grant in leased.grants
        )
        self._next_expiry = min(live, default=math.inf)

    def _resume(self, now: float) -> None:
        until = now + self.rules.lease_s
        for job in self.open.values():
            for task_id, leased in job.live():
                job.put(task_id, leased.resume(now=now, until=until))
        for worker in self.workers.values():
            if not worker.lost:
                worker.last_seen = max(worker.last_seen, now)
        self._next_expiry = until  # or later, if nothing is held

    def _lose(self, job: Job, task_id: int, grant: Grant, now: float) -> None:
        leased = job.leased[task_id]
        self.change(job, task_id, leased.lose(grant.attempt, limit=self.rules.max_attempts, now=now))

    def _take_from_workers(self, job: Job, task_id: int, before: Leased, kept: tuple[Grant, ...]) -> None:
        for grant in before.grants:
            worker = self.workers.get(grant.worker)
            still_held = any(grant.attempt == other.attempt for other in kept)
            if worker is not None and not still_held:
                worker.held.pop((job.order.job_id, task_id), None)

    # --- restart -----------------------------------------------------------------------------------------------

    def restore(self, records: Iterable[JobSaved | TaskSaved | WorkerSaved], now: float) -> None:
        """Rebuild the books from the newest record of each thing: workers, then jobs as submitted, tasks by number."""
        for record in records:
            match record:
                case WorkerSaved():
                    worker = Worker(record.order, last_seen=now, excluded=record.excluded)
                    self.workers[record.order.worker_id] = worker
                case JobSaved():
                    job = self.admit(record.order)
                    job.phase = record.phase
                    if record.growth is not None:
                        job.grow(record.growth)
                    if not job.is_open:
                        self.close(job)
                case TaskSaved():
                    self._restore_task(record, now)

    def _restore_task(self, record: TaskSaved, now: float) -> None:
        job = self.jobs[record.job_id]
        job.restore_task(record)
        if not isinstance(record.state, Leased):
            return
        until = now + self.rules.lease_s
        job.put(record.task_id, record.state.resume(now=now, until=until))
        self._next_expiry = min(self._next_expiry, until)
        for grant in record.state.grants:
            holder = self.workers.get(grant.worker)
            if holder is not None:
                holder.held[record.job_id, record.task_id] = grant.attempt
