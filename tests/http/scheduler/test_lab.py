"""Profiles, PYME's folders and presets of a lab, as jobs, previews and lists over HTTP see them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster.config import LabFolders
from cluster.errors import Unavailable
from cluster.lab import Lab
from cluster.results.h5r import read
from cluster.scheduler.lab import LabDesk

pytestmark = pytest.mark.anyio

LEFT = """
title = "left port"
[when]
Camera.SerialNumber = "SN-17"
[values]
voxelsize.x = 0.1
voxelsize.y = 0.1
Camera.ElectronsPerCount = 0.5
Camera.ReadNoise = 1.4
[[maps]]
dark_map = "left/dark.tif"
exposure_s = [0.009, 0.011]
"""


@pytest.fixture
def folders(tmp_path: Path) -> LabFolders:
    found = LabFolders(
        profiles=tmp_path / "profiles", presets=tmp_path / "presets", calibration=tmp_path / "cameras"
    )
    for folder in (tmp_path / "profiles" / "left", tmp_path / "presets", tmp_path / "cameras" / "SN-17"):
        folder.mkdir(parents=True)
    (tmp_path / "profiles" / "left.toml").write_text(LEFT, encoding="utf-8")
    (tmp_path / "profiles" / "left" / "dark.tif").touch()
    (tmp_path / "cameras" / "SN-17" / "variance_10ms.tif").touch()
    (tmp_path / "presets" / "dim.toml").write_text("[settings]\nthreshold = 0.7", encoding="utf-8")
    return found


@pytest.fixture
def bare(source: Any, facts: Any) -> Any:
    """A series that says which camera took it, and nothing else; and the maps, as data servers name them."""
    said = {"Camera.SerialNumber": "SN-17", "Camera.IntegrationTime": 0.01, "Camera.ReadNoise": 1.6}
    metadata = {key: {"value": value, "source": "sidecar cells.json"} for key, value in said.items()}
    source.series["day 1/cells.tif"] = facts(metadata=metadata)
    for path in ("@profiles/left/dark.tif", "@calibration/SN-17/variance_10ms.tif"):
        source.series[path] = facts(path, frames=1, dtype="float32")
    return source


@pytest.fixture
async def lab(make_service: Any, connect: Any, folders: LabFolders, bare: Any) -> AsyncIterator[Any]:
    async with connect(make_service(lab=folders)) as hands:
        yield hands


async def test_a_profile_completes_a_job_and_every_value_says_where_it_came_from(lab: Any) -> None:
    worker = await lab.register()
    job_id = await lab.submitted(metadata={"voxelsize.x": 0.11})
    await lab.work_off(worker)

    job = await lab.ended(job_id)

    sources = {key: entry["source"] for key, entry in job["metadata"].items()}
    assert sources == {
        "voxelsize.x": "job",
        "voxelsize.y": "profile: left.toml",
        "Camera.ElectronsPerCount": "profile: left.toml",
        "Camera.ReadNoise": "sidecar cells.json",
        "Camera.SerialNumber": "sidecar cells.json",
        "Camera.IntegrationTime": "sidecar cells.json",
        "Camera.DarkMapID": "profile: left.toml",
        "Camera.VarianceMapID": sources["Camera.VarianceMapID"],
    }
    assert sources["Camera.VarianceMapID"].startswith("CALIBRATION/SN-17 in ")
    assert job["analysis"]["dark_map"] == "@profiles/left/dark.tif"
    assert "profile left.toml: Camera.ElectronsPerCount 0.5, voxelsize.y 0.1" in job["notes"]
    written = read(Path(job["output"])).provenance
    assert written is not None
    assert written.metadata == job["metadata"]
    assert written.input["maps"] == {
        "dark_map": "print of @profiles/left/dark.tif",
        "variance_map": "print of @calibration/SN-17/variance_10ms.tif",
    }


async def test_a_preview_notes_what_a_profile_gave(lab: Any) -> None:
    worker = await lab.register()
    asking = asyncio.create_task(
        lab.http.post("/api/v1/preview", json={"series": "day 1/cells.tif", "frames": 2})
    )
    async with asyncio.timeout(20.0):
        while not asking.done():
            await asyncio.sleep(0)  # a request that waits for nothing lets nobody else run
            for lease in await lab.lease(worker, 10):
                await lab.commit(worker, lease)

    preview = (await asking).json()

    assert len(preview["frames"]) == 2
    assert (
        "profile left.toml: Camera.ElectronsPerCount 0.5, voxelsize.x 0.1, voxelsize.y 0.1"
        in preview["notes"]
    )
    assert preview["analysis"]["dark_map"] == "@profiles/left/dark.tif"


async def test_a_microscope_is_chosen_by_a_setting(lab: Any, source: Any, facts: Any) -> None:
    source.series["foreign.tif"] = facts(
        "foreign.tif", metadata={"Camera.ADOffset": {"value": 1, "source": "file"}}
    )

    refused = (await lab.submit(series="foreign.tif")).json()
    job = await lab.job(await lab.submitted(series="foreign.tif", analysis={"microscope": "left"}))
    unknown = (await lab.submit(series="foreign.tif", analysis={"microscope": "right"})).json()

    assert "voxelsize.x" in refused["keys"]
    assert job["metadata"]["voxelsize.x"] == {"value": 0.1, "source": "profile: left.toml"}
    assert (unknown["code"], unknown["field"]) == ("not_found", "analysis.microscope")


async def test_two_profiles_that_differ_are_both_named(lab: Any, folders: LabFolders) -> None:
    assert folders.profiles is not None
    (folders.profiles / "right.toml").write_text(LEFT.replace("0.5", "0.6"), encoding="utf-8")

    problem = (await lab.submit()).json()

    assert (problem["code"], problem["field"]) == ("invalid", "analysis.microscope")
    assert "left.toml (0.5) and right.toml (0.6)" in problem["detail"]


async def test_what_is_missing_is_told_with_the_profile_that_was_not_used(
    lab: Any, folders: LabFolders
) -> None:
    assert folders.profiles is not None
    (folders.profiles / "left.toml").write_text("[when", encoding="utf-8")

    problem = (await lab.submit()).json()

    assert "voxelsize.x" in problem["keys"]
    assert "not used: profile left.toml" in problem["detail"]


async def test_a_map_that_is_nowhere_is_named_with_its_profile(lab: Any, source: Any) -> None:
    del source.series["@profiles/left/dark.tif"]

    problem = (await lab.submit()).json()

    assert (problem["code"], problem["field"]) == ("not_found", "dark_map")
    assert problem["detail"].endswith("(named by profile: left.toml; dark_map=null goes on without)")


async def test_a_map_of_a_profile_is_not_taken_for_a_file_beside_the_series(
    lab: Any, folders: LabFolders, source: Any, facts: Any
) -> None:
    assert folders.profiles is not None
    (folders.profiles / "left.toml").write_text(
        LEFT.replace("left/dark.tif", "maps/dark.tif"), encoding="utf-8"
    )
    for path in ("day 1/maps/dark.tif", "maps/dark.tif"):
        source.series[path] = facts(path, frames=1, dtype="float32")

    job = await lab.job(await lab.submitted())

    assert job["analysis"]["dark_map"] == "maps/dark.tif"


async def test_a_map_that_does_not_fit_is_refused_with_its_profile_and_can_be_left_out(
    lab: Any, source: Any, facts: Any
) -> None:
    source.series["@profiles/left/dark.tif"] = facts("@profiles/left/dark.tif", frames=1, width=24)

    problem = (await lab.submit()).json()
    without = await lab.job(
        await lab.submitted(analysis={"dark_map": None}, metadata={"Camera.ADOffset": 100})
    )

    assert (problem["code"], problem["field"]) == ("invalid", "analysis.dark_map")
    assert "24 × 64 px" in problem["detail"]
    assert problem["detail"].endswith("(named by profile: left.toml; dark_map=null goes on without)")
    assert without["analysis"]["dark_map"] is None


async def test_a_place_on_one_machine_is_refused_with_the_profile_that_names_it(
    lab: Any, folders: LabFolders
) -> None:
    assert folders.profiles is not None
    (folders.profiles / "left.toml").write_text(
        LEFT.replace("left/dark.tif", "/maps/dark.tif"), encoding="utf-8"
    )

    problem = (await lab.submit()).json()

    assert (problem["code"], problem["field"]) == ("invalid", "analysis.dark_map")
    assert problem["detail"].endswith("(named by profile: left.toml; dark_map=null goes on without)")


async def test_presets_are_listed_and_used_the_labs_own_too(lab: Any) -> None:
    listed = (await lab.http.get("/api/v1/presets")).json()
    job = await lab.job(await lab.submitted(analysis={"preset": "dim"}))
    unknown = (await lab.submit(analysis={"preset": "dimm"})).json()

    assert [one["name"] for one in listed] == ["dstorm", "palm", "dna-paint", "beads", "dim"]
    assert listed[2]["settings"] == {"threshold": 2.0, "background": "0:0"}
    assert (listed[4]["source"], listed[4]["problem"]) == ("dim.toml", None)
    assert job["analysis"]["threshold"] == 0.7
    assert "preset dim (dim.toml): threshold 0.7" in job["notes"]
    assert "dna-paint, beads, dim" in unknown["detail"]


async def test_profiles_are_listed_and_say_what_a_series_gets(lab: Any) -> None:
    plain = (await lab.http.get("/api/v1/profiles")).json()
    of_series = (await lab.http.get("/api/v1/profiles", params={"series": "day 1/cells.tif"})).json()
    nowhere = await lab.http.get("/api/v1/profiles", params={"series": "no.tif"})

    assert [(one["file"], one["title"], one["matches"]) for one in plain["profiles"]] == [
        ("left.toml", "left port", None)
    ]
    assert plain["profiles"][0]["maps"] == [{"dark_map": "left/dark.tif", "exposure_s": "0.009 to 0.011"}]
    assert of_series["profiles"][0]["matches"] is True
    assert of_series["filled"]["Camera.ElectronsPerCount"] == {"value": 0.5, "source": "profile: left.toml"}
    assert of_series["missing"] == []
    assert nowhere.status_code == 404


async def test_a_share_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    answers = threading.Event()

    class Stalled(Lab):
        def profiles(self) -> Any:
            answers.wait(10)
            return [], []

    desk = LabDesk(Stalled(LabFolders(profiles=Path("/share/profiles"))), longest_s=0.05)
    try:
        with pytest.raises(Unavailable, match=r"did not answer .*microscope=none"):
            await desk.completed({}, {})
        assert (await desk.completed({}, {"microscope": "none"})).analysis == {}
        assert (await desk.with_preset({"preset": "palm"}, {}))[0]["threshold"] == 0.8
    finally:
        answers.set()
        desk.close()
