"""How every body on the wire begins: `MAGIC, header length (u32 le), msgpack header`, then the payload. Nothing here unpickles."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgpack
import numpy as np
from isal import isal_zlib

from cluster.errors import ChecksumMismatch, Invalid, TooLarge

FRAME_DTYPES: Final = {"uint8": "|u1", "uint16": "<u2", "float32": "<f4"}
_PREFIX: Final = struct.Struct("<4sI")
_MAX_HEADER_BYTES: Final = 1 << 20


def prefixed(magic: bytes, header: dict[str, Any]) -> bytes:
    """Return what comes before the payload; the header must say its `bytes` and `crc32`."""
    packed: bytes = msgpack.packb(header)
    return _PREFIX.pack(magic, len(packed)) + packed


def split(magic: bytes, body: bytes | memoryview) -> tuple[dict[str, Any], memoryview]:
    """Return header and payload.

    Raises
    ------
    Invalid
        If the body is not one that begins with `magic`.
    ChecksumMismatch
        If the payload is not as long as the header says.
    """
    view = memoryview(body)
    if view.nbytes < _PREFIX.size:
        raise Invalid("the body is too short to be one of ours")
    found, length = _PREFIX.unpack_from(view)
    if found != magic:
        raise Invalid("the body does not begin as one of ours does")
    if length > _MAX_HEADER_BYTES or _PREFIX.size + length > view.nbytes:
        raise Invalid("the body's header is longer than the body")
    header = unpack(view[_PREFIX.size : _PREFIX.size + length])
    payload = view[_PREFIX.size + length :]
    if integer(header, "bytes") != payload.nbytes:
        raise ChecksumMismatch(f"{payload.nbytes} bytes arrived of {header['bytes']}")
    return header, payload


def integer(header: Mapping[str, Any], key: str) -> int:
    """Return a whole number, zero or more; raises `Invalid`."""
    value = header.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Invalid(f"{key} must be a whole number, zero or more", field=key)
    return value


def integers(header: Mapping[str, Any], key: str) -> list[int]:
    """Return a list of them, empty if there is none; raises `Invalid`."""
    values = header.get(key, [])
    if not isinstance(values, list) or not all(isinstance(v, int) and v >= 0 for v in values):
        raise Invalid(f"{key} must be a list of whole numbers", field=key)
    return values


def checked_shape(header: Mapping[str, Any], limit_bytes: int) -> tuple[Sequence[int], np.dtype[Any]]:
    """Return shape and type of frames; raises `Invalid`, or `TooLarge` if they would need more bytes."""
    shape = integers(header, "shape")
    code = FRAME_DTYPES.get(str(header.get("dtype")))
    if len(shape) != 3 or code is None:
        raise Invalid("frames must be a (frames, height, width) array of a known type", field="shape")
    dtype = np.dtype(code)
    needed = dtype.itemsize
    for length in shape:
        needed *= length
    if needed > limit_bytes:
        raise TooLarge(f"{needed} bytes of frames are over the limit of {limit_bytes}")
    return shape, dtype


def check_crc(header: Mapping[str, Any], payload: memoryview) -> None:
    """Raise `ChecksumMismatch` if the payload is not what the header was made of."""
    if isal_zlib.crc32(payload) != header.get("crc32"):
        raise ChecksumMismatch("the bytes that arrived are not the bytes that were sent")


def unpack(packed: memoryview) -> dict[str, Any]:
    """Return a msgpack map; raises `Invalid`."""
    try:
        value = msgpack.unpackb(packed, strict_map_key=True, max_ext_len=0)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise Invalid("the body's header cannot be read") from error
    if not isinstance(value, dict):
        raise Invalid("the body's header is not a map")
    return value
