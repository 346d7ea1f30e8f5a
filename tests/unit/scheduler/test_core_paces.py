"""How fast each worker is, and what is decided by it, to the last factor."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.scheduler.core import Counts, JobOrder, Rules
from cluster.scheduler.core.jobs import Job
from cluster.scheduler.core.paces import Paces

Order = Callable[..., JobOrder]


def test_a_result_of_nothing_tells_nothing_and_one_of_a_frame_does() -> None:
    paces = Paces()
    paces.note("ann", 0, 1.0)
    paces.note("bob", 1, 0.0)
    paces.note("cat", 1, 0.5)

    assert [paces.of(name) for name in ("ann", "bob", "cat")] == [None, None, 0.5]


@pytest.mark.parametrize(("frames", "pace"), [(30, 0.175), (2, 0.13)])
def test_the_newest_result_weighs_what_it_has_of_both_and_three_tenths_at_least(
    frames: int, pace: float
) -> None:
    paces = Paces()
    paces.note("ann", 10, 1.0)
    paces.note("ann", frames, 0.2 * frames)

    assert paces.of("ann") == pytest.approx(pace)


def test_a_weight_is_a_speed_beside_the_mean_of_all() -> None:
    paces = Paces()
    paces.note("ann", 10, 3.0)
    paces.note("bob", 10, 3.0)
    paces.note(
        "ann", 10**9, 0.1 * 10**9
    )  # it has become faster, and so long a task leaves nothing of the old pace

    assert paces.weight("ann") == pytest.approx(1.5)
    assert paces.weight("bob") == pytest.approx(0.5)
    assert paces.weight("cat") == 1.0


def test_a_pace_that_changed_counts_once_in_the_mean() -> None:
    paces = Paces()
    paces.note("ann", 10, 3.0)
    paces.note("bob", 10, 1.0)
    paces.note("ann", 10**9, 0.1 * 10**9)

    assert (paces.weight("ann"), paces.weight("bob")) == pytest.approx((1.0, 1.0), rel=1e-6)


def test_a_job_that_is_taken_up_again_begins_without_paces() -> None:
    paces = Paces()
    paces.note("ann", 10, 1.0)
    paces.forget()
    assert paces.of("ann") is None

    paces.note("ann", 10, 4.0)
    paces.note("bob", 10, 4.0)
    assert paces.weight("ann") == pytest.approx(1.0)


@pytest.mark.parametrize(("held_s", "overtaken"), [(1.5, True), (1.75, False), (3.0, False)])
def test_a_task_is_doubled_by_who_takes_less_than_half_of_what_is_left(
    order: Order, held_s: float, overtaken: bool
) -> None:
    job = Job(order(frames=8), 1)
    job.paces.note("slow", 8, 4.0)
    job.paces.note("fast", 8, 1.0)

    assert Rules(least_task_s=0.25).is_overtaken(job, 8, "slow", held_s, "fast") is overtaken


@pytest.mark.parametrize(("frames", "tasks"), [(16, 19), (100, 3), (1000, 1), (1, 32)])
def test_a_run_is_so_long_that_its_context_is_a_tenth(frames: int, tasks: int) -> None:
    assert Rules().wanted_run(30, frames) == tasks


def test_of_tasks_set_aside_the_longest_row_loses_its_end(order: Order) -> None:
    job = Job(order(frames=80), 1)

    def take(worker_id: str, run: int) -> int | None:
        return job.take(lambda _: True, lambda of: 10 if of is job else 0, worker_id, run)

    assert (take("bob", 3), take("ann", 5)) == (0, 3)  # and 1, 2 for bob, 4 to 7 for ann
    assert (take("cat", 1), take("cat", 1)) == (7, 6)
    assert (take("ann", 1), take("bob", 1)) == (4, 1)
    assert {take("cat", 1), take("cat", 1)} == {2, 5}
    assert take("cat", 1) is None


def test_a_run_ends_with_the_series(order: Order) -> None:
    job = Job(order(frames=3), 1)
    job.take(lambda _: True, lambda _: 1, "ann", 9)

    assert [job.bounds(task) for task in range(job.tasks)] == [(0, 1), (1, 2), (2, 3)]


def paced(order: Order, frames: int, **facts: object) -> Job:
    """Return a job at which one worker is three times as fast as the other."""
    job = Job(order(frames=frames, **{"context_frames": 30} | facts), 1)
    job.paces.note("fast", 100, 1.0)
    job.paces.note("slow", 100, 3.0)
    return job


@pytest.mark.parametrize(
    ("frames", "workers", "who", "run"),
    [
        (404, 2, "fast", 15),  # half of three quarters of the frames, in tasks of ten
        (404, 2, "slow", 5),
        (204, 1, "fast", 15),
        (204, 0, "fast", 15),
        (10, 2, "slow", 1),
        (9000, 2, "slow", 30),  # of which the context is a tenth
        (404, 2, "new", 1),
    ],
)
def test_a_run_is_at_most_half_of_a_workers_part_of_what_is_left(
    order: Order, frames: int, workers: int, who: str, run: int
) -> None:
    assert Rules(task_frames=10).run_of_tasks(paced(order, frames), workers, who) == run


def test_a_run_is_of_tasks_as_long_as_they_will_be(order: Order) -> None:
    job = paced(order, 404)

    # 75 frames for the fast one, 25 for the slow one: see below
    assert [Rules().run_of_tasks(job, 2, who) for who in ("fast", "slow")] == [2, 2]


@pytest.mark.parametrize(
    ("facts", "run"), [({"context_frames": 0}, 1), ({"context_frames": 1}, 10), ({"growing": True}, 1)]
)
def test_runs_are_for_what_has_a_context_and_does_not_grow(
    order: Order, facts: dict[str, object], run: int
) -> None:
    assert Rules(task_frames=1).run_of_tasks(paced(order, 400, **facts), 2, "fast") == run


@pytest.mark.parametrize(("cut", "fast", "slow"), [(0, 75, 25), (302, 38, 12)])
def test_a_task_is_a_quarter_of_a_workers_part_of_the_job_and_half_of_its_part_of_the_rest(
    order: Order, cut: int, fast: int, slow: int
) -> None:
    job = paced(order, 404)
    if cut:
        job.take(lambda _: True, lambda _: cut, "fast", 1)

    assert [Rules().task_size(job, 2, who) for who in ("fast", "slow")] == [fast, slow]


def test_without_a_worker_a_task_is_cut_by_the_mean_pace_of_the_job(order: Order) -> None:
    job = Job(order(frames=10_000), 1)
    assert Rules().task_size(job, 1) == 16

    job.count(Counts(localised=10, seconds=1.0), 10)
    assert Rules().task_size(job, 1) == 15


def test_frames_are_those_listed_or_those_of_the_range(order: Order) -> None:
    assert Job(order(frames=100, listed=(3, 9)), 1).frames_in_range() == 2
    assert Job(order(frames=100, listed=(3, 9)), 1).tally.skipped == 98
    assert Job(order(start=7, stop=5), 1).frames_in_range() == 0
