"""Small things that no story of the core depends on, and that are wrong all the same if they change."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.errors import Conflict
from cluster.scheduler.core import Counts, Growth, JobOrder, Rules, Scheduler, WorkerOrder
from cluster.scheduler.core.phases import Broken, Cancelled, Cancelling, Finished, Merging, Queued, Running
from cluster.scheduler.core.records import JobForgotten, JobSaved
from cluster.scheduler.core.tasks import Done, Grant, Leased, Ready, Toll
from cluster.scheduler.core.workers import Worker

Order = Callable[..., JobOrder]
TOLL = Toll(errors=1, losses=2, tried=frozenset({"cat"}), reason="no light")


def commit(core: Scheduler, worker: str, task_id: int, attempt: int = 1, now: float = 0.0) -> None:
    core.commit(worker, "job", task_id, attempt, Counts(localised=50, rows=3, seconds=5.0), now=now)


def test_the_measured_time_of_a_frame_is_the_same_after_a_restart(core: Scheduler, order: Order) -> None:
    records = list(core.submit(order(frames=200)).records)
    for task_id in (0, 1):
        records += core.lease("ann", 1, now=0.0).records
        counts = Counts(localised=50, rows=3, seconds=5.0 + task_id)
        records += core.commit("ann", "job", task_id, 1, counts, now=0.0).records
    newest = {record.key: record for record in records}

    again = Scheduler(Rules(task_frames=50))
    again.restore(list(newest.values()), now=9.0)  # type: ignore[arg-type]

    assert core.job("job").seconds_per_frame == pytest.approx(0.1 + 0.3 * 0.02)
    assert again.job("job").seconds_per_frame == core.job("job").seconds_per_frame


def test_a_worker_is_excluded_at_its_fifth_error_in_a_row_and_not_before() -> None:
    worker = Worker(WorkerOrder("ann", frozenset()), last_seen=0.0)
    for task_id in range(5):
        assert not worker.exclude_if_a_black_hole(5)
        worker.note_error(("job", task_id), "no")
        worker.note_redone(("job", task_id))

    assert worker.exclude_if_a_black_hole(5)
    assert (worker.redone, worker.streak) == (5, set())
    assert worker.excluded is not None
    assert worker.excluded.startswith("5 tasks in a row")


def test_a_task_that_another_did_counts_once() -> None:
    worker = Worker(WorkerOrder("ann", frozenset()), last_seen=0.0)
    worker.note_error(("job", 1), "no")
    for _ in range(2):
        worker.note_redone(("job", 1))

    assert worker.redone == 1


def test_an_end_without_its_file_says_why() -> None:
    assert Merging().break_off("disk full") == Broken("disk full")
    assert Cancelling().finish("disk full") == Cancelled("disk full")
    assert Cancelling().finish() == Cancelled(None)


def test_a_straggler_is_not_given_to_the_worker_that_holds_it(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    core.lease("ann", 1, now=0.0)
    core.keep_alive("ann", [("job", 0, 1)], now=29.0)

    assert core.lease("ann", 1, now=40.0).value == []


def test_nor_to_one_that_has_failed_at_it(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    core.lease("bob", 1, now=0.0)
    core.fail("bob", "job", 0, 1, "error", "no", now=1.0)
    core.lease("ann", 1, now=2.0)
    core.keep_alive("ann", [("job", 0, 2)], now=31.0)

    assert core.lease("bob", 1, now=40.0).value == []


def test_a_task_given_back_by_a_goodbye_waits_for_one_who_has_not_failed_at_it(
    core: Scheduler, order: Order
) -> None:
    core.register(WorkerOrder("cat", frozenset({order().fit})), now=0.0)
    core.submit(order(frames=50))
    core.lease("ann", 1, now=0.0)
    core.fail("ann", "job", 0, 1, "error", "no", now=1.0)
    core.lease("bob", 1, now=2.0)
    core.leave("bob", now=10.0)

    assert core.lease("ann", 1, now=69.0).value == []
    assert core.lease("ann", 1, now=71.0).value[0].attempt == 3


def test_a_second_grant_keeps_the_toll_and_knows_when_it_began() -> None:
    leased = Leased((Grant("ann", 1, 0.0, 30.0),), 1, TOLL)

    both = leased.grant("bob", now=7.0, until=37.0)

    assert both == Leased((Grant("ann", 1), Grant("bob", 2)), 2, TOLL)
    assert (both.grants[1].since, both.grants[1].until) == (7.0, 37.0)


def test_what_is_revoked_keeps_its_attempts_and_its_toll() -> None:
    revoked = Leased((Grant("ann", 4),), 4, TOLL).revoke(now=8.0)

    assert revoked == Ready(4, TOLL)
    assert revoked.since == 8.0


def test_a_cancelled_job_remembers_since_when_its_tasks_wait(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=100))
    core.lease("ann", 2, now=0.0)
    commit(core, "ann", 0)
    core.cancel("job", now=5.0)

    state = core.job("job").state(1)

    assert isinstance(state, Ready)
    assert (state.attempts, state.since) == (1, 5.0)


def test_a_task_that_is_retried_waits_since_then(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    core.lease("ann", 1, now=0.0)
    core.fail("ann", "job", 0, 1, "invalid", "no", now=1.0)
    core.merged("job")
    core.retry("job", now=6.0)

    state = core.job("job").state(0)

    assert isinstance(state, Ready)
    assert (state, state.since) == (Ready(1), 6.0)


def test_a_worker_that_refuses_leaves_a_job_alone_twice_as_long_each_time() -> None:
    worker = Worker(WorkerOrder("ann", frozenset()), last_seen=0.0)

    pauses = []
    for _ in range(6):
        worker.note_refusal("job", now=100.0, first_s=2.0, longest_s=20.0)
        pauses.append(worker.refused["job"][0] - 100.0)

    assert pauses == [2.0, 4.0, 8.0, 16.0, 20.0, 20.0]
    assert worker.refuses("job", 119.9)
    assert not worker.refuses("job", 120.0)
    assert not worker.refuses("another", 100.0)


def test_what_a_command_did_to_a_job_is_what_is_recorded(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    core.submit(order("grows", frames=0, growing=True))
    core.lease("ann", 1, now=0.0)
    failed = core.fail("ann", "job", 0, 1, "invalid", "no", now=1.0).records
    merged = core.merged("job").records
    retried = core.retry("job", now=2.0).records
    grown = core.grow("grows", Growth(stop=5, total=6)).records
    cancelled = core.cancel("grows", now=3.0).records
    core.lease("ann", 1, now=4.0)
    forgotten = core.forget("job").records

    assert [record.key[0] for record in failed] == ["task", "job"]
    assert merged == (JobSaved(order(frames=50), Finished(errors=True)),)
    assert retried[-1] == JobSaved(order(frames=50), Running())
    assert grown == (JobSaved(order("grows", frames=0, growing=True), Queued(), Growth(5, 6)),)
    assert cancelled == (JobSaved(order("grows", frames=0, growing=True), Cancelled(None), Growth(5, 6)),)
    assert forgotten[-1] == JobForgotten("job")
    assert [record.key for record in forgotten] == [("task", "job", "0"), ("job", "job")]


@pytest.mark.parametrize("ended", [False, True])
def test_a_job_that_runs_or_was_cancelled_is_not_retried(core: Scheduler, order: Order, ended: bool) -> None:
    core.submit(order(frames=50))
    if ended:
        core.cancel("job", now=0.0)

    with pytest.raises(Conflict, match="job job cannot be retried: it has not ended, or was cancelled"):
        core.retry("job", now=1.0)


def test_the_attempt_that_came_late_is_the_one_that_is_done() -> None:
    assert Ready(5).commit(3) == Done(3)


def test_only_ones_own_grant_is_renewed_and_all_are_resumed() -> None:
    both = Leased((Grant("ann", 1, 0.0, 30.0), Grant("bob", 2, 5.0, 35.0)), 2)

    assert [grant.until for grant in both.renew(2, until=50.0).grants] == [30.0, 50.0]
    assert [(g.since, g.until) for g in both.resume(now=90.0, until=120.0).grants] == [(90.0, 120.0)] * 2
