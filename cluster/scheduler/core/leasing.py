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
    known = job.tasks
    taken = job.take(
        eligible,
        lambda of: books.rules.task_size(of, workers, worker.worker_id),
        worker.worker_id,
        books.rules.run_of_tasks(job, workers, worker.worker_id),
    )
    for task_id in range(known, job.tasks):
        if task_id != taken:  # set aside; it must not be forgotten, for its successors may be leased first
            books.record(job.record(task_id))
    return taken


def _another(books: Books, job: Job, state: Ready, now: float) -> bool:
    return any(
        books.able(job, other, now)
        for other in books.workers.values()
        if other.worker_id not in state.toll.tried
    )


def _lease_straggler(books: Books, worker: Worker, now: float) -> TaskLease | None:
    """Double the task that is held longest among those that look stuck, or that this worker would be done with sooner."""
    if now < books.no_straggler_before:
        return None
    slow = [
        (leased.grants[0].since, job.sequence, task_id, job, leased)
        for job in books.open.values()
        for task_id, leased in job.leased.items()
        if len(leased.grants) == 1 and _looks_stuck(books, job, task_id, leased, worker, now)
    ]
    if not slow:  # so that a thousand idle workers do not all look through the same leases
        books.no_straggler_before = now + books.rules.straggler_check_s
    for _, _, task_id, job, leased in sorted(slow, key=lambda found: found[:3]):
        if books.able(job, worker, now) and _has_not_tried(worker, leased):
            return _grant(books, job, task_id, leased, worker, now)
    return None


def _looks_stuck(books: Books, job: Job, task_id: int, leased: Leased, other: Worker, now: float) -> bool:
    start, stop = job.bounds(task_id)
    grant, frames = leased.grants[0], stop - start
    held_s = now - grant.since
    if held_s > books.rules.patience_s(job, frames):
        return True
    return books.rules.is_overtaken(job, frames, grant.worker, held_s, other.worker_id)


def _has_not_tried(worker: Worker, leased: Leased) -> bool:
    return worker.worker_id not in leased.toll.tried and leased.grants[0].worker != worker.worker_id


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
    return TaskLease(
        job.order.job_id, task_id, leased.attempts, start, stop, job.total if job.order.growing else None
    )
