"""`.dax` (headerless, 16 bit) with its `.inf`, as the Zhuang lab's acquisition writes them.

`frame dimensions = W x H`; the `.inf` decides how many frames there are, and a file may hold more.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from cluster.dataserver.readers.flat import FlatLayout, FlatSeries
from cluster.dataserver.readers.interface import values_from
from cluster.dataserver.readers.text import read_text
from cluster.errors import Invalid


def open_dax(path: Path) -> FlatSeries:
    """Open a `.dax` by what its `.inf` says.

    Raises
    ------
    Invalid
        If the `.inf` is absent, or does not say the frames' size, type and number.
    """
    inf = path.with_suffix(".inf")
    if not inf.is_file():
        raise Invalid(f"{path.name} needs {inf.name} beside it, which says how large its frames are")
    said = _lines(read_text(inf))
    width, height = _two(said, "frame dimensions", inf.name)
    layout = FlatLayout(
        offset=0,
        height=height,
        width=width,
        dtype=_dtype(said.get("data type", ""), inf.name),
        frames=_one(said, "number of frames", inf.name),
    )
    metadata = values_from(f"sidecar {inf.name}", _metadata(said, width, height))
    return FlatSeries(path, layout, format_name="dax", metadata=metadata, companions=(inf,))


def _lines(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _dtype(said: str, name: str) -> np.dtype[Any]:
    bits = re.match(r"(8|16|32) bit", said)
    if bits is None:
        raise Invalid(
            f"{name}: 'data type' must say 8, 16 or 32 bit integers, not {said!r}", field="data type"
        )
    order = "<" if "little" in said else ">"
    return np.dtype(f"{order}u{int(bits[1]) // 8}")


def _two(said: dict[str, str], key: str, name: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,9})\s*x\s*(\d{1,9})", said.get(key, ""))
    if found is None:
        raise Invalid(f"{name}: {key!r} must be two whole numbers, WIDTH x HEIGHT", field=key)
    return int(found[1]), int(found[2])


def _one(said: dict[str, str], key: str, name: str) -> int:
    found = re.fullmatch(r"\d{1,9}", said.get(key, ""))
    if found is None:
        raise Invalid(f"{name}: {key!r} must be a whole number", field=key)
    return int(found[0])


def _metadata(said: dict[str, str], width: int, height: int) -> dict[str, Any]:
    """x_start and y_start count from 1."""
    found: dict[str, Any] = {"Camera.ROIWidth": width, "Camera.ROIHeight": height}
    for axis in "xy":
        start = said.get(f"{axis}_start", "")
        if start.isdecimal() and int(start) >= 1:
            found[f"Camera.ROIOrigin{axis.upper()}"] = int(start) - 1
    return found
