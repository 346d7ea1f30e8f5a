"""The main path over HTTP: a job is submitted, worked off by hand, and becomes a file."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from cluster.errors import OutOfSpace
from cluster.results import h5r
from cluster.scheduler.results import Results

pytestmark = pytest.mark.anyio


def result_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.h5r*"))


def contents(path: str) -> bytes:
    return Path(path).read_bytes()


async def test_a_job_becomes_a_file_beside_its_series(hands: Any, root: Path) -> None:
    worker = await hands.register()
    reply = await hands.submit()

    assert reply.headers["location"] == f"/api/v1/jobs/{reply.json()['id']}"
    assert reply.json()["state"] == "queued"
    await hands.work_off(worker)
    job = await hands.ended(reply.json()["id"])

    assert job["state"] == "done"
    assert job["output"] == str(root / "day 1" / "analysis" / "cells.h5r")
    assert job["frames"] == {"total": 100, "localised": 100, "skipped": 0, "failed": 0}
    assert job["localisations"] == 200
    results = h5r.read(Path(job["output"]))
    assert results.rows["tIndex"].tolist() == [frame for frame in range(100) for _ in range(2)]


async def test_the_file_says_where_it_comes_from(hands: Any, source: Any, facts: Any) -> None:
    source.series["day 1/cells.tif"] = facts(events=2)
    worker = await hands.register()
    job_id = await hands.submitted(
        analysis={"threshold": 1.5, "start_at": 10}, metadata={"Sample.Name": "actin"}
    )
    await hands.work_off(worker)

    results = h5r.read(Path((await hands.ended(job_id))["output"]))

    assert results.metadata["Analysis.DetectionThreshold"] == 1.5
    assert results.metadata["Analysis.BGRange"] == [-30, 0]
    assert results.metadata["Analysis.FitModule"] == "LatGaussFitFR"
    assert results.metadata["Sample.Name"] == "actin"
    assert results.provenance is not None
    assert results.provenance.metadata["Sample.Name"] == {"value": "actin", "source": "job"}
    assert results.provenance.metadata["Camera.ReadNoise"]["source"] == "file"
    assert results.provenance.job["id"] == job_id
    assert results.provenance.versions["workers_cpu"] == "skylake"
    assert results.provenance.ledger.counts.balanced
    assert results.provenance.ledger.counts.skipped == 10
    assert len(results.events) == 2


async def test_results_are_the_same_whatever_the_order_of_completion(
    make_service: Any, connect: Any, tmp_path: Path
) -> None:
    tables = []
    async with connect(make_service()) as hands:
        worker = await hands.register()
        for backwards in (False, True):
            job_id = await hands.submitted()
            leases = await hands.lease(worker, 10)
            for lease in sorted(leases, key=lambda one: one["task_id"], reverse=backwards):
                await hands.commit(worker, lease)
            tables.append(h5r.read(Path((await hands.ended(job_id))["output"])).rows.tobytes())

    assert tables[0] == tables[1]


async def test_a_second_result_gets_the_next_free_name(hands: Any) -> None:
    worker = await hands.register()
    before = await hands.submitted()
    await hands.work_off(worker)
    await hands.ended(before)
    queued = [await hands.submitted() for _ in range(3)]
    await hands.work_off(worker)

    names = [Path((await hands.ended(job_id))["output"]).name for job_id in (before, *queued)]

    assert names == ["cells.h5r", "cells_1.h5r", "cells_2.h5r", "cells_3.h5r"]


async def test_a_chosen_output_under_the_root_is_used(hands: Any, root: Path) -> None:
    worker = await hands.register()
    job_id = await hands.submitted(output=str(root / "mine.h5r"))
    await hands.work_off(worker)

    assert (await hands.ended(job_id))["output"] == str(root / "mine.h5r")


async def test_frames_that_failed_are_named_and_the_job_never_says_done(hands: Any) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()
    first, *others = await hands.lease(worker, 10)
    await hands.fail(worker, first)
    for lease in others:
        await hands.commit(worker, lease)

    job = await hands.ended(job_id)

    assert job["state"] == "done_with_errors"
    assert job["failed_frames"] == [{"start": 0, "stop": 30, "reason": "the frames are upside down"}]
    assert job["frames"]["failed"] == 30
    provenance = h5r.read(Path(job["output"])).provenance
    assert list(provenance.ledger.failed_ranges()) == [(0, 30, "the frames are upside down")]


async def test_a_series_that_is_replaced_meanwhile_stops_the_job_at_once(hands: Any) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()
    first, second = await hands.lease(worker, 2)
    await hands.commit(worker, first)

    await hands.fail(worker, second, "changed")
    job = await hands.ended(job_id)

    assert job["state"] == "done_with_errors"
    assert job["failed_frames"] == [{"start": 30, "stop": 100, "reason": "the frames are upside down"}]
    assert await hands.lease(worker, 4) == []
    assert set(h5r.read(Path(job["output"])).rows["tIndex"]) == set(range(30))


async def test_retry_of_failed_frames_completes_the_same_file(hands: Any) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()
    first, *others = await hands.lease(worker, 10)
    await hands.fail(worker, first)
    for lease in others:
        await hands.commit(worker, lease)
    before = await hands.ended(job_id)

    reply = await hands.http.post(f"/api/v1/jobs/{job_id}/retry")
    await hands.work_off(worker)
    job = await hands.ended(job_id)

    assert reply.json()["state"] == "running"
    assert job["state"] == "done"
    assert job["output"] == before["output"]
    assert len(h5r.read(Path(job["output"])).rows) == 200


async def test_unreadable_frames_inside_a_result_are_failed_with_their_reasons(
    hands: Any, result_body: Any
) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()
    status = np.ones(30, np.uint8)
    status[[3, 4, 9]] = 3
    reasons = {3: "cannot be read", 4: "cannot be read", 9: "too dark"}
    for lease in await hands.lease(worker, 10):
        changes = (
            {"frame_status": status, "reasons": reasons, "rows_per_frame": 0} if lease["task_id"] == 0 else {}
        )
        await hands.commit(worker, lease, result_body(lease, **changes))

    job = await hands.ended(job_id)

    assert job["state"] == "done_with_errors"
    assert [(one["start"], one["stop"], one["reason"]) for one in job["failed_frames"]] == [
        (3, 5, "cannot be read"),
        (9, 10, "too dark"),
    ]


async def test_cancel_keeps_the_finished_frames_in_a_partial_file(hands: Any) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()
    done, open_lease = await hands.lease(worker, 2)
    await hands.commit(worker, done)

    job = (await hands.http.delete(f"/api/v1/jobs/{job_id}")).json()

    assert job["state"] == "cancelled"
    assert Path(job["output"]).name == "cells_partial.h5r"
    ledger = h5r.read(Path(job["output"])).provenance.ledger
    assert (ledger.counts.localised, ledger.counts.not_analysed) == (30, 70)
    late = await hands.commit(worker, open_lease)
    assert (late.status_code, late.json()["code"]) == (410, "gone")


async def test_cancel_before_anything_is_done_leaves_no_file(hands: Any, root: Path) -> None:
    job_id = await hands.submitted()

    job = (await hands.http.delete(f"/api/v1/jobs/{job_id}")).json()

    assert (job["state"], job["output"]) == ("cancelled", None)
    assert result_files(root) == []


async def test_a_file_that_cannot_be_written_fails_the_job_by_name_and_retry_mends_it(
    hands: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Results.make

    def on_a_full_disk(*_: Any) -> Path:
        raise OutOfSpace("the disk is full")

    monkeypatch.setattr(Results, "make", on_a_full_disk)
    worker = await hands.register()
    job_id = await hands.submitted()
    await hands.work_off(worker)
    job = await hands.ended(job_id)
    assert job["state"] == "failed"
    assert "cells.h5r: the disk is full" in job["error"]
    assert result_files(root) == []

    monkeypatch.setattr(Results, "make", make)
    await hands.http.post(f"/api/v1/jobs/{job_id}/retry")

    assert (await hands.ended(job_id))["state"] == "done"


async def test_results_are_refused_while_the_job_is_not_finished(hands: Any) -> None:
    job_id = await hands.submitted()

    reply = await hands.http.get(f"/api/v1/jobs/{job_id}/results.h5r")

    assert (reply.status_code, reply.json()["code"]) == (409, "conflict")


async def test_results_can_be_downloaded_as_h5r_and_csv(hands: Any) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()
    await hands.work_off(worker)
    job = await hands.ended(job_id)

    h5r_reply = await hands.http.get(f"/api/v1/jobs/{job_id}/results.h5r")
    csv_reply = await hands.http.get(f"/api/v1/jobs/{job_id}/results.csv")

    assert h5r_reply.content == contents(job["output"])
    assert len(csv_reply.text.splitlines()) == 201


async def test_other_programs_tables_can_be_downloaded_and_leave_nothing_behind(
    hands: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    worker = await hands.register()
    job_id = await hands.submitted()
    assert (await hands.http.get(f"/api/v1/jobs/{job_id}/results.parquet")).status_code == 409
    await hands.work_off(worker)
    await hands.ended(job_id)

    got = {
        kind: await hands.http.get(f"/api/v1/jobs/{job_id}/results.{kind}")
        for kind in ("parquet", "hdf5", "yaml", "smlm")
    }

    assert pq.read_table(io.BytesIO(got["parquet"].content)).num_rows == 200
    with h5py.File(io.BytesIO(got["hdf5"].content)) as file:
        assert len(file["locs"]) == 200
    assert next(yaml.safe_load_all(got["yaml"].text))["Width"] == 48
    with zipfile.ZipFile(io.BytesIO(got["smlm"].content)) as archive:
        assert json.loads(archive.read("manifest.json"))["files"][0]["rows"] == 200
    assert list(scratch.iterdir()) == []
    assert (await hands.http.get(f"/api/v1/jobs/{job_id}/results.exe")).status_code == 400


async def test_rows_so_far_come_in_the_order_of_their_commits(hands: Any) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()
    first, second = await hands.lease(worker, 2)
    await hands.commit(worker, second)
    await hands.commit(worker, first)

    reply = await hands.http.get(f"/api/v1/jobs/{job_id}/localisations", params={"from_row": 50})

    rows = np.load(io.BytesIO(reply.content), allow_pickle=False)
    assert reply.headers["x-next-row"] == "120"
    assert rows["tIndex"].tolist() == [55 + at // 2 for at in range(10)] + [at // 2 for at in range(60)]
    rest = await hands.http.get(f"/api/v1/jobs/{job_id}/localisations", params={"from_row": 120})
    assert len(np.load(io.BytesIO(rest.content), allow_pickle=False)) == 0


async def test_the_picture_so_far_is_a_png(hands: Any) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()
    for lease in await hands.lease(worker, 1):
        await hands.commit(worker, lease)

    reply = await hands.http.get(f"/api/v1/jobs/{job_id}/render.png", params={"pixel_nm": 20})

    assert reply.content.startswith(b"\x89PNG")


async def test_a_picture_may_be_of_a_region_and_coloured(hands: Any) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()
    for lease in await hands.lease(worker, 1):
        await hands.commit(worker, lease)
    route = f"/api/v1/jobs/{job_id}/render.png"
    look = {"region": "0,0,1000,500", "pixel_nm": 10, "colour_by": "frame", "white": 1, "style": "histogram"}

    reply = await hands.http.get(route, params=look)
    wrong = [
        await hands.http.get(route, params={**look, **bad})
        for bad in (
            {"region": "1,2"},
            {"colour_by": "z"},
            {"colour_low": 1},
            {"colour_by": "mood"},
            {"hue": 1},
        )
    ]

    assert reply.status_code == 200, reply.text
    assert Image.open(io.BytesIO(reply.content)).size == (100, 50)
    assert [reply.status_code for reply in wrong] == [400] * 5


async def test_events_tell_a_job_to_its_end(hands: Any) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()
    await hands.work_off(worker)
    await hands.ended(job_id)

    reply = await hands.http.get(f"/api/v1/jobs/{job_id}/events")

    lines = reply.text.splitlines()
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert lines[0] == "event: job"
    assert json.loads(lines[1].removeprefix("data: "))["state"] == "done"


async def test_the_end_of_a_job_is_told_at_once_however_long_changes_are_gathered(
    make_service: Any, connect: Any
) -> None:
    async with connect(make_service(event_gap_s=3600.0)) as hands:
        worker = await hands.register()
        job_id = await hands.submitted()
        watching = asyncio.create_task(hands.http.get(f"/api/v1/jobs/{job_id}/events"))
        await hands.work_off(worker)

        async with asyncio.timeout(30):
            reply = await watching

    said = [line for line in reply.text.splitlines() if line.startswith("data: ")]
    assert json.loads(said[-1].removeprefix("data: "))["state"] == "done"


async def test_jobs_are_listed_newest_first(hands: Any) -> None:
    first, second = await hands.submitted(), await hands.submitted()

    jobs = (await hands.http.get("/api/v1/jobs")).json()["jobs"]

    assert [job["id"] for job in jobs] == [second, first]


async def test_a_running_job_says_its_rate_and_time_left(hands: Any, clock: Any) -> None:
    worker = await hands.register()
    job_id = await hands.submitted()
    for lease in await hands.lease(worker, 2):
        clock.seconds += 3.0
        await hands.commit(worker, lease)

    job = await hands.job(job_id)

    assert job["rate_frames_per_s"] == pytest.approx(10.0)
    assert job["eta_s"] == pytest.approx(4.0)
