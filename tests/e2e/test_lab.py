"""A series that says only which camera took it, localised with what the lab's folders say of that camera."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cluster.results.h5r import read

PROFILE = """
[when]
Camera.SerialNumber = "SN-17"
[values]
voxelsize.x = 0.1
voxelsize.y = 0.1
Camera.ElectronsPerCount = 0.5
[[maps]]
exposure_s = [0.045, 0.055]
variance_map = "left/variance.tif"
"""


def test_maps_of_profiles_and_of_pymes_folder_reach_the_workers(shell: Any, series: Path) -> None:
    sidecar = series.with_suffix(".json")
    said = json.loads(sidecar.read_text(encoding="utf-8"))
    camera = {"Camera.SerialNumber": "SN-17", "Camera.IntegrationTime": 0.05}
    sidecar.write_text(json.dumps(camera), encoding="utf-8")
    profiles, pymes = shell.home / "config" / "profiles", shell.home / "data" / "CALIBRATION" / "SN-17"
    for path, level in (
        (profiles / "left" / "variance.tif", said["Camera.ReadNoise"] ** 2),
        (pymes / "dark_50ms.tif", said["Camera.ADOffset"]),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.full((64, 64), level, np.float32))
    (profiles / "left.toml").write_text(PROFILE, encoding="utf-8")

    with_maps = shell.json("localise", series, "-n", 1, "-o", shell.cwd / "maps.h5r")
    sidecar.write_text(json.dumps(said), encoding="utf-8")
    without = shell.json("localise", series, "-n", 1, "-o", shell.cwd / "numbers.h5r")

    provenance = read(shell.cwd / "maps.h5r").provenance
    assert provenance is not None
    assert provenance.metadata["voxelsize.x"] == {"value": 0.1, "source": "profile: left.toml"}
    assert provenance.metadata["Camera.VarianceMapID"]["source"] == "profile: left.toml"
    assert provenance.metadata["Camera.DarkMapID"]["value"] == "@calibration/SN-17/dark_50ms.tif"
    assert provenance.settings["dark_map"] == "@calibration/SN-17/dark_50ms.tif"
    assert set(provenance.input["maps"]) == {"dark_map", "variance_map"}
    assert with_maps["localisations"] == without["localisations"] > 100  # even maps say what the numbers say
