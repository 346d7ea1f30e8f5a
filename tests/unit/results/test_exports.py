"""Tables for other programs, with those programs' conventions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tables
import yaml

from cluster.errors import Conflict, Invalid
from cluster.results.csv import csv_lines, write_csv
from cluster.results.h5r import Writer
from cluster.results.picasso import write_picasso
from cluster.results.provenance import Provenance
from cluster.results.quantities import Calibration, quantities
from fitting.localisations import ResultCode

MakeRows = Callable[..., np.ndarray]


@pytest.fixture
def results_file(
    tmp_path: Path, make_rows: MakeRows, make_provenance: Callable[..., Provenance], metadata: dict[str, Any]
) -> Path:
    rows = make_rows(100)
    rows["resultCode"][7] = ResultCode.DEGENERATE
    rows["fitError"]["x0"][8] = np.nan
    rows["fitResults"]["x0"][9] = -20.0
    with Writer(tmp_path / "s.h5r", rows.dtype, metadata | {"Analysis.ROISize": 3}) as writer:
        writer.append(rows)
        return writer.finish(make_provenance())


def test_photons_are_those_pyme_would_work_out(make_rows: MakeRows, metadata: dict[str, Any]) -> None:
    some = quantities(make_rows(1), Calibration.from_metadata(metadata))

    assert some.photons[0] == pytest.approx(2 * math.pi * 100 * 1.3**2 * 0.5)
    assert some.background[0] == 20
    assert some.background_std[0] == pytest.approx(math.sqrt(20 + 1.6**2))


def test_photons_of_an_em_camera_are_before_the_register(
    make_rows: MakeRows, metadata: dict[str, Any]
) -> None:
    em = metadata | {"Camera.TrueEMGain": 50.0, "Camera.NoiseFactor": 1.41}

    some = quantities(make_rows(1), Calibration.from_metadata(em))

    assert some.photons[0] == pytest.approx(2 * math.pi * 100 * 1.3**2 * 0.5 / 50)
    assert some.background_std[0] == pytest.approx(math.sqrt(1.41**2 * 0.4 + (1.6 / 50) ** 2))


def test_a_missing_calibration_key_is_named(metadata: dict[str, Any]) -> None:
    del metadata["Camera.ElectronsPerCount"]

    with pytest.raises(Invalid, match=r"Camera\.ElectronsPerCount"):
        Calibration.from_metadata(metadata)


def test_the_csv_is_thunderstorms(results_file: Path, make_rows: MakeRows, tmp_path: Path) -> None:
    write_csv(results_file, tmp_path / "s.csv")

    header, first, *rest = (tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()
    row = make_rows()[0]
    assert header == (
        '"id","frame","x [nm]","y [nm]","sigma [nm]","intensity [photon]","offset [photon]","bkgstd [photon]",'
        '"uncertainty_xy [nm]"'
    )
    values = [float(cell) for cell in first.split(",")]
    assert values[:2] == [1, 1]
    assert values[2:4] == pytest.approx(
        [row["fitResults"]["x0"] + 50, row["fitResults"]["y0"] + 50], abs=1e-3
    )
    assert values[5:8] == pytest.approx([530.929, 20, math.sqrt(20 + 1.6**2)], abs=1e-3)
    assert len(rest) == 97
    assert [line.split(",")[0] for line in rest] == [str(n) for n in range(2, 99)]


def test_numbers_in_the_csv_are_plain(make_rows: MakeRows, metadata: dict[str, Any]) -> None:
    rows = make_rows(50)
    rows["fitResults"]["x0"] = np.geomspace(1e-6, 1e9, 50)
    rows["fitError"]["x0"] = 1e-7

    body = list(csv_lines([rows[:20], rows[20:]], metadata, origin="centre"))[1:]

    lines = "".join(body).splitlines()
    assert len(lines) == 50
    assert all(re.fullmatch(r"\d+,\d+(,-?\d+\.\d+){7}", line) for line in lines)
    assert float(lines[-1].split(",")[2]) == 1e9


def test_existing_exports_stand(results_file: Path, tmp_path: Path) -> None:
    write_csv(results_file, tmp_path / "s.csv")
    write_picasso(results_file, tmp_path / "s.hdf5")

    with pytest.raises(Conflict):
        write_csv(results_file, tmp_path / "s.csv")
    with pytest.raises(Conflict):
        write_picasso(results_file, tmp_path / "s.hdf5")
    write_csv(results_file, tmp_path / "s.csv", replace=True)
    write_picasso(results_file, tmp_path / "s.hdf5", replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.csv", "s.h5r", "s.hdf5", "s.yaml"]


def test_picasso_gets_pixels_and_rows_it_will_keep(
    results_file: Path, make_rows: MakeRows, tmp_path: Path
) -> None:
    write_picasso(results_file, tmp_path / "s.hdf5")

    with tables.open_file(str(tmp_path / "s.hdf5")) as file:
        locs = file.root.locs[:]
    row = make_rows()[0]
    assert locs.dtype.names[:4] == ("frame", "x", "y", "photons")
    assert locs["frame"].tolist()[:6] == [0, 0, 0, 0, 0, 1]
    assert locs["x"][0] == pytest.approx(row["fitResults"]["x0"] / 100)
    assert locs["lpy"][0] == pytest.approx(row["fitError"]["y0"] / 100)
    assert len(locs) == 97
    assert all(np.isfinite(locs[name]).all() and (locs[name] >= 0).all() for name in locs.dtype.names)


def test_picassos_yaml_says_what_was_localised(results_file: Path, tmp_path: Path) -> None:
    write_picasso(results_file, tmp_path / "s.hdf5")

    series, fit = yaml.safe_load_all((tmp_path / "s.yaml").read_text(encoding="utf-8"))
    assert (series["Width"], series["Height"], series["Frames"], series["Pixelsize"]) == (64, 48, 20, 100.0)
    assert (fit["Generated by"], fit["Box Size"]) == ("clusterofone", 7)


def test_picasso_needs_the_frames_size(
    tmp_path: Path, make_rows: MakeRows, make_provenance: Callable[..., Provenance], metadata: dict[str, Any]
) -> None:
    del metadata["Camera.ROIWidth"]
    with Writer(tmp_path / "s.h5r", make_rows(1).dtype, metadata) as writer:
        source = writer.finish(make_provenance())

    with pytest.raises(Invalid, match=r"Camera\.ROIWidth"):
        write_picasso(source, tmp_path / "s.hdf5")
    assert [path.name for path in tmp_path.iterdir()] == ["s.h5r"]
