"""ThunderSTORM's table, the one that nearly every program for localisations reads.

Its conventions differ from ours: frames count from 1, and the origin is the outer corner of the first pixel, half a
pixel from its centre. Numbers are fixed-point (Java reads 1e-05 as 1), and nothing is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cluster.results.drift_table import Correct, corrected
from cluster.results.h5r import Advance, Reader
from cluster.results.publish import writing
from cluster.results.quantities import Calibration, Quantities, converged, quantities

Origin = Literal["corner", "centre"]

_HEADER = (
    '"id","frame","x [nm]","y [nm]","sigma [nm]","intensity [photon]","offset [photon]","bkgstd [photon]",'
    '"uncertainty_xy [nm]"\n'
)
_LINE = "%d,%d,%.3f,%.3f,%.3f,%.3f,%.4f,%.4f,%.3f\n"


def csv_lines(
    blocks: Iterable[npt.NDArray[np.void]], metadata: Mapping[str, Any], *, origin: Origin = "corner"
) -> Iterator[str]:
    """Yield the table as text, a block of rows at a time.

    Rows that did not converge, or that lack a number, are left out: the format has no way to say so.

    Parameters
    ----------
    blocks
        Localisations.
    metadata
        Metadata by PYME's keys.
    origin
        "corner" as ThunderSTORM has it, or "centre": no half pixel is added, as some programs write it.

    Raises
    ------
    Invalid
        If the metadata lack the pixel size or the camera's gain.
    """
    calibration = Calibration.from_metadata(metadata)
    yield _HEADER
    written = 0
    for block in blocks:
        some = quantities(block[converged(block)], calibration)
        some = some.select(some.finite)
        yield "".join([_LINE % line for line in _lines(some, calibration, origin, written)])
        written += len(some.frame)


def write_csv(
    source: Path,
    out: Path,
    *,
    origin: Origin = "corner",
    replace: bool = False,
    advance: Advance | None = None,
    correct: Correct | None = None,
) -> None:
    """Write the localisations of a results file, corrected if asked; `advance` hears how many rows of how many are written.

    Raises
    ------
    Invalid
        As for `csv_lines`, or if the source is not a results file.
    Conflict
        If the file exists and is not to be replaced.
    OutOfSpace
        If the disk is full.
    """
    with (
        Reader(source) as reader,
        writing(out, replace=replace) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.writelines(csv_lines(corrected(reader, correct, advance), reader.metadata(), origin=origin))


def _lines(
    some: Quantities, calibration: Calibration, origin: Origin, written: int
) -> Iterator[tuple[int | float, ...]]:
    half_x, half_y = calibration.pixel_x_nm / 2, calibration.pixel_y_nm / 2
    if origin == "centre":
        half_x = half_y = 0.0
    columns = (
        np.arange(written + 1, written + 1 + len(some.frame)),
        some.frame + 1,
        some.x_nm + half_x,
        some.y_nm + half_y,
        some.sigma_nm,
        some.photons,
        some.background,
        some.background_std,
        np.sqrt((some.x_err_nm**2 + some.y_err_nm**2) / 2),
    )
    return zip(*(column.tolist() for column in columns), strict=True)
