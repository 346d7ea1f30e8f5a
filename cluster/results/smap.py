"""CSV with the column names of SMAP: xnm, ynm, frame, phot, bg, PSFxnm, locprecnm … which its CSV import takes as they are.

Frames count from 1. Positions are in nm from the centre of the first pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.results.drift_table import Correct, corrected
from cluster.results.h5r import Advance, Reader
from cluster.results.left_out import LeftOut
from cluster.results.publish import writing
from cluster.results.quantities import Calibration, Quantities, quantities


def write_smap_csv(
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
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.writelines(_lines(reader, corrected(reader, correct, advance), left_out))
    return left_out


def _lines(reader: Reader, blocks: Iterator[npt.NDArray[np.void]], left_out: LeftOut) -> Iterator[str]:
    calibration = Calibration.from_metadata(reader.metadata())
    yield ",".join(_columns(quantities(np.empty(0, reader.dtype), calibration))) + "\n"
    for block in blocks:
        columns = _columns(left_out.good(block, calibration))
        line = ",".join(form for form, _ in columns.values()) + "\n"
        values = (column.tolist() for _, column in columns.values())
        yield "".join([line % row for row in zip(*values, strict=True)])


def _columns(some: Quantities) -> dict[str, tuple[str, npt.NDArray[Any]]]:
    """Format and values by SMAP's names."""
    precision = None
    if some.x_err_nm is not None and some.y_err_nm is not None:
        precision = np.sqrt((some.x_err_nm**2 + some.y_err_nm**2) / 2)
    asked: dict[str, tuple[str, npt.NDArray[Any] | None]] = {
        "frame": ("%d", some.frame + 1),
        "xnm": ("%.3f", some.x_nm),
        "ynm": ("%.3f", some.y_nm),
        "znm": ("%.3f", some.z_nm),
        "phot": ("%.3f", some.photons),
        "bg": ("%.4f", some.background),
        "PSFxnm": ("%.3f", some.sigma_x_nm),
        "PSFynm": ("%.3f", some.sigma_y_nm),
        "locprecnm": ("%.3f", precision),
        "locprecznm": ("%.3f", None if some.z_err_nm is None else np.nan_to_num(some.z_err_nm)),
    }
    return {name: (form, values) for name, (form, values) in asked.items() if values is not None}
