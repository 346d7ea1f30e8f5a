"""What a job costs the scheduler once it has ended: the same few kilobytes, whatever its series says of itself."""

from __future__ import annotations

import asyncio
import gc
import pathlib
import sys
import tracemalloc
from types import FunctionType, ModuleType
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.protocol import JobList
from cluster.scheduler.columns import ColumnCache
from cluster.scheduler.entries import load_kept_results

pytestmark = pytest.mark.anyio

JOBS = 20
WARM_UP = 5
KEYS = 200
SHEET_BYTES = 140_000
"""That of this test's series, of which each metadata value is an object of its own."""
KEPT_BYTES = 6000
"""A job that has ended keeps some 40 objects: its brief, its sums and times, the core's job and order, strings, sets and
lists, of which none is larger than 216 bytes, and 16 bytes a task: 3 to 4 kB in all."""
TRACED_BYTES = KEPT_BYTES + 4000 + 3 * SHEET_BYTES / JOBS
"""What libraries remember of the last 128 addresses comes to 4 kB a job until they are full, and of the last jobs a reply,
a thread or a frame may still hold a sheet."""


def _reachable_bytes(*roots: object) -> int:
    """Return the size of some objects and of all that they lead to, code left out."""
    seen: dict[int, object] = {}
    waiting = list(roots)
    while waiting:
        one = waiting.pop()
        if id(one) not in seen and not isinstance(one, type | ModuleType | FunctionType):
            seen[id(one)] = one
            waiting += gc.get_referents(one)
    return sum(map(sys.getsizeof, seen.values()))


def _traced_bytes() -> int:
    """Return what is allocated by now, but for the table of interned strings, which pathlib happens to double."""
    gc.collect()
    snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, pathlib.__file__)])
    return sum(one.size for one in snapshot.statistics("filename"))


async def test_a_job_that_has_ended_costs_a_few_kilobytes_however_much_its_series_says(
    hands: Any, service: Any, source: Any, facts: Any
) -> None:
    """It is listed, followed to its end, and its rows are sent."""
    path = "day 1/cells.tif"
    said = {f"Camera.Setting{number}": {"value": "x" * 40, "source": "file"} for number in range(KEYS)}
    text = facts(path, metadata={**facts().model_dump()["metadata"], **said}).model_dump_json()
    worker = await hands.register()

    async def run(jobs: int) -> None:
        for _ in range(jobs):
            source.series[path] = facts().model_validate_json(text)  # as from the wire: no job shares it
            job_id = await hands.submitted()
            await hands.work_off(worker)
            assert (await hands.ended(job_id))["state"] == "done"
            for what in ("jobs", f"jobs/{job_id}/localisations"):
                assert (await hands.http.get(f"/api/v1/{what}")).status_code == 200
        async with asyncio.timeout(20.0):  # its results are let go meanwhile
            while await service.state.journal.read(load_kept_results):
                pass

    await run(WARM_UP)
    tracemalloc.start()
    try:
        await run(WARM_UP)  # so that what is let go meanwhile was counted as well
        before = _traced_bytes()
        await run(JOBS)
        each = (_traced_bytes() - before) / JOBS
    finally:
        tracemalloc.stop()

    sheet = await service.state.sheet(job_id := next(iter(service.state.known)))
    assert _reachable_bytes(sheet) > SHEET_BYTES
    assert _reachable_bytes(service.state.known[job_id], service.state.core.job(job_id)) < KEPT_BYTES
    assert each < TRACED_BYTES


async def test_a_list_of_many_jobs_comes_whole_and_newest_first(hands: Any) -> None:
    """It is sent some at a time."""
    assert (await hands.http.get("/api/v1/jobs")).json() == {"jobs": []}

    submitted = [await hands.submitted(name=f"job {number}") for number in range(205)]
    listed = (await hands.http.get("/api/v1/jobs")).json()["jobs"]

    assert [job["id"] for job in listed] == submitted[::-1]
    assert JobList.model_validate({"jobs": listed}).jobs[-1].name == "job 0"


async def test_of_the_jobs_that_people_looked_at_the_columns_of_a_few_stay(hands: Any, service: Any) -> None:
    """However small they are: a bound of bytes alone would hold those of every job for months."""
    worker, cache = await hands.register(), ColumnCache(service.results, most_jobs=2)
    sheets = []
    for _ in range(3):
        job_id = await hands.submitted()
        await hands.work_off(worker)
        await hands.ended(job_id)
        sheets.append(await service.state.sheet(job_id))

    async def look(number: int) -> Any:
        (block,) = await asyncio.to_thread(cache.of, sheets[number])
        return block

    first, second, _third = [await look(number) for number in range(3)]

    assert await look(1) is second
    assert await look(0) is not first


async def test_what_decided_a_job_is_told_after_its_end_and_after_a_restart_as_before(
    make_service: Any, connect: Any
) -> None:
    decided = ("analysis", "metadata", "facts")
    async with connect(make_service()) as hands:
        job_id = await hands.submitted()
        queued, spec = await hands.job(job_id), await hands.http.get(f"/api/v1/jobs/{job_id}/spec")
        await hands.work_off(await hands.register())
        ended = await hands.ended(job_id)
        spec_at_end = await hands.http.get(f"/api/v1/jobs/{job_id}/spec")
        listed = (await hands.http.get("/api/v1/jobs")).json()["jobs"]
    async with connect(make_service()) as hands:
        restored = await hands.job(job_id)
        listed_again = (await hands.http.get("/api/v1/jobs")).json()["jobs"]

    assert ended["state"] == "done"
    assert [ended[key] for key in decided] == [queued[key] for key in decided]
    assert spec_at_end.json() == spec.json()
    assert restored == ended
    assert listed_again == listed
    assert listed[0] == {key: ended[key] for key in listed[0]}


async def test_a_job_that_ended_before_a_restart_can_be_retried(make_service: Any, connect: Any) -> None:
    """The file that its frames complete is that of the same settings."""
    async with connect(make_service()) as hands:
        job_id = await hands.submitted()
        worker = await hands.register()
        (lease,) = await hands.lease(worker)
        await hands.fail(worker, lease)
        await hands.work_off(worker)
        assert (await hands.ended(job_id))["state"] == "done_with_errors"
    async with connect(make_service()) as hands:
        retried = await hands.http.post(f"/api/v1/jobs/{job_id}/retry")
        await hands.work_off(await hands.register())
        ended = await hands.ended(job_id)

    assert retried.status_code == 200, retried.text
    assert ended["state"] == "done"
    assert ended["frames"]["localised"] == 100


async def test_no_job_brings_figures_of_its_own(hands: Any) -> None:
    """Neither its id nor its name is a label: what Prometheus keeps does not grow with the jobs."""
    worker = await hands.register()

    async def one() -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        job_id = await hands.submitted()
        (lease,) = await hands.lease(worker)
        await hands.fail(worker, lease)
        await hands.work_off(worker)
        await hands.ended(job_id)
        for what in ("", "/events", "/localisations", "/results.csv", "/render.png", "/spec"):
            await hands.http.get(f"/api/v1/jobs/{job_id}{what}")
        await hands.http.post(f"/api/v1/jobs/{job_id}/retry")
        await hands.work_off(worker)
        await hands.ended(job_id)
        families = text_string_to_metric_families((await hands.http.get("/metrics")).text)
        return {(one.name, tuple(sorted(one.labels.items()))) for of in families for one in of.samples}

    await one()
    names = await one()

    assert [await one() for _ in range(3)] == [names] * 3
