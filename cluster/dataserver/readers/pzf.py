"""PYME's PZF: one frame with a header of 64 bytes, raw or Huffman coded, whole or as square roots.

The header's promises are checked against a bound before memory is taken for them. Codes that differ in what they
decode to are never guessed at: a frame decodes wholly, or is damaged.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cluster.dataserver.readers.huffman import HuffmanFault, decode_huffman
from cluster.dataserver.readers.interface import Frames

MAX_FRAME_BYTES: Final = 256 << 20
_HEADER: Final = struct.Struct("<2sBBBBcxqIIIIQffI12x")
_OLD_HEADER_BYTES: Final = 48
_TYPES: Final[dict[int, np.dtype[Any]]] = {0: np.dtype("<u1"), 1: np.dtype("<u2"), 2: np.dtype("<f4")}
_RAW, _HUFFMAN = 0, 1
_U16_MAX: Final = 65535.0


class PzfFault(ValueError):
    """A frame that cannot be decoded, and why."""


@dataclass(frozen=True)
class PzfHeader:
    """What a frame says of itself; `quantised` pixels are stored as 8 bit square roots."""

    dtype: np.dtype[Any]
    compression: int
    quantised: bool
    order: str
    width: int
    height: int
    offset_adu: float
    scale: float
    data_at: int

    @property
    def stored_bytes(self) -> int:
        """Return how many bytes the pixels take once uncompressed, before square roots are undone."""
        return self.width * self.height * (1 if self.quantised else self.dtype.itemsize)


def read_header(data: bytes) -> PzfHeader:
    """Return what a frame says of itself.

    Raises
    ------
    PzfFault
        If it is no PZF frame of one grey plane that can be decoded here.
    """
    padded = data[: _HEADER.size].ljust(_HEADER.size, b"\0")
    (
        ident,
        version,
        kind,
        compression,
        quantisation,
        order,
        _,
        _,
        width,
        height,
        depth,
        _,
        offset,
        scale,
        at,
    ) = _HEADER.unpack(padded)
    if ident != b"BD" or len(data) < _OLD_HEADER_BYTES or not 1 <= version <= 3:
        raise PzfFault("it is no PZF frame")
    if kind not in _TYPES or quantisation not in (0, 1):
        raise PzfFault(f"its pixels are of the unknown kind {kind}, quantised by {quantisation}")
    if compression not in (_RAW, _HUFFMAN):
        raise PzfFault(f"it is compressed by method {compression}; raw and Huffman frames can be read")
    if depth != 1 or not width or not height:
        raise PzfFault(f"it is {width} × {height} × {depth} px, not one plane")
    if width * height * 4 > MAX_FRAME_BYTES:
        raise PzfFault(f"it claims {width} × {height} px, more than any camera has")
    header = PzfHeader(
        dtype=_TYPES[kind],
        compression=compression,
        quantised=quantisation == 1,
        order="F" if version > 1 and order == b"F" else "C",
        width=width,
        height=height,
        offset_adu=offset,
        scale=scale,
        data_at=at if version == 3 else _OLD_HEADER_BYTES,
    )
    _check_quantiser(header)
    return header


def _check_quantiser(header: PzfHeader) -> None:
    if not header.quantised:
        return
    if header.dtype.name != "uint16" or header.compression != _HUFFMAN:
        raise PzfFault("it says that it holds square roots, which PYME keeps of 16 bit Huffman frames only")
    if not 0 <= header.offset_adu < _U16_MAX or not 0 < header.scale <= 256:
        raise PzfFault(f"its square roots have offset {header.offset_adu} and scale {header.scale}")


def decode_pzf(data: bytes) -> Frames:
    """Return a frame's pixels, row by row.

    Raises
    ------
    PzfFault
        If it is damaged, cut short, or of a kind that is not read.
    """
    header = read_header(data)
    stored = data[header.data_at :]
    length = header.stored_bytes
    if header.compression == _HUFFMAN:
        try:
            pixels = decode_huffman(stored, length)
        except HuffmanFault as fault:
            raise PzfFault(str(fault)) from fault
    elif len(stored) < length:
        raise PzfFault(f"it holds {len(stored)} bytes of pixels, not {length}")
    else:
        pixels = np.frombuffer(stored, np.uint8, length)
    values = _dequantised(pixels, header) if header.quantised else pixels.view(header.dtype)
    across = values.reshape((header.width, header.height), order="F" if header.order == "F" else "C")
    return np.ascontiguousarray(across.T)


def _dequantised(roots: Frames, header: PzfHeader) -> Frames:
    """Undo the square roots by a table: there are 256 of them."""
    values = (np.arange(256, dtype=np.float32) * np.float32(header.scale)) ** 2 + np.float32(
        header.offset_adu
    )
    table = np.minimum(values, _U16_MAX).astype(np.dtype("<u2"))
    values_adu: Frames = table[roots]
    return values_adu
