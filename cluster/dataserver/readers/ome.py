"""OME-XML: how many frames a series has, in which file and page each lies, and what it says of the camera.

Read as a stream of elements, so that a description of 100,000 planes builds no tree. A file named in it must lie in
the same folder: it is a name, never a path.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree import ElementTree as ET

import numpy as np

from cluster.errors import Invalid
from cluster.literal_pickle import loads

_UM: Final = {
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "Å": 1e-4,
    "pm": 1e-6,
}
_SECONDS: Final = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "μs": 1e-6, "us": 1e-6, "min": 60.0, "h": 3600.0}  # fmt: skip
_MAX_PLANES: Final = 1 << 24
_MAX_FILES: Final = 256
Integers = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True)
class OmePlanes:
    """Frame n is page `page[n]` of `names[file[n]]`, or missing where `file[n]` is -1; `names[0]` is this file."""

    names: tuple[str, ...]
    file: Integers
    page: Integers


@dataclass(frozen=True)
class OmeNotes:
    """What the XML says; no `planes`: frame n is page n of this file."""

    frames: int
    planes: OmePlanes | None
    metadata: dict[str, Any] = field(default_factory=dict)


def read_notes(xml: str, name: str) -> OmeNotes:
    """Return what OME-XML says of the series in the file `name`.

    Raises
    ------
    Invalid
        If it is no XML, describes several images or channels, or names a file elsewhere.
    """
    target = _Reading(name)
    parser = ET.XMLParser(target=target)  # noqa: S314 - no entities: `doctype` refuses them
    try:
        parser.feed(xml)
        parser.close()
    except (ET.ParseError, ValueError, OverflowError) as error:
        raise Invalid(f"the OME-XML of {name} cannot be read: {error}") from error
    return target.notes()


class _Reading:
    """Takes the elements as they come."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._path: list[str] = []
        self._images = 0
        self._pixels: Mapping[str, str] = {}
        self._plane: Mapping[str, str] = {}
        self._uuid = ""
        self._blocks: list[tuple[dict[str, str], str, str]] = []
        self._block: dict[str, str] | None = None
        self._file_name = self._text = ""
        self._pyme: dict[str, Any] = {}

    def doctype(self, *_: object) -> None:
        raise Invalid(f"the OME-XML of {self._name} declares a document type, which OME-XML never does")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition("}")[2]
        self._path.append(tag)
        if len(self._path) > 64:
            raise Invalid(f"the OME-XML of {self._name} is nested too deep")
        if "MetaData" in self._path and "value" in attributes and "class" in attributes:
            key = ".".join(self._path[self._path.index("MetaData") + 1 :])
            self._pyme[key] = _pyme_value(attributes["class"], attributes["value"])
        else:
            self._start_known(tag, attributes)

    def _start_known(self, tag: str, attributes: dict[str, str]) -> None:
        match tag:
            case "OME":
                self._uuid = attributes.get("UUID", "")
            case "BinaryOnly":
                raise Invalid(
                    f"{self._name} is one part of a series; open {attributes.get('MetadataFile', 'its first')}"
                )
            case "Image":
                self._images += 1
            case "Pixels" if self._images == 1:
                self._pixels = attributes
            case "Plane" if not self._plane:
                self._plane = attributes
            case "TiffData" if self._images == 1:
                self._block, self._file_name, self._text = attributes, "", ""
            case "UUID":
                self._file_name = attributes.get("FileName", "")
                self._text = ""
            case _:
                pass

    def data(self, text: str) -> None:
        if self._path and self._path[-1] == "UUID":
            self._text += text

    def end(self, _tag: str) -> None:
        if self._path.pop() == "TiffData" and self._block is not None:
            self._blocks.append((self._block, self._file_name, self._text.strip()))
            self._block = None

    def close(self) -> None:
        """Nothing is left to do."""

    def notes(self) -> OmeNotes:
        if self._images > 1:
            raise Invalid(f"{self._name} holds {self._images} images (positions?); a series is one")
        sizes = {axis: _size(self._pixels, axis, self._name) for axis in "ZCT"}
        if sizes["C"] > 1 and sizes["Z"] * sizes["T"] > 1:
            raise Invalid(
                f"{self._name} holds {sizes['C']} channels; a series of one channel can be localised"
            )
        frames = math.prod(sizes.values())
        if frames > _MAX_PLANES:
            raise Invalid(f"the OME-XML of {self._name} promises {frames} planes")
        planes = self._planes(frames, sizes)
        return OmeNotes(frames, planes, _metadata(self._pixels, self._plane) | self._pyme)

    def _planes(self, frames: int, sizes: Mapping[str, int]) -> OmePlanes | None:
        if not self._blocks or (len(self._blocks) == 1 and not self._blocks[0][0] and not self._blocks[0][1]):
            return None
        names, file = [self._name], np.full(frames, -1, np.int32)
        page = np.zeros(frames, np.int32)
        for attributes, file_name, uuid in self._blocks:
            try:
                first, count, ifd = _place(attributes, self._pixels.get("DimensionOrder", "XYZCT"), sizes)
            except ValueError as error:
                raise Invalid(f"the OME-XML of {self._name} cannot be read: {str(error)[:200]}") from error
            stop = min(frames, first + count) if count else frames
            if not 0 <= first < stop or not 0 <= ifd < 2**31 - frames:
                continue
            file[first:stop] = self._file_number(names, file_name, uuid)
            page[first:stop] = np.arange(ifd, ifd + stop - first)
        in_order = len(names) == 1 and not file.any() and bool((page == np.arange(frames)).all())
        return None if in_order else OmePlanes(tuple(names), file, page)

    def _file_number(self, names: list[str], file_name: str, uuid: str) -> int:
        if not file_name or file_name.lower() == self._name.lower() or (uuid and uuid == self._uuid):
            return 0
        if set(file_name) & set("/\\:\0") or file_name in {".", ".."}:
            raise Invalid(
                f"the OME-XML of {self._name} points at {file_name!r}, which is not in the same folder"
            )
        if file_name not in names:
            names.append(file_name)
        if len(names) > _MAX_FILES:
            raise Invalid(f"the series of {self._name} lies in more than {_MAX_FILES} files")
        return names.index(file_name)


def _size(pixels: Mapping[str, str], axis: str, name: str) -> int:
    said = pixels.get(f"Size{axis}", "1")
    if not said.isdecimal() or not 0 < int(said) < 2**31:
        raise Invalid(f"the OME-XML of {name}: Size{axis} must be a whole number above 0, not {said!r}")
    return int(said)


def _place(block: Mapping[str, str], order: str, sizes: Mapping[str, int]) -> tuple[int, int, int]:
    """Return the first frame of a block, how many there are (0: all that follow), and its first page; raises `ValueError`."""
    first, stride = 0, 1
    for axis in (axis for axis in order if axis in "ZCT"):
        first += int(block.get(f"First{axis}", "0")) * stride
        stride *= sizes[axis]
    count = block.get("PlaneCount", block.get("NumPlanes", "1" if "IFD" in block else "0"))
    return first, int(count), int(block.get("IFD", "0"))


def _metadata(pixels: Mapping[str, str], plane: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for axis in "XYZ":
        size_um = _quantity(pixels, f"PhysicalSize{axis}", _UM, "µm")
        if size_um:
            found[f"voxelsize.{axis.lower()}"] = size_um
    exposure_s = _quantity(plane, "ExposureTime", _SECONDS, "s")
    cycle_s = _quantity(pixels, "TimeIncrement", _SECONDS, "s")
    if exposure_s:
        found["Camera.IntegrationTime"] = exposure_s
    if cycle_s:
        found["Camera.CycleTime"] = cycle_s
    return found


def _quantity(said: Mapping[str, str], key: str, units: Mapping[str, float], default: str) -> float | None:
    """Return a positive quantity in the first of `units`' base, or None if it has no physical unit."""
    try:
        value = float(said.get(key, "nan")) * units[said.get(f"{key}Unit", default)]
    except (ValueError, KeyError):
        return None
    return float(f"{value:.9g}") if math.isfinite(value) and value > 0 else None


def _pyme_value(kind: str, value: str) -> Any:
    """PYME writes its whole metadata tree as an annotation: the class and the text of each value."""
    try:
        match kind:
            case "int":
                return int(value)
            case "float":
                return float(value)
            case "bool":
                return value == "True"
            case "pickle":
                return loads(base64.b64decode(value, validate=True))
            case _:
                return value
    except (ValueError, binascii.Error, Invalid):
        return value
