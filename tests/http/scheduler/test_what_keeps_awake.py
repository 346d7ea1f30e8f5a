"""Which jobs keep the scheduler's computer awake."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.anyio


async def test_a_job_does_from_its_first_lease_to_its_file(service: Any, hands: Any) -> None:
    awake = service.state.has_running_jobs
    worker = await hands.register()

    assert not awake()
    job_id = await hands.submitted()
    assert not awake()  # nobody has begun it, and perhaps nobody will
    (lease,) = await hands.lease(worker)
    assert awake()
    await hands.commit(worker, lease)
    await hands.work_off(worker)
    await hands.ended(job_id)
    assert not awake()


async def test_one_that_follows_an_acquisition_does_before_its_first_frame(
    service: Any, hands: Any, source: Any, facts: Any
) -> None:
    source.series["day 1/cells.tif"] = facts(frames=0, complete=False)

    job_id = await hands.submitted(follow=True)

    assert service.state.has_running_jobs()
    await hands.http.delete(f"/api/v1/jobs/{job_id}")
    await hands.ended(job_id)
    assert not service.state.has_running_jobs()
