"""What the core says of results that it does not want, and what is given up when a series has changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.errors import ClusterError, Gone, Invalid, NotFound, Superseded
from cluster.scheduler.core import Counts, Growth, JobOrder, Rules, Scheduler, WorkerOrder
from cluster.scheduler.core.records import JobSaved, TaskSaved
from cluster.scheduler.core.tasks import Failed

Order = Callable[..., JobOrder]
COUNTS = Counts(localised=50, seconds=1.0)


def committed(core: Scheduler, task_id: int, attempt: int) -> str:
    return core.commit("ann", "job", task_id, attempt, COUNTS, now=1.0).value


@pytest.fixture
def job(core: Scheduler, order: Order) -> Scheduler:
    """Task 0 is done, task 1 was given up, task 2 is leased."""
    core.submit(order(frames=150))
    core.lease("ann", 3, now=0.0)
    committed(core, 0, 1)
    core.fail("ann", "job", 1, 1, "invalid", "no light", now=0.0)
    return core


@pytest.mark.parametrize(
    ("task_id", "attempt", "error", "words"),
    [
        (9, 1, NotFound, "job job has no task 9"),
        (0, 2, Superseded, "attempt 1 of task 0 was committed before attempt 2"),
        (1, 1, Superseded, "task 1 was given up before attempt 1 came in"),
        (2, 7, Invalid, "attempt 7 of task 2 was never granted"),
    ],
)
def test_a_result_that_is_not_wanted_is_told_why(
    job: Scheduler, task_id: int, attempt: int, error: type[ClusterError], words: str
) -> None:
    with pytest.raises(error, match=words) as told:
        committed(job, task_id, attempt)

    assert told.value.facts.get("field") == ("attempt" if error is Invalid else None)


def test_a_result_of_a_job_that_has_ended_is_told_so(job: Scheduler) -> None:
    job.cancel("job", now=1.0)

    with pytest.raises(Gone, match="job job has ended; task 2 is not wanted any more"):
        committed(job, 2, 1)


def test_a_failure_of_what_nobody_holds_is_passed_over(job: Scheduler) -> None:
    assert job.fail("ann", "job", 0, 1, "error", "late", now=1.0).records == ()


def test_a_result_ends_the_last_refusal(job: Scheduler) -> None:
    job.lease("bob", 1, now=0.0)
    job.fail("ann", "job", 2, 1, "refused", "cannot reach the data", now=0.0)
    assert job.job("job").last_refusal == "cannot reach the data"
    (lease,) = job.lease("bob", 1, now=0.0).value
    job.commit("bob", "job", lease.task_id, lease.attempt, COUNTS, now=1.0)

    assert job.job("job").last_refusal == ""


def test_what_failed_has_no_rows(job: Scheduler) -> None:
    (saved, *_) = job.fail("ann", "job", 2, 1, "invalid", "no light", now=0.0).records

    assert isinstance(saved, TaskSaved)
    assert (saved.first_row, saved.counts) == (0, Counts())


def test_what_is_leased_has_no_rows_and_what_is_leased_again_is_counted(
    core: Scheduler, order: Order
) -> None:
    core.submit(order(frames=50))
    for again in range(3):
        records = core.lease("ann", 1, now=0.0).records
        assert [record.first_row for record in records if isinstance(record, TaskSaved)] == [0]
        assert core.job("job").tally.retries == again
        core.fail("ann", "job", 0, again + 1, "handed_back", "", now=0.0)


def test_what_is_tried_again_has_not_failed(job: Scheduler) -> None:
    job.lease("bob", 1, now=0.0)
    committed(job, 2, 1)
    assert (job.job("job").failed, job.job("job").tally.failed) == ({1}, 50)
    job.merged("job")
    job.retry("job", now=1.0)

    assert (job.job("job").failed, job.job("job").tally.failed) == (set(), 0)


def test_a_job_that_is_not_there_is_named(core: Scheduler) -> None:
    with pytest.raises(NotFound, match="there is no job nobody"):
        core.cancel("nobody", now=0.0)


def test_large_frames_weigh_more(core: Scheduler, order: Order) -> None:
    core.submit(order("large", frames=5000, owner="ann", frame_bytes=1000))
    core.submit(order("small", frames=5000, owner="bob", frame_bytes=10))

    assert [lease.job_id for lease in core.lease("ann", 6, now=0.0).value] == ["large", *5 * ["small"]]


def test_nothing_is_kept_of_a_job_that_is_over(core: Scheduler, order: Order) -> None:
    core.submit(order(frames=50))
    core.lease("ann", 1, now=0.0)
    committed(core, 0, 1)

    assert core._books.open == {}
    assert core._books.shares._jobs == {}
    core.merged("job")
    core.forget("job")  # closed already


def test_a_series_that_changed_is_given_up_in_tasks_of_the_usual_size(order: Order) -> None:
    core = Scheduler(Rules(least_frames=10))
    core.register(WorkerOrder("ann", frozenset({order().fit})), now=0.0)
    core.submit(order(frames=60))
    core.lease("ann", 1, now=0.0)
    core.fail("ann", "job", 0, 1, "changed", "another file", now=0.0)

    job = core.job("job")
    # a quarter of the job's frames for one worker
    assert [job.bounds(task) for task in range(job.tasks)] == [(0, 15), (15, 30), (30, 45), (45, 60)]
    assert {job.state(task) for task in range(1, 4)} == {Failed(0, "another file")}


@pytest.mark.parametrize(("ended", "lacking"), [(False, "another file"), (True, "")])
def test_a_series_that_changed_grows_no_more(
    core: Scheduler, order: Order, ended: bool, lacking: str
) -> None:
    core.submit(order(frames=0, growing=True))
    core.grow("job", Growth(stop=100, total=100, ended=ended))
    core.lease("ann", 1, now=0.0)
    records = core.fail("ann", "job", 0, 1, "changed", "another file", now=0.0).records

    assert core.job("job").growth == Growth(stop=100, total=100, ended=True, lacking=lacking)
    assert core.job("job").tally.failed == 100
    newest = [record for record in records if isinstance(record, JobSaved)][-1]
    assert newest.growth == core.job("job").growth
    assert all(isinstance(record, JobSaved | TaskSaved) for record in records)


def test_a_late_task_is_stuck_after_its_own_length(order: Order) -> None:
    core = Scheduler(Rules(task_frames=50, straggler_least_s=1.0, straggler_check_s=1.0))
    for name in ("ann", "bob"):
        core.register(WorkerOrder(name, frozenset({order().fit})), now=0.0)
    core.submit(order(frames=200))
    core.lease("ann", 4, now=0.0)
    for task_id in range(3):
        core.commit("ann", "job", task_id, 1, COUNTS, now=1.0)  # 0.02 s a frame

    assert core.lease("bob", 1, now=2.9).value == []  # 3 × 50 × 0.02 s
    assert core.lease("bob", 1, now=3.8).value == []  # looked for a moment ago
    assert [lease.task_id for lease in core.lease("bob", 1, now=3.9).value] == [3]
