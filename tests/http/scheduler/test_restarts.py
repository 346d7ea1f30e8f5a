"""The scheduler goes away and comes back: what it said is still so, and work goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cluster.results import h5r
from cluster.scheduler.core import Decided
from cluster.scheduler.merging import Merger

pytestmark = pytest.mark.anyio


async def test_jobs_workers_and_commits_are_there_after_a_restart(make_service: Any, connect: Any) -> None:
    async with connect(make_service()) as hands:
        worker = await hands.register()
        job_id = await hands.submitted()
        done, held = await hands.lease(worker, 2)
        await hands.commit(worker, done)
        before = await hands.job(job_id)

    async with connect(make_service()) as hands:
        after = await hands.job(job_id)
        assert {**after, "rate_frames_per_s": None, "eta_s": None} == before
        assert (await hands.commit(worker, done)).json()["outcome"] == "already"
        assert (await hands.commit(worker, held)).json()["outcome"] == "committed"
        await hands.work_off(worker)
        job = await hands.ended(job_id)

    assert job["state"] == "done"
    assert len(h5r.read(Path(job["output"])).rows) == 200


async def test_jobs_and_tests_take_turns_across_restarts(make_service: Any, connect: Any) -> None:
    """A Test leaves nothing on the disk, but the numbers of jobs must not meet because of it."""
    jobs: list[str] = []
    for _ in range(3):
        async with connect(make_service()) as hands:
            worker = await hands.register()
            for _ in range(2):
                test = asyncio.create_task(
                    hands.http.post("/api/v1/preview", json={"series": "day 1/cells.tif", "frames": 2})
                )
                while not test.done():
                    for lease in await hands.lease(worker, 2):
                        await hands.commit(worker, lease)
                    await asyncio.sleep(0)
                assert test.result().status_code == 200
                jobs.append(await hands.submitted())
                await hands.work_off(worker)
                await hands.ended(jobs[-1])

    async with connect(make_service()) as hands:
        listed = (await hands.http.get("/api/v1/jobs")).json()["jobs"]
    assert [job["id"] for job in listed] == jobs[::-1]


async def test_a_lease_gets_one_fresh_term_after_a_restart(
    make_service: Any, connect: Any, clock: Any
) -> None:
    async with connect(make_service()) as hands:
        ann = await hands.register("ann")
        await hands.submitted(analysis={"stop_at": 30})
        (lease,) = await hands.lease(ann)

    clock.seconds += 1000.0
    async with connect(make_service()) as hands:
        bob = await hands.register("bob")
        clock.seconds += 29.0
        assert await hands.lease(bob) == []
        clock.seconds += 2.0
        (again,) = await hands.lease(bob)

    assert (again["task_id"], again["attempt"]) == (lease["task_id"], 2)


async def test_a_file_half_made_is_made_at_the_next_start(
    make_service: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = asyncio.Event()

    async def never_made(*_: Any, **__: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    async with connect(make_service()) as hands:
        worker = await hands.register()
        job_id = await hands.submitted()
        with monkeypatch.context() as patch:
            patch.setattr("cluster.scheduler.merging.Merger._merge", never_made)
            patch.setattr("cluster.scheduler.merging.Merger.finish", lambda _: asyncio.sleep(0))
            await hands.work_off(worker)
            async with asyncio.timeout(20.0):
                await started.wait()
        assert (await hands.job(job_id))["state"] == "running"
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if task.get_coro().__name__ == "never_made":  # type: ignore[union-attr]
                task.cancel()

    async with connect(make_service()) as hands:
        assert (await hands.ended(job_id))["state"] == "done"


async def test_a_file_that_was_renamed_before_the_crash_is_not_made_twice(
    make_service: Any, connect: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Merger._made
    renamed = asyncio.Event()

    async def made_but_not_noted(merger: Merger, job_id: str, *, is_partial: bool) -> str | None:
        await make(merger, job_id, is_partial=is_partial)
        renamed.set()
        await asyncio.Event().wait()
        return None

    async with connect(make_service()) as hands:
        worker = await hands.register()
        job_id = await hands.submitted()
        with monkeypatch.context() as patch:
            patch.setattr(Merger, "_made", made_but_not_noted)
            patch.setattr(Merger, "finish", lambda _: asyncio.sleep(0))
            await hands.work_off(worker)
            async with asyncio.timeout(20.0):
                await renamed.wait()
        assert (await hands.job(job_id))["state"] == "running"
        assert result_names(root) == ["cells.h5r"]
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if task.get_coro().__name__ == "_merge":  # type: ignore[union-attr]
                task.cancel()

    async with connect(make_service()) as hands:
        job = await hands.ended(job_id)

    assert job["state"] == "done"
    assert result_names(root) == ["cells.h5r"]


async def test_the_same_submit_after_a_restart_is_the_same_job(make_service: Any, connect: Any) -> None:
    headers = {"Idempotency-Key": "once"}
    async with connect(make_service()) as hands:
        first = (await hands.submit(headers=headers)).json()["id"]

    async with connect(make_service()) as hands:
        again = await hands.submit(headers=headers)

    assert (again.status_code, again.json()["id"]) == (200, first)


async def test_a_job_that_a_full_disk_refused_leaves_nothing_even_if_a_worker_had_begun_it(
    make_service: Any, connect: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    core, journal = service.state.core, service.state.journal
    submit = core.submit

    def submit_and_lease(order: Any) -> Decided[None]:
        submitted = submit(order)
        leased = core.lease(worker, 2, now=clock())
        assert len(leased.value) == 2
        return Decided(None, (*submitted.records, *leased.records))

    async with connect(service) as hands:
        worker = await hands.register()
        monkeypatch.setattr(core, "submit", submit_and_lease)
        pages = await journal.read(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
        await journal.read(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchall())
        refused = await hands.submit(name="x" * 1000)
        await journal.read(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchall())
    async with connect(make_service()) as hands:
        jobs = (await hands.http.get("/api/v1/jobs")).json()["jobs"]
        (seen,) = (await hands.http.get("/api/v1/workers")).json()

    assert (refused.status_code, jobs, seen["state"]) == (507, [], "idle")


async def test_failed_frames_are_still_named_after_a_restart(make_service: Any, connect: Any) -> None:
    async with connect(make_service()) as hands:
        worker = await hands.register()
        job_id = await hands.submitted()
        first, *others = await hands.lease(worker, 10)
        await hands.fail(worker, first)
        for lease in others:
            await hands.commit(worker, lease)
        before = await hands.ended(job_id)

    async with connect(make_service()) as hands:
        after = await hands.job(job_id)

    assert after == before
    assert after["state"] == "done_with_errors"


async def test_the_epoch_counts_the_starts(make_service: Any, connect: Any, card: Any) -> None:
    epochs = []
    for _ in range(3):
        async with connect(make_service()) as hands:
            epochs.append((await hands.http.post("/api/v1/workers", json=card())).json()["epoch"])

    assert epochs == [1, 2, 3]


async def test_stopping_ends_a_long_poll(make_service: Any, connect: Any, until: Any) -> None:
    service = make_service()
    async with connect(service) as hands:
        worker = await hands.register()
        polling = asyncio.create_task(hands.lease(worker, wait_s=60.0))
        await until(lambda: service.state.signals.work.is_awaited)
        service.state.signals.close()
        assert await asyncio.wait_for(polling, 20.0) == []


def result_names(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*.h5r"))
