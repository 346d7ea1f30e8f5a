"""Parquet: the table for data science, with the unit in each column's name and the job's settings in the file.

Our own conventions: frames from 0, positions in nm from the centre of the first pixel. Unknown numbers are null.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.results.drift_table import Correct, corrected
from cluster.results.h5r import Advance, Reader
from cluster.results.left_out import LeftOut
from cluster.results.publish import writing
from cluster.results.quantities import Calibration, Quantities, converged, quantities, status_of

_NAMES: Final = {
    "frame": "frame", "x_nm": "x_nm", "y_nm": "y_nm", "z_nm": "z_nm", "photons": "photons",
    "background": "background_photons_per_px", "background_std": "background_std_photons_per_px",
    "sigma_nm": "sigma_nm", "sigma_x_nm": "sigma_x_nm", "sigma_y_nm": "sigma_y_nm",
    "x_err_nm": "x_err_nm", "y_err_nm": "y_err_nm", "z_err_nm": "z_err_nm",
}  # fmt: skip


def write_parquet(
    source: Path,
    out: Path,
    *,
    replace: bool = False,
    every_row: bool = False,
    advance: Advance | None = None,
    correct: Correct | None = None,
) -> LeftOut:
    """Write the localisations of a results file; `every_row` keeps fits that did not converge, `result_code` tells.

    Raises
    ------
    Invalid
        If the source is not a results file, or its metadata lack the pixel size or the camera's gain.
    Conflict
        If the file exists and is not to be replaced.
    OutOfSpace
        If the disk is full.
    """
    left_out = LeftOut()
    with Reader(source) as reader, writing(out, replace=replace) as temporary:
        metadata = reader.metadata()
        calibration = Calibration.from_metadata(metadata)
        schema = _table(np.empty(0, reader.dtype), calibration).schema.with_metadata(_notes(reader, metadata))
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for block in corrected(reader, correct, advance):
                kept = np.ones(len(block), bool) if every_row else converged(block)
                left_out.not_converged += int((~kept).sum())
                left_out.written += int(kept.sum())
                writer.write_table(_table(block[kept], calibration).cast(schema))
    return left_out


def _table(rows: npt.NDArray[np.void], calibration: Calibration) -> pa.Table:
    some = quantities(rows, calibration)
    columns: dict[str, pa.Array] = {
        _NAMES[name]: pa.array(values.astype(np.int64 if name == "frame" else np.float32), from_pandas=True)
        for name, values in _ordered(some).items()
    }
    columns |= {
        _plain(name): pa.array(values.astype(np.float32), from_pandas=True)
        for name, values in some.extra.items()
    }
    columns["result_code"] = pa.array(status_of(rows).astype(np.int32))
    return pa.table(columns)


def _ordered(some: Quantities) -> dict[str, npt.NDArray[Any]]:
    """Return the columns that the fit knows, in the order of `_NAMES`; a round PSF has one width."""
    is_round = some.sigma_x_nm is some.sigma_y_nm
    unwanted = {"sigma_x_nm", "sigma_y_nm"} if is_round else {"sigma_nm"}
    known = some.columns
    return {name: known[name] for name in _NAMES if name in known and name not in unwanted}


def _plain(title: str) -> str:
    """Return a title such as "intensity 0 [photon]" as a name: intensity_0_photon."""
    return "_".join("".join(c if c.isalnum() else " " for c in title).split())


def _notes(reader: Reader, metadata: dict[str, Any]) -> dict[str, str]:
    provenance = reader.provenance()
    settings = {} if provenance is None else provenance.settings
    return {
        "software": "clusterofone",
        "conventions": "frames from 0; nm from the centre of the first pixel; photons",
        "settings": json.dumps(settings, default=str),
        "metadata": json.dumps(metadata, default=str),
    }
