"""Files that settings name on the command line: where they are looked for, and what the data server is told."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from cluster.commands import given_files
from cluster.commands.console import Refused
from cluster.dataserver.paths import Roots, checked_segments
from cluster.errors import Invalid


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A series in a root, calibrations elsewhere, and a shell in yet another folder."""
    for folder in ("data/day", "calib", "here"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/day/series.tif").touch()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path.resolve()


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_file_beside_the_series_comes_before_one_of_the_shell(lab: Path) -> None:
    touch(lab / "here/psf.tif")
    beside = touch(lab / "data/day/psf.tif")

    found = given_files.files_of({"psf": "psf.tif"}, [lab / "data/day/series.tif"], [lab / "data"])
    named = given_files.renamed({"psf": "psf.tif"}, lab / "data/day/series.tif", [lab / "data"], {})

    assert found == {beside}
    assert named == {"psf": "day/psf.tif"}


def test_a_relative_name_may_be_that_of_the_shell(lab: Path) -> None:
    dark = touch(lab / "here/camera/dark.tif")

    found = given_files.files_of({"dark_map": "camera/dark.tif"}, [lab / "data/day/series.tif"], [])

    assert found == {dark}


def test_what_lies_elsewhere_is_copied_with_its_facts_and_found_again_by_its_name(lab: Path) -> None:
    psf = touch(lab / "calib/psf.tif")
    (lab / "calib/psf.json").write_text("{}", encoding="utf-8")
    series, roots = lab / "data/day/series.tif", [lab / "data", lab / "given"]

    copied = given_files.copy_to(lab / "given", [psf])
    named = given_files.renamed({"psf": str(psf)}, series, roots, copied)
    again = given_files.files_of(named, [series], [lab / "data"])

    assert Roots(roots).file(named["psf"]) == lab / "given" / named["psf"]
    assert (lab / "given" / named["psf"]).with_suffix(".json").read_text(encoding="utf-8") == "{}"
    assert again == {psf}


def test_files_of_the_labs_folders_go_by_their_name_everywhere(lab: Path) -> None:
    named = {"dark_map": "@profiles/left/dark.tif", "variance_map": "@calibration/SN-17/variance_10ms.tif"}

    found = given_files.files_of(named, [lab / "data/day/series.tif"], [lab / "data"])
    renamed = given_files.renamed(named, lab / "data/day/series.tif", [lab / "data"], {})

    assert found == set()
    assert renamed == named


def test_a_name_of_another_clusters_root_is_looked_for_above_the_series(lab: Path) -> None:
    psf = touch(lab / "data/calibration/psf.tif")

    found = given_files.files_of(
        {"psf": "calibration/psf.tif"}, [lab / "data/day/series.tif"], [lab / "data/day"]
    )

    assert found == {psf}


def test_a_file_whose_name_another_one_has_in_an_earlier_root_is_refused(lab: Path) -> None:
    meant = touch(lab / "second/psf.tif")
    other = touch(lab / "data/psf.tif")
    roots = [lab / "data", lab / "second"]

    with pytest.raises(Refused, match="rename one") as refused:
        given_files.renamed({"psf": str(meant)}, lab / "data/day/series.tif", roots, {})

    assert str(meant) in str(refused.value)
    assert str(other) in str(refused.value)


def test_a_file_under_no_root_of_a_cluster_that_runs_is_refused_with_what_to_do(lab: Path) -> None:
    psf = touch(lab / "calib/psf.tif")

    with pytest.raises(Refused, match="copy it under one") as refused:
        given_files.renamed({"psf": str(psf)}, lab / "data/day/series.tif", [lab / "data"], {})

    assert str(refused.value).startswith(f"psf: {psf} ")
    assert f"--root {lab / 'calib'}" in str(refused.value)


def test_a_file_that_is_nowhere_is_named_with_where_it_was_looked_for(lab: Path) -> None:
    with pytest.raises(Refused) as refused:
        given_files.files_of({"shifts": "no.json"}, [lab / "data/day/series.tif"], [lab / "data"])

    said = str(refused.value)
    assert said.startswith("shifts: there is no file no.json")
    assert str(lab / "data/day") in said
    assert str(lab / "here") in said


def test_a_pickle_of_pyme_is_refused_before_anything_starts(lab: Path) -> None:
    with pytest.raises(Invalid, match="pickle"):
        given_files.files_of({"psf": "bead.psf"}, [lab / "data/day/series.tif"], [])


def test_settings_that_are_no_files_stay_as_they_are(lab: Path) -> None:
    analysis = {"fit": "spline", "shifts": {"dx_nm": [[0.0]]}, "psf": None}

    assert given_files.renamed(analysis, lab / "data/day/series.tif", [lab / "data"], {}) == analysis


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (PurePosixPath("/home/me/psf.tif"), "home/me/psf.tif"),
        (PureWindowsPath(r"C:\Users\me\psf.tif"), "C/Users/me/psf.tif"),
        (PureWindowsPath(r"\\nas\lab\calib\psf.tif"), "nas/lab/calib/psf.tif"),
    ],
)
def test_an_absolute_path_of_any_system_has_a_name_and_is_found_by_it(
    path: PurePosixPath | PureWindowsPath, name: str
) -> None:
    windows = isinstance(path, PureWindowsPath)

    assert given_files.portable_name(path) == name
    assert "/".join(checked_segments(name)) == name
    assert type(path)(given_files.places_meant(name, windows=windows)[0]) == path
