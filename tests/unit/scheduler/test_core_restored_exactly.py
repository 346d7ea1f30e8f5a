"""What a restart brings back, what is counted, and where the borders of times lie: to the last detail."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from cluster.scheduler.core import Counts, Growth, JobOrder, Rules, Scheduler, WorkerOrder
from cluster.scheduler.core.jobs import Tally
from cluster.scheduler.core.phases import Broken, Cancelled, Finished
from cluster.scheduler.core.records import JobSaved, WorkerForgotten, WorkerSaved
from cluster.scheduler.core.tasks import Failed, Grant, Leased, Ready, Toll

Order = Callable[..., JobOrder]
RULES = Rules(task_frames=50, lease_s=30.0, max_attempts=3)
TOLL = Toll(errors=1, losses=2, tried=frozenset({"cat"}), reason="no light")


def restored(records: Iterable[Any], now: float) -> Scheduler:
    core = Scheduler(RULES)
    core.restore({record.key: record for record in records}.values(), now=now)
    return core


def test_workers_come_back_with_what_they_hold_and_why_they_are_excluded(
    core: Scheduler, order: Order
) -> None:
    records = [
        WorkerSaved(WorkerOrder("ann", frozenset({order().fit}))),
        WorkerSaved(WorkerOrder("bob", frozenset()), "broken"),
    ]
    records += core.submit(order(frames=100)).records  # type: ignore[arg-type]
    records += core.lease("ann", 1, now=0.0).records  # type: ignore[arg-type]

    again = restored(records, now=500.0)

    assert again.workers["ann"].held == {("job", 0): 1}
    assert (again.workers["ann"].last_seen, again.workers["ann"].excluded) == (500.0, None)
    assert (again.workers["bob"].order.worker_id, again.workers["bob"].excluded) == ("bob", "broken")
    assert again.keep_alive("ann", [("job", 0, 1)], now=501.0).value == []
    assert [lease.task_id for lease in again.lease("ann", 1, now=501.0).value] == [1]


def test_a_series_that_grew_and_a_job_that_ended_come_back_so(core: Scheduler, order: Order) -> None:
    grows, ended = order("grows", frames=0, growing=True), order("ended", frames=50)

    again = restored(
        [JobSaved(grows, core.submit(grows).records[0].phase, Growth(60, 70)), JobSaved(ended, Cancelled())],
        0.0,
    )  # type: ignore[union-attr]
    again.register(WorkerOrder("ann", frozenset({grows.fit})), now=0.0)

    assert (again.job("grows").stop, again.job("grows").total) == (60, 70)
    assert {lease.job_id for lease in again.lease("ann", 9, now=0.0).value} == {"grows"}


def test_results_add_up_and_say_where_their_rows_begin(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=150))
    core.lease("ann", 3, now=0.0)
    first_rows = []
    for task_id in range(3):
        counts = Counts(localised=40, skipped=7, failed=3, rows=11, seconds=0.0 if task_id else 5.0)
        (saved, *_) = core.commit("ann", "job", task_id, 1, counts, now=0.0).records
        first_rows.append(saved.first_row)  # type: ignore[union-attr]

    assert first_rows == [0, 11, 22]
    assert core.job("job").tally == Tally(localised=120, skipped=21, failed=9, rows=33, tasks_done=3)
    assert core.job("job").seconds_per_frame == 0.1
    assert (core.worker("ann").frames, core.worker("ann").seconds) == (150, 5.0)


def test_one_failed_frame_is_an_error_and_no_reason_is_an_empty_one(core: Scheduler, order: Order) -> None:
    for name, failed in (("one", None), ("two", "disk full"), ("three", "")):
        core.submit(order(name, frames=50))
        core.lease("ann", 1, now=0.0)
        core.commit("ann", name, 0, 1, Counts(localised=49, failed=1), now=0.0)
        phase = Finished(errors=True) if failed is None else Broken(failed)

        assert core.merged(name, failed=failed).records[0].phase == phase  # type: ignore[union-attr]
        assert core.merged(name).records == ()


def test_a_cancelled_job_says_what_became_of_its_file(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=100))
    core.lease("ann", 2, now=0.0)
    core.commit("ann", "job", 0, 1, Counts(localised=50), now=0.0)
    core.cancel("job", now=1.0)

    assert core.merged("job", failed="disk full").records == (
        JobSaved(order(frames=100), Cancelled("disk full")),
    )


def test_a_worker_is_lost_after_its_lease_and_forgotten_after_long_and_not_before(core: Scheduler) -> None:
    core.keep_alive("bob", [], now=600.0)
    core.tick(now=30.0)
    assert not core.worker("ann").lost
    core.tick(now=30.5)
    assert core.worker("ann").lost
    assert core.tick(now=600.0).records == ()

    assert core.tick(now=600.5).records == (WorkerForgotten("ann"),)
    assert not core.worker("bob").lost


def test_a_success_forgives_errors_and_a_refusal(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=150))
    core.lease("ann", 3, now=0.0)
    core.fail("ann", "job", 0, 1, "error", "no", now=0.0)
    core.fail("ann", "job", 1, 1, "refused", "no data", now=0.0)
    core.commit("ann", "job", 2, 1, Counts(localised=50), now=1.0)

    ann = core.worker("ann")
    assert (ann.errors_in_a_row, ann.redone, ann.streak, ann.refused) == (0, 0, set(), {})


def test_the_straggler_that_is_held_longest_is_doubled_first(core: Scheduler, order: Order) -> None:
    core.register(WorkerOrder("cat", frozenset({order().fit})), now=0.0)
    core.submit(order("late", frames=50))
    core.submit(order("early", frames=50, priority=9))
    core.lease("ann", 1, now=0.0)
    core.lease("cat", 1, now=5.0)
    for worker, name in (("ann", "early"), ("cat", "late")):
        core.keep_alive(worker, [(name, 0, 1)], now=29.0)

    assert core.lease("bob", 1, now=30.0).value == []
    assert core.lease("bob", 1, now=30.5).value == []  # nobody looks again within a second
    assert [lease.job_id for lease in core.lease("bob", 2, now=36.0).value] == ["early", "late"]


@pytest.mark.parametrize("kind", ["refused", "handed_back"])
def test_what_is_given_back_waits_for_one_who_has_not_failed_at_it(
    core: Scheduler, order: Order, kind: Any
) -> None:
    core.submit(order(frames=50))
    core.lease("ann", 1, now=0.0)
    core.fail("ann", "job", 0, 1, "error", "no", now=1.0)
    core.lease("bob", 1, now=2.0)
    core.fail("bob", "job", 0, 2, kind, "no", now=10.0)
    core.drain("bob")

    core.register(WorkerOrder("cat", frozenset({order().fit})), now=10.0)
    assert core.lease("ann", 1, now=69.0).value == []
    assert core.lease("ann", 1, now=71.0).value[0].attempt == 3


def test_a_loss_is_remembered_of_its_worker_and_what_is_no_grant_is_no_loss() -> None:
    both = Leased((Grant("ann", 1), Grant("bob", 2)), 2, TOLL)

    one = both.lose(1, limit=3, now=9.0)
    assert one == Leased((Grant("bob", 2),), 2, Toll(1, 3, frozenset({"cat", "ann"}), "no light"))
    assert both.lose(7, limit=3, now=9.0) is both
    assert Leased((Grant("ann", 1),), 1).lose(1, limit=3, now=9.0) == Ready(
        1, Toll(losses=1, tried=frozenset({"ann"}))
    )
    assert isinstance(one, Leased)
    assert one.lose(2, limit=3, now=9.0) == Failed(2, "failed 1 times; the last time: no light")


def test_patience_grows_with_the_frames_of_a_task(order: Order, core: Scheduler) -> None:
    core.submit(order(frames=200))
    core.lease("ann", 1, now=0.0)
    core.commit("ann", "job", 0, 1, Counts(localised=50, seconds=5.0), now=0.0)

    assert RULES.patience_s(core.job("job"), 50) == pytest.approx(15.0)
    assert RULES.patience_s(core.job("job"), 10) == 5.0
