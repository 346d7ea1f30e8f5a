"""What Micro-Manager notes about an acquisition, in PYME's keys and units."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cluster.errors import Invalid

_HEAD_BYTES: Final = 4 << 20


def read_metadata_txt(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the summary and the first frame's notes; the file may be huge, so only its head is read.

    Raises
    ------
    Invalid
        If there is no readable summary in it.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise Invalid(f"{path.name} cannot be read: {error.strerror}") from error
    summary = _object_after(head, r'"Summary"\s*:\s*')
    if summary is None:
        raise Invalid(f"{path.name} holds no Micro-Manager summary that can be read")
    return summary, _object_after(head, r'"(?:FrameKey|Metadata)-[^"]*"\s*:\s*') or {}


def _object_after(text: str, key: str) -> dict[str, Any] | None:
    found = re.search(key, text)
    if found is None:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(text, found.end())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def to_pyme(summary: Mapping[str, Any], frame: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the notes say, in PYME's keys: µm, seconds, pixels from 0, e⁻/ADU."""
    camera = frame.get("Camera") or frame.get("Core-Camera") or ""
    pixel_um = _number(frame.get("PixelSizeUm", summary.get("PixelSize_um")))
    exposure_ms = _number(frame.get("Exposure-ms"))
    interval_ms = _number(summary.get("Interval_ms"))
    found: dict[str, Any] = {}
    if pixel_um:
        found["voxelsize.x"] = found["voxelsize.y"] = pixel_um
    if exposure_ms:
        found["Camera.IntegrationTime"] = exposure_ms / 1000
    if exposure_ms and interval_ms and interval_ms > exposure_ms:
        found["Camera.CycleTime"] = interval_ms / 1000
    if camera:
        found["Camera.Name"] = str(camera)
        found |= _device(frame, str(camera))
    return found | _region(frame.get("ROI"))


def _device(frame: Mapping[str, Any], camera: str) -> dict[str, Any]:
    """Return what the camera's own properties say; Hamamatsu's adapter gives e⁻/ADU and the offset."""
    found: dict[str, Any] = {}
    coefficient = _number(frame.get(f"{camera}-CONVERSION FACTOR COEFF"))
    offset = _number(frame.get(f"{camera}-CONVERSION FACTOR OFFSET"))
    if coefficient and offset:
        found = {"Camera.ElectronsPerCount": coefficient, "Camera.ADOffset": offset}
    serial = frame.get(f"{camera}-CameraID")
    if isinstance(serial, str):
        found["Camera.SerialNumber"] = serial
    return found


def _region(said: object) -> dict[str, Any]:
    found = re.fullmatch(r"(\d+)-(\d+)-(\d+)-(\d+)", said) if isinstance(said, str) else None
    if found is None:
        return {}
    names = ("ROIOriginX", "ROIOriginY", "ROIWidth", "ROIHeight")
    return {f"Camera.{name}": int(value) for name, value in zip(names, found.groups(), strict=True)}


def _number(said: object) -> float | None:
    """Return a positive number, or None: Micro-Manager writes 0 for what it does not know."""
    try:
        value = float(said) if isinstance(said, int | float | str) else math.nan
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) and value > 0 else None
