"""Calibrations as files: a PSF as a TIFF that ImageJ opens, with what it needs to be used beside it.

`PSF.tif` is a stack of float32 planes; `PSF.json` says pixel size, step, focus plane and channels. What a file may say, and what it means, is
in `cluster.job_calibrations`, for jobs read it too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cluster.errors import Invalid, NotFound
from cluster.job_calibrations import (
    MOST_BYTES,
    check_kind,
    check_suffix,
    measured_psf,
    parse,
    sidecar_of,
    stack_scale,
)
from cluster.results.publish import writing
from fitting.calibrated import MeasuredPsf, SigmaCurves
from fitting.errors import InvalidSettings

PSF_FORMAT: Final = "clusterofone measured PSF"
CURVES_FORMAT: Final = "clusterofone width curves"

_TIFF: Final = (".tif", ".tiff")


def write_psf(path: Path, psf: MeasuredPsf, provenance: Mapping[str, Any], *, replace: bool = False) -> None:
    """Write a PSF and its sidecar; each file appears whole or not at all.

    Raises
    ------
    Invalid
        If the name is not a TIFF's, or the folder cannot be written.
    Conflict
        If a file exists and is not to be replaced.
    """
    import tifffile

    if path.suffix.lower() not in _TIFF:
        raise Invalid(f"{path.name}: a PSF is written as .tif")
    facts = {
        "format": PSF_FORMAT,
        "version": 1,
        "pixel_nm": psf.pixel_nm,
        "step_nm": psf.step_nm,
        "focus_plane": psf.focus_plane,
        "channels": psf.channels,
        "provenance": dict(provenance),
    }
    per_um = 1000 / psf.pixel_nm
    notes = {"axes": "ZYX", "spacing": psf.step_nm / 1000, "unit": "um"}
    with writing(path, replace=replace) as temporary:
        tifffile.imwrite(temporary, psf.volume, imagej=True, resolution=(per_um, per_um), metadata=notes)
    write_json(sidecar_of(path), facts, replace=replace)


def write_curves(path: Path, curves: SigmaCurves, facts: Mapping[str, Any], *, replace: bool = False) -> None:
    """Write width curves: z_nm, sigma_x_nm, sigma_y_nm and what else is known of them."""
    write_json(path, {"format": CURVES_FORMAT, "version": 1, **curves.to_dict(), **facts}, replace=replace)


def write_json(path: Path, value: Mapping[str, Any], *, replace: bool = False) -> None:
    """Write an object as JSON; the file appears whole or not at all."""
    text = json.dumps(dict(value), indent=1, allow_nan=False) + "\n"
    with writing(path, replace=replace) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_curves(path: Path) -> SigmaCurves:
    """Read width curves.

    Raises
    ------
    NotFound
        If there is no such file.
    Invalid
        If it does not hold width curves.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except OSError as error:
        raise Invalid(f"{path.name} cannot be read: {error.strerror or error}") from error
    if len(text) > MOST_BYTES:
        raise Invalid(f"{path.name} is over {MOST_BYTES} bytes, larger than any calibration")
    value = parse(path.name, text)
    check_kind("sigma_curves", path.name, value)
    return SigmaCurves.from_dict(value)


def read_psf(path: Path, *, pixel_nm: float | None = None, step_nm: float | None = None) -> MeasuredPsf:
    """Read a PSF as a job does: ours, PYME's (TIFF) or any stack that says its pixel size and step.

    Parameters
    ----------
    path : Path
    pixel_nm, step_nm : float, optional
        Where the file does not say, or says wrong [nm].

    Raises
    ------
    NotFound
        If there is no such file.
    Invalid
        If it is no stack of planes, or pixel size or step are known from nowhere; says what to do.
    """
    from cluster.series_files import opened

    check_suffix("psf", path.name)
    with opened(path) as series:
        shape = series.shape
        said = dict(series.metadata)
        given = {"pixel_nm": pixel_nm, "step_nm": step_nm}
        said |= {name: value for name, value in given.items() if value is not None}
        scale = stack_scale(path.name, (shape.frames, shape.height, shape.width), said)
        volume, missing = series.read(0, shape.frames)
    if missing:
        raise Invalid(f"{path.name}: plane {missing[0]} cannot be read")
    try:
        return measured_psf(volume, scale)
    except InvalidSettings as error:
        raise Invalid(f"{path.name} {error.reason}") from error
