"""Calibrations over HTTP: from the request to the files, through a scheduler and the data server that has the series."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytestmark = pytest.mark.anyio

MAPS = {"kind": "camera_maps", "series": ["day 1/dark.tif", "day 1/flat.tif", "day 1/flat 2.tif"]}
DARK = {"kind": "camera_maps", "series": ["day 1/dark.tif"]}
WAITS = (sys.executable, "-c", "import sys; sys.stdin.read()")
HALF_WAY = (
    sys.executable,
    "-c",
    """import sys; print('{"doing": "dark.tif", "fraction": 0.5}', flush=True); sys.stdin.readline(); sys.stdin.read()""",
)
DIES = (sys.executable, "-c", "import os; os._exit(9)")


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_every_kind_says_what_its_options_are(lab: Any) -> None:
    kinds = {kind["name"]: kind for kind in (await lab.http.get("/api/v1/calibrations/kinds")).json()}

    assert set(kinds) == {"psf", "shifts", "camera_maps", "drift"}
    for kind in kinds.values():
        assert kind["options"]["type"] == "object"
        assert kind["options"]["additionalProperties"] is False
    psf, shifts, maps = (kinds[name]["options"]["properties"] for name in ("psf", "shifts", "camera_maps"))
    assert psf["threshold"] == {
        "type": "number",
        "minimum": 1.0,
        "maximum": 1e6,
        "default": 8.0,
        "x-unit": "1",
        "description": psf["threshold"]["description"],
    }
    assert shifts["model"]["enum"] == ["affine", "cubic", "spline"]
    assert set(maps) == {"electrons_per_adu", "even_light", "saturation_adu"}


async def test_camera_maps_are_made_beside_the_series(lab: Any, root: Path) -> None:
    reply = await lab.start(**MAPS)
    run = await lab.ended(reply.json()["id"])
    picture = await lab.http.get(f"{reply.headers['location']}/report.png")
    (listed,) = (await lab.http.get("/api/v1/calibrations")).json()["calibrations"]

    assert reply.status_code == 201
    assert reply.headers["location"] == f"/api/v1/calibrations/{run['id']}"
    assert (run["state"], run["error"], run["output"]) == ("done", None, "day 1/analysis/dark_camera")
    assert set(run["files"]) == {"dark", "variance", "flatfield", "gain", "numbers", "picture"}
    assert all((root / path).is_file() for path in run["files"].values())
    assert run["numbers"]["electrons_per_adu"] == pytest.approx(0.5, rel=0.05)
    assert any("frames" in finding["text"] for finding in run["findings"])
    assert run["created"] <= run["started"] <= run["finished"]
    assert picture.headers["content-type"] == "image/png"
    assert picture.content == (root / run["files"]["picture"]).read_bytes()
    assert listed == run | {"numbers": {}}


async def test_nothing_that_exists_is_written_over(lab: Any, root: Path) -> None:
    (root / "day 1" / "analysis" / "dark_camera").mkdir(parents=True)
    (root / "day 1" / "analysis" / "dark_camera" / "maps.png").write_text("mine")
    before = files_in(root)

    run = await lab.ended((await lab.started(**DARK))["id"])

    assert (run["state"], run["output"]) == ("done", "day 1/analysis/dark_camera_1")
    assert files_in(root).items() >= before.items()


async def test_an_output_asked_for_is_taken_unless_it_exists(lab: Any, root: Path) -> None:
    run = await lab.ended((await lab.started(**DARK, output="cameras/left"))["id"])
    again = await lab.start(**DARK, output="cameras/left")

    assert run["files"]["dark"] == "cameras/left/dark.tif"
    assert (again.status_code, again.json()["code"], again.json()["field"]) == (409, "conflict", "output")
    assert (root / "cameras" / "left" / "maps.png").is_file()


async def test_metadata_of_the_request_go_before_the_files(lab: Any, sidecar: Any) -> None:
    sidecar("day 1/dark.tif", **{"Camera.ElectronsPerCount": 0.25})

    run = await lab.ended((await lab.started(**DARK, metadata={"Camera.ElectronsPerCount": 0.5}))["id"])

    assert run["numbers"]["electrons_per_adu"] == 0.5


@pytest.mark.parametrize(
    ("change", "status", "field", "words"),
    [
        ({"kind": "psfs"}, 400, None, "kind: Input should be 'psf'"),
        ({"colour": 1}, 400, None, "colour: Extra inputs"),
        ({"series": []}, 400, None, "series"),
        ({"series": ["day 1/dark.tif"] * 2}, 400, "series", "given twice"),
        ({"options": {"even_ligt": True}}, 400, "options.even_ligt", "did you mean even_light?"),
        ({"options": {"saturation_adu": -4}}, 400, "options.saturation_adu", "out of range"),
        ({"metadata": {"Camera.ADOfset": 1}}, 400, "Camera.ADOfset", "Camera.ADOffset"),
        ({"series": ["day 2/dark.tif"]}, 404, "series", "'day 2/dark.tif'"),
        ({"series": ["day 1/dark.tif", "flat.tif"]}, 404, "series", "'flat.tif'"),
        ({"series": ["../secret.tif"]}, 400, "series", "'..'"),
        ({"series": ["day 1/../../secret.tif"]}, 400, "series", "'..'"),
        ({"series": ["/etc/passwd"]}, 400, "series", "absolute"),
        ({"series": ["link.tif"]}, 404, "series", "link.tif"),
        ({"series": ["way out/secret.tif"]}, 404, "series", "way out/secret.tif"),
        ({"series": ["day 1/notes.txt"]}, 400, "series", "notes.txt"),
        ({"series": ["day 1/broken.tif"]}, 400, "series", "broken.tif"),
        ({"output": "../camera"}, 400, "output", "'..'"),
        ({"output": "/tmp/camera"}, 400, "output", "absolute"),
        ({"output": "way out/camera"}, 400, "output", "outside the root"),
        ({"output": "day 1/notes.txt"}, 409, "output", "is there already"),
        ({"output": "day 1/notes.txt/camera"}, 400, "output", "cannot be written"),
        ({"kind": "psf", "output": "psf.png"}, 400, "output", "must end in .tif"),
        ({"kind": "psf", "output": "day 1/dark.tif"}, 409, "output", "dark.tif is there already"),
        ({"kind": "shifts", "output": "day 1/flat.json"}, 409, "output", "flat.tif is there already"),
        ({"kind": "psf", "options": {"pixel_nm": "x"}}, 400, "options.pixel_nm", "pixel_nm"),
        ({"kind": "shifts", "series": ["day 1/dark.tif", "day 1/flat.tif"]}, 400, "series", "1 at most"),
        ({"kind": "drift"}, 400, "series", "an .h5r"),
        ({"kind": "drift", "series": ["none.h5r"]}, 404, "series", "none.h5r"),
        ({"kind": "drift", "series": ["a.h5r"], "metadata": {"voxelsize.x": 0.1}}, 400, "metadata", "of the result"),
        ({"kind": "shifts", "options": {"model": "round"}}, 400, "options.model", "affine"),
        ({"kind": "shifts", "options": {"analysis": {"treshold": 2}}}, 400, "options.analysis.treshold", "threshold"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named_before_anything_is_queued(
    lab: Any, root: Path, change: dict[str, Any], status: int, field: str | None, words: str
) -> None:
    before = files_in(root.parent)

    reply = await lab.start(**{**DARK, **change})

    assert reply.status_code == status, reply.text
    assert words in reply.json()["detail"]
    assert reply.json().get("field") == field
    assert (await lab.http.get("/api/v1/calibrations")).json()["calibrations"] == []
    assert {path: data for path, data in files_in(root.parent).items() if "state" not in path} == {
        path: data for path, data in before.items() if "state" not in path
    }


async def test_a_body_over_the_limit_is_refused(lab: Any) -> None:
    reply = await lab.start(**DARK, options={"x": "y" * (2 << 20)})

    assert (reply.status_code, reply.json()["code"]) == (413, "too_large")


async def test_what_only_the_series_can_tell_fails_the_calibration_and_names_the_file(
    lab: Any, root: Path
) -> None:
    before = files_in(root)
    run = await lab.ended((await lab.started(kind="psf", series=["day 1/flat.tif"]))["id"])
    picture = await lab.http.get(f"/api/v1/calibrations/{run['id']}/report.png")

    assert run["state"] == "failed"
    assert run["error"] == "flat.tif: does not say pixel_nm and step_nm; give them as options"
    assert (picture.status_code, picture.json()["code"]) == (409, "conflict")
    assert files_in(root) == before


async def test_a_process_that_dies_fails_its_calibration_in_words(make_lab: Any) -> None:
    async with make_lab(program=DIES) as lab:
        run = await lab.ended((await lab.started(**DARK))["id"])

    assert run["state"] == "failed"
    assert "its process died (status 9)" in run["error"]


async def test_a_calibration_that_takes_too_long_is_ended(make_lab: Any) -> None:
    async with make_lab(program=WAITS, longest_s=0.2) as lab:
        run = await lab.ended((await lab.started(**DARK))["id"])

    assert run["state"] == "failed"
    assert run["error"] == "it was not done within 0.2 s, and was ended"


async def test_one_runs_at_a_time_and_only_so_many_wait(make_lab: Any) -> None:
    async with make_lab(program=WAITS) as lab:
        runs = [await lab.started(**DARK) for _ in range(32)]
        await running(lab, runs[0]["id"])
        states = [(await lab.run(run["id"]))["state"] for run in runs]
        one_more = await lab.start(**DARK)

    assert states == ["running"] + ["queued"] * 31
    assert len({run["output"] for run in runs}) == 32
    assert (one_more.status_code, one_more.json()["code"]) == (429, "too_many_requests")


async def under_way(lab: Any, run_id: str) -> dict[str, Any]:
    """Wait until the process has said what it does."""
    async with asyncio.timeout(30):
        while (seen := await lab.run(run_id))["doing"] is None:  # noqa: ASYNC110 - polled as clients do
            await asyncio.sleep(0)
    return dict(seen)


async def running(lab: Any, run_id: str) -> None:
    while (await lab.run(run_id))["state"] == "queued":  # noqa: ASYNC110 - polled as clients do
        await asyncio.sleep(0)


async def test_a_calibration_ends_with_its_data_server_and_is_called_interrupted_after_a_restart(
    make_lab: Any,
) -> None:
    async with make_lab(program=WAITS) as lab:
        runs = [await lab.started(**DARK) for _ in range(2)]
        await running(lab, runs[0]["id"])
        tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("calibration ")]
    assert [task.cancelled() for task in tasks] == [True, True]

    async with make_lab() as lab:
        found = [await lab.run(run["id"]) for run in runs]

    for run in found:
        assert run["state"] == "failed"
        assert run["error"].startswith("interrupted: ")
        assert run["finished"] is not None


async def test_the_list_and_the_reports_outlive_a_restart_of_the_data_server(
    make_lab: Any, root: Path
) -> None:
    async with make_lab() as lab:
        run = await lab.ended((await lab.started(**DARK))["id"])
    before = files_in(root)

    async with make_lab() as lab:
        again = await lab.run(run["id"])
        listed = (await lab.http.get("/api/v1/calibrations")).json()["calibrations"]
        picture = await lab.http.get(f"/api/v1/calibrations/{run['id']}/report.png")

    assert again == run
    assert [one["id"] for one in listed] == [run["id"]]
    assert picture.content == (root / run["files"]["picture"]).read_bytes()
    assert files_in(root) == before


async def test_one_that_is_cancelled_ends_and_lets_the_next_one_begin(make_lab: Any, root: Path) -> None:
    before = files_in(root)
    async with make_lab(program=WAITS) as lab:
        first, second, third = [await lab.started(**DARK) for _ in range(3)]
        await running(lab, first["id"])

        waiting = await lab.http.delete(f"/api/v1/calibrations/{second['id']}")
        ended = await lab.http.delete(f"/api/v1/calibrations/{first['id']}")
        again = await lab.http.delete(f"/api/v1/calibrations/{first['id']}")
        await running(lab, third["id"])
        free = await lab.started(**DARK)

    assert [reply.status_code for reply in (waiting, ended, again)] == [200, 200, 200]
    assert (waiting.json()["state"], waiting.json()["started"]) == ("cancelled", None)
    assert ended.json()["state"] == "cancelled"
    assert ended.json()["finished"] >= ended.json()["started"]
    assert again.json() == ended.json()
    assert free["output"] == first["output"], "its names are free again"
    assert files_in(root) == before


async def test_what_a_cancelled_one_had_begun_to_write_is_removed(make_lab: Any, root: Path) -> None:
    async with make_lab(program=HALF_WAY) as lab:
        run = await lab.started(**DARK)
        await under_way(lab, run["id"])
        folder = root / run["output"]
        folder.mkdir(parents=True)
        (folder / ".dark.tif.0123abcd.part").write_bytes(b"half")
        (folder / "variance.tif").write_bytes(b"whole")
        await lab.http.delete(f"/api/v1/calibrations/{run['id']}")

    assert [path.name for path in folder.iterdir()] == ["variance.tif"]


async def test_a_cancel_that_comes_too_late_changes_nothing(lab: Any) -> None:
    run = await lab.ended((await lab.started(**DARK))["id"])

    reply = await lab.http.delete(f"/api/v1/calibrations/{run['id']}")

    assert (reply.status_code, reply.json()) == (200, run)


async def test_while_one_is_made_it_says_how_far_it_is(make_lab: Any) -> None:
    async with make_lab(program=HALF_WAY) as lab:
        run = await lab.started(**DARK)
        seen = await under_way(lab, run["id"])
        ended = (await lab.http.delete(f"/api/v1/calibrations/{run['id']}")).json()

    assert (seen["state"], seen["doing"], seen["fraction"]) == ("running", "dark.tif", 0.5)
    assert (ended["doing"], ended["fraction"]) == (None, None)


async def test_a_calibration_outlives_a_restart_of_the_scheduler(make_lab: Any, make_dataserver: Any) -> None:
    async with make_dataserver(program=WAITS) as dataserver:
        async with make_lab(dataserver) as lab:
            run = await lab.started(**DARK)
        async with make_lab(dataserver) as lab:
            after = await lab.run(run["id"])

    assert after["id"] == run["id"]
    assert after["state"] in {"queued", "running"}


async def test_an_order_sent_twice_is_one_calibration(make_lab: Any) -> None:
    order = {"id": "0123456789abcdef", "request": DARK}

    async with make_lab(program=WAITS) as lab:
        replies = [await lab.dataserver.post("/api/v1/calibration-runs", json=order) for _ in range(2)]

        assert [reply.status_code for reply in replies] == [201, 201]
        assert [run.id for run in lab.calibrations.runs()] == [order["id"]]


@pytest.mark.parametrize("run_id", ["0123456789abcdef", "x", "..", "a b"])
async def test_an_id_that_nobody_gave_is_not_found(lab: Any, run_id: str) -> None:
    route = f"/api/v1/calibrations/{quote(run_id, safe='').replace('.', '%2E')}"

    for path in (route, f"{route}/report.png"):
        reply = await lab.http.get(path)
        assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


async def test_without_a_data_server_it_says_so(make_lab: Any) -> None:
    async with make_lab(registered=False) as lab:
        reply = await lab.start(**DARK)
        listed = await lab.http.get("/api/v1/calibrations")

    assert (reply.status_code, reply.json()["code"]) == (503, "unavailable")
    assert "no data server is registered" in reply.json()["detail"]
    assert listed.json()["calibrations"] == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "", {"submitter", "owner"}),
        ("GET", "", {"viewer", "submitter", "owner"}),
        ("GET", "/0123456789abcdef", {"viewer", "submitter", "owner"}),
        ("DELETE", "/0123456789abcdef", {"submitter", "owner"}),
        ("GET", "/0123456789abcdef/report.png", {"viewer", "submitter", "owner"}),
    ],
)
async def test_the_data_servers_own_routes_let_their_roles_through_and_no_other(
    lab: Any, authorisation: Any, method: str, path: str, allowed: set[str]
) -> None:
    statuses = {
        role: (
            await lab.dataserver.request(
                method, f"/api/v1/calibration-runs{path}", headers=authorisation(role)
            )
        ).status_code
        for role in ("viewer", "submitter", "worker", "owner")
    }

    assert {role for role, status in statuses.items() if status not in {401, 403}} == allowed
