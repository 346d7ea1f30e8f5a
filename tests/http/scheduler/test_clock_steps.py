"""The scheduler's wall clock is set, by hand, by the network or by summer time: no lease notices."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("step_s", [-86_400.0, -3600.0, 3600.0, 86_400.0])
async def test_a_wall_clock_that_is_set_ends_no_lease_and_keeps_none_alive(
    make_service: Any, connect: Any, clock: Any, step_s: float
) -> None:
    wall = [1.8e9]
    service = make_service(wall=lambda: wall[0])

    async with connect(service) as hands:
        job_id = await hands.submitted()
        worker = await hands.register()
        kept, lost = await hands.lease(worker, 2)
        wall[0] += step_s
        clock.seconds += 12.0
        service.state.posted(service.state.core.tick(now=clock()))
        assert (await hands.commit(worker, kept)).status_code == 200
        assert (await hands.job(job_id))["retries"] == 0
        for _ in range(2):  # one step at once would be a sleep of the computer
            clock.seconds += 12.0
            service.state.posted(service.state.core.tick(now=clock()))
        other = await hands.register("other")
        retried = [lease for lease in await hands.lease(other, 4) if lease["task_id"] == lost["task_id"]]

        assert [lease["attempt"] for lease in retried] == [2]
