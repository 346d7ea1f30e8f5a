"""What must hold of the scheduler's core at every moment, whatever has happened."""

from __future__ import annotations

from cluster.scheduler.core import Scheduler
from cluster.scheduler.core.tasks import Done, Failed, Leased, Ready


def every_frame_is_in_exactly_one_place(core: Scheduler) -> None:
    """Tasks cover no frame twice, and with what is not cut yet they cover all."""
    for job in core.jobs.values():
        covered = [frame for task in range(job.tasks) for frame in range(*job.bounds(task))]
        assert len(covered) == len(set(covered))
        assert len(covered) + job.frames_uncut == job.frames_in_range()


def the_counts_balance(core: Scheduler) -> None:
    """Frames to do, localised, skipped and failed add up to those of the series."""
    for job in core.jobs.values():
        frames = dict.fromkeys((Ready, Leased, Done, Failed), 0)
        for task in range(job.tasks):
            start, stop = job.bounds(task)
            frames[type(job.state(task))] += stop - start
        to_do = job.frames_uncut + frames[Ready] + frames[Leased]
        # of a job's frames no task will ever cover those that are left out, nor yet the end of a series that grows
        left_out = job.growth.skipped if job.growth else job.total - job.frames_in_range()
        not_yet = job.total - left_out - job.frames_in_range() if job.growth else 0
        assert to_do + not_yet + job.tally.frames == job.total
        assert job.tally.frames - left_out == frames[Failed] + frames[Done]


def the_workers_hold_what_is_leased_to_them(core: Scheduler) -> None:
    """A worker's hands and the tasks' leases tell the same story."""
    held = {(w.worker_id, *task, n) for w in core.workers.values() for task, n in w.held.items()}
    leased = {
        (grant.worker, job.order.job_id, task, grant.attempt)
        for job in core.jobs.values()
        for task, state in job.leased.items()
        for grant in state.grants
        if grant.worker in core.workers
    }
    assert held == leased


def an_open_job_has_something_left_and_a_closed_one_nothing_leased(core: Scheduler) -> None:
    """No job is stuck with nothing to do, none that has ended is still worked on."""
    for job in core.jobs.values():
        assert not (job.is_open and job.is_settled)
        assert job.is_open or not job.leased


def no_more_than_two_workers_do_the_same_task(core: Scheduler) -> None:
    """A straggler is doubled once."""
    for job in core.jobs.values():
        for leased in job.leased.values():
            assert 1 <= len(leased.grants) <= 2
            assert len({grant.worker for grant in leased.grants}) == len(leased.grants)


ALL = (
    every_frame_is_in_exactly_one_place,
    the_counts_balance,
    the_workers_hold_what_is_leased_to_them,
    an_open_job_has_something_left_and_a_closed_one_nothing_leased,
    no_more_than_two_workers_do_the_same_task,
)


def check(core: Scheduler) -> None:
    """Raise `AssertionError` at the first that does not hold."""
    for invariant in ALL:
        invariant(core)
