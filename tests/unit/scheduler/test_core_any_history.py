"""Any history of the core keeps its promises: hypothesis plays workers, people, time and restarts."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.errors import Conflict, Gone, NotFound, Superseded
from cluster.scheduler.core import Counts, Growth, JobOrder, Rules, Scheduler, TaskLease, WorkerOrder
from cluster.scheduler.core.records import (
    JobForgotten,
    JobSaved,
    Record,
    TaskSaved,
    WorkerForgotten,
    WorkerSaved,
)
from cluster.scheduler.core.tasks import Done, Failed, Leased, Ready
from tests.simulation.invariants import check

WORKERS = ("ann", "bob", "cat")
RULES = Rules(
    lease_s=30.0, max_attempts=2, task_frames=7, exclude_after=3, straggler_least_s=1.0, asleep_s=120.0
)
KINDS = ("error", "refused", "handed_back", "invalid", "changed")

workers = st.sampled_from(WORKERS)


class AnyHistory(RuleBasedStateMachine):
    """Every attempt ever granted may report at any time, twice, or late; the scheduler may die between commands."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Scheduler(RULES)
        self.now = 0.0
        self.journal: dict[tuple[str, ...], Record] = {}
        self.granted: list[tuple[str, TaskLease]] = []
        self.committed: dict[tuple[str, int], int] = {}
        self.ranges: dict[tuple[str, int], tuple[int, int]] = {}
        self.jobs = 0

    def write(self, records: tuple[Record, ...]) -> None:
        for record in records:
            if isinstance(record, JobForgotten):
                self.drop_job(record.job_id)
            elif isinstance(record, WorkerForgotten):
                self.journal.pop(record.key, None)
            else:
                self.journal[record.key] = record

    def drop_job(self, job_id: str) -> None:
        self.journal = {key: value for key, value in self.journal.items() if key[1] != job_id}
        self.committed = {key: value for key, value in self.committed.items() if key[0] != job_id}

    @initialize()
    def hire(self) -> None:
        for name in WORKERS:
            self.write(self.core.register(WorkerOrder(name, frozenset({"fit"})), now=self.now).records)

    @precondition(lambda self: self.jobs < 4)
    @rule(
        frames=st.integers(1, 40),
        owner=st.sampled_from(["o", "p"]),
        priority=st.integers(0, 1),
        context=st.sampled_from([0, 9]),
    )
    def submit(self, frames: int, owner: str, priority: int, context: int) -> None:
        self.jobs += 1
        if context:  # with many short tasks, so that some are set aside
            frames *= 6
        order = JobOrder(
            f"j{self.jobs}",
            2,
            2 + frames,
            frames + 5,
            100,
            "fit",
            owner,
            "",
            priority,
            context_frames=context,
        )
        self.write(self.core.submit(order).records)

    @precondition(lambda self: self.jobs < 4)
    @rule(listed=st.lists(st.integers(0, 20), min_size=1, max_size=4, unique=True))
    def preview(self, listed: list[int]) -> None:
        self.jobs += 1
        order = JobOrder(f"j{self.jobs}", 0, 21, 21, 100, "fit", kind="preview", frames=tuple(listed))
        self.write(self.core.submit(order).records)

    @precondition(lambda self: self.jobs < 4)
    @rule()
    def submit_a_series_that_grows(self) -> None:
        self.jobs += 1
        self.write(self.core.submit(JobOrder(f"j{self.jobs}", 2, 2, 0, 100, "fit", growing=True)).records)

    @precondition(lambda self: any(job.growth for job in self.core.jobs.values()))
    @rule(data=st.data(), more=st.integers(-3, 20), held_back=st.integers(0, 4), end=st.booleans())
    def a_series_grows_or_ends(self, data: st.DataObject, more: int, held_back: int, end: bool) -> None:
        job = self.core.job(
            data.draw(st.sampled_from(sorted(n for n, j in self.core.jobs.items() if j.growth)))
        )
        before, total = job.growth, max(0, job.total + more)
        growth = Growth(
            stop=max(2, total if end else total - held_back),
            total=total,
            skipped=min(2, total),
            ended=end,
            lacking="it broke off" if end and held_back else "",
        )
        decided = self.core.grow(job.order.job_id, growth)
        self.write(decided.records)
        assert job.growth == (growth if decided.value else before)
        assert before is None or not (before.ended and decided.value), "it grew after its end"

    @rule(worker=workers, count=st.integers(1, 3))
    def lease(self, worker: str, count: int) -> None:
        if worker not in self.core.workers:
            self.write(self.core.register(WorkerOrder(worker, frozenset({"fit"})), now=self.now).records)
        decided = self.core.lease(worker, count, now=self.now)
        self.write(decided.records)
        assert not (decided.value and self.core.workers[worker].draining), "a drained worker was given work"
        for one in decided.value:
            assert (one.job_id, one.task_id) not in self.committed, "a committed task was leased"
            before = [
                g.attempt for _, g in self.granted if (g.job_id, g.task_id) == (one.job_id, one.task_id)
            ]
            assert one.attempt > max(before, default=0), "attempts did not increase"
            bounds = self.ranges.setdefault((one.job_id, one.task_id), (one.start, one.stop))
            assert bounds == (one.start, one.stop), "a task's range changed"
            self.granted.append((worker, one))

    @precondition(lambda self: self.granted)
    @rule(data=st.data(), worker=workers)
    def commit_any_attempt_ever_granted(self, data: st.DataObject, worker: str) -> None:
        _, one = data.draw(st.sampled_from(self.granted))
        name = (one.job_id, one.task_id)
        counts = Counts(localised=one.stop - one.start, rows=one.task_id, seconds=0.1)
        try:
            decided = self.core.commit(worker, *name, one.attempt, counts, now=self.now)
        except Superseded:
            state = self.core.job(one.job_id).state(one.task_id)
            assert isinstance(state, Failed) or self.committed[name] != one.attempt
        except Gone:
            assert name not in self.committed
        except NotFound:
            assert worker not in self.core.workers or one.job_id not in self.core.jobs
        else:
            assert (decided.value == "already") == (name in self.committed)
            assert self.committed.setdefault(name, one.attempt) == one.attempt, "two attempts committed"
            self.write(decided.records)

    @precondition(lambda self: self.granted)
    @rule(data=st.data(), kind=st.sampled_from(KINDS))
    def fail_any_attempt_ever_granted(self, data: st.DataObject, kind: Any) -> None:
        worker, one = data.draw(st.sampled_from(self.granted))
        if worker in self.core.workers and one.job_id in self.core.jobs:
            decided = self.core.fail(worker, one.job_id, one.task_id, one.attempt, kind, "no", now=self.now)
            self.write(decided.records)

    @rule(worker=workers, silent=st.booleans())
    def keep_alive(self, worker: str, silent: bool) -> None:
        if worker in self.core.workers:
            held = [(job, task, attempt) for (job, task), attempt in self.core.workers[worker].held.items()]
            decided = self.core.keep_alive(worker, [] if silent else held, now=self.now)
            assert decided.value == []

    @rule(worker=workers)
    def leave(self, worker: str) -> None:
        if worker in self.core.workers:
            self.write(self.core.leave(worker, now=self.now).records)

    @rule(worker=workers, undo=st.booleans())
    def drain(self, worker: str, undo: bool) -> None:
        if worker in self.core.workers:
            self.write((self.core.undrain if undo else self.core.drain)(worker).records)

    @rule(step=st.sampled_from([0.0, 1.5, 10.0, 29.9, 30.0, 31.0, 700.0]))
    def time_passes(self, step: float) -> None:
        self.now += step
        self.write(self.core.tick(now=self.now).records)

    @precondition(lambda self: self.core.jobs)
    @rule(data=st.data(), command=st.sampled_from(["cancel", "retry", "merged", "not merged", "forget"]))
    def person_or_shell(self, data: st.DataObject, command: str) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.core.jobs)))
        commands = {
            "cancel": lambda: self.core.cancel(job_id, now=self.now),
            "retry": lambda: self.core.retry(job_id, now=self.now),
            "merged": lambda: self.core.merged(job_id),
            "not merged": lambda: self.core.merged(job_id, failed="disk full"),
            "forget": lambda: self.core.forget(job_id),
        }
        with contextlib.suppress(Conflict):
            self.write(commands[command]().records)

    @rule()
    def scheduler_dies_and_restarts(self) -> None:
        before = picture(self.core)

        self.core = restored(self.journal, self.now)

        assert picture(self.core) == before

    @invariant()
    def the_books_balance(self) -> None:
        check(self.core)

    @invariant()
    def a_done_task_is_localised_and_a_failed_one_failed(self) -> None:
        for job in self.core.jobs.values():
            frames = dict.fromkeys((Ready, Leased, Done, Failed), 0)
            for task in range(job.tasks):
                start, stop = job.bounds(task)
                frames[type(job.state(task))] += stop - start
            assert job.tally.failed == frames[Failed]
            assert job.tally.localised == frames[Done]

    @invariant()
    def what_is_committed_stays_committed(self) -> None:
        for (job_id, task_id), attempt in self.committed.items():
            assert self.core.job(job_id).state(task_id) == Done(attempt)


def restored(journal: dict[tuple[str, ...], Record], now: float) -> Scheduler:
    records = list(journal.values())
    ordered: list[Any] = [record for record in records if isinstance(record, WorkerSaved)]
    ordered += [record for record in records if isinstance(record, JobSaved)]
    ordered += sorted((r for r in records if isinstance(r, TaskSaved)), key=lambda r: (r.job_id, r.task_id))
    core = Scheduler(RULES)
    core.restore(ordered, now=now)
    return core


def picture(core: Scheduler) -> Any:
    """All that must survive a restart."""
    jobs = {
        name: (
            job.order,
            job.growth,
            job.phase,
            [(job.bounds(task), job.state(task)) for task in range(job.tasks)],
            (job.tally.localised, job.tally.skipped, job.tally.failed, job.tally.rows, job.tally.tasks_done),
            job.frames_uncut,
        )
        for name, job in core.jobs.items()
    }
    return jobs, {name: (worker.order, worker.excluded, worker.held) for name, worker in core.workers.items()}


AnyHistory.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAnyHistory = AnyHistory.TestCase
