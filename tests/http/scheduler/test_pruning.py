"""What workers handed in is let go once the result file holds every row of it, and not before."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cluster.scheduler.entries import load_kept_results

pytestmark = pytest.mark.anyio

ROWS_PER_FRAME = 40  # so that a task of 30 frames is kept as a file, and the last one of 10 in the journal


async def done(hands: Any, result_body: Any, order: tuple[int, ...] = (2, 0, 3, 1)) -> str:
    """A job whose tasks were committed in another order than that of its frames."""
    job = await hands.submitted()
    worker = await hands.register()
    leases = await hands.lease(worker, 4)
    for number in order:
        body = result_body(leases[number], rows_per_frame=ROWS_PER_FRAME)
        assert (await hands.commit(worker, leases[number], body)).status_code == 200
    assert (await hands.ended(job))["state"] == "done"
    return job


async def rows_of(hands: Any, job: str, from_row: int = 0) -> np.ndarray[Any, Any]:
    reply = await hands.http.get(f"/api/v1/jobs/{job}/localisations", params={"from_row": from_row})
    assert reply.status_code == 200, reply.text
    assert int(reply.headers["x-next-row"]) == 100 * ROWS_PER_FRAME
    return np.load(io.BytesIO(reply.content))  # type: ignore[no-any-return]


def kept(tmp_path: Path) -> int:
    """Bytes of results, in files and in the journal. Only once the scheduler has stopped."""
    files = [path for path in (tmp_path / "state" / "results").rglob("*") if path.is_file()]
    with sqlite3.connect(tmp_path / "state" / "journal.sqlite") as db:
        (inline,) = db.execute("SELECT coalesce(sum(length(body)), 0) FROM results").fetchone()
    db.close()
    return int(inline) + sum(file.stat().st_size for file in files)


async def test_a_job_that_is_done_keeps_only_its_file_and_its_rows_stay_in_the_order_of_commits(
    make_service: Any, connect: Any, result_body: Any, tmp_path: Path, until: Any
) -> None:
    async with connect(make_service(keep_blobs=True)) as hands:
        job = await done(hands, result_body)
        before = [await rows_of(hands, job, at) for at in (0, 1, 1201, 3999)]
        picture = (await hands.http.get(f"/api/v1/jobs/{job}/render.png")).content
    everything = kept(tmp_path)

    service = make_service()
    async with connect(service):  # prunes what ended before
        await until(lambda: service.blobs.size_bytes == 0)
    async with connect(make_service()) as hands:
        after = [await rows_of(hands, job, at) for at in (0, 1, 1201, 3999)]
        same_picture = (await hands.http.get(f"/api/v1/jobs/{job}/render.png")).content == picture

    assert everything > 100_000
    assert kept(tmp_path) == 0
    assert before[0]["tIndex"][0] == 60  # the third task came first
    assert [part.tobytes() for part in after] == [part.tobytes() for part in before]
    assert same_picture


async def test_it_is_let_go_as_soon_as_the_job_has_ended(
    service: Any, hands: Any, result_body: Any, until: Any
) -> None:
    await done(hands, result_body)

    await until(lambda: service.blobs.size_bytes == 0)


def move(file: Path, to: Path) -> None:
    file.rename(to)


def damage(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        row = opened["FitResults"][5]
        row["tIndex"] += 1
        opened["FitResults"][5] = row


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize("do", [lambda file: move(file, file.with_suffix(".moved")), damage, cut])
async def test_a_file_that_differs_or_was_moved_lets_nothing_go(
    make_service: Any,
    connect: Any,
    result_body: Any,
    tmp_path: Path,
    until: Any,
    caplog: pytest.LogCaptureFixture,
    do: Callable[[Path], None],
) -> None:
    async with connect(make_service(keep_blobs=True)) as hands:
        job = await done(hands, result_body)
        output = Path((await hands.job(job))["output"])
    everything = kept(tmp_path)
    do(output)

    async with connect(make_service()):
        await until(lambda: f"the results of job {job} are kept: {output}" in caplog.text)

    assert kept(tmp_path) == everything > 100_000


async def test_a_job_that_can_be_retried_keeps_what_it_has(
    make_service: Any, connect: Any, result_body: Any, tmp_path: Path, until: Any
) -> None:
    async with connect(make_service()) as hands:
        job = await hands.submitted()
        worker = await hands.register()
        first, *others = await hands.lease(worker, 4)
        await hands.fail(worker, first)
        for lease in others:
            await hands.commit(worker, lease, result_body(lease, rows_per_frame=ROWS_PER_FRAME))
        assert (await hands.ended(job))["state"] == "done_with_errors"
    between = kept(tmp_path)

    service = make_service()
    async with connect(service) as hands:
        assert (await hands.http.post(f"/api/v1/jobs/{job}/retry")).status_code == 200
        worker = await hands.register()
        (again,) = await hands.lease(worker)
        await hands.commit(worker, again, result_body(again, rows_per_frame=ROWS_PER_FRAME))
        assert (await hands.ended(job))["state"] == "done"
        assert len(await rows_of(hands, job)) == 4000
        await until(lambda: service.blobs.size_bytes == 0)

    assert between > 100_000
    assert kept(tmp_path) == 0


async def test_a_result_file_that_is_gone_is_said_so(
    make_service: Any, connect: Any, result_body: Any, until: Any
) -> None:
    service = make_service()
    async with connect(service) as hands:
        job = await done(hands, result_body)
        output = Path((await hands.job(job))["output"])
        await until(lambda: service.blobs.size_bytes == 0)
    move(output, output.with_suffix(".moved"))

    async with connect(make_service()) as hands:
        reply = await hands.http.get(f"/api/v1/jobs/{job}/localisations")

    assert (reply.status_code, reply.json()["code"]) == (409, "conflict")
    assert str(output) in reply.json()["detail"]


async def test_the_finished_frames_of_a_cancelled_job_are_pruned_too(
    make_service: Any, connect: Any, result_body: Any, tmp_path: Path, until: Any
) -> None:
    service = make_service()
    async with connect(service) as hands:
        job = await hands.submitted()
        worker = await hands.register()
        _, second = await hands.lease(worker, 2)
        await hands.commit(worker, second, result_body(second, rows_per_frame=ROWS_PER_FRAME))
        cancelled = (await hands.http.delete(f"/api/v1/jobs/{job}")).json()
        assert cancelled["state"] == "cancelled", cancelled
        await until(lambda: service.blobs.size_bytes == 0)

    async with connect(make_service()) as hands:
        reply = await hands.http.get(f"/api/v1/jobs/{job}/localisations")
        rows = np.load(io.BytesIO(reply.content))

    assert kept(tmp_path) == 0
    assert (rows["tIndex"].min(), rows["tIndex"].max(), len(rows)) == (30, 59, 1200)


async def test_the_room_in_the_journal_is_used_again(
    make_service: Any, connect: Any, result_body: Any, tmp_path: Path, until: Any
) -> None:
    journal = tmp_path / "state" / "journal.sqlite"
    sizes = []
    for _ in range(3):
        service = make_service()
        async with connect(service) as hands:
            worker = await hands.register()
            for _ in range(8):
                job = await hands.submitted()
                for lease in await hands.lease(worker, 4):  # 10 KB each, kept in the journal
                    body = result_body(lease, rows_per_frame=2)
                    assert len(body) < 32 << 10
                    await hands.commit(worker, lease, body)
                await hands.ended(job)
            await until(lambda service=service: not service.state.journal.read_now(load_kept_results))
        sizes.append(journal.stat().st_size)

    assert sizes[2] - sizes[1] <= 8 * 12_000  # a job's sheet and its tasks; its results took more than 20 kB
