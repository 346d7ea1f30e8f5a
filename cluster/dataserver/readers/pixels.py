"""From the pixel type of a file to the three that are served: uint8, uint16 and float32, all exact."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from cluster.dataserver.readers.interface import Frames
from cluster.errors import Invalid

_SERVED: Final = {"uint8": "u1", "uint16": "u2", "float32": "f4"}
_WIDENED: Final = frozenset({"int8", "int16", "float16"})
_NARROWED: Final = frozenset({"int32", "uint32", "int64", "uint64", "float64"})
_EXACT_INTEGERS: Final = 1 << 24


def served_dtype(found: np.dtype[Any], name: str) -> np.dtype[Any]:
    """Return the type in which pixels of this type are served.

    Signed and wide integers and double precision become float32, which holds whole numbers up to 2^24 exactly.

    Raises
    ------
    Invalid
        If pixels of this type cannot be camera counts; names the file.
    """
    if found.name in _SERVED:
        return np.dtype(_SERVED[found.name])
    if found.name in _WIDENED | _NARROWED:
        return np.dtype("f4")
    raise Invalid(f"{name} holds pixels of type {found}; uint8, uint16 and float32 can be localised")


def to_served(frames: Frames, dtype: np.dtype[Any], *, first_frame: int, name: str) -> Frames:
    """Return frames in their served type and native byte order; frames of the other order are swapped in place.

    Raises
    ------
    Invalid
        If a whole number is too large for float32 to hold exactly; names the file and frame.
    """
    if frames.dtype.kind in "iu" and frames.dtype.itemsize >= 4:
        _refuse_inexact(frames, first_frame, name)
    if frames.dtype.newbyteorder() == dtype and frames.flags.c_contiguous and frames.flags.writeable:
        return frames.byteswap(inplace=True).view(dtype)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(frames, dtype=dtype)


def _refuse_inexact(frames: Frames, first_frame: int, name: str) -> None:
    beyond = (frames > _EXACT_INTEGERS) | (frames < -_EXACT_INTEGERS if frames.dtype.kind == "i" else False)
    if beyond.any():
        frame = first_frame + int(np.argmax(beyond.any(axis=(1, 2))))
        raise Invalid(
            f"frame {frame} of {name} holds whole numbers beyond ±{_EXACT_INTEGERS}, which float32 would round",
            frame=frame,
        )
