"""Calibrations that a job names by path: what a file may hold, and what is pinned of it when the job is submitted.

A measured PSF is a TIFF stack and travels as frames do; its pitches come from its metadata or from the `.json` beside it. Shift fields and width
curves are small JSON files, served whole, but only if they are one or the other.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.errors import Invalid, NotFound
from cluster.protocol import SeriesFacts
from fitting.calibrated import MeasuredPsf, SigmaCurves
from fitting.errors import InvalidSettings
from fitting.geometry import map_start
from fitting.shift_field import ShiftField

MOST_BYTES: Final = 4 << 20
PSF_SCALE: Final = "psf_scale"
"""Among what is pinned of a job, the pitches of its PSF, as JSON."""
_MOST_FIELDS: Final = 16
_MOST_PLANES: Final = 1000
_LEAST_SIDE: Final = 4
_MOST_PSF_BYTES: Final = 256 << 20
_PIXEL_TOLERANCE: Final = 0.01
_IN_ADU: Final = "variance_adu2."
_ABSOLUTE: Final = re.compile(r"[/\\]|[A-Za-z]:")
_REMEDY: Final = (
    "copy it beside the series and give its name, or copy it under a root and name it from there, "
    "or serve its folder as a further root (--root, where the cluster or the data server is started)"
)
_PICKLES: Final = {
    ".psf": "open it in PYME and save it as .tif, with the pixel size and the step between planes",
    ".sf": "write it as .json: clusterofone shifts makes one from beads",
}


def sidecar_of(psf: Path) -> Path:
    """Return where the facts of a PSF lie."""
    return psf.with_suffix(".json")


def curves_of(psf: Path) -> Path:
    """Return where the width curves of a PSF lie."""
    return psf.with_suffix(".sigma.json")


def parse(name: str, text: bytes) -> Any:
    """Return what a calibration file holds, in canonical form: width curves, a shift field, or a list of shift fields.

    Raises
    ------
    Invalid
        If it holds anything else; names the file.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{name} is not JSON: {error}", field="path") from error
    try:
        return _recognised(value)
    except InvalidSettings as error:
        raise Invalid(f"{name}: {error.reason}", field="path") from error


def _recognised(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "z_nm" in value:
            return SigmaCurves.from_dict(value).to_dict()
        if "dx_nm" in value:
            return ShiftField.from_dict(value).to_dict()
        inner = value.get("field", value.get("fields"))
        if isinstance(inner, Mapping | list):
            return _recognised(inner)
    if isinstance(value, list) and 1 <= len(value) <= _MOST_FIELDS and all(_is_field(one) for one in value):
        return [ShiftField.from_dict(one).to_dict() for one in value]
    raise InvalidSettings("path", "holds neither a shift field nor width curves")


def _is_field(value: Any) -> bool:
    return isinstance(value, Mapping) and "dx_nm" in value


def digest(value: Any) -> str:
    """Return what identifies the contents of a calibration file."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check_kind(setting: str, name: str, value: Any) -> None:
    """Refuse a calibration of the wrong kind for a setting; raises `Invalid` naming both."""
    is_curves = isinstance(value, Mapping) and "z_nm" in value
    if is_curves != (setting == "sigma_curves"):
        held, needed = ("width curves", "a shift field") if is_curves else ("a shift field", "width curves")
        raise Invalid(f"{setting}: {name} holds {held}; it needs {needed}", field=f"analysis.{setting}")


def check_suffix(setting: str, path: str) -> None:
    """Refuse PYME's pickles before anybody opens them; raises `Invalid` that says what to do instead."""
    suffix = f".{path.rpartition('.')[2].lower()}"
    if suffix in _PICKLES:
        raise Invalid(
            f"{setting}: {path} is a Python pickle, which could run anything and is not opened; {_PICKLES[suffix]}",
            field=f"analysis.{setting}",
        )


def check_place(setting: str, path: str) -> None:
    """Refuse what is no name under a root before anybody is asked for it; raises `Invalid` that says what to do."""
    if _ABSOLUTE.match(path):
        raise _misplaced(setting, path, "is a place on one machine, and jobs name files from a root")
    if "\\" in path:
        raise _misplaced(setting, path, "holds a '\\'; parts of a name are separated by '/'")
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise _misplaced(setting, path, "holds an empty part, '.' or '..'")


def absent(setting: str, path: str, roots: Sequence[str]) -> NotFound:
    """Return the error for a file that no data server has; says where it was looked for and what to do."""
    said = f" ({', '.join(roots)})" if roots else ""
    return NotFound(
        f"{setting}: there is no file {path!r}, neither beside the series nor from a root{said}; {_REMEDY}",
        path=path,
        field=setting,
    )


def check_map(
    setting: str, facts: SeriesFacts, shape: tuple[int, int], metadata: Mapping[str, Any]
) -> list[str]:
    """Refuse a camera map that could not be used; return what should be known of one that can.

    Parameters
    ----------
    setting
        Its name.
    facts
        Of the map.
    shape
        Height and width of the frames [px].
    metadata
        Of the series.

    Raises
    ------
    Invalid
        If it is no single image, has the size of neither sensor nor frames, or is a variance in ADU².
    """
    if setting == "variance_map" and facts.path.rpartition("/")[2].lower().startswith(_IN_ADU):
        worth = metadata.get("Camera.ElectronsPerCount") or "ELECTRONS"
        raise _map_refused(
            setting,
            f"{facts.path} is in ADU², and a job takes e⁻²: make it again by clusterofone cameramaps … --electrons-per-adu {worth}, "
            "which writes variance.tif, or multiply it by the square of that number and save it under another name",
        )
    if facts.frames != 1:
        raise _map_refused(
            setting,
            f"{facts.path} holds {facts.frames} images, and a map is one; clusterofone cameramaps makes maps of series",
        )
    try:
        start = map_start(setting, (facts.height, facts.width), shape, metadata)
    except InvalidSettings as error:
        raise _map_refused(setting, f"{facts.path} {error.reason}") from error
    if start == (0, 0) and (facts.height, facts.width) != shape and not _says_origin(metadata):
        said = "the metadata do not say which part of the sensor those show (Camera.ROIOriginX, Camera.ROIOriginY)"
        return [
            f"{setting}: {facts.path} is larger than the frames, and {said}: its upper left corner is used"
        ]
    return []


def _says_origin(metadata: Mapping[str, Any]) -> bool:
    return any(f"Camera.ROI{name}X" in metadata for name in ("Origin", "Pos"))


def _map_refused(setting: str, reason: str) -> Invalid:
    return Invalid(f"{setting}: {reason}", field=f"analysis.{setting}")


def _misplaced(setting: str, path: str, reason: str) -> Invalid:
    return Invalid(f"{setting}: {path!r} {reason}; {_REMEDY}", field=f"analysis.{setting}")


def psf_scale(facts: SeriesFacts, pixel_nm: Sequence[float]) -> dict[str, float]:
    """Return pitches, focus plane and channels of a stack that is to be a PSF.

    Parameters
    ----------
    facts
        Of the stack.
    pixel_nm
        Width and height of a pixel of the data.

    Raises
    ------
    Invalid
        If it is no stack, does not say its pitches, or has other pixels than the data.
    """
    said = {key: entry.value for key, entry in facts.metadata.items()}
    scale = stack_scale(facts.path, (facts.frames, facts.height, facts.width), said)
    for pitch in pixel_nm:
        if not abs(scale["pixel_nm"] / pitch - 1) <= _PIXEL_TOLERANCE:
            raise _refused(
                f"{facts.path} has pixels of {scale['pixel_nm']:g} nm and the data of {pitch:g} nm; they must be the same"
            )
    return scale


def stack_scale(path: str, shape: tuple[int, int, int], said: Mapping[str, Any]) -> dict[str, float]:
    """Return pitches, focus plane and channels of a stack (z, y, x) by what is said of it: by these names, else in PYME's keys, else as PYME takes it.

    Raises
    ------
    Invalid
        If it is no stack, or does not say its pitches; says what to do.
    """
    planes, height, width = shape
    if not 4 <= planes <= _MOST_PLANES or planes * height * width * 4 > _MOST_PSF_BYTES:
        raise _refused(f"{path} is no PSF: it holds {planes} planes of {width} × {height} px")
    x_um, z_um = (_number(said.get(f"voxelsize.{axis}"), 0.0) for axis in "xz")
    y_um = _number(said.get("voxelsize.y"), x_um)
    scale = {
        "pixel_nm": _length(path, said, "pixel_nm", math.sqrt(max(x_um * y_um, 0.0))),
        "step_nm": _length(path, said, "step_nm", z_um),
        "focus_plane": _number(said.get("focus_plane"), (planes - 1) / 2),
        "channels": _number(said.get("channels"), 2 if width == 2 * height else 1),
    }
    _check_stack(path, shape, scale)
    return scale


def _check_stack(path: str, shape: tuple[int, int, int], scale: Mapping[str, float]) -> None:
    planes, height, width = shape
    channels, focus = scale["channels"], scale["focus_plane"]
    if not (1 <= channels <= _MOST_FIELDS + 1 and width % channels == 0):
        raise _refused(f"{path} is {width} px wide, which does not hold {channels:g} channels side by side")
    if min(height, width // channels) < _LEAST_SIDE:
        raise _refused(
            f"{path} is {width} × {height} px; each of its {channels:g} channels needs {_LEAST_SIDE} × {_LEAST_SIDE} at least"
        )
    if not 0 <= focus <= planes - 1:
        raise _refused(f"{path} has its focus_plane at {focus:g}, outside its {planes} planes")


def measured_psf(volume: np.ndarray[Any, Any], scale: Mapping[str, float]) -> MeasuredPsf:
    """Make a PSF of its planes and what was pinned of it."""
    return MeasuredPsf(
        np.asarray(volume, np.float32),
        float(scale["pixel_nm"]),
        float(scale["step_nm"]),
        float(scale["focus_plane"]),
        int(scale["channels"]),
    )


def _length(path: str, said: Mapping[str, Any], key: str, voxel_um: float) -> float:
    length_nm = _number(said.get(key), 1000 * voxel_um)
    if not length_nm > 0:
        stem = path.rpartition("/")[2].rpartition(".")[0]
        raise _refused(f'{path} does not say its {key}; put {{"{key}": …}} into {stem}.json beside it')
    return length_nm


def _number(value: Any, default: float) -> float:
    return default if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def _refused(reason: str) -> Invalid:
    return Invalid(f"psf: {reason}", field="analysis.psf")
