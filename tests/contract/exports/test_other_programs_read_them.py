"""Our tables, read back by the programs they are for, each in an environment of its own.

python -m venv picasso && picasso/bin/pip install picassosr        → CLUSTEROFONE_PICASSO_PYTHON=picasso/bin/python
python -m venv smappy  && smappy/bin/pip install smappy-smlm       → CLUSTEROFONE_SMAPPY_PYTHON=smappy/bin/python
PYME, whose PYMEVisualize opens the results themselves: benchmarks/README.md says how to build it without a screen
                                                                   → CLUSTEROFONE_PYME_PYTHON=pyme/bin/python
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.results.exports import FORMATS
from cluster.results.h5r import Writer
from cluster.results.ledger import Ledger
from cluster.results.metadata_tree import merged_metadata
from cluster.results.provenance import Provenance
from cluster.results.quantities import Calibration, quantities
from fitting.fits import FITS, resolve, row_dtype
from fitting.localisations import LAT_GAUSS_DTYPE, ResultCode

PIXEL_NM, HEIGHT, WIDTH, FRAMES, ROWS = 107.0, 60, 80, 400, 500
METADATA: dict[str, Any] = {
    "voxelsize.x": PIXEL_NM / 1000,
    "voxelsize.y": PIXEL_NM / 1000,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ADOffset": 100.0,
    "Camera.ReadNoise": 1.6,
    "Camera.ROIHeight": HEIGHT,
    "Camera.ROIWidth": WIDTH,
    "Analysis.ROISize": 3,
}
READ_PICASSO = """
import json, sys
from picasso import io, lib
locs, info = io.load_locs(sys.argv[1])
locs = lib.ensure_sanity(locs, info)
print(json.dumps({name: [float(v) for v in locs[name]] for name in ("frame", "x", "y", "photons", "lpx", "lpy", "sx", "bg")}
                 | {"Width": info[0]["Width"], "Pixelsize": info[0]["Pixelsize"], "Frames": info[0]["Frames"]}))
"""
READ_SMAPPY = """
import json, sys
from smappy.session import read_localizations
locs, info = read_localizations(sys.argv[1])
names = ("frame", "x_nm", "y_nm", "photons", "xy_err_nm", "sigma_nm", "background")
print(json.dumps({name: [float(v) for v in locs[name]] for name in names}))
"""
READ_PYME = """
import json, sys
from PYME.LMVis.pipeline import Pipeline
pipeline = Pipeline(sys.argv[1])
rows = pipeline.selectedDataSource  # before the filter that it begins with
print(json.dumps({name: [float(v) for v in rows[name]] for name in sys.argv[2:] if name in rows.keys()}
                 | {"fit": pipeline.mdh["Analysis.FitModule"]}))
"""


def environment(name: str) -> str:
    found = os.environ.get(name)
    if not found:
        pytest.skip(
            f"{name} does not name the Python of that program (the head of this file says how to make one)"
        )
    return str(Path(found).absolute())


def read_by(python: str, script: str, path: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [python, "-c", script, str(path), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(8)
    rows = np.zeros(ROWS, LAT_GAUSS_DTYPE)
    rows["tIndex"] = np.sort(rng.integers(0, FRAMES, ROWS))
    rows["fitResults"]["A"] = rng.uniform(50, 500, ROWS)
    rows["fitResults"]["x0"] = rng.uniform(0, (WIDTH - 1) * PIXEL_NM, ROWS)
    rows["fitResults"]["y0"] = rng.uniform(0, (HEIGHT - 1) * PIXEL_NM, ROWS)
    rows["fitResults"]["sigma"] = rng.uniform(100, 160, ROWS)
    rows["fitResults"]["background"] = rng.uniform(5, 30, ROWS)
    rows["fitError"]["x0"], rows["fitError"]["y0"] = rng.uniform(3, 20, (2, ROWS))
    rows["resultCode"] = ResultCode.CONVERGED
    rows["resultCode"][::50] = ResultCode.DEGENERATE
    return rows


@pytest.fixture(scope="module")
def source(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "series.h5r"
    ledger = Ledger.empty(FRAMES)
    ledger.status[:] = 1
    provenance = Provenance(settings={}, metadata={}, versions={}, input={}, job={}, ledger=ledger)
    with Writer(path, rows.dtype, METADATA) as writer:
        writer.append(rows)
        return writer.finish(provenance)


@pytest.fixture(scope="module")
def good(rows: np.ndarray) -> Any:
    return quantities(rows[rows["resultCode"] == ResultCode.CONVERGED], Calibration.from_metadata(METADATA))


def test_picasso_reads_every_row_in_its_own_pixels(source: Path, good: Any, tmp_path: Path) -> None:
    python = environment("CLUSTEROFONE_PICASSO_PYTHON")
    FORMATS["picasso"].write(source, tmp_path / "series_locs.hdf5", False, None, None)

    read = read_by(python, READ_PICASSO, tmp_path / "series_locs.hdf5")

    assert read["frame"] == good.frame.tolist()  # from 0, as ours
    np.testing.assert_allclose(
        read["x"], good.x_nm / PIXEL_NM, rtol=1e-5
    )  # the centre of the first pixel is 0
    np.testing.assert_allclose(read["y"], good.y_nm / PIXEL_NM, rtol=1e-5)
    np.testing.assert_allclose(read["photons"], good.photons, rtol=1e-5)
    np.testing.assert_allclose(read["lpx"], good.x_err_nm / PIXEL_NM, rtol=1e-5)
    np.testing.assert_allclose(read["sx"], good.sigma_nm / PIXEL_NM, rtol=1e-5)
    np.testing.assert_allclose(read["bg"], good.background, rtol=1e-5)
    assert (read["Width"], read["Pixelsize"], read["Frames"]) == (WIDTH, PIXEL_NM, FRAMES)


@pytest.mark.parametrize(("name", "corner_nm"), [("thunderstorm", PIXEL_NM / 2), ("smap", 0.0)])
def test_smappy_reads_every_row_of_both_csvs(
    source: Path, good: Any, tmp_path: Path, name: str, corner_nm: float
) -> None:
    python = environment("CLUSTEROFONE_SMAPPY_PYTHON")
    FORMATS[name].write(source, tmp_path / "series.csv", False, None, None)

    read = read_by(python, READ_SMAPPY, tmp_path / "series.csv")

    precision = np.sqrt((good.x_err_nm**2 + good.y_err_nm**2) / 2)
    assert read["frame"] == (good.frame + 1).tolist()
    np.testing.assert_allclose(read["x_nm"], good.x_nm + corner_nm, atol=2e-3)
    np.testing.assert_allclose(read["y_nm"], good.y_nm + corner_nm, atol=2e-3)
    np.testing.assert_allclose(read["photons"], good.photons, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(read["xy_err_nm"], precision, atol=1e-3)
    np.testing.assert_allclose(read["sigma_nm"], good.sigma_nm, atol=1e-3)
    np.testing.assert_allclose(read["background"], good.background, atol=1e-3)


@pytest.mark.parametrize("name", FITS)
def test_pyme_visualise_opens_the_results_of_every_fit(name: str, tmp_path: Path) -> None:
    """By the pipeline behind its window. The names of our own fits mean nothing to it, and need not."""
    python = environment("CLUSTEROFONE_PYME_PYTHON")
    fit = FITS[name]
    given: dict[str, Any] = {"fit": name, **dict.fromkeys(fit.needs, "psf.tif")}
    settings = resolve(given | ({} if "sigma_curves" in fit.unused else {"sigma_curves": "z.json"}), METADATA)
    rows = np.zeros(60, row_dtype(settings))
    rows["tIndex"] = np.arange(60) // 3
    rng = np.random.default_rng(4)
    for column in rows["fitResults"].dtype.names or ():
        low, high = (
            (110, 150) if column.startswith("sig") else (100, 4000)
        )  # what it shows without being asked
        rows["fitResults"][column] = rng.uniform(low, high, 60)
    if "fitError" in (rows.dtype.names or ()):
        for column in rows["fitError"].dtype.names or ():
            rows["fitError"][column] = rng.uniform(2, 20, 60)
    if "resultCode" in (rows.dtype.names or ()):
        rows["resultCode"] = ResultCode.CONVERGED
    path = tmp_path / "series.h5r"
    with Writer(path, rows.dtype, merged_metadata(METADATA, settings, (HEIGHT, WIDTH))) as writer:
        writer.append(rows)
        writer.finish(
            Provenance(settings={}, metadata={}, versions={}, input={}, job={}, ledger=Ledger.empty(FRAMES))
        )

    found = read_by(python, READ_PYME, path, "t", "x", "y", "error_x")

    assert found["fit"] == name
    if name == "SplitterShiftEstFR":  # it keeps those whose shifts look like each other
        rows = rows[np.isin(rows["fitResults"]["x0"], np.float32(found["x"]))]
        assert len(rows) > 0
    assert found["t"] == rows["tIndex"].tolist()
    np.testing.assert_allclose(found["x"], rows["fitResults"]["x0"], rtol=1e-6)
    np.testing.assert_allclose(found["y"], rows["fitResults"]["y0"], rtol=1e-6)
    if "fitError" in (rows.dtype.names or ()):
        np.testing.assert_allclose(found["error_x"], rows["fitError"]["x0"], rtol=1e-6)
