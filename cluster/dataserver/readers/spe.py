"""Princeton Instruments' `.spe`: a header of 4100 bytes, then frames laid flat; version 3 adds XML at the end."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.dataserver.readers.flat import FlatLayout, FlatSeries
from cluster.dataserver.readers.interface import values_from
from cluster.errors import Invalid

_HEADER_BYTES: Final = 4100
_TYPES: Final = {0: "<f4", 1: "<i4", 2: "<i2", 3: "<u2", 5: "<f8", 6: "<u1", 8: "<u4"}
_EXPOSURE_S, _WIDTH, _TYPE, _HEIGHT, _FRAMES, _REGIONS = 10, 42, 108, 656, 1446, 1510


def open_spe(path: Path) -> FlatSeries:
    """Open a `.spe` file.

    Raises
    ------
    Invalid
        If its header is cut short or makes no sense, or it holds several regions of the sensor.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        raise Invalid(f"{path.name} is shorter than the header of an SPE file")
    (kind,) = struct.unpack_from("<h", header, _TYPE)
    (width,) = struct.unpack_from("<H", header, _WIDTH)
    (height,) = struct.unpack_from("<H", header, _HEIGHT)
    (frames,) = struct.unpack_from("<i", header, _FRAMES)
    (regions,) = struct.unpack_from("<h", header, _REGIONS)
    if kind not in _TYPES:
        raise Invalid(f"{path.name} holds pixels of the unknown kind {kind}")
    if regions > 1:
        raise Invalid(f"{path.name} holds {regions} regions of the sensor; a series is of one")
    layout = FlatLayout(_HEADER_BYTES, height, width, np.dtype(_TYPES[kind]), frames)
    return FlatSeries(path, layout, format_name="spe", metadata=values_from("file", _metadata(header)))


def _metadata(header: bytes) -> dict[str, Any]:
    (exposure_s,) = struct.unpack_from("<f", header, _EXPOSURE_S)
    return {"Camera.IntegrationTime": float(f"{exposure_s:.6g}")} if 0 < exposure_s < 3600 else {}
