"""ThunderSTORM's table, the one that nearly every program for localisations reads.

A column that the fit does not know is left out; z and the signals of several channels are added where it does.
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
from cluster.results.left_out import LeftOut
from cluster.results.publish import writing
from cluster.results.quantities import Calibration, Quantities

Origin = Literal["corner", "centre"]
_EMPTY = '"id","frame","x [nm]","y [nm]","intensity [photon]"\n'


def csv_lines(
    blocks: Iterable[npt.NDArray[np.void]],
    metadata: Mapping[str, Any],
    *,
    origin: Origin = "corner",
    left_out: LeftOut | None = None,
) -> Iterator[str]:
    """Yield the table as text, a block of rows at a time.

    Rows that did not converge, or that lack a number, are left out: the format has no way to say so.

    Parameters
    ----------
    blocks
        Localisations.
    metadata
        Metadata by PYME's keys.
    left_out
        Counts what is written and what is not.
    origin
        "corner" as ThunderSTORM has it, or "centre": no half pixel is added, as some programs write it.

    Raises
    ------
    Invalid
        If the metadata lack the pixel size or the camera's gain.
    """
    calibration = Calibration.from_metadata(metadata)
    left_out = LeftOut() if left_out is None else left_out
    begun = False
    for block in blocks:
        before = left_out.written
        columns = _columns(left_out.good(block, calibration), calibration, origin, before)
        if not begun:
            yield ",".join(f'"{name}"' for name in columns) + "\n"
            begun = True
        line = ",".join(form for form, _ in columns.values()) + "\n"
        values = (column.tolist() for _, column in columns.values())
        yield "".join([line % row for row in zip(*values, strict=True)])
    if not begun:
        yield _EMPTY


def write_csv(
    source: Path,
    out: Path,
    *,
    origin: Origin = "corner",
    replace: bool = False,
    advance: Advance | None = None,
    correct: Correct | None = None,
) -> LeftOut:
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
    left_out = LeftOut()
    with (
        Reader(source) as reader,
        writing(out, replace=replace) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        blocks = corrected(reader, correct, advance)
        file.writelines(csv_lines(blocks, reader.metadata(), origin=origin, left_out=left_out))
    return left_out


def _columns(
    some: Quantities, calibration: Calibration, origin: Origin, written: int
) -> dict[str, tuple[str, npt.NDArray[Any]]]:
    """Title, format and values of the columns that the fit knows."""
    half_x, half_y = calibration.pixel_x_nm / 2, calibration.pixel_y_nm / 2
    if origin == "centre":
        half_x = half_y = 0.0
    uncertainty = None
    if some.x_err_nm is not None and some.y_err_nm is not None:
        uncertainty = np.sqrt((some.x_err_nm**2 + some.y_err_nm**2) / 2)
    is_round = some.sigma_x_nm is some.sigma_y_nm
    asked: dict[str, tuple[str, npt.NDArray[Any] | None]] = {
        "id": ("%d", np.arange(written + 1, written + 1 + len(some.frame))),
        "frame": ("%d", some.frame + 1),
        "x [nm]": ("%.3f", some.x_nm + half_x),
        "y [nm]": ("%.3f", some.y_nm + half_y),
        "z [nm]": ("%.3f", some.z_nm),
        "sigma [nm]": ("%.3f", some.sigma_nm if is_round else None),
        "sigma1 [nm]": ("%.3f", None if is_round else some.sigma_x_nm),
        "sigma2 [nm]": ("%.3f", None if is_round else some.sigma_y_nm),
        "intensity [photon]": ("%.3f", some.photons),
        "offset [photon]": ("%.4f", some.background),
        "bkgstd [photon]": ("%.4f", some.background_std),
        "uncertainty_xy [nm]": ("%.3f", uncertainty),
        "uncertainty_z [nm]": ("%.3f", None if some.z_err_nm is None else np.nan_to_num(some.z_err_nm)),
    }
    asked |= {title: ("%.4f", np.nan_to_num(values)) for title, values in some.extra.items()}
    return {title: (form, values) for title, (form, values) in asked.items() if values is not None}
