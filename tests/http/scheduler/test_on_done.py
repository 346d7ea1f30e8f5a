"""The owner's command runs when a job has ended, with what the job was, and never as part of a shell."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.scheduler.on_done import Command
from cluster.scheduler.service import Service

pytestmark = pytest.mark.anyio

TELL = (
    "import json, os, sys; told = {k: v for k, v in os.environ.items() if k.startswith('CLUSTEROFONE')};"
    "json.dump({'told': told, 'job': json.load(sys.stdin)}, open(sys.argv[1], 'w'))"
)
MakeService = Callable[..., Service]


def command(code: str, *words: str, limit_s: float = 30.0) -> Command:
    environ = {"PATH": "", "CLUSTEROFONE_TOKEN": "a secret"}
    return Command([sys.executable, "-c", code, *words], environ, limit_s)


async def _one_job(hands: Any, **request: Any) -> dict[str, Any]:
    job_id = await hands.submitted(**request)
    await hands.work_off(await hands.register())
    return dict(await hands.ended(job_id))


async def test_it_learns_the_job_and_no_secret(
    make_service: MakeService, connect: Any, tmp_path: Path
) -> None:
    out = tmp_path / "told.json"
    async with connect(make_service(on_done=command(TELL, str(out)))) as hands:
        job = await _one_job(hands, name="$(touch /tmp/x); a job")

    said = json.loads(out.read_text())
    assert said["job"]["id"] == job["id"]
    assert said["told"]["CLUSTEROFONE_JOB_STATE"] == "done"
    assert said["told"]["CLUSTEROFONE_JOB_OUTPUT"] == job["output"]
    assert said["told"]["CLUSTEROFONE_JOB_NAME"] == "$(touch /tmp/x); a job"
    assert "CLUSTEROFONE_TOKEN" not in said["told"]


@pytest.mark.parametrize(
    ("code", "limit_s", "note"),
    [
        ("import sys; sys.exit('no mail today')", 30.0, "ended with status 1: no mail today"),
        ("import time; time.sleep(60)", 0.3, "took longer than 0.3 s and was ended"),
    ],
)
async def test_a_command_that_fails_leaves_a_note_on_the_job_and_nothing_else(
    make_service: MakeService, connect: Any, until: Any, code: str, limit_s: float, note: str
) -> None:
    service = make_service(on_done=command(code, limit_s=limit_s))
    async with connect(service) as hands:
        job = await _one_job(hands)
        await until(lambda: service.state.job(job["id"]).progress.notes)
        job = await hands.job(job["id"])

    assert job["state"] == "done"
    assert note in "; ".join(job["notes"])


async def test_a_command_that_does_not_exist_is_named(
    make_service: MakeService, connect: Any, until: Any
) -> None:
    service = make_service(on_done=Command(["no-such-program"], {}))
    async with connect(service) as hands:
        job = await _one_job(hands)
        await until(lambda: service.state.job(job["id"]).progress.notes)

    assert "no-such-program cannot be run" in service.state.job(job["id"]).progress.notes[0]


async def test_a_preview_is_no_job_to_tell_of(
    make_service: MakeService, connect: Any, tmp_path: Path
) -> None:
    out = tmp_path / "told.json"
    service = make_service(on_done=command(TELL, str(out)))
    async with connect(service) as hands:
        worker = await hands.register()
        import asyncio

        asking = asyncio.create_task(
            hands.http.post("/api/v1/preview", json={"series": "day 1/cells.tif", "frames": 1})
        )
        while not asking.done():
            await asyncio.sleep(0)  # a request that waits for nothing lets nobody else run
            await hands.work_off(worker)

    assert asking.result().status_code == 200
    assert not out.exists()
