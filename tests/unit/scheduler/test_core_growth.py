"""Jobs whose series grow."""

from __future__ import annotations

import pytest

from cluster.scheduler.core import Counts, Growth, JobOrder, Rules, Scheduler, WorkerOrder
from cluster.scheduler.core.phases import Finished, Merging, Queued


@pytest.fixture
def core() -> Scheduler:
    core = Scheduler(Rules(task_frames=30))
    core.register(WorkerOrder("ann", frozenset({"fit"})), now=0.0)
    core.submit(JobOrder("j", 10, 10, 0, 100, "fit", growing=True))
    return core


def commit_all(core: Scheduler) -> list[tuple[int, int, int | None]]:
    done = []
    while leases := core.lease("ann", 4, now=0.0).value:
        for one in leases:
            done.append((one.start, one.stop, one.series_frames))
            core.commit("ann", "j", one.task_id, one.attempt, Counts(localised=one.stop - one.start), now=0.0)
    return done


def test_there_is_nothing_to_do_before_the_first_frames_have_come(core: Scheduler) -> None:
    assert core.lease("ann", 1, now=0.0).value == []
    assert core.job("j").phase == Queued()


def test_frames_are_handed_out_as_they_come_and_a_lease_says_how_many_there_are(core: Scheduler) -> None:
    core.grow("j", Growth(stop=50, total=80, skipped=10))
    first = commit_all(core)
    core.grow("j", Growth(stop=95, total=125, skipped=10))
    second = commit_all(core)

    assert first == [(10, 40, 80), (40, 50, 80)]
    assert second == [(50, 80, 125), (80, 95, 125)]
    assert core.job("j").is_open


def test_the_end_of_the_series_sets_the_last_frames_free_and_ends_the_job(core: Scheduler) -> None:
    core.grow("j", Growth(stop=50, total=80, skipped=10))
    commit_all(core)
    core.grow("j", Growth(stop=80, total=80, skipped=10, ended=True))

    assert commit_all(core) == [(50, 80, 80)]
    assert core.job("j").phase == Merging()
    assert (core.job("j").tally.localised, core.job("j").tally.skipped) == (70, 10)
    core.merged("j")
    assert core.job("j").phase == Finished(errors=False)


def test_a_series_that_is_not_whole_never_ends_in_done(core: Scheduler) -> None:
    core.grow("j", Growth(stop=40, total=40, skipped=10, ended=True, lacking="it stopped growing"))
    commit_all(core)
    core.merged("j")

    assert core.job("j").phase == Finished(errors=True)


def test_a_series_that_ends_with_nothing_left_to_do_ends_the_job_at_once(core: Scheduler) -> None:
    core.grow("j", Growth(stop=40, total=40, skipped=10))
    commit_all(core)

    decided = core.grow("j", Growth(stop=40, total=40, skipped=10, ended=True))

    assert decided.value
    assert core.job("j").phase == Merging()


@pytest.mark.parametrize("later", [Growth(30, 60), Growth(50, 59), Growth(45, 60, 10), Growth(50, 60, 10)])
def test_a_series_never_shrinks_and_no_news_is_no_record(core: Scheduler, later: Growth) -> None:
    core.grow("j", Growth(stop=50, total=60, skipped=10))

    decided = core.grow("j", later)

    assert (decided.value, decided.records) == (False, ())
    assert core.job("j").growth == Growth(50, 60, 10)


def test_nothing_comes_after_the_end(core: Scheduler) -> None:
    core.grow("j", Growth(stop=50, total=60, skipped=10, ended=True))

    assert not core.grow("j", Growth(stop=70, total=80, skipped=10)).value
    assert core.job("j").total == 60
