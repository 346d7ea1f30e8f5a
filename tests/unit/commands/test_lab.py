"""`clusterofone profiles | presets` without a cluster: what lies in the user's folders, and what a file gets of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import typer
from typer.testing import CliRunner

from cluster.commands import lab, surroundings
from cluster.commands.console import Refused
from cluster.config import LabFolders
from cluster.errors import Invalid


def run(*arguments: object) -> Any:
    app = typer.Typer()
    lab.register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with no cluster, an empty configuration folder, and a series that says which camera took it."""
    for name in ("CLUSTEROFONE_SCHEDULER", "CLUSTEROFONE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLUSTEROFONE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYMEDATADIR", str(tmp_path / "data"))
    (tmp_path / "home" / "config").mkdir(parents=True)
    tifffile.imwrite(tmp_path / "cells.tif", np.zeros((3, 8, 8), np.uint16), photometric="minisblack")
    (tmp_path / "cells.json").write_text(
        '{"Camera.SerialNumber": "SN-17", "voxelsize.x": 0.108}', encoding="utf-8"
    )
    return tmp_path


def test_a_profile_is_begun_from_a_series_and_is_then_for_it(home: Path) -> None:
    begun = run("profiles", home / "cells.tif", "--new", "left", "--json")
    file = Path(json.loads(begun.stdout.splitlines()[-1])["file"])
    file.write_text(
        file.read_text(encoding="utf-8").replace('# "Camera.ReadNoise" = …', '"Camera.ReadNoise" = 1.6'),
        encoding="utf-8",
    )

    listed = json.loads(run("profiles", home / "cells.tif", "--json").stdout)
    told = run("profiles", home / "cells.tif").stdout

    assert file == home / "home" / "config" / "profiles" / "left.toml"
    assert listed["profiles"][0]["matches"] is True
    assert listed["filled"] == {"Camera.ReadNoise": {"value": 1.6, "source": "profile: left.toml"}}
    assert "is for this series" in told
    assert "Camera.ReadNoise = 1.6  (profile: left.toml)" in told
    assert "still missing: voxelsize.y (size of a pixel, µm)" in told


@pytest.mark.parametrize("name", ["none", "../left", "a/b", "", "x" * 70])
def test_a_name_that_could_be_another_place_is_refused(home: Path, name: str) -> None:
    assert isinstance(run("profiles", "--new", name).exception, Refused)
    assert not (home / "home" / "config" / "profiles").exists()


def test_a_profile_that_exists_stays_as_it_is(home: Path) -> None:
    run("profiles", "--new", "left")
    file = home / "home" / "config" / "profiles" / "left.toml"
    file.write_text("# mine", encoding="utf-8")

    refused = run("profiles", "--new", "left")

    assert "exists" in str(refused.exception)
    assert file.read_text(encoding="utf-8") == "# mine"


def test_without_any_it_is_said_how_to_begin(home: Path) -> None:
    assert "clusterofone profiles SERIES --new NAME" in run("profiles").stdout


def test_a_series_that_is_not_there_is_refused(home: Path) -> None:
    assert "no such file" in str(run("profiles", home / "none.tif").exception)


def test_presets_are_listed_with_the_users_own(home: Path) -> None:
    (home / "home" / "config" / "presets").mkdir()
    (home / "home" / "config" / "presets" / "dim.toml").write_text(
        'title = "our dim dye"\n[settings]\nthreshold = 0.7', encoding="utf-8"
    )

    told = run("presets").stdout
    listed = json.loads(run("presets", "--json").stdout)["presets"]

    assert "dna-paint  DNA-PAINT" in told
    assert "dim  our dim dye  (dim.toml)\n    threshold 0.7\n" in told
    assert [one["name"] for one in listed] == ["dstorm", "palm", "dna-paint", "beads", "dim"]


def test_the_folders_are_where_the_configuration_says(home: Path) -> None:
    default = surroundings.lab_folders()
    (home / "home" / "config" / "config.toml").write_text(
        f"profiles = '{home / 'nas'}'\npresets = '{home / 'nas'}'\ncalibration = '{home / 'cameras'}'",
        encoding="utf-8",
    )

    assert default == LabFolders(
        profiles=home / "home" / "config" / "profiles",
        presets=home / "home" / "config" / "presets",
        calibration=home / "data" / "CALIBRATION",
    )
    assert surroundings.lab_folders() == LabFolders(
        profiles=home / "nas", presets=home / "nas", calibration=home / "cameras", configured=True
    )
    assert surroundings.lab_folders(home / "asked").profiles == home / "asked"


def test_a_wrong_key_of_the_configuration_is_named(home: Path) -> None:
    (home / "home" / "config" / "config.toml").write_text("profile = 'x'", encoding="utf-8")

    with pytest.raises(Invalid, match=r"config\.toml: profile"):
        surroundings.lab_folders()
