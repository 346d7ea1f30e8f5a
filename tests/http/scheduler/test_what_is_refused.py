"""Bad input: one clear line that names the thing, a stable code, and nothing queued or half-written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


def result_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.h5r*"))


KEYS = ["voxelsize.x", "voxelsize.y", "Camera.ElectronsPerCount", "Camera.ADOffset", "Camera.ReadNoise"]


def without(facts: Any, *keys: str) -> Any:
    metadata = {key: entry for key, entry in facts().metadata.items() if key not in keys}
    return facts(metadata=metadata)


@pytest.mark.parametrize(
    ("request_body", "status", "code", "field", "said"),
    [
        ({"series": "nowhere.tif"}, 404, "not_found", "series", "nowhere.tif"),
        ({"analysis": {"treshold": 1}}, 400, "invalid", "analysis.treshold", "did you mean threshold"),
        ({"analysis": {"threshold": -1}}, 400, "invalid", "analysis.threshold", "out of range"),
        ({"analysis": {"threshold": "high"}}, 400, "invalid", "analysis.threshold", "must be a number"),
        ({"analysis": {"fit": "MagicFit"}}, 400, "invalid", "analysis.fit", "MagicFit"),
        ({"analysis": {"start_at": 100}}, 400, "invalid", "analysis.start_at", "100"),
        ({"analysis": {"start_at": 5, "stop_at": 5}}, 400, "invalid", "analysis.stop_at", "not after"),
        ({"analysis": {"roi": [0, 0, 49, 10]}}, 400, "invalid", "analysis.roi", "48 × 64"),
        ({"analysis": {"variance_map": "maps/no.tif"}}, 404, "not_found", "variance_map", "maps/no.tif"),
        ({"metadata": {"voxelsize.x": 0}}, 400, "invalid", "metadata", "voxelsize.x"),
        ({"metadata": {"voxelsize.x": "small"}}, 400, "invalid", "metadata", "voxelsize.x"),
        ({"output": "/somewhere/else.h5r"}, 400, "invalid", "output", "outside"),
        ({"output": "../else.h5r"}, 400, "invalid", "output", "outside"),
        ({"output": "table.csv"}, 400, "invalid", "output", ".h5r"),
        ({"output": "a\0b.h5r"}, 400, "invalid", "output", ".h5r"),
        ({"output": "CON.h5r"}, 400, "invalid", "output", "device"),
        ({"output": "aux/cells.h5r"}, 400, "invalid", "output", "device"),
        ({"output": "a:b.h5r"}, 400, "invalid", "output", "leave the ':' out"),
        ({"output": "cells:b.h5r"}, 400, "invalid", "output", "stream"),
        ({"output": "slleC\u202er5h.h5r"}, 400, "invalid", "output", "U+202E"),
        ({"output": "cells\u200e.h5r"}, 400, "invalid", "output", "U+200E"),
        ({"output": "new\u200f/cells.h5r"}, 400, "invalid", "output", "U+200F"),
        ({"output": "new:folder/cells.h5r"}, 400, "invalid", "output", "leave the ':' out"),
        ({"output": "what?.h5r"}, 400, "invalid", "output", "character"),
        ({"output": "x" * 300 + ".h5r"}, 400, "invalid", "output", "304 bytes"),
        ({"name": "slleC\u202e fo bal"}, 400, "invalid", None, "U+202E"),
        ({"name": "cells\u200f"}, 400, "invalid", None, "name: a name cannot hold the character U+200F"),
        ({"owner": "ana\x1b[2J"}, 400, "invalid", None, "U+001B"),
        ({"name": "x" * 1025}, 400, "invalid", None, "1024"),
        ({"colour": "red"}, 400, "invalid", None, "colour"),
        ({"priority": 1000}, 400, "invalid", None, "priority"),
        ({"series": ""}, 400, "invalid", None, "series"),
    ],
)
async def test_a_bad_request_is_refused_and_names_what_is_wrong(
    hands: Any, root: Path, request_body: dict[str, Any], status: int, code: str, field: str | None, said: str
) -> None:
    reply = await hands.submit(**request_body)

    problem = reply.json()
    assert (reply.status_code, problem["code"]) == (status, code), problem
    assert reply.headers["content-type"] == "application/problem+json"
    assert problem.get("field") == field
    assert said in problem["detail"]
    assert (await hands.http.get("/api/v1/jobs")).json()["jobs"] == []
    assert result_files(root) == []


async def test_a_series_of_a_name_that_nobody_sees_whole_is_localised_beside_it_under_what_is_seen(
    hands: Any, source: Any, facts: Any, root: Path
) -> None:
    folder = root / "day\u200f"
    folder.mkdir()
    (folder / "left\u200fright.tif").touch()
    path = "day\u200f/left\u200fright.tif"
    source.series[path] = facts(path=path)

    worker = await hands.register()
    made = await hands.submitted(series=path)
    asked = await hands.submitted(series=path, output="day\u200f/mine.h5r")
    await hands.work_off(worker)

    assert (await hands.ended(made))["name"] == "leftright"
    assert (await hands.ended(asked))["state"] == "done"
    assert result_files(root) == [folder / "analysis" / "leftright.h5r", folder / "mine.h5r"]


@pytest.mark.parametrize("name", ["CON", "a:b", "../../up", "x" * 300, "zelle ü 日本 شلول"])
async def test_the_name_of_a_job_is_no_name_of_a_file(hands: Any, root: Path, name: str) -> None:
    worker = await hands.register()
    job_id = await hands.submitted(name=name)
    await hands.work_off(worker)

    job = await hands.ended(job_id)

    assert job["name"] == name
    assert name not in job["id"]
    assert [path.name for path in result_files(root)] == ["cells.h5r"]


@pytest.mark.parametrize("key", KEYS)
async def test_a_missing_metadata_key_is_named(hands: Any, source: Any, facts: Any, key: str) -> None:
    source.series["day 1/cells.tif"] = without(facts, key)

    problem = (await hands.submit()).json()

    assert problem["code"] == "invalid"
    assert problem["keys"] == [key]
    assert key in problem["detail"]


async def test_a_key_given_with_the_job_completes_the_metadata(hands: Any, source: Any, facts: Any) -> None:
    source.series["day 1/cells.tif"] = without(facts, *KEYS)
    given = {"voxelsize.x": 0.1, "voxelsize.y": 0.1, "Camera.ElectronsPerCount": 1, "Camera.ADOffset": 9}

    job_id = await hands.submitted(metadata={**given, "Camera.ReadNoise": 1})

    metadata = (await hands.job(job_id))["metadata"]
    assert metadata["Camera.ADOffset"] == {"value": 9, "source": "job"}
    assert metadata["Camera.Name"]["source"] == "file"


async def test_a_series_without_frames_is_refused(hands: Any, source: Any, facts: Any) -> None:
    source.series["day 1/cells.tif"] = facts(frames=0)

    problem = (await hands.submit()).json()

    assert (problem["code"], problem["field"]) == ("invalid", "series")
    assert "no frames" in problem["detail"]


async def test_a_series_of_one_frame_is_fine(hands: Any, source: Any, facts: Any) -> None:
    source.series["day 1/cells.tif"] = facts(frames=1)
    worker = await hands.register()

    job_id = await hands.submitted()
    await hands.work_off(worker)

    assert (await hands.ended(job_id))["frames"]["localised"] == 1


async def test_an_output_that_exists_is_never_written_over(hands: Any, root: Path) -> None:
    (root / "mine.h5r").write_text("precious")

    problem = (await hands.submit(output="mine.h5r")).json()

    assert (problem["code"], problem["field"]) == ("conflict", "output")
    assert (root / "mine.h5r").read_text() == "precious"


async def test_an_output_another_job_will_write_is_refused(hands: Any) -> None:
    await hands.submitted(output="mine.h5r")

    problem = (await hands.submit(output="mine.h5r")).json()

    assert (problem["code"], problem["field"]) == ("conflict", "output")


async def test_a_folder_that_cannot_be_written_is_named(hands: Any, root: Path) -> None:
    (root / "day 1" / "analysis").write_text("in the way")

    problem = (await hands.submit()).json()

    assert (problem["code"], problem["field"]) == ("invalid", "output")
    assert str(root / "day 1" / "analysis") in problem["detail"]


async def test_results_of_a_read_only_root_go_to_the_results_root(
    make_service: Any, connect: Any, root: Path, tmp_path: Path
) -> None:
    (root / "day 1" / "analysis").write_text("in the way")
    async with connect(make_service(results_root=tmp_path / "results")) as hands:
        worker = await hands.register()
        job_id = await hands.submitted()
        await hands.work_off(worker)

        job = await hands.ended(job_id)

    assert job["output"] == str(tmp_path / "results" / "day 1" / "analysis" / "cells.h5r")


@pytest.mark.skipif(os.sep == "\\", reason="Windows needs a privilege to make links")
async def test_an_output_that_leaves_the_root_by_a_link_is_refused(
    hands: Any, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (root / "link").symlink_to(tmp_path / "outside", target_is_directory=True)

    problem = (await hands.submit(output="link/x.h5r")).json()

    assert (problem["code"], problem["field"]) == ("invalid", "output")


async def test_the_offset_is_estimated_from_dark_frames_and_the_job_says_so(
    hands: Any, source: Any, facts: Any
) -> None:
    described = without(facts, "Camera.ADOffset")
    dark = {"value": [0, 20], "source": "file"}
    source.series["day 1/cells.tif"] = facts(
        metadata={**described.model_dump()["metadata"], "Protocol.DarkFrameRange": dark}
    )

    job = await hands.job(await hands.submitted())

    assert job["metadata"]["Camera.ADOffset"] == {
        "value": 97.0,
        "source": "estimated: median of the dark frames 0 to 19",
    }
    assert "Camera.ADOffset = 97 ADU" in job["notes"][0]


async def test_the_offset_is_estimated_from_frames_before_the_laser(
    hands: Any, source: Any, facts: Any
) -> None:
    described = without(facts, "Camera.ADOffset")
    laser = {"value": 12, "source": "file"}
    source.series["day 1/cells.tif"] = facts(
        metadata={**described.model_dump()["metadata"], "EstimatedLaserOnFrameNo": laser}
    )

    job = await hands.job(await hands.submitted())

    assert "frames before the laser 0 to 11" in job["metadata"]["Camera.ADOffset"]["source"]
    assert job["frames"]["skipped"] == 12


async def test_the_same_idempotency_key_is_the_same_job(hands: Any) -> None:
    headers = {"Idempotency-Key": "once"}

    first = await hands.submit(headers=headers)
    second = await hands.submit(headers=headers)

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    assert len((await hands.http.get("/api/v1/jobs")).json()["jobs"]) == 1


async def test_the_same_key_for_another_request_is_a_conflict(hands: Any) -> None:
    await hands.submit(headers={"Idempotency-Key": "once"})

    reply = await hands.submit(headers={"Idempotency-Key": "once"}, name="another")

    assert (reply.status_code, reply.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_job_that_does_not_exist_is_not_found(hands: Any, method: str) -> None:
    reply = await hands.http.request(method, "/api/v1/jobs/nobody")

    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


async def test_metadata_that_json_cannot_hold_do_not_break_the_job(hands: Any) -> None:
    body = '{"series": "day 1/cells.tif", "metadata": {"odd": NaN, "large": 1' + "0" * 400 + "}}"

    reply = await hands.http.post("/api/v1/jobs", content=body, headers={"content-type": "application/json"})

    assert reply.status_code in {201, 400}
    for job in (await hands.http.get("/api/v1/jobs")).json()["jobs"]:
        assert (await hands.http.get(f"/api/v1/jobs/{job['id']}")).status_code == 200
        assert (await hands.http.get(f"/api/v1/jobs/{job['id']}/spec")).status_code == 200


@pytest.mark.parametrize("value", ['"\\ud800"', "[" * 40 + "]" * 40, "[" * 3000 + "]" * 3000])
async def test_metadata_that_cannot_be_written_down_are_refused(hands: Any, value: str) -> None:
    body = '{"series": "day 1/cells.tif", "metadata": {"odd": ' + value + "}}"

    reply = await hands.http.post("/api/v1/jobs", content=body, headers={"content-type": "application/json"})

    assert reply.status_code == 400
    assert (await hands.http.get("/api/v1/jobs")).json()["jobs"] == []


@pytest.mark.parametrize(
    ("route", "field"),
    [
        ("localisations?from_row=9223372036854775808", "from_row"),
        ("render.png?white=1e300", "white"),
        ("render.png?white=1e-300", "white"),
    ],
)
async def test_a_number_that_nothing_here_can_hold_is_refused(hands: Any, route: str, field: str) -> None:
    job = await hands.submitted()

    reply = await hands.http.get(f"/api/v1/jobs/{job}/{route}")

    assert (reply.status_code, reply.json()["code"]) == (400, "invalid")
    assert reply.json()["errors"][0]["field"] == field
