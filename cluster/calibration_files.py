"""Calibrations as files: a PSF as a TIFF that ImageJ opens, with what it needs to be used beside it.

`PSF.tif` is a stack of float32 planes; `PSF.json` says pixel size, step, focus plane and channels. A TIFF without that, of PYME's
or of ImageJ's, is read by what it says of itself; its focus then is its middle plane, as PYME takes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from xml.parsers import expat

import numpy as np

from cluster.errors import Invalid, NotFound
from cluster.results.publish import writing
from fitting.calibrated import MeasuredPsf, SigmaCurves
from fitting.errors import InvalidSettings

PSF_FORMAT: Final = "clusterofone measured PSF"
CURVES_FORMAT: Final = "clusterofone width curves"

_TIFF: Final = (".tif", ".tiff")
_UM: Final = {"um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "": 1.0}
_LARGEST_BYTES: Final = 1 << 30
_LARGEST_TEXT: Final = 16 << 20


def sidecar_of(psf: Path) -> Path:
    """Return where the facts of a PSF lie."""
    return psf.with_suffix(".json")


def curves_of(psf: Path) -> Path:
    """Return where the width curves of a PSF lie."""
    return psf.with_suffix(".sigma.json")


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
        return SigmaCurves.from_dict(_read_json(path))
    except InvalidSettings as error:
        raise Invalid(f"{path.name}: {error.reason}") from error


def read_psf(path: Path, *, pixel_nm: float | None = None, step_nm: float | None = None) -> MeasuredPsf:
    """Read a PSF: ours, PYME's (TIFF) or any stack that says its pixel size and step.

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
    if path.suffix.lower() not in _TIFF:
        if path.suffix.lower() == ".psf":
            raise Invalid(
                f"{path.name} is a Python pickle, which could run anything and is not opened; open it in PYME and save it as a TIFF"
            )
        raise Invalid(f"{path.name} is not a PSF; a PSF is a .tif of float planes")
    volume, said = _read_tiff(path)
    sidecar = sidecar_of(path)
    if sidecar.exists():
        said |= _facts(_read_json(sidecar))
    said |= {key: value for key, value in (("pixel_nm", pixel_nm), ("step_nm", step_nm)) if value is not None}
    return _psf(path.name, volume, said)


def _psf(name: str, volume: np.ndarray[Any, Any], said: Mapping[str, float]) -> MeasuredPsf:
    for key, meaning in (("pixel_nm", "size of a pixel"), ("step_nm", "distance between planes")):
        if key not in said:
            raise Invalid(
                f'{name} does not say the {meaning}; put {{"{key}": …}}, in nm, into {Path(name).stem}.json beside it'
            )
    planes, height, width = volume.shape
    channels = int(said.get("channels", 2 if width == 2 * height else 1))  # as PYME lays two channels out
    try:
        return MeasuredPsf(
            volume,
            float(said["pixel_nm"]),
            float(said["step_nm"]),
            float(said.get("focus_plane", (planes - 1) / 2)),
            channels,
        )
    except InvalidSettings as error:
        raise Invalid(f"{name} {error.reason}") from error


def _read_tiff(path: Path) -> tuple[np.ndarray[Any, Any], dict[str, float]]:
    import tifffile

    faults = (
        tifffile.TiffFileError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        MemoryError,
        RuntimeError,
    )
    try:
        with tifffile.TiffFile(path) as tif:
            series = tif.series[0]
            if series.nbytes > _LARGEST_BYTES:
                raise Invalid(f"{path.name} is no PSF: {series.nbytes / 1e9:.1f} GB")
            volume = np.squeeze(series.asarray())
            said = _said(tif)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except OSError as error:
        raise Invalid(f"{path.name} cannot be read: {error.strerror or error}") from error
    except faults as error:
        raise Invalid(f"{path.name} is not a TIFF file that can be read: {str(error)[:300]}") from error
    if volume.ndim != 3 or volume.dtype.kind not in "uif":
        raise Invalid(f"{path.name} holds {volume.dtype} of shape {volume.shape}; a PSF is a stack of planes")
    return volume.astype(np.float32), said


def _said(tif: Any) -> dict[str, float]:
    """What a TIFF says of its own pixel size and step."""
    if tif.is_imagej and tif.imagej_metadata:
        return _said_by_imagej(tif.imagej_metadata, tif.pages.first)
    if tif.is_ome and tif.ome_metadata and len(tif.ome_metadata) < _LARGEST_TEXT:
        return _said_by_ome(tif.ome_metadata)
    return {}


def _said_by_imagej(notes: Mapping[str, Any], page: Any) -> dict[str, float]:
    said: dict[str, float] = {}
    unit_um = _UM.get(str(notes.get("unit", "")).strip().lower())
    if not unit_um:
        return said
    spacing = notes.get("spacing")
    if isinstance(spacing, int | float) and 0 < spacing < 1e6:
        said["step_nm"] = 1000 * unit_um * float(spacing)
    tag = page.tags.get("XResolution")
    per_unit = tag.value if tag is not None else None
    if notes.get("unit") and isinstance(per_unit, tuple) and per_unit[0] > 0 and per_unit[1] > 0:
        said["pixel_nm"] = float(f"{1000 * unit_um * per_unit[1] / per_unit[0]:.6g}")
    return said


def _said_by_ome(xml: str) -> dict[str, float]:
    """Pixel size and step in OME-XML, and in the copy of its own metadata that PYME puts there, which has precedence."""
    reading = _Voxel()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.StartDoctypeDeclHandler = reading.doctype
    try:
        parser.Parse(xml.encode("utf-8"), True)
    except expat.ExpatError as error:
        raise Invalid(f"the OME-XML cannot be read: {error}") from error
    um = reading.um
    said = {}
    if "x" in um:  # the one pitch that a PSF has is the mean of both
        said["pixel_nm"] = 1000 * math.sqrt(um["x"] * um.get("y", um["x"]))
    if "z" in um:
        said["step_nm"] = 1000 * um["z"]
    return said


class _Voxel:
    """Takes voxel sizes from the elements as they come [µm]."""

    def __init__(self) -> None:
        self.um: dict[str, float] = {}
        self._path: list[str] = []

    def doctype(self, *_: object) -> None:
        raise Invalid("the OME-XML declares a document type, which OME-XML never does")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._path.append(tag.rpartition("}")[2])
        if self._path[-1] == "Pixels":
            for axis in "XYZ":
                unit = _UM.get(attributes.get(f"PhysicalSize{axis}Unit", "µm").lower(), 0.0)
                self._keep(axis.lower(), attributes.get(f"PhysicalSize{axis}"), unit)
        elif len(self._path) > 1 and self._path[-2] == "voxelsize" and self._path[-1] in "xyz":
            self._keep(self._path[-1], attributes.get("value"), 1.0)

    def end(self, _tag: str) -> None:
        self._path.pop()

    def _keep(self, axis: str, text: str | None, unit_um: float) -> None:
        try:
            size = float(text or "nan") * unit_um
        except ValueError:
            return
        if 0 < size < 1e3:
            self.um[axis] = size


def _facts(said: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a sidecar that a PSF has; voxelsize.* [µm] as in PYME's metadata too."""
    numbers = {
        key: float(value)
        for key, value in said.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    facts: dict[str, float] = {
        key: numbers[key] for key in ("pixel_nm", "step_nm", "focus_plane", "channels") if key in numbers
    }
    for key, name in (("voxelsize.x", "pixel_nm"), ("voxelsize.z", "step_nm")):
        if key in numbers:
            facts.setdefault(name, 1000 * numbers[key])
    return facts


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_TEXT:
            raise Invalid(f"{path.name} is too large")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except OSError as error:
        raise Invalid(f"{path.name} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{path.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Invalid(f"{path.name} must hold one JSON object")
    return value
