"""What docs/metadata.md shows is what there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from cluster.commands.missing_metadata import question
from cluster.presets import read_shelf, with_preset
from cluster.profiles import parse_profile
from fitting import fits

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "metadata.md").read_text(encoding="utf-8")
PROFILE, PRESET = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def test_its_profile_is_one() -> None:
    profile = parse_profile("left.toml", tomllib.loads(PROFILE))

    assert profile.fault is None
    assert profile.is_for({"Camera.SerialNumber": "A19G204023"})
    assert profile.map_file("dark_map", 0.01) == "left/dark_10ms.tif"
    assert fits.missing_metadata(fits.resolve({}, {}), profile.values) == ()


def test_its_preset_is_one(tmp_path: Path) -> None:
    (tmp_path / "dim.toml").write_text(PRESET, encoding="utf-8")

    settings, _ = with_preset({"preset": "dim"}, read_shelf(tmp_path))

    assert settings == {"threshold": 0.7, "background": "-20:0", "microscope": "left"}


def test_it_names_every_key_with_its_unit_and_asks_as_the_commands_do() -> None:
    for key, wanted in fits.KEYS.items():
        (line,) = [line for line in PAGE.splitlines() if line.startswith("| `") and f"`{key}`" in line]
        assert f"| {wanted.unit or '–'} |" in line
    assert question("voxelsize.x") in PAGE
    assert question("Camera.ReadNoise") in PAGE
