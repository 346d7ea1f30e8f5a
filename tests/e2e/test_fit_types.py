"""Fits with calibrations through real processes: the same rows as without a cluster, and every export opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from cluster.results.picasso import write_picasso
from fitting import analyse
from fitting.calibrated import MeasuredPsf, SigmaCurves
from fitting.shift_field import ShiftField

pytestmark = pytest.mark.e2e

Array = np.ndarray[Any, Any]
METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 100.0,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ReadNoise": 1.6,
}
FIELD = ShiftField((2000.0, 1500.0), 2000.0, np.array([[130.0], [20.0]]), np.array([[-90.0, 15.0]]))
Z = np.linspace(-600, 600, 25)
CURVES = SigmaCurves.from_defocus(Z, (130, 250, 400, 0, 0), (130, -250, 400, 0, 0))
HEIGHT, WIDTH = 32, 48


def spot(x: float, y: float, sx: float, sy: float) -> Array:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    light = np.exp(-((columns - x) ** 2) / (2 * sx**2) - (rows - y) ** 2 / (2 * sy**2))
    return 3000 / (2 * np.pi * sx * sy) * light


@pytest.fixture
def films(shell: Any) -> dict[str, Array]:
    """A series in two channels, the lower one upside down, and an astigmatic one, with their calibrations beside them."""
    rng = np.random.default_rng(11)
    folder = shell.home / "data" / "cells"
    folder.mkdir()
    two, astigmatic = np.full((2, 24, 2 * HEIGHT, WIDTH), 8.0)
    astigmatic = astigmatic[:, :HEIGHT].copy()
    for k in range(24):
        x, y, z = rng.uniform(10, 34), rng.uniform(10, 20), rng.uniform(-300, 300)
        dx, dy = (float(d) / 100 for d in FIELD.at(100 * x, 100 * y))
        two[k, :HEIGHT] += spot(x, y, 1.3, 1.3)
        two[k, HEIGHT:] += 0.5 * spot(x - dx, y - dy, 1.3, 1.3)[::-1]
        astigmatic[k] += spot(x, y, *(1.3 * np.sqrt(1 + ((z - c) / 400) ** 2) for c in (250, -250)))
    films = {"two": two, "astigmatic": astigmatic}
    for name, expected in films.items():
        films[name] = np.round(100 + rng.poisson(expected) / 0.5).astype(np.uint16)
        tifffile.imwrite(folder / f"{name}.tif", films[name])
        (folder / f"{name}.json").write_text(json.dumps(METADATA), encoding="utf-8")
    (folder / "shifts.json").write_text(json.dumps(FIELD.to_dict()), encoding="utf-8")
    (folder / "curves.json").write_text(json.dumps({"format": "mine", **CURVES.to_dict()}), encoding="utf-8")
    return films


def rows_of(path: str | Path) -> Array:
    with h5py.File(path) as file:
        return file["FitResults"][:]  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_two_channel_job_finds_its_shift_field_and_shows_its_channels(
    shell: Any, films: dict[str, Array]
) -> None:
    series = shell.home / "data" / "cells" / "two.tif"
    arguments = (
        "--fit",
        "two-colour",
        "--set",
        "shifts=shifts.json",
        "--set",
        'options={"species": [0.4, 0.67]}',
    )

    job = shell.json("localise", series, "-n", 2, "--task-frames", 7, *arguments)
    shown = shell.run("test", series, "--frames", 3, *arguments, "-o", shell.cwd / "test.png")

    analysis = {"fit": "two-colour", "shifts": FIELD, "options": {"species": [0.4, 0.67]}}
    rows = rows_of(job["output"])
    assert rows.tobytes() == analyse(films["two"], analysis, METADATA).rows.tobytes()
    assert len(rows) >= 20
    assert (rows["species"] == 1).mean() > 0.9
    assert shown.returncode == 0, shown.stderr
    picture = np.asarray(Image.open(shell.cwd / "test.png").convert("RGB")).astype(int)
    assert (np.abs(picture - (90, 170, 255)).sum(axis=-1) < 10).sum() > 1000, "no channel was outlined"


def test_an_astigmatic_job_gives_z_in_every_export(shell: Any, films: dict[str, Array]) -> None:
    series = shell.home / "data" / "cells" / "astigmatic.tif"

    job = shell.json("localise", series, "-n", 1, "--fit", "astigmatic", "--set", "sigma_curves=curves.json")
    exported = shell.run("export", job["output"], shell.cwd / "table.csv")
    assert exported.returncode == 0, exported.stderr
    write_picasso(Path(job["output"]), shell.cwd / "locs.hdf5")

    rows = rows_of(job["output"])
    analysis = {"fit": "astigmatic", "sigma_curves": CURVES}
    assert rows.tobytes() == analyse(films["astigmatic"], analysis, METADATA).rows.tobytes()
    header, first = (shell.cwd / "table.csv").read_text(encoding="utf-8").splitlines()[:2]
    assert '"z [nm]","sigma1 [nm]","sigma2 [nm]"' in header
    assert float(first.split(",")[4]) == pytest.approx(rows["fitResults"]["z0"][0], abs=1e-2)
    with h5py.File(shell.cwd / "locs.hdf5") as file:
        assert {"z", "lpz"} <= set(file["locs"].dtype.names)


@pytest.mark.slow
def test_a_measured_psf_travels_with_the_pitches_beside_it(shell: Any, films: dict[str, Array]) -> None:
    folder = shell.home / "data" / "cells"
    widths = [[1.3 * np.sqrt(1 + ((z - c) / 400) ** 2) for c in (250, -250)] for z in Z]
    volume = np.array([spot(16, 16, *pair)[4:29, 4:29] for pair in widths], np.float32)
    tifffile.imwrite(folder / "psf.tif", volume)
    (folder / "psf.json").write_text(json.dumps({"pixel_nm": 100, "step_nm": 50}), encoding="utf-8")

    job = shell.json(
        "localise", folder / "astigmatic.tif", "-n", 1, "--fit", "spline", "--set", "psf=psf.tif"
    )
    refused = shell.run(
        "localise", folder / "astigmatic.tif", "-n", 1, "--fit", "spline", "--set", "psf=curves.json"
    )

    analysis = {"fit": "spline", "psf": MeasuredPsf(volume, 100.0, 50.0, 12.0)}
    rows = rows_of(job["output"])
    assert rows.tobytes() == analyse(films["astigmatic"], analysis, METADATA).rows.tobytes()
    assert len(rows) >= 20
    assert refused.returncode != 0
    assert "psf" in refused.stderr


@pytest.mark.slow
def test_a_calibration_that_lies_elsewhere_is_found_and_its_job_can_be_repeated(
    shell: Any, films: dict[str, Array]
) -> None:
    series = shell.home / "data" / "cells" / "astigmatic.tif"
    (shell.cwd / "calib").mkdir()
    (series.parent / "curves.json").rename(shell.cwd / "calib" / "mine.json")

    first = shell.json(
        "localise", series, "-n", 1, "--fit", "astigmatic", "--set", "sigma_curves=calib/mine.json"
    )
    again = shell.json("localise", series, "-n", 1, "--like", first["output"])

    analysis = {"fit": "astigmatic", "sigma_curves": CURVES}
    expected = analyse(films["astigmatic"], analysis, METADATA).rows.tobytes()
    assert rows_of(first["output"]).tobytes() == expected
    assert rows_of(again["output"]).tobytes() == expected
