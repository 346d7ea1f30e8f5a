"""Parquet, SMAP's CSV and SMLM: every number of the table, in each format's own conventions."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.errors import Conflict, Invalid
from cluster.results.exports import FORMATS, export_for
from cluster.results.h5r import Writer
from cluster.results.provenance import Provenance
from cluster.results.quantities import Calibration, quantities
from fitting.localisations import ResultCode

MakeRows = Callable[..., np.ndarray]


@pytest.fixture
def rows(make_rows: MakeRows) -> np.ndarray:
    rows = make_rows(100)
    rows["resultCode"][7] = ResultCode.DEGENERATE
    rows["fitError"]["x0"][8] = np.nan
    return rows


@pytest.fixture
def source(
    tmp_path: Path, rows: np.ndarray, make_provenance: Callable[..., Provenance], metadata: dict[str, Any]
) -> Path:
    with Writer(tmp_path / "s.h5r", rows.dtype, metadata | {"Analysis.ROISize": 3}) as writer:
        writer.append(rows)
        return writer.finish(make_provenance())


def test_parquet_holds_our_own_conventions_with_units_and_nulls(
    source: Path, rows: np.ndarray, metadata: dict[str, Any], tmp_path: Path
) -> None:
    left_out = FORMATS["parquet"].write(source, tmp_path / "s.parquet", False, None, None)

    table = pq.read_table(tmp_path / "s.parquet")
    some = quantities(np.delete(rows, 7), Calibration.from_metadata(metadata))
    assert left_out.said() == "99 localisations; left out: 1 whose fit did not converge"
    assert table.column("frame").to_pylist() == some.frame.tolist()
    np.testing.assert_allclose(table.column("x_nm").to_numpy(), some.x_nm, rtol=1e-6)
    np.testing.assert_allclose(table.column("photons").to_numpy(), some.photons, rtol=1e-6)
    assert table.column("x_err_nm").null_count == 1
    assert "sigma_nm" in table.column_names
    assert "sigma_x_nm" not in table.column_names
    notes = table.schema.metadata
    assert json.loads(notes[b"metadata"])["voxelsize.x"] == metadata["voxelsize.x"]
    assert b"centre of the first pixel" in notes[b"conventions"]


def test_parquet_can_keep_every_row_and_says_which_converged(
    source: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    FORMATS["parquet-all"].write(source, tmp_path / "s.parquet", False, None, None)

    codes = pq.read_table(tmp_path / "s.parquet").column("result_code").to_pylist()
    assert codes == rows["resultCode"].tolist()


def test_smaps_csv_has_smaps_names_and_nothing_that_is_no_number(
    source: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    left_out = FORMATS["smap"].write(source, tmp_path / "s.csv", False, None, None)

    header, first, *rest = (tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()
    assert header == "frame,xnm,ynm,phot,bg,PSFxnm,PSFynm,locprecnm"
    values = [float(cell) for cell in first.split(",")]
    assert values[0] == rows["tIndex"][0] + 1
    assert values[1] == pytest.approx(rows["fitResults"]["x0"][0], abs=1e-3)
    assert len(rest) == 97
    assert (left_out.written, left_out.not_converged, left_out.not_a_number) == (98, 1, 1)
    assert not any(word in " ".join(rest) for word in ("nan", "inf", "e-", "e+"))


def test_smlm_is_read_back_by_what_its_manifest_says(source: Path, rows: np.ndarray, tmp_path: Path) -> None:
    FORMATS["smlm"].write(source, tmp_path / "s.smlm", False, None, None)

    with zipfile.ZipFile(tmp_path / "s.smlm") as archive:
        manifest = json.loads(archive.read("manifest.json"))
        (file,) = manifest["files"]
        layout = manifest["formats"][file["format"]]
        dtype = np.dtype(
            [
                (name, np.dtype(kind).newbyteorder("<"))
                for name, kind in zip(layout["headers"], layout["dtype"], strict=True)
            ]
        )
        table = np.frombuffer(archive.read(file["name"]), dtype)
    good = np.delete(rows, [7, 8])
    assert manifest["format_version"] == "0.2"
    assert len(table) == file["rows"] == len(good)
    assert table["frame"].tolist() == (good["tIndex"] + 1).tolist()
    np.testing.assert_allclose(table["x"], good["fitResults"]["x0"], rtol=1e-6)
    assert file["min"]["x"] == pytest.approx(table["x"].min())
    assert file["max"]["y"] == pytest.approx(table["y"].max())
    assert dict(zip(layout["headers"], layout["units"], strict=True))["intensity"] == "photon"


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_writes_an_empty_table_and_leaves_what_exists_alone(
    name: str,
    tmp_path: Path,
    rows: np.ndarray,
    make_provenance: Callable[..., Provenance],
    metadata: dict[str, Any],
) -> None:
    with Writer(tmp_path / "e.h5r", rows.dtype, metadata | {"Analysis.ROISize": 3}) as writer:
        empty = writer.finish(make_provenance())
    out = tmp_path / f"out{FORMATS[name].suffix}"

    left_out = FORMATS[name].write(empty, out, False, None, None)

    assert left_out.said() == "0 localisations"
    assert out.stat().st_size > 0
    with pytest.raises(Conflict, match="exists already"):
        FORMATS[name].write(empty, out, False, None, None)
    FORMATS[name].write(empty, out, True, None, None)


def test_the_ending_says_the_format_unless_it_is_named() -> None:
    assert export_for(Path("a.CSV")) is FORMATS["thunderstorm"]
    assert export_for(Path("a.csv"), "smap") is FORMATS["smap"]
    with pytest.raises(Invalid, match=r"must end in \.csv, \.hdf5"):
        export_for(Path("a.xlsx"))
    with pytest.raises(Invalid, match=r"a file of the format smap ends in \.csv"):
        export_for(Path("a.hdf5"), "smap")
    with pytest.raises(Invalid, match="there is no format 'excel'"):
        export_for(Path("a.csv"), "excel")
