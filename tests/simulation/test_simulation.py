"""Seeds that everyone runs; ten thousand more with `python -m tests.simulation --seeds 10000`."""

from __future__ import annotations

from collections.abc import Iterable
from unittest import mock

import pytest

from cluster.scheduler.core import Scheduler
from cluster.scheduler.core.records import TaskSaved
from cluster.scheduler.core.tasks import Done
from cluster.scheduler.state import State
from tests.simulation.__main__ import simulate
from tests.simulation.world import Broken, Told

AT_ONCE = 20
ALWAYS, IN_CI = range(0, 100, AT_ONCE), range(100, 300, AT_ONCE)


def simulate_all(seeds: Iterable[int]) -> list[Told]:
    return [simulate(seed) for seed in seeds]


@pytest.mark.parametrize(
    "first", [*ALWAYS, *(pytest.param(first, marks=pytest.mark.slow) for first in IN_CI)]
)
def test_whatever_goes_wrong_no_frame_is_lost_or_counted_twice(first: int) -> None:
    told = simulate_all(seed for seed in range(first, first + AT_ONCE) if seed % 100 != 99)

    assert sum(sum(one.counts.values()) for one in told) > AT_ONCE
    assert all(one.frames > 0 for one in told)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [99, 199, 299])
def test_nor_with_a_thousand_workers(seed: int) -> None:
    assert simulate(seed).frames > 0


def test_it_notices_a_commit_that_is_acknowledged_but_not_kept() -> None:
    note_task = State._note_task

    def forgetful(state: State, record: TaskSaved) -> object:
        return [] if isinstance(record.state, Done) and record.task_id % 3 == 1 else note_task(state, record)

    with mock.patch.object(State, "_note_task", forgetful), pytest.raises(Broken, match="is gone"):
        simulate_all(range(40))


def test_it_notices_a_task_that_is_given_again_after_it_is_done() -> None:
    check = Scheduler.check

    def credulous(core: Scheduler, job_id: str, task_id: int, attempt: int) -> object:
        state = core.job(job_id).state(task_id)
        return "already" if isinstance(state, Done) else check(core, job_id, task_id, attempt)

    with mock.patch.object(Scheduler, "check", credulous), pytest.raises(Broken, match="two results"):
        simulate_all(range(60))
