"""`.smlm`: a ZIP archive of `manifest.json` and a binary table, as ANNA-PALM and ShareLoc read it.

Source: the specification 0.2 of the format (github.com/imodpasteur/smlm-file-format). Rows lie one after the other,
little-endian, each column of the type that the manifest says.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from cluster.results.drift_table import Correct, corrected
from cluster.results.h5r import Advance, Reader
from cluster.results.left_out import LeftOut
from cluster.results.publish import writing
from cluster.results.quantities import Calibration, Quantities, quantities

_FORMAT: Final = "smlm-table(binary)"
_TABLE: Final = "table.bin"
_UNITS: Final = {"frame": "frame", "intensity": "photon", "background": "photon", "width": "nm"}


def write_smlm(
    source: Path,
    out: Path,
    *,
    replace: bool = False,
    advance: Advance | None = None,
    correct: Correct | None = None,
) -> LeftOut:
    """Write the localisations of a results file; raises as `write_parquet`."""
    left_out = LeftOut()
    with (
        Reader(source) as reader,
        writing(out, replace=replace) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        calibration = Calibration.from_metadata(reader.metadata())
        dtype = _rows(quantities(np.empty(0, reader.dtype), calibration)).dtype
        span = _Span(dtype)
        with archive.open(_TABLE, "w", force_zip64=True) as table:
            for block in corrected(reader, correct, advance):
                _append(table, block, calibration, span, left_out)
        archive.writestr(
            "manifest.json", json.dumps(_manifest(dtype, left_out.written, span, source), indent=1)
        )
    return left_out


class _Span:
    """The least and the largest value of each column, which readers use to lay out their view."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        names = dtype.names or ()
        self.low = dict.fromkeys(names, 0.0)
        self.high = dict.fromkeys(names, 0.0)
        self._begun = False

    def note(self, rows: npt.NDArray[np.void]) -> None:
        for name in self.low if len(rows) else ():
            low, high = float(rows[name].min()), float(rows[name].max())
            self.low[name] = min(low, self.low[name]) if self._begun else low
            self.high[name] = max(high, self.high[name]) if self._begun else high
        self._begun = self._begun or len(rows) > 0


def _append(
    table: IO[bytes],
    block: npt.NDArray[np.void],
    calibration: Calibration,
    span: _Span,
    left_out: LeftOut,
) -> None:
    rows = _rows(left_out.good(block, calibration))
    span.note(rows)
    table.write(rows.tobytes())


def _rows(some: Quantities) -> npt.NDArray[np.void]:
    columns: dict[str, npt.NDArray[Any] | None] = {
        "x": some.x_nm,
        "y": some.y_nm,
        "z": some.z_nm,
        "intensity": some.photons,
        "background": some.background,
        "width": some.sigma_nm,
        "x_precision": some.x_err_nm,
        "y_precision": some.y_err_nm,
        "z_precision": None if some.z_err_nm is None else np.nan_to_num(some.z_err_nm),
    }
    known = {name: values for name, values in columns.items() if values is not None}
    rows = np.zeros(len(some.frame), np.dtype([("frame", "<u4"), *((name, "<f4") for name in known)]))
    rows["frame"] = some.frame + 1
    for name, values in known.items():
        rows[name] = values
    return rows


def _manifest(dtype: np.dtype[np.void], rows: int, span: _Span, source: Path) -> dict[str, Any]:
    names = list(dtype.names or ())
    layout = {
        "name": _FORMAT,
        "type": "table",
        "mode": "binary",
        "extension": ".bin",
        "columns": len(names),
        "headers": names,
        "dtype": [dtype[name].name for name in names],
        "shape": [1] * len(names),
        "units": [_UNITS.get(name, "nm") for name in names],
        "description": "localisations: frames from 1, nm from the centre of the first pixel",
    }
    table = {
        "name": _TABLE,
        "type": "table",
        "format": _FORMAT,
        "channel": "default",
        "rows": rows,
        "offset": {},
        "min": span.low,
        "max": span.high,
    }
    return {
        "format_version": "0.2",
        "formats": {_FORMAT: layout},
        "files": [table],
        "name": source.stem,
        "description": "written by clusterofone",
        "tags": [],
        "thumbnail": "",
        "sample": "",
        "labeling": "",
        "date": "",
    }
