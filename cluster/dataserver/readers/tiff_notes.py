"""What a TIFF file's first page says of the series beyond its pixels: ImageJ, Micro-Manager, resolution tags."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import tifffile

from cluster.dataserver.readers import micromanager
from cluster.errors import Invalid

_UM: Final = {
    "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "nm": 1e-3,
    "mm": 1e3, "cm": 1e4, "inch": 25400.0,
}  # fmt: skip
_TAG_UNIT_UM: Final = {2: 25400.0, 3: 10000.0}
_PLAUSIBLE_UM: Final = (0.005, 10.0)
_FARTHEST_PLANES_UM: Final = 100.0
_MICROMANAGER_TAG: Final = 51123
_MAX_FRAMES: Final = 1 << 31


def imagej_frames(notes: Mapping[str, Any], name: str) -> int:
    """Return how many frames ImageJ says there are.

    Raises
    ------
    Invalid
        If they are of several channels. A stack that has nothing but channels is a series somebody opened as such.
    """
    channels, slices, times = (_whole(notes, key) for key in ("channels", "slices", "frames"))
    if channels > 1 and slices * times > 1:
        raise Invalid(f"{name} holds {channels} channels; a series of one channel can be localised")
    images = max(channels * slices * times, _whole(notes, "images"))
    if images >= _MAX_FRAMES:
        raise Invalid(f"{name} promises {images} frames")
    return images


def _whole(notes: Mapping[str, Any], key: str) -> int:
    value = notes.get(key, 1)
    return value if isinstance(value, int) and value > 0 else 1


def imagej_metadata(notes: Mapping[str, Any], page: tifffile.TiffPage) -> dict[str, Any]:
    """Return pixel size, distance of planes and cycle time in PYME's keys."""
    found: dict[str, Any] = {}
    unit_um = _UM.get(str(notes.get("unit", "")).strip().lower())
    for axis, tag in (("x", "XResolution"), ("y", "YResolution")):
        pixels_per_unit = _rational(page, tag)
        if unit_um and pixels_per_unit:
            found[f"voxelsize.{axis}"] = _rounded(unit_um / pixels_per_unit)
    spacing = notes.get("spacing")
    if unit_um and isinstance(spacing, int | float) and 0 < spacing * unit_um < _FARTHEST_PLANES_UM:
        found["voxelsize.z"] = _rounded(spacing * unit_um)
    interval_s = notes.get("finterval")
    if isinstance(interval_s, int | float) and 0 < interval_s < 1e6:
        found["Camera.CycleTime"] = float(interval_s)
    return found


def resolution_metadata(page: tifffile.TiffPage) -> dict[str, Any]:
    """Return the pixel size of a plain TIFF, if it can be a microscope's: most files just say 72 dpi."""
    tag = page.tags.get("ResolutionUnit")
    unit_um = _TAG_UNIT_UM.get(int(tag.value)) if tag is not None and isinstance(tag.value, int) else None
    found: dict[str, Any] = {}
    for axis, name in (("x", "XResolution"), ("y", "YResolution")):
        pixels_per_unit = _rational(page, name)
        size_um = _rounded(unit_um / pixels_per_unit) if unit_um and pixels_per_unit else 0.0
        if _PLAUSIBLE_UM[0] <= size_um <= _PLAUSIBLE_UM[1]:
            found[f"voxelsize.{axis}"] = size_um
    return found


def micromanager_metadata(page: tifffile.TiffPage) -> dict[str, Any]:
    """Return what Micro-Manager noted with the first frame."""
    tag = page.tags.get(_MICROMANAGER_TAG)
    notes = tag.value if tag is not None else None
    return micromanager.to_pyme({}, notes) if isinstance(notes, dict) else {}


def shaped_frames(page: tifffile.TiffPage) -> int:
    """Return how many frames tifffile noted when it wrote the file, or 0."""
    try:
        notes = json.loads(page.description) if page.description.startswith("{") else {}
    except (ValueError, RecursionError):
        return 0
    shape = notes.get("shape") if isinstance(notes, dict) else None
    if not isinstance(shape, list) or not all(isinstance(n, int) and 0 < n < _MAX_FRAMES for n in shape):
        return 0
    image = page.shape
    if tuple(shape[-len(image) :]) != tuple(image):
        return 0
    frames = math.prod(shape[: -len(image)])
    return frames if frames < _MAX_FRAMES else 0


def _rational(page: tifffile.TiffPage, name: str) -> float:
    tag = page.tags.get(name)
    value = tag.value if tag is not None else None
    if isinstance(value, tuple) and len(value) == 2 and value[0] > 0 and value[1] > 0:
        return float(value[0]) / float(value[1])
    return 0.0


def _rounded(value: float) -> float:
    """Resolutions are kept as ratios of rounded numbers: 0.1 µm comes back as 0.1."""
    return float(f"{value:.6g}")
