"""Who is next when owners and jobs come and go, and what a newcomer is told and noted as."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.errors import Conflict
from cluster.scheduler.core import JobOrder, Rules, Scheduler, WorkerOrder
from cluster.scheduler.core.jobs import Job
from cluster.scheduler.core.records import WorkerSaved

Order = Callable[..., JobOrder]


@pytest.fixture
def core(order: Order) -> Scheduler:
    scheduler = Scheduler(Rules(task_frames=10))
    scheduler.register(WorkerOrder("w", frozenset({order().fit})), now=0.0)
    return scheduler


def leased(core: Scheduler, count: int) -> str:
    """Lease so many tasks; return whose they are, a letter each."""
    return "".join(lease.job_id[0] for lease in core.lease("w", count, now=0.0).value)


def test_whoever_comes_late_starts_level_with_who_has_had_least(core: Scheduler, order: Order) -> None:
    core.submit(order("a", frames=1000, owner="ann"))
    leased(core, 5)
    core.submit(order("b", frames=1000, owner="bob"))

    assert leased(core, 6) == "bababa"


def test_whoever_comes_back_while_others_are_there_has_had_what_they_had(
    core: Scheduler, order: Order
) -> None:
    core.submit(order("a", frames=1000, owner="ann"))
    core.submit(order("b", frames=1000, owner="bob", priority=1))
    assert leased(core, 6) == "bbbbbb"
    core.cancel("b", now=0.0)
    core.submit(order("c", frames=1000, owner="bob"))

    assert leased(core, 9) == "aaaaaacac"


def test_a_job_starts_level_with_the_others_of_its_owner(core: Scheduler, order: Order) -> None:
    core.submit(order("a", frames=1000, owner="ann"))
    leased(core, 5)
    core.submit(order("b", frames=1000, owner="bob"))
    core.submit(order("c", frames=1000, owner="ann"))

    assert leased(core, 8) == "babcbabc"


def test_jobs_that_are_level_come_in_turn(core: Scheduler, order: Order) -> None:
    core.submit(order("b", frames=1000))
    core.submit(order("a", frames=1000))

    assert leased(core, 4) == "baba"


def test_a_job_that_is_there_is_named(core: Scheduler, order: Order) -> None:
    core.submit(order("a", frames=10))

    with pytest.raises(Conflict, match="there is a job a already"):
        core.submit(order("a", frames=10))


def test_a_worker_is_noted_as_it_came(core: Scheduler, order: Order) -> None:
    who = WorkerOrder("new", frozenset({order().fit}))

    assert core.register(who, now=0.0).records == (WorkerSaved(who, None),)


def test_a_worker_that_is_used_again_drains_no_more(core: Scheduler) -> None:
    core.drain("w")
    core.undrain("w")

    assert core.worker("w").draining is False


def test_a_lease_tells_the_length_of_a_series_that_grows_alone(core: Scheduler, order: Order) -> None:
    core.submit(order("a", frames=10))

    assert [lease.series_frames for lease in core.lease("w", 1, now=0.0).value] == [None]


def test_a_job_begins_without_a_refusal_and_a_growing_one_with_nothing_skipped(order: Order) -> None:
    job = Job(order(frames=0, growing=True, total=5), 1)

    assert (job.last_refusal, job.tally.skipped) == ("", 0)


def test_of_jobs_that_are_level_the_older_comes_first_also_when_it_is_tried_again(
    core: Scheduler, order: Order
) -> None:
    core.submit(order("old", frames=10))
    core.lease("w", 1, now=0.0)
    core.fail("w", "old", 0, 1, "invalid", "no light", now=0.0)
    core.merged("old")
    core.submit(order("new", frames=1000))
    core.retry("old", now=0.0)

    assert leased(core, 2) == "on"
