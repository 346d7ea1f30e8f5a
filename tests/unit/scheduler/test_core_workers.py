"""Workers that come, go, fall silent, or do harm; and who is next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from cluster.scheduler.core import Counts, JobOrder, Rules, Scheduler, WorkerOrder
from cluster.scheduler.core.records import WorkerSaved

Order = Callable[..., JobOrder]
FIT = "LatGaussFitFR"


def hire(core: Scheduler, *names: str, fits: frozenset[str] = frozenset({FIT})) -> None:
    for name in names:
        core.register(WorkerOrder(name, fits), now=0.0)


def take_and_fail(core: Scheduler, worker: str, *, now: float) -> None:
    for one in core.lease(worker, 1, now=now).value:
        core.fail(worker, one.job_id, one.task_id, one.attempt, "error", "boom", now=now)


def take_and_commit(core: Scheduler, worker: str, *, now: float, seconds: float = 0.5) -> list[str]:
    leases = core.lease(worker, 1, now=now).value
    for one in leases:
        counts = Counts(localised=one.stop - one.start, rows=1, seconds=seconds)
        core.commit(worker, one.job_id, one.task_id, one.attempt, counts, now=now)
    return [one.job_id for one in leases]


def test_a_silent_worker_is_lost_and_comes_back_when_it_speaks(core: Scheduler) -> None:
    core.tick(now=31.0)
    assert core.workers["ann"].state == "lost"

    core.keep_alive("ann", [], now=32.0)

    assert core.workers["ann"].state == "idle"


def test_a_worker_silent_for_long_is_forgotten(core: Scheduler) -> None:
    core.tick(now=601.0)

    assert not core.workers


def test_a_worker_that_fails_what_others_can_do_is_excluded_with_the_reason(
    core: Scheduler, order: Order
) -> None:
    core.submit(order(frames=1000))
    for turn in range(5):
        take_and_fail(core, "ann", now=float(turn))

    take_and_commit(core, "bob", now=6.0)

    assert core.workers["ann"].state == "excluded"
    assert "boom" in str(core.workers["ann"].excluded)
    assert core.lease("ann", 1, now=7.0).value == []


def test_a_bad_job_excludes_nobody(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=1000))
    for turn in range(60):
        take_and_fail(core, "ann" if turn % 2 else "bob", now=float(turn))

    assert [worker.excluded for worker in core.workers.values()] == [None, None]
    assert core.job("job").tally.failed == 1000


def test_a_success_clears_a_workers_name(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=1000))
    for turn in range(4):
        take_and_fail(core, "ann", now=float(turn))
    take_and_commit(core, "ann", now=5.0)
    take_and_fail(core, "ann", now=6.0)

    for turn in range(5):
        take_and_commit(core, "bob", now=7.0 + turn)

    assert core.workers["ann"].excluded is None


def test_exclusion_is_recorded(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=1000))
    for turn in range(5):
        take_and_fail(core, "ann", now=float(turn))
    (one,) = core.lease("bob", 1, now=6.0).value

    records = core.commit("bob", "job", one.task_id, one.attempt, Counts(localised=50), now=7.0).records

    assert [record.excluded is not None for record in records if isinstance(record, WorkerSaved)] == [True]


def test_a_draining_worker_gets_no_more_work(core: Scheduler, order: Order) -> None:
    core.submit(order())

    core.drain("ann")

    assert core.lease("ann", 1, now=1.0).value == []
    assert core.workers["ann"].state == "draining"
    core.undrain("ann")
    assert core.workers["ann"].state == "idle"
    assert len(core.lease("ann", 1, now=1.0).value) == 1


def test_a_worker_without_the_fit_gets_none_of_the_job(order: Order) -> None:
    core = Scheduler(Rules())
    hire(core, "ann", fits=frozenset({"another"}))
    core.submit(order())

    assert core.lease("ann", 1, now=0.0).value == []


def test_higher_priority_comes_first(core: Scheduler, order: Order) -> None:
    core.submit(order("low"))
    core.submit(order("high", priority=1))

    assert take_and_commit(core, "ann", now=0.0) == ["high"]


def test_a_preview_comes_before_every_priority(core: Scheduler, order: Order) -> None:
    core.submit(order("urgent", priority=100))
    core.submit(order("test", kind="preview", listed=(3,)))

    assert take_and_commit(core, "ann", now=0.0) == ["test"]


def test_owners_share_evenly_however_many_jobs_each_has(core: Scheduler, order: Order) -> None:
    for name in ("a1", "a2", "a3"):
        core.submit(order(name, frames=10_000, owner="alice"))
    core.submit(order("b1", frames=10_000, owner="bruno"))

    had = Counter(job for turn in range(60) for job in take_and_commit(core, "ann", now=float(turn)))

    assert had == {"a1": 10, "a2": 10, "a3": 10, "b1": 30}


def test_a_late_owner_gets_no_credit_for_the_time_before(core: Scheduler, order: Order) -> None:
    core.submit(order("first", frames=10_000, owner="alice"))
    for turn in range(40):
        take_and_commit(core, "ann", now=float(turn))
    core.submit(order("second", frames=10_000, owner="bruno"))

    had = Counter(job for turn in range(20) for job in take_and_commit(core, "ann", now=100.0 + turn))

    assert had == {"first": 10, "second": 10}


def test_a_small_job_finishes_while_a_big_one_runs(core: Scheduler, order: Order) -> None:
    core.submit(order("big", frames=100_000, owner="alice"))
    for turn in range(10):
        take_and_commit(core, "ann", now=float(turn))
    core.submit(order("small", frames=100, owner="bruno"))

    had = [job for turn in range(4) for job in take_and_commit(core, "ann", now=20.0 + turn)]

    assert had.count("small") == 2


def test_a_small_job_does_not_wait_for_a_thousand_of_somebody_else(core: Scheduler, order: Order) -> None:
    for number in range(1000):
        core.submit(order(f"one of many {number}", frames=100, owner="alice"))
    for turn in range(10):
        take_and_commit(core, "ann", now=float(turn))
    core.submit(order("small", frames=100, owner="bruno"))

    had = [job for turn in range(4) for job in take_and_commit(core, "ann", now=20.0 + turn)]

    assert had.count("small") == 2


def test_a_straggler_is_doubled_on_another_worker_when_nothing_else_is_left(
    core: Scheduler, order: Order
) -> None:
    core.submit(order(frames=100))
    take_and_commit(core, "bob", now=0.0)
    (slow,) = core.lease("ann", 1, now=0.0).value
    assert core.lease("bob", 1, now=4.0).value == []
    core.keep_alive("ann", [("job", 1, 1)], now=6.0)

    (second,) = core.lease("bob", 1, now=6.0).value

    assert (second.task_id, second.attempt) == (slow.task_id, 2)
    assert (second.start, second.stop) == (slow.start, slow.stop)
    assert core.lease("bob", 1, now=20.0).value == []


def test_of_two_attempts_the_first_commit_wins_and_frees_both(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=100))
    take_and_commit(core, "bob", now=0.0)
    core.lease("ann", 1, now=0.0)
    core.lease("bob", 1, now=6.0)

    core.commit("ann", "job", 1, 1, Counts(localised=50), now=7.0)

    assert core.workers["ann"].held == core.workers["bob"].held == {}


def test_the_loss_of_one_of_two_attempts_leaves_the_other(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=100))
    take_and_commit(core, "bob", now=0.0)
    core.lease("ann", 1, now=0.0)
    core.lease("bob", 1, now=6.0)

    core.tick(now=30.0)

    assert [grant.worker for grant in core.job("job").leased[1].grants] == ["bob"]
    assert core.keep_alive("bob", [("job", 1, 2)], now=31.0).value == []


@pytest.mark.parametrize(
    ("frames", "frame_bytes", "workers", "size"),
    [
        (100_000, 131_072, 1, 16),  # enough to tell the pace
        (100_000, 8 << 20, 1, 10),  # 16 MiB, but never under 10 frames
        (50, 131_072, 1, 12),  # four tasks a worker
        (30, 131_072, 8, 10),
    ],
)
def test_the_first_task_is_short_and_short_jobs_are_split(
    order: Order, frames: int, frame_bytes: int, workers: int, size: int
) -> None:
    core = Scheduler(Rules())
    hire(core, *(f"w{n}" for n in range(workers)))
    core.submit(order(frames=frames, frame_bytes=frame_bytes))

    (first,) = core.lease("w0", 1, now=0.0).value

    assert first.stop - first.start == size


def test_task_size_follows_the_measured_time_and_shrinks_at_the_end(order: Order) -> None:
    core = Scheduler(Rules())
    hire(core, "ann")
    core.submit(order(frames=10_000, frame_bytes=100_000))
    take_and_commit(core, "ann", now=0.0, seconds=0.016)  # 1 ms a frame
    leases = core.lease("ann", 100, now=1.0).value
    sizes = [one.stop - one.start for one in leases]

    assert sizes[0] == pytest.approx(1342, abs=2)  # 128 MiB, less than 1.5 s
    assert sizes[-2] == 150  # a shorter one would cost more than it saves
    assert sum(sizes) + 16 == 10_000


def test_each_worker_gets_tasks_for_its_own_pace(order: Order) -> None:
    core = Scheduler(Rules())
    hire(core, "quick", "slow")
    core.submit(order(frames=100_000, frame_bytes=100))
    take_and_commit(core, "quick", now=0.0, seconds=0.016)  # 1 ms a frame
    take_and_commit(core, "slow", now=0.0, seconds=0.16)  # ten times as long

    (quick,), (slow,) = (core.lease(name, 1, now=1.0).value for name in ("quick", "slow"))

    assert (quick.stop - quick.start, slow.stop - slow.start) == (1500, 150)


def test_at_the_end_a_slow_workers_task_goes_to_one_that_would_be_done_sooner(order: Order) -> None:
    core = Scheduler(Rules())
    hire(core, "quick", "slow")
    core.submit(order(frames=182, frame_bytes=100))
    take_and_commit(core, "quick", now=0.0, seconds=0.016)
    take_and_commit(core, "slow", now=0.0, seconds=1.6)  # 0.1 s a frame
    (held,) = core.lease("slow", 1, now=1.0).value  # 1 s
    while core.job("job").frames_uncut:
        take_and_commit(core, "quick", now=1.0, seconds=0.016)

    (doubled,) = core.lease("quick", 1, now=1.1).value

    assert (doubled.task_id, doubled.attempt) == (held.task_id, 2)


def test_a_task_is_not_doubled_that_its_holder_will_be_done_with_as_soon(order: Order) -> None:
    core = Scheduler(Rules())
    hire(core, "ann", "bob")
    core.submit(order(frames=182, frame_bytes=100))
    for name in ("ann", "bob"):
        take_and_commit(core, name, now=0.0, seconds=1.6)
    core.lease("ann", 1, now=1.0)
    while core.job("job").frames_uncut:
        take_and_commit(core, "bob", now=1.0, seconds=1.0)

    assert core.lease("bob", 1, now=1.1).value == []
