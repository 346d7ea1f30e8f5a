"""How fast each worker is, and what is decided by it, to the last factor."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.scheduler.core import JobOrder, Rules
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
        return job.take(lambda _: True, lambda _: 10, worker_id, run)

    assert (take("bob", 3), take("ann", 5)) == (0, 3)  # and 1, 2 for bob, 4 to 7 for ann
    assert (take("cat", 1), take("cat", 1)) == (7, 6)
    assert (take("ann", 1), take("bob", 1)) == (4, 1)
