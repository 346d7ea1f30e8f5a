"""Which task a worker gets next."""

from __future__ import annotations

from cluster.scheduler.core.books import Books
from cluster.scheduler.core.jobs import Job
from cluster.scheduler.core.phases import Queued
from cluster.scheduler.core.records import TaskLease
from cluster.scheduler.core.tasks import Leased, Ready
from cluster.scheduler.core.workers import Worker

_TERMS_TO_WAIT_FOR_ANOTHER = 2


def next_lease(books: Books, worker: Worker, now: float) -> TaskLease | None:
    """Lease one task to a worker: one that waits, else a second attempt of a straggler, else none."""
    return _lease_waiting(books, worker, now) or _lease_straggler(books, worker, now)


def _lease_waiting(books: Books, worker: Worker, now: float) -> TaskLease | None:
    able = [job for job in books.open.values() if job.has_work and books.able(job, worker, now)]
    while able:
        job = min(able, key=books.shares.rank)
        task_id = _take(books, job, worker, now)
        if task_id is not None:
            state = job.state(task_id)
            assert isinstance(state, Ready)
            return _grant(books, job, task_id, state, worker, now)
        able.remove(job)
    return None


def _take(books: Books, job: Job, worker: Worker, now: float) -> int | None:
    def eligible(state: Ready) -> bool:
        """Prefer a worker that has not failed at this task, as long as there is one."""
        if worker.worker_id not in state.toll.tried:
            return True
        waited_s = now - state.since
        return waited_s > _TERMS_TO_WAIT_FOR_ANOTHER * books.rules.lease_s or not _another(
            books, job, state, now
        )

    workers = sum(other.may_work for other in books.workers.values())
    return job.take(eligible, lambda of: books.rules.task_size(of, workers))


def _another(books: Books, job: Job, state: Ready, now: float) -> bool:
    return any(
        books.able(job, other, now)
        for other in books.workers.values()
        if other.worker_id not in state.toll.tried
    )


def _lease_straggler(books: Books, worker: Worker, now: float) -> TaskLease | None:
    slow = [
        (leased.grants[0].since, job, task_id, leased)
        for job in books.open.values()
        if books.able(job, worker, now)
        for task_id, leased in job.leased.items()
        if len(leased.grants) == 1 and _is_worth_doubling(books, job, task_id, leased, worker, now)
    ]
    if not slow:
        return None
    _, job, task_id, leased = min(slow, key=lambda found: found[0])
    return _grant(books, job, task_id, leased, worker, now)


def _is_worth_doubling(
    books: Books, job: Job, task_id: int, leased: Leased, worker: Worker, now: float
) -> bool:
    grant = leased.grants[0]
    if grant.worker == worker.worker_id or worker.worker_id in leased.toll.tried:
        return False
    start, stop = job.bounds(task_id)
    return books.rules.straggles(job, stop - start, now - grant.since)


def _grant(
    books: Books, job: Job, task_id: int, state: Ready | Leased, worker: Worker, now: float
) -> TaskLease:
    leased = state.grant(worker.worker_id, now=now, until=now + books.rules.lease_s)
    books.grant(job, task_id, leased, worker)
    start, stop = job.bounds(task_id)
    books.shares.charge(job, stop - start)
    if isinstance(job.phase, Queued):
        job.phase = job.phase.start()
        books.record(job.saved())
    return TaskLease(job.order.job_id, task_id, leased.attempts, start, stop)
