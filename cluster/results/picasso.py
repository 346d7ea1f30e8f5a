"""Picasso's localisations: a table `/locs` in camera pixels, and a YAML file beside it that says of what.

Picasso drops every row with anything negative or not finite in it, so only rows are written that it will keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from cluster.errors import Invalid
from cluster.results.drift_table import Correct, corrected
from cluster.results.h5r import Advance, Reader
from cluster.results.hdf5 import NewFile
from cluster.results.left_out import LeftOut
from cluster.results.publish import writing
from cluster.results.quantities import Calibration, converged, quantities

_COLUMNS = ("x", "y", "photons", "sx", "sy", "bg", "lpx", "lpy", "ellipticity", "net_gradient")
_COLUMNS_3D = ("z", "lpz")


def write_picasso(
    source: Path,
    out: Path,
    *,
    replace: bool = False,
    advance: Advance | None = None,
    correct: Correct | None = None,
) -> LeftOut:
    """Write the localisations of a results file as `.hdf5`, and `.yaml` beside it.

    Raises
    ------
    Invalid
        If the source is not a results file, or its metadata lack the pixel size, the camera's gain or the frame's size.
    Conflict
        If the file exists and is not to be replaced.
    OutOfSpace
        If the disk is full.
    """
    left_out = LeftOut()
    with Reader(source) as reader:
        metadata = reader.metadata()
        calibration = Calibration.from_metadata(metadata)
        height, width = (_side(metadata, key) for key in ("Camera.ROIHeight", "Camera.ROIWidth"))
        file = NewFile(out, if_exists="replace" if replace else "refuse")
        last_frame = -1
        try:
            table = file.table("locs", locs(np.empty(0, reader.dtype), calibration, (height, width)).dtype)
            for block in corrected(reader, correct, advance):
                last_frame = max(last_frame, int(block["tIndex"].max(initial=-1)))
                rows = locs(block, calibration, (height, width))
                file.append(table, rows)
                good = int(converged(block).sum())
                left_out.written += len(rows)
                left_out.not_converged += len(block) - good
                left_out.outside += good - len(rows)
            provenance = reader.provenance()
            frames = last_frame + 1 if provenance is None else len(provenance.ledger.status)
            description = describe(metadata, calibration, (frames, height, width), source.name)
            with writing(out.with_suffix(".yaml"), replace=replace) as temporary:
                temporary.write_text(description, encoding="utf-8")
            file.publish()
        finally:
            file.discard()
    return left_out


def locs(
    rows: npt.NDArray[np.void], calibration: Calibration, frame_shape: tuple[int, int]
) -> npt.NDArray[np.void]:
    """Turn rows into Picasso's, leaving out those that it would drop.

    Raises
    ------
    Invalid
        If the fit knows no errors, without which Picasso does not open a file.
    """
    some = quantities(rows[converged(rows)], calibration)
    if some.x_err_nm is None or some.y_err_nm is None:
        raise Invalid("these localisations have no errors, and Picasso needs them; export .csv instead")
    names = [*_COLUMNS, *(_COLUMNS_3D if some.z_nm is not None else ())]
    table = np.zeros(len(some.frame), np.dtype([("frame", "<u4"), *((name, "<f4") for name in names)]))
    pixel_x, pixel_y = calibration.pixel_x_nm, calibration.pixel_y_nm
    table["frame"] = some.frame
    table["x"], table["y"] = some.x_nm / pixel_x, some.y_nm / pixel_y
    table["photons"] = some.photons
    table["bg"] = 0 if some.background is None else np.maximum(some.background, 0)
    if some.sigma_x_nm is not None and some.sigma_y_nm is not None:
        table["sx"], table["sy"] = some.sigma_x_nm / pixel_x, some.sigma_y_nm / pixel_y
        longer = np.maximum(some.sigma_x_nm, some.sigma_y_nm)
        with np.errstate(invalid="ignore"):  # what is infinite is left out below
            table["ellipticity"] = np.abs(some.sigma_x_nm - some.sigma_y_nm) / longer
    table["lpx"], table["lpy"] = some.x_err_nm / pixel_x, some.y_err_nm / pixel_y
    if some.z_nm is not None:
        table["z"] = some.z_nm
        table["lpz"] = 0 if some.z_err_nm is None else np.nan_to_num(some.z_err_nm)
    kept = (table["x"] < frame_shape[1]) & (table["y"] < frame_shape[0])
    for name in table.dtype.names or ():
        kept &= np.isfinite(table[name]) & ((table[name] >= 0) | (name == "z"))
    return table[kept]


def describe(
    metadata: Mapping[str, Any], calibration: Calibration, shape: tuple[int, int, int], source: str
) -> str:
    """Return the YAML documents: the series, then what was done to it."""
    frames, height, width = shape
    series = {
        "Byte Order": "<",
        "Data Type": "uint16",
        "File": source,
        "Frames": frames,
        "Height": height,
        "Width": width,
        "Pixelsize": round(calibration.pixel_x_nm, 6),
    }
    half_size = metadata.get("Analysis.ROISize")
    fit = {
        "Generated by": "clusterofone",
        "Fit method": str(metadata.get("Analysis.FitModule", "")),
        "Box Size": 2 * int(half_size) + 1 if isinstance(half_size, int | float) else 0,
        "Min. Net Gradient": 0,
        "Pixelsize": round(calibration.pixel_x_nm, 6),
    }
    return yaml.safe_dump_all([series, fit], sort_keys=False, allow_unicode=True)


def _side(metadata: Mapping[str, Any], key: str) -> int:
    value = metadata.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise Invalid(f"the metadata say {key} is {value!r}; Picasso needs the size of the frame", key=key)
    return int(value)
