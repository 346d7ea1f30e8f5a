"""The scheduler's commands: each checks, changes state, and returns what must be journaled before it is answered.

Sans-I/O: the shell owns the clock, the network and the disk. Transitions themselves are methods of the states in
`tasks` (a task) and `phases` (a job); here it is decided which of them happens when.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal, TypeVar, assert_never

from cluster.errors import Conflict, Gone, Invalid, NotFound, Superseded
from cluster.scheduler.core.books import Books
from cluster.scheduler.core.jobs import Job
from cluster.scheduler.core.leasing import next_lease
from cluster.scheduler.core.phases import Broken, Cancelled, Cancelling, Finished, Merging, Queued, Running
from cluster.scheduler.core.records import (
    Counts,
    Decided,
    Growth,
    JobForgotten,
    JobOrder,
    JobSaved,
    TaskLease,
    TaskSaved,
    WorkerOrder,
    WorkerSaved,
)
from cluster.scheduler.core.rules import Rules
from cluster.scheduler.core.tasks import Done, Failed, Leased, Ready, TaskState
from cluster.scheduler.core.workers import TaskName, Worker

Outcome = Literal["committed", "already"]
FailureKind = Literal["error", "refused", "handed_back", "invalid", "changed"]
Held = tuple[str, int, int]  # job, task, attempt
T = TypeVar("T")
_MOST_GIVEN_UP = 1000


class Scheduler:
    """Jobs, tasks, leases and workers: every decision about them, and nothing else."""

    def __init__(self, rules: Rules) -> None:
        self._books = Books(rules)

    @property
    def rules(self) -> Rules:
        """Return the numbers it decides by."""
        return self._books.rules

    @property
    def jobs(self) -> Mapping[str, Job]:
        """Return the jobs by name, oldest first; for looking at."""
        return self._books.jobs

    @property
    def workers(self) -> Mapping[str, Worker]:
        """Return the workers by name; for looking at."""
        return self._books.workers

    def restore(self, records: Iterable[JobSaved | TaskSaved | WorkerSaved], *, now: float) -> None:
        """Rebuild the state from the newest record of each thing: workers, jobs as submitted, tasks by number.

        Live leases get one fresh term, so that work under way is not thrown away.
        """
        self._books.restore(records, now)

    # --- jobs --------------------------------------------------------------------------------------------------

    def submit(self, order: JobOrder) -> Decided[None]:
        """Take in a job. Its tasks are cut when workers ask, so that its length costs nothing.

        Raises
        ------
        Conflict
            If there is a job of this name.
        """
        if order.job_id in self.jobs:
            raise Conflict(f"there is a job {order.job_id} already")
        job = self._books.admit(order)
        self._books.record(job.saved())
        self._books.settle(job)
        return self._decided(None)

    def cancel(self, job_id: str, *, now: float) -> Decided[None]:
        """Take back all leases of a job and end it with what is finished; saying so twice is harmless.

        Raises
        ------
        NotFound
            If there is no such job.
        Conflict
            If it has ended, or its last task is done.
        """
        job = self.job(job_id)
        match job.phase:
            case Queued() | Running():
                job.phase = job.phase.cancel()
            case Cancelling() | Cancelled():
                return self._decided(None)
            case _:
                raise Conflict(f"job {job_id} cannot be cancelled: every task of it has ended")
        self._books.close(job)
        for task_id, leased in job.live():
            self._books.change(job, task_id, leased.revoke(now=now))
        if isinstance(job.phase, Cancelling) and job.tally.tasks_done == 0:
            job.phase = job.phase.finish()
        self._books.record(job.saved())
        return self._decided(None)

    def grow(self, job_id: str, growth: Growth) -> Decided[bool]:
        """Note how far the series of a job has come; return whether that was news.

        Frames never become fewer, and nothing changes after the end: what says otherwise is passed over.

        Raises
        ------
        NotFound
            If there is no such job.
        """
        job = self.job(job_id)
        known = job.growth
        if known is None or known.ended or not job.is_open or growth == known:
            return self._decided(False)
        if growth.stop < known.stop or growth.total < known.total:
            return self._decided(False)
        job.grow(growth)
        self._books.record(job.saved())
        self._books.settle(job)
        return self._decided(True)

    def retry(self, job_id: str, *, now: float) -> Decided[None]:
        """Put the failed tasks of an ended job back to work, or write its file again if that is what failed.

        Raises
        ------
        NotFound
            If there is no such job.
        Conflict
            If it has not ended, was cancelled, or nothing of it failed.
        """
        job = self.job(job_id)
        match job.phase:
            case Finished() | Broken() if job.failed:
                job.phase = job.phase.retry()
                self._retry_tasks(job, now)
                self._books.reopen(job)
            case Broken():
                job.phase = job.phase.settle()
            case Finished():
                raise Conflict(f"job {job_id} has no failed task to retry")
            case _:
                raise Conflict(f"job {job_id} cannot be retried: it has not ended, or was cancelled")
        self._books.record(job.saved())
        return self._decided(None)

    def merged(self, job_id: str, *, failed: str | None = None) -> Decided[None]:
        """Note that a job's result file is in place, or why it could not be written."""
        job = self.job(job_id)
        match job.phase:
            case Merging() if failed is None:
                job.phase = job.phase.finish(errors=job.tally.failed > 0 or bool(job.lacking))
            case Merging():
                job.phase = job.phase.break_off(failed or "")
            case Cancelling():
                job.phase = job.phase.finish(failed)
            case _:
                return self._decided(None)
        self._books.record(job.saved())
        return self._decided(None)

    def forget(self, job_id: str) -> Decided[None]:
        """Drop a job and every trace of it; leases on it are gone."""
        job = self.job(job_id)
        self._books.close(job)
        for task_id, leased in job.live():
            self._books.change(job, task_id, leased.revoke(now=0.0))
        del self._books.jobs[job_id]
        self._books.record(JobForgotten(job_id))
        return self._decided(None)

    def job(self, job_id: str) -> Job:
        """Return a job; raises `NotFound`."""
        return self._books.job(job_id)

    # --- workers -----------------------------------------------------------------------------------------------

    def register(self, order: WorkerOrder, *, now: float) -> Decided[None]:
        """Take in a worker."""
        worker = Worker(order, last_seen=now)
        self._books.workers[order.worker_id] = worker
        self._books.record(worker.saved())
        return self._decided(None)

    def leave(self, worker_id: str, *, now: float) -> Decided[None]:
        """Let a worker go; what it held is handed back at once. Raises `NotFound`."""
        worker = self.worker(worker_id)
        for (job_id, task_id), attempt in list(worker.held.items()):
            job = self.jobs[job_id]
            limit = self.rules.max_attempts
            self._books.change(job, task_id, job.leased[task_id].hand_back(attempt, limit=limit, now=now))
        self._books.forget_worker(worker)
        return self._decided(None)

    def drain(self, worker_id: str) -> Decided[None]:
        """Give a worker no more work; it learns so when it says that it is alive. Raises `NotFound`."""
        self.worker(worker_id).draining = True
        return self._decided(None)

    def undrain(self, worker_id: str) -> Decided[None]:
        """Give a worker work again that was to have none. Raises `NotFound`."""
        self.worker(worker_id).draining = False
        return self._decided(None)

    def keep_alive(self, worker_id: str, held: Iterable[Held], *, now: float) -> Decided[list[Held]]:
        """Renew the leases a worker still works on; return those that are its own no longer. Raises `NotFound`."""
        worker = self._books.heard_of(worker_id, now)
        lost = [name for name in held if not self._books.renew(worker, *name, now)]
        return self._decided(lost)

    def worker(self, worker_id: str) -> Worker:
        """Return a worker; raises `NotFound`."""
        return self._books.worker(worker_id)

    # --- tasks -------------------------------------------------------------------------------------------------

    def lease(self, worker_id: str, count: int, *, now: float) -> Decided[list[TaskLease]]:
        """Give a worker up to `count` tasks; none if there is no work for it. Raises `NotFound`."""
        worker = self._books.heard_of(worker_id, now)
        self._books.expire(now)
        leases: list[TaskLease] = []
        while worker.may_work and len(leases) < count:
            lease = next_lease(self._books, worker, now)
            if lease is None:
                break
            leases.append(lease)
        return self._decided(leases)

    def check(self, job_id: str, task_id: int, attempt: int) -> Outcome:
        """Say what committing this attempt would come to, and change nothing.

        Raises
        ------
        NotFound
            If there is no such job or task.
        Invalid
            If this attempt was never granted.
        Superseded
            If the task has been settled otherwise.
        Gone
            If the job has ended without it.
        """
        job = self.job(job_id)
        if not job.knows(task_id):
            raise NotFound(f"job {job_id} has no task {task_id}")
        match job.state(task_id):
            case Done(attempt=accepted) if accepted == attempt:
                return "already"
            case Done(attempt=accepted):
                raise Superseded(
                    f"attempt {accepted} of task {task_id} was committed before attempt {attempt}"
                )
            case _ if not job.is_open:
                raise Gone(f"job {job_id} has ended; task {task_id} is not wanted any more")
            case Failed():
                raise Superseded(f"task {task_id} was given up before attempt {attempt} came in")
            case Ready(attempts=granted) | Leased(attempts=granted) if not 1 <= attempt <= granted:
                raise Invalid(f"attempt {attempt} of task {task_id} was never granted", field="attempt")
            case _:
                return "committed"

    def commit(
        self, worker_id: str, job_id: str, task_id: int, attempt: int, counts: Counts, *, now: float
    ) -> Decided[Outcome]:
        """Accept the first result of a task; the same again is harmless. Raises as `check`, or `NotFound`."""
        worker = self._books.heard_of(worker_id, now)
        outcome = self.check(job_id, task_id, attempt)
        if outcome == "already":
            return self._decided(outcome)
        job = self.jobs[job_id]
        state = job.state(task_id)
        assert isinstance(state, Ready | Leased)
        self._books.change(job, task_id, state.commit(attempt), counts)
        start, stop = job.bounds(task_id)
        if job.is_open:
            job.paces.note(worker_id, stop - start, counts.seconds)
        job.last_refusal = ""
        worker.note_success(stop - start, counts.seconds, job_id)
        self._note_redone(state, worker, (job_id, task_id))
        return self._decided(outcome)

    def fail(
        self,
        worker_id: str,
        job_id: str,
        task_id: int,
        attempt: int,
        kind: FailureKind,
        message: str,
        *,
        now: float,
    ) -> Decided[None]:
        """Take back an attempt that came to nothing; one that no longer counts is passed over. Raises `NotFound`."""
        worker = self._books.heard_of(worker_id, now)
        job = self.job(job_id)
        leased = job.leased.get(task_id)
        grant = leased.find(attempt) if leased else None
        if leased is None or grant is None or grant.worker != worker_id:
            return self._decided(None)
        limit = self.rules.max_attempts
        after: TaskState
        match kind:
            case "handed_back":
                after = leased.hand_back(attempt, limit=limit, now=now)
            case "refused":
                pauses = {"first_s": self.rules.refusal_pause_s, "longest_s": self.rules.longest_pause_s}
                worker.note_refusal(job_id, now=now, **pauses)
                job.last_refusal = message
                after = leased.hand_back(attempt, limit=limit, now=now)
            case "error":
                worker.note_error((job_id, task_id), message)
                after = leased.err(attempt, message, limit=limit, now=now)
            case "invalid" | "changed":
                after = leased.reject(message)
            case _:
                assert_never(kind)
        if kind == "changed":
            self._give_up_the_rest(job, message)
        self._books.change(job, task_id, after)
        self._exclude_if_a_black_hole(worker)
        return self._decided(None)

    # --- time --------------------------------------------------------------------------------------------------

    def tick(self, *, now: float) -> Decided[None]:
        """Take back leases that ran out, and note workers that fell silent."""
        self._books.expire(now)
        for worker in list(self.workers.values()):
            silent_s = now - worker.last_seen
            worker.lost = silent_s > self.rules.lease_s
            if silent_s > self.rules.forget_worker_s and not worker.held:
                self._books.forget_worker(worker)
        return self._decided(None)

    # --- inside ------------------------------------------------------------------------------------------------

    def _decided(self, value: T) -> Decided[T]:
        return Decided(value, self._books.taken_records())

    def _retry_tasks(self, job: Job, now: float) -> None:
        for task_id in sorted(job.failed):
            state = job.state(task_id)
            assert isinstance(state, Failed)
            self._books.change(job, task_id, state.retry(now=now))

    def _give_up_the_rest(self, job: Job, reason: str) -> None:
        """Fail what nobody has begun: the series is not the one that the job began with, nor will it be.

        The tasks are those that a retry will lease, once the series is back; a long job has not too many of them.
        """
        if job.growth is not None and job.is_growing:
            job.grow(replace(job.growth, ended=True, lacking=reason))
            self._books.record(job.saved())
        workers = sum(worker.may_work for worker in self.workers.values())
        size = self.rules.task_size(job, max(1, workers))
        job.cut_all(max(size, math.ceil(job.frames_uncut / _MOST_GIVEN_UP)))
        for task_id, ready in list(job.waiting()):
            self._books.change(job, task_id, ready.reject(reason))

    def _note_redone(self, state: Ready | Leased, by: Worker, task: TaskName) -> None:
        for worker_id in state.toll.tried - {by.worker_id}:
            worker = self.workers.get(worker_id)
            if worker is not None:
                worker.note_redone(task)
                self._exclude_if_a_black_hole(worker)

    def _exclude_if_a_black_hole(self, worker: Worker) -> None:
        if worker.exclude_if_a_black_hole(self.rules.exclude_after):
            self._books.record(worker.saved())
