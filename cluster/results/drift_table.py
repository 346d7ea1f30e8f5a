"""A drift curve as a table, one row a frame, and results with the drift taken off."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cluster.errors import Invalid, NotFound
from cluster.results.h5r import Advance, Reader, Writer
from cluster.results.provenance import Provenance, software_versions
from cluster.results.publish import IfExists, writing
from fitting.still_rows import without_drift

Rows = npt.NDArray[np.void]
Correct = Callable[[Rows], Rows]

COLUMNS: Final = ("frame", "x_nm", "y_nm", "x_error_nm", "y_error_nm", "markers")
CORRECTED: Final = "Drift.Corrected"
"""The metadata key of results whose positions have had the drift taken off."""
_MOST_BYTES: Final = 1 << 30


def write_drift(path: Path, columns: dict[str, npt.NDArray[Any]], *, replace: bool = False) -> None:
    """Write a drift curve as CSV, nm; `columns` are those of `COLUMNS`.

    Raises
    ------
    Conflict
        If the file exists and is not to be replaced.
    """
    with (
        writing(path, replace=replace) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.write(",".join(COLUMNS) + "\n")
        values = [columns[name].tolist() for name in COLUMNS]
        file.writelines(
            f"{frame:d},{x:.4f},{y:.4f},{ex:.4f},{ey:.4f},{markers:d}\n"
            for frame, x, y, ex, ey, markers in zip(*values, strict=True)
        )


def read_drift(path: Path) -> Correct:
    """Read a drift curve; what comes back takes it off rows.

    Raises
    ------
    NotFound, Invalid
        If there is no such file, or it is no drift curve.
    """
    if not path.is_file():
        raise NotFound(f"{path}: no such file", path=str(path))
    if path.stat().st_size > _MOST_BYTES:
        raise Invalid(f"{path} is too large to be a drift curve")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = [[float(row[name]) for name in ("frame", "x_nm", "y_nm")] for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(f"{path} is no drift curve; its columns are {', '.join(COLUMNS)}") from error
    curve = np.array(table, np.float64).reshape(-1, 3).T
    if not curve.size or not np.isfinite(curve).all() or (np.diff(curve[0]) <= 0).any():
        raise Invalid(f"{path} is no drift curve: frames must rise, and every value be finite")
    return lambda rows: without_drift(rows, *(np.interp(rows["tIndex"], curve[0], curve[k]) for k in (1, 2)))


def corrected(reader: Reader, correct: Correct | None, advance: Advance | None = None) -> Iterator[Rows]:
    """Yield the localisations of results, corrected if there is a correction.

    Raises
    ------
    Invalid
        If they have been corrected before.
    """
    if correct is None:
        yield from reader.blocks(advance=advance)
        return
    check_uncorrected(reader)
    for block in reader.blocks(advance=advance):
        yield correct(block)


def check_uncorrected(reader: Reader) -> None:
    """Refuse results that have had their drift taken off; raises `Invalid`."""
    if reader.metadata().get(CORRECTED):
        raise Invalid(f"{reader.path}: the drift has been taken off these results already")


def write_corrected(
    source: Path,
    out: Path,
    correct: Correct,
    curve: Path,
    *,
    replace: bool = False,
    advance: Advance | None = None,
) -> None:
    """Write results anew with the drift taken off; fits of markers, events and provenance are kept as they were.

    Raises
    ------
    Invalid
        If the source is no results file, or was corrected before.
    Conflict
        If the file exists and is not to be replaced.
    """
    with Reader(source) as reader:
        check_uncorrected(reader)
        metadata = reader.metadata() | {
            CORRECTED: True,
            "Drift.Curve": curve.name,
            "Drift.Source": source.name,
        }
        if_exists: IfExists = "replace" if replace else "refuse"
        with Writer(
            out, reader.dtype, metadata, events=reader.table("Events"), if_exists=if_exists
        ) as writer:
            for block in corrected(reader, correct, advance):
                writer.append(block)
            markers = reader.table("DriftResults")
            if markers is not None:
                writer.append_fiducials(markers)
            writer.finish(_with_drift(reader.provenance(), source, curve))


def _with_drift(provenance: Provenance | None, source: Path, curve: Path) -> Provenance:
    said = {"source": source.name, "curve": curve.name, "versions": software_versions()}
    if provenance is None:  # results of PYME's
        return Provenance({}, {}, software_versions(), {"path": source.name}, {"drift": said})
    return replaced(provenance, job={**provenance.job, "drift": said})
