"""Presets lie under what a job says."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config import LabFolders
from cluster.errors import Invalid
from cluster.lab import Lab
from cluster.lab_listing import list_presets
from cluster.presets import PRESETS, read_shelf, with_preset
from fitting import fits


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_made_of_settings_that_exist(name: str) -> None:
    settings, _ = with_preset({"preset": name})

    resolved = fits.resolve(settings, {})

    none = {"background": None} if settings["background"] == "0:0" else {}
    assert {key: resolved[key] for key in settings} == {**settings, **none}


def test_dna_paint_keeps_molecules_that_stay_bound_out_of_the_background() -> None:
    assert with_preset({"preset": "DNA-PAINT"})[0] == {"threshold": 2.0, "background": "0:0"}


def test_what_is_said_beside_it_wins_and_the_note_says_so() -> None:
    settings, note = with_preset({"preset": "dna-paint", "threshold": 1.5})

    assert settings == {"threshold": 1.5, "background": "0:0"}
    assert note == "preset dna-paint: threshold 2.0 (but 1.5 was given), background 0:0"


def test_without_one_nothing_changes() -> None:
    assert with_preset({"threshold": 1.5}) == ({"threshold": 1.5}, None)


def test_one_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(Invalid, match="there is no 'storm'; there are dstorm, palm, dna-paint, beads"):
        with_preset({"preset": "storm"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A lab's presets: one that is good, one of a fit with a microscope, and broken ones."""
    for name, text in {
        "Dim dye": 'title = "our dim dye"\n[settings]\nthreshold = 0.7\n"Analysis.BGRange" = "-20:0"',
        "splitter": '[settings]\nfit = "InterpFitR"\nmicroscope = "left"\noptions = { z = "lookup" }',
        "misspelt": "[settings]\ntreshold = 1",
        "dstorm": "[settings]\nthreshold = 9",
        "empty": 'title = "x"',
        "nested": '[settings]\npreset = "palm"',
        "torn": "[settings",
        "odd": "[setings]\nthreshold = 1",
    }.items():
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    return tmp_path


def test_a_labs_own_preset_is_used_as_the_built_in_ones_are(folder: Path) -> None:
    settings, note = with_preset({"preset": "dim dye", "debounce_radius": 5}, read_shelf(folder))

    assert settings == {"threshold": 0.7, "Analysis.BGRange": "-20:0", "debounce_radius": 5}
    assert note == "preset dim dye (Dim dye.toml): threshold 0.7, Analysis.BGRange -20:0"


def test_a_file_under_the_name_of_a_built_in_preset_changes_nothing_and_that_is_said(folder: Path) -> None:
    settings, note = with_preset({"preset": "dstorm"}, read_shelf(folder))

    assert settings == PRESETS["dstorm"].settings
    assert note is not None
    assert "dstorm.toml is not used: dstorm is the name of a built-in preset" in note


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("misspelt", r"preset: misspelt\.toml: settings: treshold: unknown setting; did you mean threshold"),
        ("empty", r"preset: empty\.toml: settings: there are none"),
        ("nested", r"preset: nested\.toml: settings: a preset cannot name another"),
        ("torn", r"preset: torn\.toml: "),
        ("odd", r"preset: odd\.toml: setings is unknown; did you mean settings"),
        (
            "nowhere",
            r"there is no 'nowhere'; there are dstorm, palm, dna-paint, beads, dim dye, .*torn\.toml",
        ),
    ],
)
def test_a_broken_one_is_refused_by_its_file(folder: Path, name: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        with_preset({"preset": name}, read_shelf(folder))


def test_all_are_listed_with_what_is_wrong(folder: Path) -> None:
    listed = list_presets(Lab(LabFolders(presets=folder)), {})

    sources = {(one.name, one.source): one.problem for one in listed}
    assert [one.name for one in listed][:4] == list(PRESETS)
    assert sources["dim dye", "Dim dye.toml"] is None
    assert sources["splitter", "splitter.toml"] is not None  # z is no option of this fit
    assert sources["dstorm", "built-in"] is None
    assert "built-in" in (sources["dstorm", "dstorm.toml"] or "")
    assert all(sources[name, f"{name}.toml"] for name in ("misspelt", "empty", "nested", "torn", "odd"))


def test_without_a_folder_there_are_the_built_in_ones(tmp_path: Path) -> None:
    assert [one.name for one in list_presets(Lab(LabFolders(presets=tmp_path / "none")), {})] == list(PRESETS)
