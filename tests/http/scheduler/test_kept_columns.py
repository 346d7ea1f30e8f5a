"""What people look at of a large job is kept as a file once the job has ended: the first look afterwards decodes nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cluster.scheduler.results import Results
from cluster.scheduler.shelf import Shelf

pytestmark = pytest.mark.anyio


async def ended(hands: Any) -> str:
    job_id: str = await hands.submitted()
    await hands.work_off(await hands.register())
    return job_id


async def drawn(hands: Any, job_id: str) -> bytes:
    reply = await hands.http.get(f"/api/v1/jobs/{job_id}/render.png?pixel_nm=20&colour_by=frame")
    assert reply.status_code == 200, reply.text
    return bytes(reply.content)


async def test_after_a_restart_the_first_look_decodes_no_row_and_shows_the_same(
    make_service: Any, connect: Any, tmp_path: Path, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "state" / "columns"
    async with connect(make_service(shelve_rows=1)) as hands:
        job_id = await ended(hands)
        before = await drawn(hands, job_id)
        await until((kept / f"{job_id}.columns").exists)
    monkeypatch.setattr(Results, "_rows", _nothing_is_decoded)

    async with connect(make_service(shelve_rows=1)) as hands:
        again = await drawn(hands, job_id)

    assert again == before


async def test_a_damaged_file_is_as_good_as_none(
    make_service: Any, connect: Any, tmp_path: Path, until: Any
) -> None:
    kept = tmp_path / "state" / "columns"
    async with connect(make_service(shelve_rows=1)) as hands:
        job_id = await ended(hands)
        before = await drawn(hands, job_id)
        await until((kept / f"{job_id}.columns").exists)
    (kept / f"{job_id}.columns").write_bytes(b"\x93NUMPY")
    (kept / f".{job_id}.columns.0a1b2c3d.part").write_bytes(b"half")

    async with connect(make_service(shelve_rows=1)) as hands:
        assert await drawn(hands, job_id) == before
        assert [path.suffix for path in kept.iterdir()] == [".columns"], "what a crash left is swept"


async def test_a_small_job_is_not_kept(make_service: Any, connect: Any, tmp_path: Path) -> None:
    async with connect(make_service()) as hands:
        await drawn(hands, await ended(hands))

    assert not (tmp_path / "state" / "columns").exists()


async def test_beyond_the_bound_those_looked_at_longest_ago_go(
    make_service: Any, connect: Any, tmp_path: Path
) -> None:
    service = make_service()
    async with connect(service) as hands:
        jobs = [await ended(hands) for _ in range(3)]
        whole = Shelf(tmp_path / "shelf", service.results)
        sheets = [await service.state.sheet(job_id) for job_id in jobs]
        for sheet in sheets[:2]:
            whole.put(sheet, 1)
        size = max(path.stat().st_size for path in (tmp_path / "shelf").iterdir())
        for job_id in jobs[:2]:
            os.utime(tmp_path / "shelf" / f"{job_id}.columns", (1.0, 1.0))
        whole.take(jobs[0])  # the second is now the one that was looked at longest ago

        Shelf(tmp_path / "shelf", service.results, most_bytes=2 * size).put(sheets[2], 1)

    assert {path.stem for path in (tmp_path / "shelf").iterdir()} == {jobs[0], jobs[2]}


def _nothing_is_decoded(*_: Any) -> Any:
    raise AssertionError("rows were decoded")
