"""Compressed frames with a checksum behind them: a chunk as it lies on the disk, and as it may travel.

These are Zarr's codecs bytes (little-endian), blosc (lz4, bitshuffle) and crc32c.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import google_crc32c
import numpy as np
from numcodecs import blosc

from cluster.errors import ChecksumMismatch

_CRC: Final = struct.Struct("<I")
_HEADER_BYTES: Final = 16


def packed(frames: np.ndarray[Any, np.dtype[Any]]) -> list[bytes]:
    """Return frames as one block, as buffers."""
    raw = np.ascontiguousarray(frames, frames.dtype.newbyteorder("<"))
    return sealed(blosc.compress(raw.data.cast("B"), b"lz4", 5, blosc.BITSHUFFLE, 0, raw.dtype.itemsize))


def sealed(compressed: bytes) -> list[bytes]:
    """Return compressed frames with their checksum behind them."""
    return [compressed, crc32c(compressed)]


def crc32c(data: bytes | memoryview) -> bytes:
    """Return the checksum as Zarr writes it."""
    return _CRC.pack(google_crc32c.value(bytes(data)))


def unsealed(data: bytes | memoryview, what: str) -> bytes:
    """Return bytes without the checksum behind them.

    Raises
    ------
    ChecksumMismatch
        If they are damaged; says `what`.
    """
    body, found = bytes(data[: -_CRC.size]), data[-_CRC.size :]
    if len(data) < _CRC.size or crc32c(body) != bytes(found):
        raise ChecksumMismatch(f"{what} is damaged: its checksum is wrong")
    return body


def unpacked(data: bytes | memoryview, raw_bytes: int, what: str) -> bytes:
    """Return the pixels of a block that must hold so many bytes of them; raises as `unpack_into` does."""
    body = _checked(data, raw_bytes, what)
    try:
        raw: bytes = blosc.decompress(body)
    except (RuntimeError, ValueError) as error:
        raise ChecksumMismatch(f"{what} cannot be unpacked") from error
    return raw


def unpack_into(target: memoryview, data: bytes | memoryview, what: str) -> None:
    """Write the pixels of a block, which must hold exactly as many bytes of them as the target has.

    Raises
    ------
    ChecksumMismatch
        If the block is damaged or holds another number of bytes; says `what`.
    """
    body = _checked(data, target.nbytes, what)
    try:
        blosc.decompress(body, target)
    except (RuntimeError, ValueError) as error:
        raise ChecksumMismatch(f"{what} cannot be unpacked") from error


def _checked(data: bytes | memoryview, raw_bytes: int, what: str) -> bytes:
    body = unsealed(data, what)
    if len(body) < _HEADER_BYTES or struct.unpack_from("<I", body, 4)[0] != raw_bytes:
        raise ChecksumMismatch(f"{what} does not hold the {raw_bytes} bytes of its frames")
    return body
