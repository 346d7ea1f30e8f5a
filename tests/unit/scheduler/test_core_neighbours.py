"""Neighbouring tasks go to one worker where the frames around a task are a large part of what it reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.scheduler.core import Counts, JobOrder, Rules, Scheduler, TaskLease, WorkerOrder

Order = Callable[..., JobOrder]
CONTEXT, SIZE = 30, 10


@pytest.fixture
def core(order: Order) -> Scheduler:
    scheduler = Scheduler(Rules(task_frames=SIZE, lease_s=30.0))
    for name in ("ann", "bob"):
        scheduler.register(WorkerOrder(name, frozenset({order().fit})), now=0.0)
    return scheduler


def leased(core: Scheduler, worker: str) -> TaskLease | None:
    given = core.lease(worker, 1, now=0.0).value
    return given[0] if given else None


def work(core: Scheduler, worker: str) -> TaskLease | None:
    """Let a worker do one task."""
    lease = leased(core, worker)
    if lease is not None:
        counts = Counts(localised=lease.stop - lease.start, seconds=0.1)
        core.commit(worker, lease.job_id, lease.task_id, lease.attempt, counts, now=0.0)
    return lease


def work_by_turns(core: Scheduler) -> dict[str, list[tuple[int, int]]]:
    """Let both work until nothing is left; return the ranges that each did, in the order in which they came."""
    done: dict[str, list[tuple[int, int]]] = {"ann": [], "bob": []}
    while core.job("job").is_open:
        for worker, ranges in done.items():
            if lease := work(core, worker):
                ranges.append((lease.start, lease.stop))
    return done


def frames_read(ranges: list[tuple[int, int]]) -> int:
    """Return how many frames a worker fetches that keeps the range before."""
    read, kept = 0, (0, 0)
    for start, stop in ranges:
        first = max(0, start - CONTEXT)
        read += stop - (kept[1] if kept[0] <= first <= kept[1] else first)
        kept = (first, stop)
    return read


def test_the_frames_around_tasks_are_read_once_for_many(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=6000, context_frames=CONTEXT))
    done = work_by_turns(core)

    assert sorted(done["ann"] + done["bob"]) == [(n, n + SIZE) for n in range(0, 6000, SIZE)]
    # a tenth of a run, and at the end runs become shorter: without runs it would be (10 + 30) / 10 of the frames
    assert sum(map(frames_read, done.values())) < 1.25 * 6000
    assert abs(len(done["ann"]) - len(done["bob"])) <= 1


@pytest.mark.parametrize("facts", [{"context_frames": 0}, {"context_frames": CONTEXT, "frames": 2 * SIZE}])
def test_a_task_is_for_whoever_comes_first_where_there_is_nothing_to_gain(
    core: Scheduler, order: Order, facts: dict[str, int]
) -> None:
    core.submit(order(**{"frames": 6000} | facts))
    work(core, "ann")
    work(core, "bob")

    assert core.job("job").tasks == 2


def test_who_has_nothing_left_takes_what_another_would_come_to_last(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=60 * SIZE, context_frames=CONTEXT))
    work(core, "ann")  # tells its pace
    first = leased(core, "ann")
    done_by_bob = []
    while lease := work(core, "bob"):
        done_by_bob.append(lease.task_id)

    assert first is not None
    assert first.task_id == 1
    set_aside_for_ann = range(2, done_by_bob[0])
    assert len(set_aside_for_ann) > 3
    assert done_by_bob[-len(set_aside_for_ann) :] == [*reversed(set_aside_for_ann)]
    assert list(core.job("job").leased) == [first.task_id]


def test_of_a_cancelled_job_nothing_stays_set_aside(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=6000, context_frames=CONTEXT))
    for worker in ("ann", "bob", "ann", "bob"):
        work(core, worker)
    assert core.job("job")._aside
    core.cancel("job", now=1.0)

    assert core.job("job")._aside == {}
    assert leased(core, "ann") is None


def test_what_was_set_aside_is_there_after_a_restart(core: Scheduler, order: Order) -> None:
    newest = {record.key: record for record in core.submit(order(frames=600, context_frames=CONTEXT)).records}
    for worker in ("ann", "bob", "ann", "bob"):
        given = core.lease(worker, 1, now=0.0)
        lease = given.value[0]
        counts = Counts(localised=SIZE, seconds=0.1)
        committed = core.commit(worker, "job", lease.task_id, lease.attempt, counts, now=0.0)
        newest |= {record.key: record for record in (*given.records, *committed.records)}

    again = Scheduler(core.rules)
    again.restore(
        [newest["job", "job"], *(newest["task", "job", str(n)] for n in range(core.job("job").tasks))],
        now=9.0,
    )  # type: ignore[arg-type, misc]
    again.register(WorkerOrder("cat", frozenset({order().fit})), now=9.0)
    while work(again, "cat"):
        pass

    assert core.job("job").tasks > 4
    assert again.job("job").tally.localised == 600
    assert not again.job("job").is_open
