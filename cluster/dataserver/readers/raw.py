"""`.raw` (headerless) described by a `.yaml` as Picasso writes it, or by Micro-Manager's `metadata.txt`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from cluster.dataserver.readers import micromanager
from cluster.dataserver.readers.flat import FlatLayout, FlatSeries
from cluster.dataserver.readers.interface import values_from
from cluster.dataserver.readers.text import read_text
from cluster.errors import Invalid
from cluster.protocol import MetadataValue

_GREY: Final = {"GRAY8": "u1", "GRAY16": "u2", "GRAY32": "f4"}
_TYPES: Final = frozenset({"uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64"})
_ORDERS: Final = {"<": "<", ">": ">", "=": "<", "|": "|"}
_DECISIVE: Final = 2.0
_MAX_YAML_BYTES: Final = 2 << 20
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def open_raw(path: Path) -> FlatSeries:
    """Open a `.raw` by what lies beside it.

    Raises
    ------
    Invalid
        If nothing beside it says the frames' size and type, or what it says makes no sense.
    """
    described_in = path.with_suffix(".yaml")
    if described_in.is_file():
        return _open_described(path, described_in)
    for name in (f"{path.stem}_metadata.txt", f"{path.name}_metadata.txt", "metadata.txt"):
        if path.with_name(name).is_file():
            return _open_micromanager(path, path.with_name(name))
    raise Invalid(f"{path.name} needs {described_in.name} beside it, which says how large its frames are")


def _open_described(path: Path, described_in: Path) -> FlatSeries:
    said = read_yaml(described_in)
    name = described_in.name
    layout = FlatLayout(
        offset=0,
        height=_whole(said, "Height", name),
        width=_whole(said, "Width", name),
        dtype=_dtype(said, name),
        frames=_whole(said, "Frames", name),
    )
    metadata = values_from(f"sidecar {name}", picasso_to_pyme(said))
    return FlatSeries(path, layout, format_name="raw", metadata=metadata, companions=(described_in,))


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the keys of all documents of a yaml file, a later one overriding.

    Raises
    ------
    Invalid
        If it is not yaml of plain values, naming the line.
    """
    merged: dict[str, Any] = {}
    text = read_text(path, limit_bytes=_MAX_YAML_BYTES)
    try:
        for document in yaml.load_all(text, Loader=_Loader):
            merged |= document if isinstance(document, dict) else {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise Invalid(f"{path.name}{line}: cannot be read as yaml") from error
    return merged


def _whole(said: Mapping[str, Any], key: str, name: str) -> int:
    value = said.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise Invalid(f"{name}: {key!r} must be a whole number, not {value!r}", field=key)
    return value


def _dtype(said: Mapping[str, Any], name: str) -> np.dtype[Any]:
    order, kind = said.get("Byte Order", "<"), said.get("Data Type")
    if kind not in _TYPES or order not in _ORDERS:
        raise Invalid(
            f"{name}: 'Data Type' {kind!r} with 'Byte Order' {order!r} is no type of pixel", field="Data Type"
        )
    found: np.dtype[Any] = np.dtype(_ORDERS[order] + np.dtype(kind).str[1:])
    return found


def picasso_to_pyme(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Picasso's keys say in PYME's: nm to µm, ms to s; Sensitivity is e⁻/ADU, Baseline the offset."""
    found: dict[str, Any] = {}
    notes = said.get("Micro-Manager Metadata")
    if isinstance(notes, dict):
        found |= micromanager.to_pyme({}, notes)
    pixel_nm = _positive(said, "Pixelsize") or _positive(said, "Camera.Pixelsize")
    if pixel_nm:
        found["voxelsize.x"] = found["voxelsize.y"] = pixel_nm / 1000
    time_ms = _positive(said, "Camera.Integration Time")
    if time_ms:
        found["Camera.IntegrationTime"] = time_ms / 1000
    if isinstance(said.get("Camera"), str):
        found["Camera.Name"] = said["Camera"]
    keys = {"Baseline": "ADOffset", "Sensitivity": "ElectronsPerCount", "Gain": "TrueEMGain"}
    for theirs, ours in keys.items():
        value = _positive(said, theirs)
        if value is not None:
            found[f"Camera.{ours}"] = value
    return found


def _positive(said: Mapping[str, Any], key: str) -> float | None:
    value = said.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
        return None
    return float(value)


def _open_micromanager(path: Path, notes_in: Path) -> FlatSeries:
    summary, frame = micromanager.read_metadata_txt(notes_in)
    name = notes_in.name
    kind = _GREY.get(str(summary.get("PixelType")))
    if kind is None:
        raise Invalid(
            f"{name}: PixelType {summary.get('PixelType')!r} is not a grey image", field="PixelType"
        )
    height, width = _whole(summary, "Height", name), _whole(summary, "Width", name)
    order = _byte_order(path, height, width, np.dtype(kind))
    layout = FlatLayout(
        offset=0,
        height=height,
        width=width,
        dtype=np.dtype(order + np.dtype(kind).str[1:]),
        frames=_declared(summary, name),
    )
    metadata = values_from(f"sidecar {name}", micromanager.to_pyme(summary, frame))
    metadata["ByteOrder"] = MetadataValue(value=order, source="estimated from frame 0")
    return FlatSeries(path, layout, format_name="raw", metadata=metadata, companions=(notes_in,))


def _declared(summary: Mapping[str, Any], name: str) -> int:
    if _whole({"Channels": 1} | dict(summary), "Channels", name) > 1:
        raise Invalid(
            f"{name}: the series holds several channels; one channel can be localised", field="Channels"
        )
    frames = _whole(summary, "Frames", name)
    return frames * max(1, _whole({"Slices": 1} | dict(summary), "Slices", name))


def _byte_order(path: Path, height: int, width: int, kind: np.dtype[Any]) -> str:
    """Return the order in which the first frame is smooth: in the other one neighbours differ by whole high bytes."""
    if kind.itemsize == 1:
        return "|"
    with path.open("rb") as file:
        first = file.read(height * width * kind.itemsize)
    if kind.kind != "u" or len(first) < height * width * kind.itemsize or width < 2:
        return "<"
    roughness = {order: _roughness(first, height, width, order + kind.str[1:]) for order in "<>"}
    smooth, rough = sorted(roughness, key=lambda order: roughness[order])
    if roughness[rough] < _DECISIVE * roughness[smooth]:
        raise Invalid(
            f"the byte order of {path.name} cannot be told from its frames; write {path.stem}.yaml with "
            "Byte Order, Data Type, Frames, Height and Width"
        )
    return smooth


def _roughness(raw: bytes, height: int, width: int, kind: str) -> float:
    frame = np.frombuffer(raw, kind).reshape(height, width).astype(np.float64)
    return float(np.abs(np.diff(frame, axis=1)).mean()) + 1e-9
