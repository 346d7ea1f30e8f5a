"""A chunk of frames as it lies on the disk: Zarr's codecs bytes, blosc (lz4, bitshuffle) and crc32c."""

from __future__ import annotations

import struct
from typing import Any, Final

import google_crc32c
import numpy as np
from numcodecs import blosc

from cluster.dataserver.live.layout import Layout
from cluster.errors import ChecksumMismatch

Frames = np.ndarray[Any, np.dtype[Any]]
_CRC: Final = struct.Struct("<I")
_HEADER_BYTES: Final = 16


def encode_chunk(layout: Layout, frames: Frames) -> list[bytes]:
    """Return a chunk's file as buffers; a chunk of fewer frames is filled with black ones."""
    if len(frames) < layout.chunk_frames:
        whole = np.zeros((layout.chunk_frames, layout.height, layout.width), layout.dtype)
        whole[: len(frames)] = frames
        frames = whole
    raw = np.ascontiguousarray(frames, layout.dtype.newbyteorder("<"))
    return sealed(blosc.compress(raw.data.cast("B"), b"lz4", 5, blosc.BITSHUFFLE, 0, layout.dtype.itemsize))


def sealed(compressed: bytes) -> list[bytes]:
    """Return compressed frames with their checksum behind them."""
    return [compressed, crc32c(compressed)]


def crc32c(data: bytes) -> bytes:
    """Return the checksum as Zarr writes it."""
    return _CRC.pack(google_crc32c.value(data))


def unsealed(data: bytes, what: str) -> bytes:
    """Return bytes without the checksum behind them.

    Raises
    ------
    ChecksumMismatch
        If they are damaged; says `what`.
    """
    body, found = data[: -_CRC.size], data[-_CRC.size :]
    if len(data) < _CRC.size or crc32c(body) != found:
        raise ChecksumMismatch(f"{what} is damaged: its checksum is wrong")
    return body


def decode_chunk(layout: Layout, data: bytes, what: str) -> Frames:
    """Return the frames of a chunk's file.

    Raises
    ------
    ChecksumMismatch
        If the file is damaged or is not one of this layout; says `what`.
    """
    body = unsealed(data, what)
    if len(body) < _HEADER_BYTES or struct.unpack_from("<I", body, 4)[0] != layout.chunk_bytes:
        raise ChecksumMismatch(f"{what} does not hold {layout.chunk_frames} frames of this series")
    try:
        raw = blosc.decompress(body)
    except (RuntimeError, ValueError) as error:
        raise ChecksumMismatch(f"{what} cannot be unpacked") from error
    return as_frames(layout, raw)


def as_frames(layout: Layout, raw: bytes | memoryview) -> Frames:
    """Return little-endian pixels as frames."""
    found: Frames = np.frombuffer(raw, layout.dtype.newbyteorder("<"))
    return found.reshape(-1, layout.height, layout.width).astype(layout.dtype, copy=False)
