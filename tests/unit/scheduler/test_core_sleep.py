"""A laptop that slept with leases out: nobody could be heard meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from cluster.scheduler.core import JobOrder, Rules, Scheduler, TaskLease, WorkerOrder
from cluster.scheduler.core.tasks import Leased, Ready

Order = Callable[..., JobOrder]
FIT = "LatGaussFitFR"


def sleepy(order: Order) -> tuple[Scheduler, TaskLease]:
    core = Scheduler(Rules(task_frames=50, lease_s=30.0, asleep_s=15.0))
    core.register(WorkerOrder("ann", frozenset({FIT})), now=0.0)
    core.submit(order(frames=50))
    core.tick(now=1.0)
    (held,) = core.lease("ann", 1, now=1.0).value
    return core, held


def test_a_scheduler_that_slept_gives_every_lease_a_fresh_term(order: Order) -> None:
    core, held = sleepy(order)
    for second in range(2, 20):
        core.tick(now=float(second))

    woke = 19.0 + 1800.0
    core.tick(now=woke)
    lost_at_once = core.worker("ann").lost
    for second in range(1, 30):
        core.tick(now=woke + second)
    kept = isinstance(core.job("job").state(held.task_id), Leased)
    core.tick(now=woke + 30.0)

    assert not lost_at_once
    assert kept
    assert isinstance(core.job("job").state(held.task_id), Ready)  # no lease lives for ever


def test_nor_is_a_lease_lost_if_a_worker_asks_before_the_clock_is_looked_at(order: Order) -> None:
    core, held = sleepy(order)

    core.register(WorkerOrder("bob", frozenset({FIT})), now=1801.0)
    given = core.lease("bob", 1, now=1801.0).value
    kept = core.keep_alive("ann", [("job", held.task_id, held.attempt)], now=1802.0).value

    assert given == []
    assert kept == []
    assert core.job("job").tally.retries == 0


def test_a_scheduler_that_looks_every_second_takes_back_what_runs_out(order: Order) -> None:
    core, held = sleepy(order)

    for second in range(2, 32):
        core.tick(now=float(second))

    assert isinstance(core.job("job").state(held.task_id), Ready)
