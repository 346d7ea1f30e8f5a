"""Calibrations through a cluster that runs: the files that the command writes, byte for byte, and what a job makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cluster.client import Client
from cluster.protocol import CalibrationRun

pytestmark = pytest.mark.e2e

Array = np.ndarray[Any, Any]
METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 100.0,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ReadNoise": 1.6,
}


def spots(shape: tuple[int, int], places: Any, sx: float, sy: float) -> Array:
    """Spots of one photon each at (y, x)."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    light = sum(
        np.exp(-((columns - x) ** 2) / (2 * sx**2) - (rows - y) ** 2 / (2 * sy**2)) for y, x in places
    )
    return np.asarray(light / (2 * np.pi * sx * sy))


def recorded(photons: Array, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    electrons = rng.poisson(photons) + rng.normal(0, 1.6, photons.shape)
    return np.rint(100 + 2 * electrons).astype(np.uint16)


def bead_stack() -> Array:
    """21 planes 50 nm apart through three beads and a cylindrical lens."""
    planes = []
    for z in (np.arange(21) - 10) * 50.0:
        sx, sy = (1.4 * np.sqrt(1 + ((z - focus) / 400) ** 2) for focus in (-200, 200))
        planes.append(20 + 30_000 * spots((88, 88), ((22, 22), (22, 66), (66, 44)), sx, sy))
    return recorded(np.array(planes), 0)


def splitter_series() -> Array:
    """Forty beads in two channels; the lower one is upside down, and one pixel to the left."""
    y, x = (axis.ravel() for axis in np.mgrid[8:72:5j, 8:120:8j])
    above = np.stack([y, x], axis=1)
    below = np.stack([159 - y, x - 1], axis=1)
    light = 20 + 5000 * spots((160, 128), [*above, *below], 1.3, 1.3)
    return recorded(np.array([light] * 4), 1)


@pytest.fixture
def folder(shell: Any) -> Path:
    folder: Path = shell.home / "data" / "calibration"
    folder.mkdir()
    light = {"dark": 0.0, "dim": 200.0, "bright": 900.0}
    films = {
        name: recorded(np.full((60, 24, 32), level), seed) for seed, (name, level) in enumerate(light.items())
    }
    films |= {"beads": bead_stack(), "splitter": splitter_series()}
    for name, film in films.items():
        tifffile.imwrite(folder / f"{name}.tif", film, photometric="minisblack")
    (folder / "splitter.json").write_text(json.dumps(METADATA))
    return folder


@pytest.fixture
def client(shell: Any, folder: Path, eventually: Callable[..., Any]) -> Iterator[Client]:
    process = shell.start("-n", 1, "--no-browser")
    said = eventually(lambda: re.search(r"scheduler +(http://\S+)", shell.said(process)), "a scheduler")
    token = shell.run("token", "--role", "submitter").stdout.strip()
    with Client(said.group(1), token) as made:
        yield made


@pytest.mark.slow
def test_rest_and_commands_write_the_same_files(
    shell: Any, folder: Path, client: Client, eventually: Callable[..., Any]
) -> None:
    def ended(run: CalibrationRun) -> CalibrationRun | None:
        seen = client.calibration(run.id)
        return seen if seen.state in {"done", "failed"} else None

    maps = [f"calibration/{name}.tif" for name in ("dark", "dim", "bright")]
    started = [
        client.calibrate("psf", "calibration/beads.tif", options={"pixel_nm": 100, "step_nm": 50}),
        client.calibrate("camera_maps", maps, options={"even_light": True}),
        client.calibrate("shifts", "calibration/splitter.tif", options={"model": "affine"}),
    ]
    by_command = shell.cwd / "by command"
    at = by_command.joinpath
    shell.json("psf", folder / "beads.tif", "--pixel-nm", 100, "--step-nm", 50, "-o", at("beads_psf.tif"))
    frames = [folder / f"{name}.tif" for name in ("dark", "dim", "bright")]
    shell.json("cameramaps", *frames, "--even-light", "-o", at("dark_camera"))
    shell.json("shifts", folder / "splitter.tif", "--model", "affine", "-o", at("splitter_shifts.json"))
    psf, camera, shifts = [eventually(lambda run=run: ended(run), f"the {run.kind}") for run in started]

    assert [run.error for run in (psf, camera, shifts)] == [None, None, None]
    by_rest = folder / "analysis"
    written = {str(path.relative_to(by_rest)) for path in by_rest.rglob("*") if path.is_file()}
    named = {path for run in (psf, camera, shifts) for path in run.files.values()}
    assert {f"calibration/analysis/{name}" for name in written} == named
    assert len(written) == 5 + 6 + 2
    for name in written:
        assert (by_rest / name).read_bytes() == at(name).read_bytes(), name
    assert client.calibration_report(psf.id) == at("beads_psf.report.png").read_bytes()
    assert {run.id for run in client.calibrations()} == {run.id for run in started}

    settings = {
        "fit": "SplitterFitFNR",
        "background": None,
        "shifts": shifts.files["shifts"],
        "threshold": 2,
    }
    job = client.submit("calibration/splitter.tif", analysis=settings)
    *_, last = client.watch(job.id)
    assert (last.state, last.localisations) == ("done", 4 * 40)
