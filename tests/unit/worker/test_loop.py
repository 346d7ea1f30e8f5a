"""The worker's loop, over a scheduler, frames and a fit that are small fakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cluster.errors import (
    ChecksumMismatch,
    ClusterError,
    Conflict,
    Gone,
    NotFound,
    Superseded,
    TooLarge,
    Unauthorised,
    Unavailable,
    VersionMismatch,
)
from cluster.protocol import HeldTask, WorkerRegistered
from cluster.worker.session import Dismissed
from fitting.errors import InvalidFrames

pytestmark = pytest.mark.anyio
MakeRig = Callable[..., Any]
MakeLease = Callable[..., Any]


async def test_every_range_is_localised_and_handed_in_once_and_in_order(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(n) for n in range(7)])

    await rig.start()
    await rig.time.until(lambda: len(rig.scheduler.committed) == 7)
    await rig.finish()

    assert [lease.task_id for _, lease, _ in rig.scheduler.committed] == list(range(7))
    assert [(r.start, r.stop) for _, _, r in rig.scheduler.committed] == [
        (10 * n, 10 * n + 10) for n in range(7)
    ]
    assert rig.fit.began == [(10 * n, 10 * n + 10) for n in range(7)]


async def test_a_worker_holds_leases_from_the_first_to_the_last_that_is_handed_in(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(1)])
    rig.fit.gate.clear()

    assert not rig.loop.holds_leases()
    await rig.start()
    await rig.time.until(lambda: bool(rig.fit.began))
    assert rig.loop.holds_leases()
    rig.fit.gate.set()
    await rig.time.until(lambda: len(rig.scheduler.committed) == 1 and not rig.loop.holds_leases())
    await rig.finish()


async def test_the_next_leases_ride_on_the_commits(make_rig: MakeRig, make_lease: MakeLease) -> None:
    rig = make_rig([make_lease(n) for n in range(20)])

    await rig.start()
    await rig.time.until(lambda: len(rig.scheduler.committed) == 20)

    asked = rig.scheduler.calls.count("lease")
    await rig.finish()
    assert asked <= 3  # at the start, and again once there is nothing left


async def test_the_next_range_is_fetched_with_its_context_while_one_is_fitted(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(n) for n in range(5, 12)])
    rig.fit.gate.clear()

    await rig.start()
    await rig.time.until(lambda: len(rig.frames.asked) == 2 and len(rig.fit.began) == 1)
    await rig.time.until(lambda: len(rig.scheduler.kept_alive) >= 2)

    assert rig.frames.asked == [(40, 60), (50, 70)]  # the background window is ten frames long
    assert rig.fit.began == [(50, 60)]
    rig.fit.gate.set()
    await rig.finish()


async def test_a_lease_is_kept_alive_while_the_fitting_thread_is_busy(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(3, attempt=2)])
    rig.fit.gate.clear()

    await rig.start()
    await rig.time.until(lambda: len(rig.scheduler.kept_alive) >= 3 and rig.fit.began != [])

    held = HeldTask(job_id="j1", task_id=3, attempt=2)
    assert rig.scheduler.kept_alive[-1] == [held]
    assert rig.time.now >= 2 * 0.85 * rig.scheduler.reply.keep_alive_s
    rig.fit.gate.set()
    await rig.time.until(lambda: rig.scheduler.committed != [])
    reports = len(rig.scheduler.kept_alive)
    await rig.time.until(lambda: len(rig.scheduler.kept_alive) > reports + 1)
    assert rig.scheduler.kept_alive[-1] == []
    await rig.finish()


async def test_a_result_is_kept_while_the_scheduler_is_away_and_handed_in_afterwards(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(0), make_lease(1)])
    rig.scheduler.fault("commit", *[Unavailable("restarting")] * 6)

    await rig.start()
    await rig.time.until(lambda: len(rig.scheduler.committed) == 2)
    await rig.finish()

    assert rig.fit.began == [(0, 10), (10, 20)]
    assert rig.scheduler.calls.count("commit") == 8


@pytest.mark.parametrize("refusal", [Superseded("another was first"), Gone("cancelled"), Conflict("no")])
async def test_a_result_that_is_not_wanted_is_thrown_away_and_the_work_goes_on(
    make_rig: MakeRig, make_lease: MakeLease, refusal: ClusterError
) -> None:
    rig = make_rig([make_lease(0), make_lease(1), make_lease(2)])
    rig.scheduler.fault("commit", refusal)

    await rig.start()
    await rig.time.until(lambda: len(rig.scheduler.committed) == 2)
    await rig.finish()

    assert {lease.task_id for _, lease, _ in rig.scheduler.committed} == {1, 2}
    assert rig.scheduler.failed == []


async def test_a_worker_that_is_not_known_any_more_registers_again_and_hands_its_result_in(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(0)])
    await rig.start()
    rig.scheduler.reply = WorkerRegistered(
        worker_id="w2", cluster_id="c1", epoch=2, lease_s=30, keep_alive_s=10
    )
    rig.scheduler.fault("commit", NotFound("no worker w1"))

    await rig.time.until(lambda: rig.scheduler.committed != [])
    await rig.finish()

    assert [worker for worker, _, _ in rig.scheduler.committed] == ["w2"]
    assert len(rig.scheduler.registrations) == 2
    assert rig.scheduler.left == ["w2"]


async def test_a_result_of_a_job_nobody_knows_is_thrown_away(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(0), make_lease(1)])
    rig.scheduler.fault("commit", NotFound("no worker"), NotFound("no job"))

    await rig.start()
    await rig.time.until(lambda: rig.scheduler.committed != [])
    await rig.finish()

    assert [lease.task_id for _, lease, _ in rig.scheduler.committed] == [1]


async def test_a_fit_that_raises_is_reported_with_its_traceback_and_the_worker_lives_on(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(0), make_lease(1)])
    rig.fit.errors.append(ZeroDivisionError("by zero"))

    await rig.start()
    await rig.time.until(lambda: rig.scheduler.committed != [])
    await rig.finish()

    ((failed, failure),) = rig.scheduler.failed
    assert (failed.task_id, failure.kind, failure.attempt) == (0, "error", 1)
    assert "ZeroDivisionError: by zero" in failure.message
    assert failure.traceback is not None
    assert "in __call__" in failure.traceback


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidFrames("frames are 3-D"), "invalid"),
        (Conflict("the file changed"), "changed"),
        (Unavailable("no data server"), "refused"),
    ],
)
async def test_frames_that_cannot_be_had_are_reported_for_what_they_are(
    make_rig: MakeRig, make_lease: MakeLease, error: Exception, kind: str
) -> None:
    rig = make_rig([make_lease(0), make_lease(1)])
    rig.frames.errors.append(error)

    await rig.start()
    await rig.time.until(lambda: rig.scheduler.committed != [])
    await rig.finish()

    assert [(lease.task_id, failure.kind) for lease, failure in rig.scheduler.failed] == [(0, kind)]


async def test_a_job_that_has_gone_is_passed_over(make_rig: MakeRig, make_lease: MakeLease) -> None:
    rig = make_rig([make_lease(0, job_id="gone"), make_lease(1)])
    rig.scheduler.fault("spec", Gone("cancelled"))

    await rig.start()
    await rig.time.until(lambda: rig.scheduler.committed != [])
    await rig.finish()

    assert [lease.task_id for _, lease, _ in rig.scheduler.committed] == [1]
    assert rig.scheduler.failed == []


async def test_the_spec_of_a_job_is_fetched_once(make_rig: MakeRig, make_lease: MakeLease) -> None:
    rig = make_rig([make_lease(n) for n in range(5)])

    await rig.start()
    await rig.time.until(lambda: len(rig.scheduler.committed) == 5)
    await rig.finish()

    assert rig.scheduler.calls.count("spec") == 1


async def test_a_lost_lease_that_has_not_begun_is_dropped_and_replaced(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(0), make_lease(1)])
    rig.fit.gate.clear()
    await rig.start()
    await rig.time.until(lambda: len(rig.frames.asked) == 2 and rig.fit.began != [])

    rig.scheduler.lost = [HeldTask(job_id="j1", task_id=1, attempt=1)]
    rig.scheduler.waiting.append(make_lease(2))
    await rig.time.until(lambda: len(rig.frames.asked) == 3)
    rig.fit.gate.set()
    await rig.time.until(lambda: len(rig.scheduler.committed) == 2)
    await rig.finish()

    assert rig.fit.began == [(0, 10), (20, 30)]


async def test_a_lost_lease_that_is_being_fitted_is_handed_in_all_the_same(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(0)])
    rig.fit.gate.clear()
    await rig.start()
    await rig.time.until(lambda: rig.fit.began != [])

    rig.scheduler.lost = [HeldTask(job_id="j1", task_id=0, attempt=1)]
    reports = len(rig.scheduler.kept_alive)
    await rig.time.until(lambda: len(rig.scheduler.kept_alive) > reports + 1)
    rig.fit.gate.set()
    await rig.time.until(lambda: rig.scheduler.committed != [])
    await rig.finish()

    assert [lease.task_id for _, lease, _ in rig.scheduler.committed] == [0]


async def test_a_worker_told_to_drain_finishes_what_it_has_and_asks_for_no_more(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(n) for n in range(4)])
    rig.fit.gate.clear()
    rig.scheduler.drain = True
    await rig.start()
    await rig.time.until(lambda: len(rig.scheduler.kept_alive) >= 2 and rig.fit.began != [])

    rig.fit.gate.set()
    await rig.time.until(lambda: len(rig.scheduler.committed) == 2)
    reports = len(rig.scheduler.kept_alive)
    await rig.time.until(lambda: len(rig.scheduler.kept_alive) > reports + 3)
    assert len(rig.scheduler.committed) == 2

    rig.scheduler.drain = False
    await rig.time.until(lambda: len(rig.scheduler.committed) == 4)
    await rig.finish()


async def test_a_stopped_worker_finishes_its_range_hands_back_the_next_and_says_goodbye(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(0), make_lease(1), make_lease(2)])
    rig.fit.gate.clear()
    await rig.start()
    await rig.time.until(lambda: len(rig.frames.asked) == 2 and rig.fit.began != [])

    rig.stop.set()
    await rig.time.until(lambda: rig.scheduler.failed != [], moving=False)
    rig.fit.gate.set()
    await rig.finish()

    assert [(lease.task_id, failure.kind) for lease, failure in rig.scheduler.failed] == [(1, "handed_back")]
    assert [lease.task_id for _, lease, _ in rig.scheduler.committed] == [0]
    assert rig.fit.began == [(0, 10)]
    assert rig.scheduler.calls[-1] == "goodbye"


async def test_a_range_that_takes_too_long_is_handed_back_when_the_worker_stops(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(0)], drain_s=0.05)
    rig.fit.gate.clear()
    await rig.start()
    await rig.time.until(lambda: rig.fit.began != [])

    await rig.finish()
    rig.fit.gate.set()

    assert [(lease.task_id, failure.kind) for lease, failure in rig.scheduler.failed] == [(0, "handed_back")]
    assert rig.scheduler.committed == []
    assert rig.scheduler.left == ["w1"]


async def test_a_worker_stops_although_the_scheduler_is_away(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(0)], drain_s=0.05)
    rig.scheduler.fault("commit", *[Unavailable("away")] * 1000)
    rig.scheduler.fault("goodbye", Unavailable("away"))
    await rig.start()
    await rig.time.until(lambda: rig.scheduler.calls.count("commit") >= 2)

    await rig.finish()

    assert rig.scheduler.left == []


async def test_a_result_that_was_damaged_on_the_way_is_sent_again(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(0)])
    rig.scheduler.fault("commit", ChecksumMismatch("bits"), ChecksumMismatch("bits"))

    await rig.start()
    await rig.time.until(lambda: rig.scheduler.committed != [])
    await rig.finish()

    assert rig.scheduler.calls.count("commit") == 3


async def test_a_result_that_is_refused_is_reported_as_a_failure(
    make_rig: MakeRig, make_lease: MakeLease
) -> None:
    rig = make_rig([make_lease(0)])
    rig.scheduler.fault("commit", TooLarge("over 256 MB"))

    await rig.start()
    await rig.time.until(lambda: rig.scheduler.failed != [])
    await rig.finish()

    ((_, failure),) = rig.scheduler.failed
    assert (failure.kind, failure.message) == ("error", "over 256 MB")


@pytest.mark.parametrize(
    "refusal", [VersionMismatch("pip install clusterofone==2"), Unauthorised("another secret")]
)
async def test_a_worker_the_scheduler_will_not_have_back_ends_and_says_why(
    make_rig: MakeRig, make_lease: MakeLease, refusal: ClusterError
) -> None:
    rig = make_rig([make_lease(0)])
    await rig.start()
    rig.scheduler.fault("commit", NotFound("no worker"))
    rig.scheduler.fault("register", refusal)

    await rig.time.until(rig.running.done)

    with pytest.raises(Dismissed, match=refusal.detail) as caught:
        rig.running.result()
    assert caught.value.reason is refusal


async def test_an_empty_answer_is_not_asked_for_again_at_once(make_rig: MakeRig) -> None:
    rig = make_rig([])

    async def nothing(worker_id: str, count: int, wait_s: float) -> list[Any]:
        rig.scheduler.calls.append("lease")
        return []

    rig.scheduler.lease = nothing
    await rig.start()
    await rig.time.until(lambda: rig.scheduler.calls.count("lease") >= 20)

    assert rig.time.now > 1.0
    await rig.finish()
