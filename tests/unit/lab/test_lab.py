"""What the lab's folders add to a series: whose word counts, which maps are found, and where each value is said to come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.config import LabFolders
from cluster.errors import Invalid, NotFound, Unavailable
from cluster.lab import Lab, maps_of_layout
from cluster.lab_listing import list_profiles
from cluster.protocol import MetadataValue

CAMERA = {"Camera.SerialNumber": "SN-17", "Camera.IntegrationTime": 0.01}
LEFT = '[when]\nCamera.SerialNumber = "SN-17"\n'


class Folders:
    """A lab's folders, to be filled, and a root."""

    def __init__(self, folder: Path) -> None:
        self.profiles = folder / "profiles"
        self.calibration = folder / "pyme" / "CALIBRATION"
        self.root = folder / "data"
        for one in (self.profiles, self.calibration, self.root):
            one.mkdir(parents=True)
        self.lab = Lab(LabFolders(profiles=self.profiles, calibration=self.calibration), (self.root,))

    def write(self, name: str, text: str) -> None:
        (self.profiles / name).write_text(text, encoding="utf-8")

    def completed(self, said: dict[str, Any], source: str = "file", **analysis: Any) -> Any:
        return self.lab.completed(entries(said, source), analysis)


def entries(said: dict[str, Any], source: str = "file") -> dict[str, MetadataValue]:
    return {key: MetadataValue(value=value, source=source) for key, value in said.items()}


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


@pytest.mark.parametrize("source", ["job", "sidecar cells.json", "file"])
def test_a_profile_says_only_what_nobody_else_does(folders: Folders, source: str) -> None:
    folders.write("left.toml", LEFT + "[values]\nCamera.ADOffset = 100\nvoxelsize.x = 0.1")

    done = folders.completed(CAMERA | {"Camera.ADOffset": 7}, source)

    assert done.metadata["Camera.ADOffset"] == MetadataValue(value=7, source=source)
    assert done.metadata["voxelsize.x"] == MetadataValue(value=0.1, source="profile: left.toml")
    assert done.notes == ["profile left.toml: voxelsize.x 0.1"]


def test_profiles_lie_over_each_other_key_by_key(folders: Folders) -> None:
    folders.write("left.toml", LEFT + "[values]\nCamera.ADOffset = 100\nvoxelsize.x = 0.1")
    folders.write(
        "fast.toml", LEFT + "Camera.IntegrationTime = { to = 0.02 }\n[values]\nCamera.ADOffset = 90"
    )

    fast, slow = (
        folders.completed(CAMERA | {"Camera.IntegrationTime": exposure}).metadata for exposure in (0.01, 0.1)
    )

    assert (fast["Camera.ADOffset"].value, fast["Camera.ADOffset"].source) == (90, "profile: fast.toml")
    assert (fast["voxelsize.x"].value, fast["voxelsize.x"].source) == (0.1, "profile: left.toml")
    assert slow["Camera.ADOffset"].value == 100


def test_two_that_are_as_particular_and_differ_are_refused_unless_it_does_not_matter(
    folders: Folders,
) -> None:
    folders.write("a.toml", LEFT + "[values]\nCamera.ADOffset = 100")
    folders.write("b.toml", LEFT + "[values]\nCamera.ADOffset = 110")

    with pytest.raises(Invalid, match=r"a\.toml \(100\) and b\.toml \(110\).*microscope=a"):
        folders.completed(CAMERA)
    assert folders.completed(CAMERA | {"Camera.ADOffset": 3}).metadata["Camera.ADOffset"].value == 3
    assert folders.completed(CAMERA, microscope="b").metadata["Camera.ADOffset"].value == 110


def test_one_that_is_named_is_used_alone_and_says_which_camera_it_was(folders: Folders) -> None:
    folders.write("left.toml", LEFT + "[values]\nCamera.ADOffset = 100")
    touch(folders.calibration / "SN-17" / "flatfield.tif")

    done = folders.completed({}, microscope="left", threshold=2)

    assert done.analysis == {"threshold": 2}
    assert done.metadata["Camera.SerialNumber"] == MetadataValue(value="SN-17", source="profile: left.toml")
    assert done.metadata["Camera.ADOffset"].value == 100
    assert done.metadata["Camera.FlatfieldMapID"].value == "@calibration/SN-17/flatfield.tif"


def test_one_that_is_named_against_what_the_series_says_is_used_with_a_word(folders: Folders) -> None:
    folders.write("left.toml", LEFT + "[values]\nCamera.ADOffset = 100")

    done = folders.completed({"Camera.SerialNumber": "SN-3"}, microscope="LEFT")

    assert done.metadata["Camera.ADOffset"].value == 100
    assert "it is for Camera.SerialNumber SN-17, and Camera.SerialNumber is SN-3" in done.doubts[0]


def test_none_uses_none(folders: Folders) -> None:
    folders.write("left.toml", LEFT + "[values]\nCamera.ADOffset = 100")
    touch(folders.calibration / "SN-17" / "flatfield.tif")

    done = folders.completed(CAMERA, microscope="none")

    assert done.metadata == entries(CAMERA)
    assert done.notes == []


@pytest.mark.parametrize(("asked", "kind"), [("right", NotFound), (3, Invalid)])
def test_what_is_no_profile_is_refused(folders: Folders, asked: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="microscope"):
        folders.completed(CAMERA, microscope=asked)


def test_a_broken_file_stops_its_own_series_and_is_mentioned_to_others(folders: Folders) -> None:
    folders.write("mine.toml", LEFT + "[values]\nCamera.ADOfset = 1")
    folders.write("torn.toml", 'title = "left')

    other = folders.completed({"Camera.SerialNumber": "SN-3"})

    with pytest.raises(Invalid, match=r"mine\.toml: values: Camera\.ADOfset is unknown"):
        folders.completed(CAMERA)
    with pytest.raises(Invalid, match=r"torn\.toml: .*\(at "):
        folders.completed(CAMERA, microscope="torn")
    assert len(other.doubts) == 2
    assert other.doubts[0].startswith("not used: profile torn.toml: ")
    assert other.doubts[1].startswith("profile mine.toml: values: Camera.ADOfset")


def test_a_file_that_is_not_text_is_named(folders: Folders) -> None:
    (folders.profiles / "odd.toml").write_bytes(b"\xff\xfe\x00")

    assert "odd.toml" in folders.completed({}).doubts[0]


def test_maps_of_a_profile_lie_in_its_folder_or_under_a_root(folders: Folders) -> None:
    folders.write(
        "left.toml",
        LEFT
        + '[values]\nPSFFile = "left/psf.tif"\n[[maps]]\nexposure_s = [0.009, 0.011]\ndark_map = "left\\\\dark.tif"\n'
        + 'variance_map = "maps/variance.tif"',
    )
    touch(folders.profiles / "left" / "dark.tif")
    touch(folders.profiles / "left" / "psf.tif")

    done = folders.completed(CAMERA | {"Camera.ADOffset": 100})
    other = folders.completed(CAMERA | {"Camera.IntegrationTime": 0.1})
    silent = folders.completed({"Camera.SerialNumber": "SN-17"})

    assert done.metadata["Camera.DarkMapID"] == MetadataValue(
        value="@profiles/left/dark.tif", source="profile: left.toml"
    )
    assert done.metadata["Camera.VarianceMapID"].value == "maps/variance.tif"
    assert done.metadata["PSFFile"].value == "@profiles/left/psf.tif"
    assert "profile left.toml: dark_map @profiles/left/dark.tif, instead of Camera.ADOffset" in done.notes
    assert "Camera.DarkMapID" not in other.metadata
    assert "Camera.DarkMapID" not in silent.metadata
    assert "the series does not say Camera.IntegrationTime" in silent.doubts[0]


def test_an_absolute_path_is_a_name_where_somebody_serves_it(folders: Folders, tmp_path: Path) -> None:
    served = [
        folders.lab.served(str(folder / "a" / "dark.tif"))
        for folder in (folders.profiles, folders.calibration, folders.root, tmp_path)
    ]

    assert served[:3] == ["@profiles/a/dark.tif", "@calibration/a/dark.tif", "a/dark.tif"]
    assert served[3] == str(tmp_path / "a" / "dark.tif")


@pytest.mark.parametrize(
    ("analysis", "said"),
    [
        ({"dark_map": "mine.tif"}, {}),
        ({"dark_map": None}, {}),
        ({"Camera.DarkMapID": "mine.tif"}, {}),
        ({}, {"Camera.ADOffset": MetadataValue(value=100, source="job")}),
        ({}, {"Camera.DarkMapID": MetadataValue(value=None, source="job")}),
        ({}, {"Camera.DarkMapID": MetadataValue(value="theirs.tif", source="file")}),
    ],
)
def test_a_map_of_a_profile_never_replaces_what_was_said(
    folders: Folders, analysis: dict[str, Any], said: dict[str, MetadataValue]
) -> None:
    folders.write("left.toml", LEFT + '[[maps]]\ndark_map = "dark.tif"')

    done = folders.lab.completed(entries(CAMERA) | said, analysis)

    assert done.analysis == analysis
    assert done.metadata == entries(CAMERA) | said


def test_a_file_that_says_there_is_no_map_has_not_said_which(folders: Folders) -> None:
    folders.write("left.toml", LEFT + '[[maps]]\ndark_map = "dark.tif"')

    done = folders.completed(CAMERA | {"Camera.DarkMapID": "<none>"})

    assert done.metadata["Camera.DarkMapID"].value == "dark.tif"


def test_pymes_folder_is_found_with_the_profiles_elsewhere_and_under_a_root(folders: Folders) -> None:
    found = []
    for folder in (
        folders.root / "CALIBRATION",
        folders.calibration,
        folders.profiles / "CALIBRATION",
    ):
        touch(folder / "SN-17" / "dark_10ms.tif")
        found.append(folders.completed(CAMERA).metadata["Camera.DarkMapID"])

    assert [entry.value for entry in found] == [
        "CALIBRATION/SN-17/dark_10ms.tif",
        "@calibration/SN-17/dark_10ms.tif",
        "@profiles/CALIBRATION/SN-17/dark_10ms.tif",
    ]
    assert found[0].source == f"CALIBRATION/SN-17 in {folders.root}"


def test_a_profile_comes_before_pymes_folder_map_by_map(folders: Folders) -> None:
    folders.write("left.toml", LEFT + '[[maps]]\ndark_map = "dark.tif"')
    for name in ("dark_10ms.tif", "variance_10ms.tif"):
        touch(folders.calibration / "SN-17" / name)

    metadata = folders.completed(CAMERA).metadata

    assert metadata["Camera.DarkMapID"].value == "dark.tif"
    assert metadata["Camera.VarianceMapID"].value == "@calibration/SN-17/variance_10ms.tif"


@pytest.mark.parametrize("serial", ["..", "../SN-17", "a/b", "", "SN-17 ", ".hidden", "C:", 3.5])
def test_a_serial_number_leads_nowhere_else(folders: Folders, serial: Any) -> None:
    touch(folders.calibration / "flatfield.tif")
    touch(folders.calibration.parent / "flatfield.tif")

    done = folders.completed({"Camera.SerialNumber": serial})

    assert "Camera.FlatfieldMapID" not in done.metadata


@pytest.mark.parametrize(
    ("exposure", "dark", "passed_over"),
    [
        (0.01, "dark_10ms.tif", False),
        (0.0109, "dark_10ms.tif", False),  # PYME cuts off
        (0.0099999, "dark_10ms.tif", False),
        (0.05, "DARK_50ms.tif", False),
        (0.02, None, True),
        (None, None, True),
        ("0.01", None, True),
    ],
)
def test_pymes_maps_are_those_of_the_exposure_in_whole_milliseconds(
    tmp_path: Path, exposure: Any, dark: str | None, passed_over: bool
) -> None:
    for name in ("dark_10ms.tif", "DARK_50ms.tif", "flatfield.tif", "notes.txt"):
        touch(tmp_path / name)

    found, note = maps_of_layout(tmp_path, exposure)

    assert found.get("dark_map") == dark
    assert found["flatfield_map"] == "flatfield.tif"
    assert (note is not None) is passed_over
    assert note is None or "dark_10ms.tif" in note


@pytest.mark.parametrize(
    "said", [r"C:\PYME\CALIBRATION\SN-17\dark_10ms.tif", "/d/CALIBRATION/SN-17/dark_10ms.tif"]
)
def test_a_map_that_a_file_names_where_it_was_written_is_found_again_here(
    folders: Folders, said: str
) -> None:
    touch(folders.calibration / "SN-17" / "dark_10ms.tif")

    done = folders.completed({"Camera.DarkMapID": said})
    job = folders.completed({"Camera.DarkMapID": said}, "job")

    assert done.metadata["Camera.DarkMapID"].value == "@calibration/SN-17/dark_10ms.tif"
    assert done.metadata["Camera.DarkMapID"].source == f"file: {said}"
    assert job.metadata["Camera.DarkMapID"].value == said


def test_a_folder_that_was_configured_must_be_there(tmp_path: Path) -> None:
    away = tmp_path / "share"

    with pytest.raises(Unavailable, match=r"share.*microscope=none"):
        Lab(LabFolders(profiles=away, configured=True)).completed({}, {})
    assert Lab(LabFolders(profiles=away)).completed({}, {}).notes == []
    assert Lab(LabFolders(profiles=away, configured=True)).completed({}, {"microscope": "none"}).notes == []


def test_a_listing_says_what_a_series_gets_what_is_missing_and_what_is_broken(folders: Folders) -> None:
    folders.write("left.toml", 'title = "left port"\n' + LEFT + "[values]\nCamera.ADOffset = 100")
    folders.write("right.toml", '[when]\nCamera.SerialNumber = "SN-3"')
    folders.write("torn.toml", "title = ")

    listing = list_profiles(folders.lab, "cells.tif", entries(CAMERA))

    by_file = {one.file: one for one in listing.profiles}
    assert (by_file["left.toml"].title, by_file["left.toml"].matches) == ("left port", True)
    assert by_file["left.toml"].when == ["Camera.SerialNumber SN-17"]
    assert by_file["right.toml"].reason == "Camera.SerialNumber is SN-17, not SN-3"
    assert by_file["torn.toml"].problem is not None
    assert listing.filled == {"Camera.ADOffset": MetadataValue(value=100, source="profile: left.toml")}
    assert listing.missing == ["voxelsize.x", "voxelsize.y", "Camera.ElectronsPerCount", "Camera.ReadNoise"]
    assert listing.problem is None


def test_a_listing_tells_of_a_contradiction_instead_of_failing(folders: Folders) -> None:
    folders.write("a.toml", LEFT + "[values]\nCamera.ADOffset = 100")
    folders.write("b.toml", LEFT + "[values]\nCamera.ADOffset = 110")

    listing = list_profiles(folders.lab, "cells.tif", entries(CAMERA))

    assert [one.matches for one in listing.profiles] == [True, True]
    assert listing.problem is not None
    assert "a.toml (100) and b.toml (110)" in listing.problem
    assert "Camera.ADOffset" in listing.missing
