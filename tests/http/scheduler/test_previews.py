"""The Test button: a few frames, before everything else, leaving nothing behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


async def previewed(hands: Any, worker: str, finish: Any, **request: Any) -> dict[str, Any]:
    """Ask for a preview and play the worker that `finish`es its leases."""
    asking = asyncio.create_task(
        hands.http.post("/api/v1/preview", json={"series": "day 1/cells.tif", **request})
    )
    async with asyncio.timeout(30.0):
        while not asking.done():
            await asyncio.sleep(0)  # a request that waits for nothing lets nobody else run
            for lease in await hands.lease(worker, 100):
                await finish(worker, lease)
    reply = await asking
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def test_a_preview_shows_candidates_and_fits_of_frames_spread_through_the_series(hands: Any) -> None:
    worker = await hands.register()

    preview = await previewed(hands, worker, hands.commit, frames=4)

    assert [frame["frame"] for frame in preview["frames"]] == [0, 25, 50, 75]
    frame = preview["frames"][1]
    assert frame["status"] == "localised"
    assert frame["candidates"] == [{"x_px": 1.0, "y_px": 2.0, "snr": 5.0, "fitted": True}]
    assert frame["rows"][0]["x_px"] == pytest.approx(1.25)
    assert frame["rows"][0]["y_px"] == pytest.approx(2.0)
    assert frame["rows"][0]["sigma_px"] == pytest.approx(1.3)
    assert frame["rows"][0]["photons"] == pytest.approx(2 * 3.14159265 * 10 * 1.3**2 * 0.5, rel=1e-5)
    assert frame["rows"][0]["error_x_nm"] == pytest.approx(10)


async def test_a_preview_of_chosen_frames_takes_these(hands: Any) -> None:
    worker = await hands.register()

    preview = await previewed(hands, worker, hands.commit, frames=[70, 3])

    assert [frame["frame"] for frame in preview["frames"]] == [3, 70]


async def test_a_preview_goes_before_jobs_and_leaves_nothing_behind(
    hands: Any, root: Path, tmp_path: Path
) -> None:
    worker = await hands.register()
    job_id = await hands.submitted(priority=100)
    leased = []

    async def finish(worker: str, lease: dict[str, Any]) -> None:
        leased.append(lease["job_id"])
        await hands.commit(worker, lease)

    preview = await previewed(hands, worker, finish, frames=3)

    listed = (await hands.http.get("/api/v1/jobs")).json()["jobs"]
    assert [job["id"] for job in listed] == [job_id]
    assert preview["job_id"] in leased
    assert (await hands.http.get(f"/api/v1/jobs/{preview['job_id']}")).status_code == 404


async def test_a_frame_that_cannot_be_fitted_says_why(hands: Any) -> None:
    worker = await hands.register()

    preview = await previewed(hands, worker, hands.fail, frames=1)

    assert preview["frames"][0]["status"] == "failed"
    assert preview["frames"][0]["reason"] == "the frames are upside down"


async def test_without_a_worker_a_preview_says_so_after_a_while(
    hands: Any, clock: Any, service: Any, until: Any
) -> None:
    asking = asyncio.create_task(hands.http.post("/api/v1/preview", json={"series": "day 1/cells.tif"}))
    await until(lambda: service.state.known)
    clock.seconds += 6.0
    reply = await asyncio.wait_for(asking, 20.0)

    assert (reply.status_code, reply.json()["code"]) == (503, "unavailable")
    assert "no worker" in reply.json()["detail"]
    assert service.state.known == {}


async def test_workers_that_do_not_get_to_it_in_time_are_named(hands: Any, clock: Any, service: Any) -> None:
    worker = await hands.register()
    asking = asyncio.create_task(hands.http.post("/api/v1/preview", json={"series": "day 1/cells.tif"}))
    async with asyncio.timeout(20.0):
        while not await hands.lease(worker, 100):  # noqa: ASYNC110 - polled as workers do
            await asyncio.sleep(0)
        clock.seconds += 61.0
        reply = await asking

    assert reply.status_code == 503
    assert "within 60 s" in reply.json()["detail"]


@pytest.mark.parametrize("frames", [0, 1001, [], [100], [-1]])
async def test_frames_that_are_not_there_are_refused(hands: Any, frames: Any) -> None:
    reply = await hands.http.post("/api/v1/preview", json={"series": "day 1/cells.tif", "frames": frames})

    assert (reply.status_code, reply.json()["code"]) == (400, "invalid")
    assert "frames" in reply.json()["detail"]


async def test_a_preview_refuses_what_a_job_refuses(hands: Any) -> None:
    request = {"series": "day 1/cells.tif", "analysis": {"treshold": 1}}

    reply = await hands.http.post("/api/v1/preview", json=request)

    assert reply.json()["field"] == "analysis.treshold"
