"""A series in depth, with markers, in a real browser: width curves from a file, z by colour and histogram, the drift of the markers taken off."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import tifffile
from PIL import Image

from fitting.calibrated import SigmaCurves

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

Array = np.ndarray[Any, Any]
METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 100.0,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ReadNoise": 1.6,
}
CURVES = SigmaCurves.from_defocus(np.linspace(-600, 600, 25), (130, 250, 400, 0, 0), (130, -250, 400, 0, 0))
FRAMES, SIDE = 500, 96
DRIFT_PX = 0.004  # a frame, along x
MARKERS = np.array([[14.0, 84.0, 0.0], [82.0, 10.0, 0.0], [87.0, 48.0, 0.0]])  # x, y [px], z [nm]


def light(places: Array, photons: Array) -> Array:
    """What molecules at (x, y, z) leave on the camera behind a cylindrical lens."""
    x, y, z = places.T[:, :, np.newaxis]
    pixels = np.arange(SIDE)
    width_x, width_y = (1.3 * np.sqrt(1 + ((z - focus) / 400) ** 2) for focus in (250, -250))
    along_x, along_y = (
        np.exp(-((pixels - at) ** 2) / (2 * width**2)) for at, width in ((x, width_x), (y, width_y))
    )
    return np.einsum("k,ki,kj->ij", photons / (2 * np.pi * (width_x * width_y)[:, 0]), along_y, along_x)


@pytest.fixture(scope="module")
def deep(bare_series: Path) -> Path:
    """Four waves that rise from -350 to 350 nm from left to right, three markers, and a stage that drifts."""
    rng = np.random.default_rng(3)
    film = np.full((FRAMES, SIDE, SIDE), 10.0)
    for number, frame in enumerate(film):
        drift = np.array([DRIFT_PX * number, 0.0, 0.0])
        along, wave = rng.uniform(0, 1, 6), rng.integers(0, 4, 6)
        x, y = 12 + 62 * along, 20 + 18 * wave + 6 * np.sin(6 * along + wave)
        frame += light(np.stack([x, y, 700 * along - 350], axis=1) + drift, rng.uniform(1500, 4000, 6))
        frame += light(MARKERS + drift, np.full(len(MARKERS), 30_000.0))
    path = bare_series.parent / "deep.tif"
    electrons = rng.poisson(film) + rng.normal(0, 1.6, film.shape)
    tifffile.imwrite(path, np.rint(100 + 2 * electrons).astype(np.uint16), photometric="minisblack")
    path.with_suffix(".json").write_text(json.dumps(METADATA), encoding="utf-8")
    curves = {"format": "sigma curves", **CURVES.to_dict()}
    path.with_name("curves.json").write_text(json.dumps(curves), encoding="utf-8")
    return path


def test_depth_is_seen_in_colours_and_the_drift_of_the_markers_taken_off(surfer: Any, deep: Path) -> None:
    tab = surfer.tab
    surfer.enter()
    surfer.go("/analyse?series=cells/deep.tif")
    surfer.sees("500 frames, from 0 to 499")
    tab.get_by_role("tab", name="Settings").click()
    tab.get_by_label("Fit", exact=True).click()
    tab.get_by_role("option", name=re.compile("^AstigGaussFitFR")).click()
    surfer.sees("500 frames, from 0 to 499, with AstigGaussFitFR")
    curves = tab.get_by_label(re.compile("^Sigma curves"))
    if not curves.is_visible():
        tab.get_by_text("Files", exact=True).click()
    curves.fill("curves.json")
    curves.press("Tab")
    surfer.sees("Files (1 changed)")
    tab.get_by_text("Fiducials", exact=True).click()
    tab.get_by_text("Track fiducials").click()
    surfer.sees("Fiducials (1 changed)")
    surfer.picture("settings_depth")
    surfer.button("Go").click()

    tab.wait_for_url("**/job/*")
    surfer.connected()
    surfer.sees(re.compile("^done$"))
    surfer.sees(re.compile(r"^z: -?[\d.]+ nm"))
    tab.get_by_label("Colour", exact=True).click()
    tab.get_by_role("option", name="by depth").click()
    tab.wait_for_function("() => document.querySelector('.stage img').src.includes('colour_by=z')")
    tab.get_by_label("Drift", exact=True).click()
    tab.get_by_role("option", name="corrected, from the markers").click()
    surfer.sees(re.compile(r"Markers: 3\. The sample moves over 2\d\d nm in x"))
    tab.wait_for_function(
        "() => { const seen = document.querySelector('.stage img'); return seen.src.includes('drift=markers') && seen.complete; }"
    )
    surfer.picture("job_depth")

    assert _redness_from_left_to_right(surfer) > 0.15
    assert surfer.faults() == []
    assert surfer.complaints == []


def _redness_from_left_to_right(surfer: Any) -> float:
    """By how much more the right half is red than blue, compared with the left: what lies deeper is blue."""
    job = surfer.tab.url.rpartition("/")[2]
    asked = urlencode({"pixel_nm": 20, "colour_by": "z", "colour_low": -400, "colour_high": 400})
    reply = surfer.tab.request.get(f"{surfer.base}/data/jobs/{job}/render.png?{asked}")
    picture = np.asarray(Image.open(io.BytesIO(reply.body())).convert("RGB")).astype(float)
    waves = picture[int(0.15 * len(picture)) : int(0.85 * len(picture))]
    halves = np.array_split(waves, 2, axis=1)
    left, right = ((half[..., 0] - half[..., 2]).sum() / half.sum() for half in halves)
    return float(right - left)
