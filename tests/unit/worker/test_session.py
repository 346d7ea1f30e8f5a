"""Registration, back-off, and a scheduler that moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cluster.backoff import Pace
from cluster.errors import Forbidden, Invalid, NotFound, Unauthorised, Unavailable
from cluster.protocol import WorkerRegistered, WorkerRegistration
from cluster.worker.session import Dismissed, Session

pytestmark = pytest.mark.anyio
MakeRig = Callable[..., Any]


def registered(**changes: Any) -> WorkerRegistered:
    values = {"worker_id": "w1", "cluster_id": "c1", "epoch": 1, "lease_s": 30, "keep_alive_s": 10}
    return WorkerRegistered.model_validate(values | changes)


async def finished(rig: Any, awaitable: Any) -> Any:
    """Return what comes of it, letting the clock run."""
    task = asyncio.ensure_future(awaitable)
    await rig.time.until(task.done)
    return task.result()


async def test_a_session_registers_once_for_all_that_wait_for_it(make_rig: MakeRig) -> None:
    rig = make_rig([])

    async def name(worker_id: str) -> str:
        return worker_id

    names = await asyncio.gather(*(rig.session.call(name) for _ in range(5)))

    assert names == ["w1"] * 5
    assert rig.scheduler.calls == ["register"]


async def test_pauses_grow_are_jittered_and_bounded(make_rig: MakeRig) -> None:
    rig = make_rig([])
    rig.scheduler.fault("register", *[Unavailable("away")] * 12)

    await finished(rig, rig.session.begin())

    ceilings = [min(0.25 * 2**n, 5.0) for n in range(12)]
    assert len(rig.time.slept) == 12
    assert all(0 <= slept <= ceiling for slept, ceiling in zip(rig.time.slept, ceilings, strict=True))
    assert len(set(rig.time.slept)) == 12


async def test_a_scheduler_that_asks_for_time_gets_it(make_rig: MakeRig) -> None:
    rig = make_rig([])
    rig.scheduler.fault("register", Unavailable("starting", retry_after_s=3))

    await finished(rig, rig.session.begin())

    assert 3.0 <= rig.time.slept[0] <= 3.25


async def test_a_scheduler_that_stays_away_is_looked_for_and_followed(make_rig: MakeRig) -> None:
    rig = make_rig([], moved_to="http://10.0.0.9:15401")
    rig.scheduler.fault("register", *[Unavailable("away")] * 20)

    await finished(rig, rig.session.begin())

    assert set(rig.scheduler.urls) == {"http://10.0.0.9:15401"}
    assert len(rig.scheduler.urls) <= rig.time.now / 5.0


async def test_a_short_absence_is_no_reason_to_look_elsewhere(make_rig: MakeRig) -> None:
    rig = make_rig([], moved_to="http://10.0.0.9:15401")
    rig.scheduler.fault("register", Unavailable("away"), Unavailable("away"))

    await finished(rig, rig.session.begin())

    assert rig.scheduler.urls == []


async def test_another_cluster_at_the_old_address_is_waited_out(make_rig: MakeRig) -> None:
    rig = make_rig([])
    rig.scheduler.reply = registered(cluster_id="c2")
    beginning = asyncio.ensure_future(rig.session.begin())
    await rig.time.until(lambda: len(rig.scheduler.registrations) >= 3)
    assert not beginning.done()

    rig.scheduler.reply = registered()
    await rig.time.until(beginning.done)

    assert rig.session.worker_id == "w1"


async def test_a_scheduler_that_has_been_replaced_is_not_obeyed(make_rig: MakeRig) -> None:
    rig = make_rig([])
    rig.scheduler.reply = registered(epoch=5)
    await rig.session.begin()
    rig.scheduler.reply = registered(epoch=4, worker_id="w2")
    known = {"w3"}

    async def act(worker_id: str) -> str:
        if worker_id not in known:
            raise NotFound("no such worker")
        return worker_id

    acting = asyncio.ensure_future(rig.session.call(act))
    await rig.time.until(lambda: len(rig.scheduler.registrations) >= 4)
    assert not acting.done()
    rig.scheduler.reply = registered(epoch=6, worker_id="w3")
    await rig.time.until(acting.done)

    assert acting.result() == "w3"


@pytest.mark.parametrize(
    "reason", [Unauthorised("unknown token"), Forbidden("a viewer token"), Invalid("cores")]
)
async def test_a_refused_registration_dismisses_the_worker(make_rig: MakeRig, reason: Any) -> None:
    rig = make_rig([])
    rig.scheduler.fault("register", reason)

    with pytest.raises(Dismissed) as caught:
        await rig.session.begin()

    assert caught.value.reason is reason


async def test_a_refused_request_is_not_tried_again(make_rig: MakeRig) -> None:
    rig = make_rig([])
    asked = []

    async def act(worker_id: str) -> None:
        asked.append(worker_id)
        raise Invalid("wrong")

    with pytest.raises(Invalid):
        await rig.session.call(act)

    assert asked == ["w1"]


async def test_goodbyes_are_said_once_and_only_by_those_who_came(
    make_rig: MakeRig, registration: WorkerRegistration, pace: Pace
) -> None:
    rig = make_rig([])

    async def nowhere() -> None:
        return None

    fresh = Session(rig.scheduler, registration, cluster_id="c1", relocate=nowhere, pace=pace)
    await fresh.once(rig.scheduler.goodbye)
    await rig.session.begin()
    await rig.session.once(rig.scheduler.goodbye)

    assert rig.scheduler.left == ["w1"]
