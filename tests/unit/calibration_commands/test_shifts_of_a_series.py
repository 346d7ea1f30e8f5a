"""`clusterofone shifts` on a series of beads: from frames to a field, and the field in the fit of two colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import typer
from scipy.special import erf
from typer.testing import CliRunner

from cluster.commands import shifts
from fitting import analyse
from fitting.shift_field import ShiftField

Array = np.ndarray[Any, Any]
WIDTH, HEIGHT, PIXEL_NM, SIGMA_PX = 160, 80, 100.0, 1.3
METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 100.0,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ReadNoise": 1.6,
}


def shift_nm(x_nm: Any, y_nm: Any) -> tuple[Any, Any]:
    u, v = x_nm / 8000 - 1, y_nm / 4000 - 1
    return 150 + 60 * u - 20 * v + 25 * u**3, -80 + 15 * u + 50 * v - 20 * u**2 * v


def spot(x: float, y: float) -> Array:
    shares = [
        np.diff(0.5 * erf((np.arange(n + 1) - 0.5 - c) / (np.sqrt(2) * SIGMA_PX)))
        for n, c in ((2 * HEIGHT, y), (WIDTH, x))
    ]
    return np.outer(*shares)


def beads(frames: int, seed: int) -> Array:
    """Channel 0 above, channel 1 below and upside down; x in channel 1 is x - dx."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[8 : HEIGHT - 8 : 5j, 8 : WIDTH - 8 : 9j]
    series = []
    for _ in range(frames):
        expected = np.full((2 * HEIGHT, WIDTH), 20.0)
        jitter = rng.uniform(-0.4, 0.4, (2, x.size))
        for px, py in zip(x.ravel() + jitter[0], y.ravel() + jitter[1], strict=True):
            dx, dy = shift_nm(px * PIXEL_NM, py * PIXEL_NM)
            expected += 5000 * spot(px, py)
            expected += 5000 * spot(px - dx / PIXEL_NM, 2 * HEIGHT - 1 - (py - dy / PIXEL_NM))
        electrons = rng.poisson(expected) + rng.normal(0, 1.6, expected.shape)
        series.append(np.rint(100 + 2 * electrons))
    return np.array(series, np.uint16)


def run(*arguments: object) -> Any:
    app = typer.Typer()
    shifts.register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("beads") / "beads.tif"
    tifffile.imwrite(path, beads(6, 0), photometric="minisblack")
    path.with_suffix(".json").write_text(json.dumps(METADATA))
    return path


@pytest.mark.statistical
@pytest.mark.parametrize("model", ["cubic", "spline"])
def test_a_field_from_a_series_is_the_splitters(series: Path, model: str) -> None:
    output = series.with_name(f"{model}.json")

    result = run(series, "--model", model, "-o", output, "--json")

    assert result.exception is None, (result.exception, result.output)
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["beads"] == 45  # each seen in every frame
    field = ShiftField.from_dict(json.loads(output.read_text(encoding="utf-8")))
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(1000, 15_000, 9), np.linspace(1000, 7000, 5)))
    off = np.stack(field.at(x, y)) - np.stack(shift_nm(x, y))
    # medians of six fits of 3.5 nm; a cubic has ten coefficients, a spline several times as many that it smooths
    error = 1.25 * 3.5 * np.sqrt({"cubic": 10, "spline": 30}[model] / (6 * 45))
    assert np.sqrt((off**2).mean()) < 1.5 * error
    assert output.with_suffix(".png").exists()

    rows = analyse(
        beads(3, 1), {"fit": "SplitterFitFNR", "background": None, "shifts": field.to_dict()}, METADATA
    ).rows
    good = rows[rows["resultCode"] == 1]
    assert len(good) == 3 * 45
    # equal light in both channels, and one molecule explains both images
    assert np.median(good["nchi2"]) == pytest.approx(1, abs=0.05)


def test_wrong_settings_and_missing_metadata_are_named(series: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.tif"
    bare.write_bytes(series.read_bytes())

    missing = run(bare, "-o", tmp_path / "s.json")
    wrong = run(series, "-o", tmp_path / "s.json", "--set", "treshold=2")
    other = run(series, "-o", tmp_path / "s.json", "--set", "fit=LatGaussFitFR")

    assert "Camera.ElectronsPerCount" in str(missing.exception)
    assert "threshold" in str(wrong.exception)
    assert "SplitterShiftEstFR" in str(other.exception)
    assert not list(tmp_path.glob("s.*"))
