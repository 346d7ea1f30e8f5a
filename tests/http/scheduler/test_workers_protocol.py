"""What workers say and hear: registration, leases, results, and being told no."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.arrays import decode_result
from cluster.errors import OutOfSpace
from cluster.scheduler.blobs import Blob, Blobs
from cluster.scheduler.journal import Journal
from fitting.localisations import LAT_GAUSS_DTYPE

pytestmark = pytest.mark.anyio


async def test_a_worker_is_registered_and_listed(hands: Any) -> None:
    worker = await hands.register("lab pc/3 ")

    (listed,) = (await hands.http.get("/api/v1/workers")).json()

    assert worker == listed["id"]
    assert worker.startswith("lab-pc-3--7-")
    assert (listed["state"], listed["version"]) == ("idle", "0.1.0")


async def test_a_worker_says_how_busy_it_is_with_its_keep_alive(hands: Any) -> None:
    worker = await hands.register()
    load = {"cores": 0.9, "memory_bytes": 300_000_000, "machine_cpu": 0.5, "machine_memory": 0.25}

    before = (await hands.http.get("/api/v1/workers")).json()[0]["load"]
    reply = await hands.http.post(f"/api/v1/workers/{worker}/keepalive", json={"held": [], "load": load})
    after = (await hands.http.get("/api/v1/workers")).json()[0]["load"]

    assert reply.status_code == 200
    assert (before, after) == (None, load)


async def test_a_drained_worker_finishes_what_it_holds_and_gets_no_more(hands: Any) -> None:
    await hands.submitted()
    worker = await hands.register()
    (held,) = await hands.lease(worker, 1)

    reply = await hands.http.post(f"/api/v1/workers/{worker}/drain")

    assert reply.status_code == 204
    assert await hands.lease(worker, 4) == []
    heard = (await hands.http.post(f"/api/v1/workers/{worker}/keepalive", json={"held": []})).json()
    assert heard["drain"] is True
    assert (await hands.http.get("/api/v1/workers")).json()[0]["state"] == "draining"
    assert (await hands.commit(worker, held)).status_code == 200
    assert (await hands.http.post("/api/v1/workers/nobody/drain")).status_code == 404


async def test_a_drained_worker_that_is_used_again_gets_work_while_it_waits_for_it(hands: Any) -> None:
    await hands.submitted()
    worker = await hands.register()
    await hands.http.post(f"/api/v1/workers/{worker}/drain")
    waiting = asyncio.create_task(hands.lease(worker, 1, wait_s=30.0))

    reply = await hands.http.delete(f"/api/v1/workers/{worker}/drain")

    assert reply.status_code == 204
    async with asyncio.timeout(10.0):
        assert len(await waiting) == 1
    heard = (await hands.http.post(f"/api/v1/workers/{worker}/keepalive", json={"held": []})).json()
    assert heard["drain"] is False
    assert (await hands.http.get("/api/v1/workers")).json()[0]["state"] == "working"
    assert (await hands.http.delete("/api/v1/workers/nobody/drain")).status_code == 404


async def test_the_owner_reads_the_last_lines_of_the_log(hands: Any) -> None:
    log = logging.getLogger("cluster.scheduler.test")
    log.setLevel(logging.INFO)
    log.info("a name with \x1b[31mcolour")
    try:
        int("upside down")
    except ValueError:
        log.exception("it failed")

    lines = (await hands.http.get("/api/v1/log", params={"lines": 2})).json()["lines"]

    assert lines[0].endswith("a name with \\x1b[31mcolour")
    assert lines[1].endswith("it failed … ValueError: invalid literal for int() with base 10: 'upside down'")
    assert (await hands.http.get("/api/v1/log", params={"lines": 0})).status_code == 400


@pytest.mark.parametrize(
    "changes",
    [{"numpy": "1.26.4"}, {"numba": "0.60.0"}, {"clusterofone": "0.2.0"}],
)
async def test_a_worker_of_other_versions_is_refused_with_the_command_that_mends_it(
    hands: Any, card: Any, changes: dict[str, str]
) -> None:
    versions = {**card()["versions"], **changes}

    reply = await hands.http.post("/api/v1/workers", json=card(versions=versions))

    assert (reply.status_code, reply.json()["code"]) == (409, "version_mismatch")
    assert reply.json()["detail"].endswith("pip install clusterofone==0.1.0 numpy==2.0.0 numba==0.61.0")


async def test_another_python_is_no_reason_to_refuse(hands: Any, card: Any) -> None:
    versions = {**card()["versions"], "python": "3.13.1"}

    assert (await hands.http.post("/api/v1/workers", json=card(versions=versions))).status_code == 200


async def test_a_worker_of_another_protocol_is_refused(hands: Any, card: Any) -> None:
    reply = await hands.http.post("/api/v1/workers", json=card(protocol=2))

    assert reply.json()["code"] == "version_mismatch"


async def test_a_worker_nobody_knows_is_told_to_register(hands: Any) -> None:
    reply = await hands.http.post("/api/v1/workers/eve/tasks", json={"count": 1})

    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


async def test_a_lease_says_what_to_do_and_for_how_long(hands: Any) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()

    (lease,) = await hands.lease(worker)

    task = {"job_id": job_id, "task_id": 0, "attempt": 1, "start": 0, "stop": 30}
    assert lease == {**task, "lease_s": 30.0, "series_frames": None}
    spec = (await hands.http.get(f"/api/v1/jobs/{job_id}/spec")).json()
    assert spec["series"] == "day 1/cells.tif"
    assert spec["fingerprint"] == "print of day 1/cells.tif"
    assert spec["analysis"]["threshold"] == 1.0
    assert spec["metadata"]["Camera.ReadNoise"] == 1.2
    assert spec["dataservers"][0]["id"] == "ds"


async def test_a_waiting_worker_is_woken_at_once_when_work_appears(
    service: Any, hands: Any, until: Any
) -> None:
    worker = await hands.register()
    waiting = asyncio.create_task(hands.lease(worker, wait_s=60.0))
    await until(lambda: service.state.signals.work.is_awaited)

    await hands.submitted()

    async with asyncio.timeout(20.0):
        assert len(await waiting) == 1


async def test_a_worker_waits_no_longer_than_it_asked(
    service: Any, hands: Any, clock: Any, until: Any
) -> None:
    worker = await hands.register()
    waiting = asyncio.create_task(hands.lease(worker, wait_s=5.0))
    await until(lambda: service.state.signals.work.is_awaited)

    clock.seconds += 6.0

    async with asyncio.timeout(20.0):
        assert await waiting == []


async def test_a_commit_brings_the_next_leases_with_it(hands: Any) -> None:
    worker = await hands.register()
    await hands.submitted()
    (lease,) = await hands.lease(worker)

    reply = (await hands.commit(worker, lease, wanted=2)).json()

    assert reply["outcome"] == "committed"
    assert [one["task_id"] for one in reply["next"]] == [1, 2]


async def test_the_same_commit_again_is_harmless(hands: Any) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()
    (lease,) = await hands.lease(worker)
    await hands.commit(worker, lease)

    replies = [await hands.commit(worker, lease) for _ in range(4)]

    assert {reply.json()["outcome"] for reply in replies} == {"already"}
    assert (await hands.job(job_id))["localisations"] == 60


async def test_of_two_attempts_at_the_same_instant_one_is_kept(hands: Any, clock: Any) -> None:
    ann, bob = await hands.register("ann"), await hands.register("bob")
    job_id = await hands.submitted()
    (slow,) = await hands.lease(ann)
    clock.seconds += 31.0
    await hands.lease(bob, 3)
    quick = {**slow, "attempt": 2}

    replies = await asyncio.gather(hands.commit(ann, slow), hands.commit(bob, quick))

    assert sorted(reply.status_code for reply in replies) == [200, 409]
    assert {reply.json().get("code") for reply in replies} == {None, "superseded"}
    assert (await hands.job(job_id))["localisations"] == 60


async def test_large_results_are_kept_as_files_and_a_superseded_one_is_dropped(
    hands: Any, clock: Any, result_body: Any, tmp_path: Path
) -> None:
    ann, bob = await hands.register("ann"), await hands.register("bob")
    await hands.submitted()
    (slow,) = await hands.lease(ann)
    clock.seconds += 31.0
    await hands.lease(bob, 3)
    quick, body = {**slow, "attempt": 2}, result_body(slow, rows_per_frame=20)

    await asyncio.gather(hands.commit(ann, slow, body), hands.commit(bob, quick, body))

    kept = await asyncio.to_thread(lambda: sorted((tmp_path / "state" / "results").rglob("*.*")))
    assert len(kept) == 1


async def test_bytes_that_changed_on_the_way_are_refused(hands: Any) -> None:
    worker = await hands.register()
    await hands.submitted()
    (lease,) = await hands.lease(worker)

    reply = await hands.commit(worker, lease, sha="0" * 64)

    assert (reply.status_code, reply.json()["code"]) == (422, "checksum_mismatch")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start": 1, "frame_status": np.ones(29, np.uint8)}, "covers frames 1 to 30"),
        ({"rows": np.zeros(3, [("x", "<f4")])}, "not those of LatGaussFitFR"),
        ({"rows": np.full(1, 99, LAT_GAUSS_DTYPE)}, "outside the frames"),
        ({"frame_status": np.zeros(30, np.uint8)}, "no status"),
        ({"frame_status": np.full(30, 9, np.uint8)}, "no status"),
    ],
)
async def test_a_result_that_is_not_one_of_its_task_is_refused(
    hands: Any, result_body: Any, changes: dict[str, Any], said: str
) -> None:
    worker = await hands.register()
    await hands.submitted()
    (lease,) = await hands.lease(worker)

    reply = await hands.commit(worker, lease, result_body(lease, **changes))

    assert (reply.status_code, reply.json()["code"]) == (400, "invalid")
    assert said in reply.json()["detail"]


@pytest.mark.parametrize("body", [b"", b"C1RS", b"C1RS\xff\xff\xff\xff", b"x" * 1000])
async def test_a_body_that_is_no_result_is_refused(hands: Any, body: bytes) -> None:
    worker = await hands.register()
    await hands.submitted()
    (lease,) = await hands.lease(worker)

    reply = await hands.commit(worker, lease, body)

    assert reply.status_code in {400, 422}


async def test_a_lease_that_is_lost_is_said_so(hands: Any, clock: Any) -> None:
    ann, bob = await hands.register("ann"), await hands.register("bob")
    await hands.submitted()
    (lease,) = await hands.lease(ann)
    clock.seconds += 31.0
    await hands.lease(bob, 4)
    held = [{key: lease[key] for key in ("job_id", "task_id", "attempt")}]

    reply = await hands.http.post(f"/api/v1/workers/{ann}/keepalive", json={"held": held})

    assert reply.json() == {"lost": held, "drain": False}


async def test_a_worker_that_says_goodbye_leaves_its_tasks_to_others(hands: Any) -> None:
    ann, bob = await hands.register("ann"), await hands.register("bob")
    await hands.submitted()
    await hands.lease(ann)

    await hands.http.delete(f"/api/v1/workers/{ann}")

    (lease,) = await hands.lease(bob)
    assert (lease["task_id"], lease["attempt"]) == (0, 2)


async def test_a_silent_worker_loses_its_task_as_time_passes(
    service: Any, hands: Any, clock: Any, until: Any
) -> None:
    ann, bob = await hands.register("ann"), await hands.register("bob")
    await hands.submitted(analysis={"stop_at": 30})
    await hands.lease(ann)
    waiting = asyncio.create_task(hands.lease(bob, wait_s=60.0))
    await until(lambda: service.state.signals.work.is_awaited)

    clock.seconds += 31.0

    async with asyncio.timeout(20.0):
        (lease,) = await waiting
    assert (lease["task_id"], lease["attempt"]) == (0, 2)


async def test_a_refusal_is_shown_with_the_job(hands: Any) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()
    (lease,) = await hands.lease(worker)

    await hands.fail(worker, lease, "refused")

    assert (await hands.job(job_id))["notes"] == ["a worker could not take it: the frames are upside down"]


async def test_a_full_disk_refuses_the_result_and_takes_it_once_there_is_room(
    hands: Any, result_body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await hands.register()
    await hands.submitted()
    (lease,) = await hands.lease(worker)
    body = result_body(lease, rows_per_frame=20)

    def full(*_: Any) -> None:
        raise OutOfSpace("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Blobs, "store", full)
        refused = await hands.commit(worker, lease, body)
    taken = await hands.commit(worker, lease, body)

    assert (refused.status_code, refused.json()["code"]) == (507, "out_of_space")
    assert refused.headers["retry-after"] == "1"
    assert taken.json()["outcome"] == "committed"


async def test_a_journal_on_a_full_disk_acknowledges_nothing_until_there_is_room(
    service: Any, hands: Any, result_body: Any
) -> None:
    worker = await hands.register()
    await hands.submitted()
    (lease,) = await hands.lease(worker)
    body = result_body(lease, rows_per_frame=9)
    journal: Journal = service.state.journal
    pages = await journal.read(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    await journal.read(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchall())

    refused = await hands.commit(worker, lease, body, wanted=1)
    not_queued = await hands.submit(name="x" * 1000)
    await journal.read(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchall())
    taken = await hands.commit(worker, lease, body, wanted=1)

    assert (refused.status_code, not_queued.status_code) == (507, 507)
    assert len((await hands.http.get("/api/v1/jobs")).json()["jobs"]) == 1
    assert taken.json()["outcome"] == "already"
    assert len(taken.json()["next"]) == 1
    rows = await journal.read(lambda db: db.execute("SELECT count(*) FROM results").fetchone()[0])
    assert rows == 1


async def test_a_repeated_commit_of_a_worker_that_has_left_does_not_take_the_result_with_it(
    hands: Any, result_body: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()
    (lease,) = await hands.lease(worker)
    body = result_body(lease, rows_per_frame=600)
    stored, go_on, store = [], threading.Event(), Blobs.store

    def store_and_wait(*arguments: Any) -> Blob:
        blob = store(*arguments)
        stored.append(blob.file)
        if len(stored) == 1:
            go_on.wait(20.0)
        return blob

    monkeypatch.setattr(Blobs, "store", store_and_wait)
    repeated = asyncio.create_task(hands.commit(worker, lease, body))
    await until(lambda: stored)
    first = await hands.commit(worker, lease, body)
    await hands.http.delete(f"/api/v1/workers/{worker}")
    go_on.set()

    assert (first.json()["outcome"], (await repeated).status_code) == ("committed", 404)
    assert stored[0] is not None
    assert (await hands.http.get(f"/api/v1/jobs/{job_id}/localisations")).status_code == 200


async def test_a_job_done_by_different_processors_says_so(hands: Any) -> None:
    ann, bob = await hands.register("ann"), await hands.register("bob", cpu="znver4")
    job_id = await hands.submitted()
    for worker in (ann, bob):
        (lease,) = await hands.lease(worker)
        await hands.commit(worker, lease)

    (note,) = (await hands.job(job_id))["notes"]

    assert "different processors took part (skylake, znver4)" in note


async def test_a_storm_of_failures_is_told_in_few_words_and_as_one_reason(
    hands: Any, source: Any, facts: Any, caplog: pytest.LogCaptureFixture
) -> None:
    source.series["day 1/cells.tif"] = facts(frames=3000)
    worker = await hands.register()
    job_id = await hands.submitted()
    caplog.set_level("INFO")
    said = "the fit came to nothing: " + "x" * 4000

    failed = 0
    while leases := await hands.lease(worker, 4):
        for lease in leases:
            route = f"/api/v1/workers/{worker}/tasks/{job_id}/{lease['task_id']}/failure"
            failure = {"kind": "invalid", "attempt": lease["attempt"], "message": said}
            await hands.http.post(route, json=failure)
            failed += 1
    job = await hands.ended(job_id)

    lines = [line.getMessage() for line in caplog.records if "task invalid" in line.getMessage()]
    assert len(lines) == failed > 20
    assert all(said in line for line in lines[:20])
    assert max(len(line) for line in lines[20:]) < 300
    assert job["state"] == "done_with_errors"
    assert len(job["failed_frames"]) == 1


async def test_rows_that_hold_no_numbers_spoil_neither_the_file_nor_its_tables(
    hands: Any, result_body: Any
) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()
    while leases := await hands.lease(worker):
        rows = decode_result(result_body(leases[0])).rows
        rows["fitResults"]["x0"][0] = np.nan
        rows["fitResults"]["y0"][1] = np.inf
        rows["fitResults"]["A"][2] = -5000
        rows["fitResults"]["sigma"][3] = -np.inf
        rows["fitError"]["x0"][4] = np.nan
        assert (await hands.commit(worker, leases[0], result_body(leases[0], rows=rows))).status_code == 200

    job = await hands.ended(job_id)
    tables = {
        kind: await hands.http.get(f"/api/v1/jobs/{job_id}/results.{kind}")
        for kind in ("h5r", "csv", "parquet", "hdf5", "yaml", "smlm")
    }
    picture = await hands.http.get(f"/api/v1/jobs/{job_id}/render.png")

    assert (job["state"], job["localisations"]) == ("done", 200)
    assert {reply.status_code for reply in (*tables.values(), picture)} == {200}
    cells = {cell for line in tables["csv"].text.splitlines()[1:] for cell in line.split(",")}
    assert not any("inf" in cell.lower() for cell in cells)
