"""Leases and commits: who may speak for a task."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.errors import Conflict, Gone, Invalid, NotFound, Superseded
from cluster.scheduler.core import Counts, JobOrder, Rules, Scheduler, TaskLease, WorkerOrder
from cluster.scheduler.core.phases import Cancelled, Cancelling, Finished, Merging, Queued, Running
from cluster.scheduler.core.tasks import Done, Failed, Leased, Ready

Order = Callable[..., JobOrder]
FIFTY = Counts(localised=50, rows=7, seconds=0.5)
PREVIEW = {"kind": "preview", "frames": 100, "listed": (3, 70, 5)}


def lease(core: Scheduler, worker: str, *, now: float) -> TaskLease:
    (found,) = core.lease(worker, 1, now=now).value
    return found


def commit(core: Scheduler, worker: str, of: TaskLease, *, now: float, counts: Counts = FIFTY) -> str:
    return core.commit(worker, of.job_id, of.task_id, of.attempt, counts, now=now).value


def fail(core: Scheduler, worker: str, of: TaskLease, kind: str, *, now: float) -> None:
    core.fail(worker, of.job_id, of.task_id, of.attempt, kind, "no luck", now=now)  # type: ignore[arg-type]


def test_tasks_are_cut_in_order_and_cover_the_range_exactly(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=120))

    leases = core.lease("ann", 10, now=0.0).value

    assert [(one.task_id, one.start, one.stop, one.attempt) for one in leases] == [
        (0, 0, 50, 1),
        (1, 50, 100, 1),
        (2, 100, 120, 1),
    ]


def test_frames_outside_the_analysed_range_are_skipped_from_the_start(core: Scheduler, order: Order) -> None:
    core.submit(order(start=20, stop=60, total=100))

    assert core.job("job").tally.skipped == 60
    assert lease(core, "ann", now=0.0).start == 20


def test_a_job_ends_when_its_file_is_in_place(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    assert core.job("job").phase == Queued()
    only = lease(core, "ann", now=0.0)
    assert core.job("job").phase == Running()
    commit(core, "ann", only, now=1.0)
    assert core.job("job").phase == Merging()

    core.merged("job")

    assert core.job("job").phase == Finished(errors=False)


def test_late_worker_cannot_overwrite_the_one_that_took_over(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    slow = lease(core, "ann", now=0.0)
    quick = lease(core, "bob", now=30.0)
    commit(core, "bob", quick, now=40.0)

    with pytest.raises(Superseded):
        commit(core, "ann", slow, now=41.0)
    assert core.job("job").state(0) == Done(attempt=2)


def test_a_late_result_of_a_task_nobody_has_committed_counts(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    slow = lease(core, "ann", now=0.0)
    core.tick(now=31.0)
    assert isinstance(core.job("job").state(0), Ready)

    outcome = commit(core, "ann", slow, now=32.0)

    assert outcome == "committed"
    assert core.lease("bob", 1, now=33.0).value == []


def test_the_same_commit_again_is_harmless(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=100))
    first = lease(core, "ann", now=0.0)
    commit(core, "ann", first, now=1.0)

    outcome = commit(core, "ann", first, now=2.0)

    assert outcome == "already"
    assert core.job("job").tally.rows == 7


def test_an_attempt_that_was_never_granted_is_refused(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    lease(core, "ann", now=0.0)

    with pytest.raises(Invalid, match="never granted"):
        core.commit("ann", "job", 0, 2, FIFTY, now=1.0)


@pytest.mark.parametrize(("job", "task"), [("nobody", 0), ("job", 1), ("job", -1)])
def test_a_result_of_no_task_of_ours_is_refused(core: Scheduler, order: Order, job: str, task: int) -> None:
    core.submit(order(frames=50))
    lease(core, "ann", now=0.0)

    with pytest.raises(NotFound):
        core.commit("ann", job, task, 1, FIFTY, now=1.0)


def test_a_worker_nobody_knows_must_register(core: Scheduler, order: Order) -> None:
    with pytest.raises(NotFound, match="register"):
        core.lease("eve", 1, now=0.0)


def test_a_lease_that_is_kept_alive_does_not_run_out(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    held = lease(core, "ann", now=0.0)

    lost = core.keep_alive("ann", [("job", 0, held.attempt)], now=29.0).value
    core.tick(now=58.0)

    assert lost == []
    assert isinstance(core.job("job").state(0), Leased)


def test_keep_alive_says_which_leases_are_lost(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    held = lease(core, "ann", now=0.0)
    lease(core, "bob", now=30.0)

    lost = core.keep_alive("ann", [("job", 0, held.attempt)], now=31.0).value

    assert lost == [("job", 0, 1)]


def test_a_lease_ends_at_its_term_and_not_before(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    lease(core, "ann", now=0.0)

    core.tick(now=29.999)
    assert isinstance(core.job("job").state(0), Leased)

    core.tick(now=30.0)
    assert isinstance(core.job("job").state(0), Ready)


def test_one_loss_is_free_and_repeated_losses_fail_the_task(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    now = 0.0
    for _ in range(4):
        core.keep_alive("ann", [], now=now)
        lease(core, "ann", now=now)
        now += 100.0
        core.tick(now=now)

    state = core.job("job").state(0)

    assert isinstance(state, Failed)
    assert state.reason == "4 workers fell silent while they worked on it"
    assert core.job("job").tally.failed == 50


def test_errors_on_all_attempts_fail_the_task_with_the_reason(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    for worker in ("ann", "bob", "ann"):
        fail(core, worker, lease(core, worker, now=1.0), "error", now=1.0)

    assert core.job("job").state(0) == Failed(3, "failed 3 times; the last time: no luck")
    assert core.job("job").phase == Merging()

    core.merged("job")

    assert core.job("job").phase == Finished(errors=True)


def test_invalid_input_fails_at_once(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))

    fail(core, "ann", lease(core, "ann", now=0.0), "invalid", now=1.0)

    assert core.job("job").state(0) == Failed(1, "no luck")


def test_a_series_that_was_replaced_stops_its_job(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=320))
    done, begun, given_back, found_out = (
        lease(core, worker, now=0.0) for worker in ("ann", "bob", "ann", "ann")
    )
    commit(core, "ann", done, now=1.0)
    fail(core, "ann", given_back, "handed_back", now=1.0)

    fail(core, "ann", found_out, "changed", now=1.0)

    job = core.job("job")
    assert job.frames_uncut == 0
    assert core.lease("ann", 5, now=2.0).value == []
    assert isinstance(job.phase, Running)  # bob may have read its frames in time
    commit(core, "bob", begun, now=3.0)
    assert job.phase == Merging()
    assert (job.tally.tasks_done, job.tally.failed) == (2, 220)
    assert {job.state(task).reason for task in job.failed} == {"no luck"}


def test_once_the_series_is_back_a_retry_does_the_rest_in_tasks_of_the_usual_size(
    core: Scheduler, order: Order
) -> None:
    core.submit(order(frames=320))
    fail(core, "ann", lease(core, "ann", now=0.0), "changed", now=1.0)
    core.merged("job")

    core.retry("job", now=2.0)
    leases = core.lease("ann", 10, now=3.0).value

    assert [(found.start, found.stop) for found in leases] == [
        (n, min(n + 50, 320)) for n in range(0, 320, 50)
    ]


def test_a_long_job_that_stops_leaves_no_endless_list_of_tasks(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=10_000_000))

    fail(core, "ann", lease(core, "ann", now=0.0), "changed", now=1.0)

    assert core.job("job").tasks <= 1002
    assert core.job("job").tally.failed == 10_000_000


@pytest.mark.parametrize("kind", ["handed_back", "refused"])
def test_what_is_handed_back_counts_against_nobody(core: Scheduler, order: Order, kind: str) -> None:
    core.submit(order(frames=50))
    for turn in range(5):
        now = 1000.0 * turn
        fail(core, "ann", lease(core, "ann", now=now), kind, now=now)

    state = core.job("job").state(0)

    assert state == Ready(attempts=5)


def test_a_worker_that_refused_a_job_leaves_it_to_others_for_a_while(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))

    fail(core, "ann", lease(core, "ann", now=0.0), "refused", now=0.0)

    assert core.lease("ann", 1, now=1.0).value == []
    assert core.job("job").last_refusal == "no luck"
    assert lease(core, "bob", now=1.0).attempt == 2


def test_a_refusal_is_forgotten_with_its_job(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    fail(core, "ann", lease(core, "ann", now=0.0), "refused", now=0.0)
    assert core.worker("ann").refuses("job", 1.0)

    core.cancel("job", now=1.0)

    assert not core.worker("ann").refused


def test_a_task_that_failed_goes_to_a_worker_that_has_not_tried_it(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    fail(core, "ann", lease(core, "ann", now=0.0), "error", now=1.0)

    assert core.lease("ann", 1, now=2.0).value == []
    assert lease(core, "bob", now=2.0).task_id == 0


def test_a_task_that_failed_is_given_to_its_only_worker_again(order: Order) -> None:
    core = Scheduler(Rules(task_frames=50))
    core.register(WorkerOrder("ann", frozenset({"LatGaussFitFR"})), now=0.0)
    core.submit(order(frames=50))
    fail(core, "ann", lease(core, "ann", now=0.0), "error", now=1.0)

    assert lease(core, "ann", now=2.0).attempt == 2


def test_a_failure_report_of_an_attempt_that_no_longer_counts_is_passed_over(
    core: Scheduler, order: Order
) -> None:
    core.submit(order(frames=50))
    slow = lease(core, "ann", now=0.0)
    lease(core, "bob", now=30.0)

    fail(core, "ann", slow, "invalid", now=31.0)

    assert isinstance(core.job("job").state(0), Leased)


def test_a_worker_cannot_report_anothers_failure(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    held = lease(core, "ann", now=0.0)

    fail(core, "bob", held, "invalid", now=1.0)

    assert isinstance(core.job("job").state(0), Leased)


def test_a_worker_that_says_goodbye_hands_its_leases_back_at_once(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    lease(core, "ann", now=0.0)

    core.leave("ann", now=1.0)

    assert lease(core, "bob", now=1.0).attempt == 2
    assert core.job("job").state(0).toll.losses == 0  # type: ignore[union-attr]


def test_cancel_takes_leases_back_and_refuses_late_results(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=100))
    done, lost = core.lease("ann", 2, now=0.0).value
    commit(core, "ann", done, now=1.0)

    core.cancel("job", now=2.0)
    core.cancel("job", now=2.0)

    assert core.job("job").phase == Cancelling()
    assert core.keep_alive("ann", [("job", 1, 1)], now=3.0).value == [("job", 1, 1)]
    with pytest.raises(Gone):
        commit(core, "ann", lost, now=3.0)
    core.merged("job")
    assert core.job("job").phase == Cancelled()


def test_cancel_before_anything_is_done_ends_the_job_at_once(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=100))

    core.cancel("job", now=1.0)

    assert core.job("job").phase == Cancelled()


def test_cancel_after_the_last_commit_comes_too_late(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    commit(core, "ann", lease(core, "ann", now=0.0), now=1.0)

    with pytest.raises(Conflict, match="every task of it has ended"):
        core.cancel("job", now=2.0)


def test_retry_puts_failed_tasks_back_and_attempts_keep_counting(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    fail(core, "ann", lease(core, "ann", now=0.0), "invalid", now=1.0)
    core.merged("job")

    core.retry("job", now=2.0)

    again = lease(core, "bob", now=3.0)
    assert again.attempt == 2
    assert core.job("job").tally.failed == 0
    commit(core, "bob", again, now=4.0)
    core.merged("job")
    assert core.job("job").phase == Finished(errors=False)


def test_retry_of_a_job_whose_file_could_not_be_written_writes_it_again(
    core: Scheduler, order: Order
) -> None:
    core.submit(order(frames=50))
    commit(core, "ann", lease(core, "ann", now=0.0), now=1.0)
    core.merged("job", failed="the disk is full")

    core.retry("job", now=2.0)

    assert core.job("job").phase == Merging()


def test_there_is_nothing_to_retry_in_a_job_that_is_done(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    commit(core, "ann", lease(core, "ann", now=0.0), now=1.0)
    core.merged("job")

    with pytest.raises(Conflict, match="no failed task"):
        core.retry("job", now=2.0)


def test_a_job_of_ten_million_frames_costs_nothing_to_submit(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=10_000_000))

    assert core.job("job").tasks == 0
    assert lease(core, "ann", now=0.0).stop == 50


def test_a_preview_leases_its_frames_one_by_one(core: Scheduler, order: Order) -> None:
    core.submit(order(**PREVIEW))

    leases = core.lease("ann", 5, now=0.0).value

    assert [(one.task_id, one.start, one.stop) for one in leases] == [(0, 3, 4), (1, 70, 71), (2, 5, 6)]


def test_a_forgotten_job_leaves_no_lease_behind(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    lease(core, "ann", now=0.0)

    core.forget("job")

    assert core.workers["ann"].held == {}
    with pytest.raises(NotFound):
        core.job("job")


def test_a_restored_lease_begins_its_term_anew_and_is_no_straggler(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    task, job = core.lease("ann", 1, now=0.0).records
    restarted = Scheduler(core.rules)
    restarted.register(WorkerOrder("bob", frozenset({"LatGaussFitFR"})), now=500.0)

    restarted.restore([job, task], now=500.0)  # type: ignore[list-item]

    assert restarted.lease("bob", 1, now=529.0).value == []
    assert lease(restarted, "bob", now=530.0).attempt == 2
