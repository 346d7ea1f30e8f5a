"""Arrays on the wire: a range of frames, and the result of a task. Checked before a byte is allocated.

Both bodies are `MAGIC, header length (u32 le), msgpack header, payload`. The header carries shapes, dtypes (from a
fixed list), the codec, the payload's size before and after compression and its CRC-32. Nothing here unpickles.
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import msgpack
import numpy as np
from isal import isal_zlib
from numcodecs import blosc

from cluster.bodies import FRAME_DTYPES, check_crc, checked_shape, integer, integers, prefixed, split, unpack
from cluster.errors import Invalid, TooLarge

FRAMES_MEDIA_TYPE: Final = "application/vnd.clusterofone.frames"
RESULT_MEDIA_TYPE: Final = "application/vnd.clusterofone.result"
MAX_FRAMES_BYTES: Final = 1 << 30
MAX_RESULT_BYTES: Final = 256 << 20
CODECS: Final = ("none", "blosc-lz4")

# the header of an array of one dimension as numpy writes it: all but the length is the same from task to task
_TABLE: Final = re.compile(
    rb"\x93NUMPY\x01\x00..(\{'descr': [^\n]{1,8192}, 'fortran_order': False, 'shape': )\(([0-9]{1,18}),\), \} *\n",
    re.DOTALL,
)
_FRAMES_MAGIC: Final = b"C1FR"
_RESULT_MAGIC: Final = b"C1RS"


@dataclass(frozen=True)
class FrameRange:
    """Frames [start, stop) of a series; those in `missing` could not be read and are zero."""

    start: int
    frames: np.ndarray[Any, Any]  # (n, h, w) uint8 | uint16 | float32 ADU
    missing: tuple[int, ...] = ()

    @property
    def stop(self) -> int:
        """The frame after the last."""
        return self.start + len(self.frames)


@dataclass(frozen=True)
class TaskResult:
    """What localising frames [start, stop) gave.

    `frame_status` holds `fitting.localisations.FrameStatus` by frame; `reasons` says, by frame number, why a frame
    failed or was skipped. `candidates` travels with previews only.
    """

    start: int
    stop: int
    rows: np.ndarray[Any, Any]
    frame_status: np.ndarray[Any, Any]  # (stop - start,) uint8
    fiducials: np.ndarray[Any, Any] | None = None
    candidates: np.ndarray[Any, Any] | None = None
    reasons: Mapping[int, str] = field(default_factory=dict)
    seconds: float = 0.0


def encode_frames(frames: FrameRange, codec: str = "none") -> list[bytes | memoryview]:
    """Return the body as buffers to send one after the other, so that raw frames are not copied."""
    if codec not in CODECS:
        raise Invalid(f"codec {codec!r} is unknown; there are {', '.join(CODECS)}", field="codec")
    array = np.ascontiguousarray(frames.frames)
    name = array.dtype.name
    if name not in FRAME_DTYPES:
        raise Invalid(f"frames of type {name} cannot travel", field="dtype")
    raw = array.astype(FRAME_DTYPES[name], copy=False).data.cast("B") if array.size else memoryview(b"")
    payload = raw
    if codec == "blosc-lz4" and array.nbytes:
        payload = memoryview(blosc.compress(raw, b"lz4", 5, blosc.BITSHUFFLE, 0, array.itemsize))
    crc = isal_zlib.crc32(payload)
    return [
        _frames_head(frames.start, array.shape, name, codec, payload.nbytes, crc, frames.missing),
        payload,
    ]


def raw_frames_head(start: int, shape: tuple[int, int, int], dtype: np.dtype[Any], crc32: int) -> bytes:
    """Return what comes before frames that are sent from the files in which they lie: none of them missing, none compressed."""
    size = math.prod(shape) * dtype.itemsize
    return _frames_head(start, shape, dtype.name, "none", size, crc32, ())


def _frames_head(
    start: int, shape: Sequence[int], dtype: str, codec: str, size: int, crc32: int, missing: Sequence[int]
) -> bytes:
    header = {
        "start": start,
        "shape": list(shape),
        "dtype": dtype,
        "codec": codec,
        "bytes": size,
        "crc32": crc32,
        "missing": list(missing),
    }
    return prefixed(_FRAMES_MAGIC, header)


def decode_frames(body: bytes | memoryview, *, limit_bytes: int = MAX_FRAMES_BYTES) -> FrameRange:
    """Read a range of frames.

    Raises
    ------
    Invalid
        If the body is not one of ours.
    TooLarge
        If it would need more than `limit_bytes` unpacked.
    ChecksumMismatch
        If the bytes changed on the way.
    """
    return decode_frames_as_sent(body, limit_bytes=limit_bytes)[0]


def decode_frames_as_sent(
    body: bytes | memoryview, *, limit_bytes: int = MAX_FRAMES_BYTES
) -> tuple[FrameRange, bytes | None]:
    """Read a range of frames, and return with it the same frames as blosc packed them, if it did; raises as `decode_frames`."""
    header, payload = split(_FRAMES_MAGIC, body)
    shape, dtype = checked_shape(header, limit_bytes)
    check_crc(header, payload)
    missing = tuple(integers(header, "missing"))
    start = integer(header, "start")
    raw_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw, compressed = payload, None
    codec = header.get("codec")
    if codec == "blosc-lz4" and raw_bytes:
        compressed = bytes(payload)
        raw = memoryview(_decompress(compressed, raw_bytes))
    elif codec not in CODECS:
        raise Invalid(f"codec {codec!r} is unknown", field="codec")
    if raw.nbytes != raw_bytes:
        raise Invalid("the frames are not as long as their header says", field="bytes")
    frames = np.frombuffer(raw, dtype=dtype).reshape(shape)
    return FrameRange(start=start, frames=frames, missing=missing), compressed


def encode_result(result: TaskResult) -> bytes:
    """Return the body of one task's result."""
    arrays = {
        "rows": _npy(result.rows),
        "frame_status": _npy(np.ascontiguousarray(result.frame_status, np.uint8)),
        "fiducials": None if result.fiducials is None else _npy(result.fiducials),
        "candidates": None if result.candidates is None else _npy(result.candidates),
    }
    payload: bytes = msgpack.packb(arrays)
    header = {
        "start": result.start,
        "stop": result.stop,
        "seconds": float(result.seconds),
        "reasons": {str(frame): reason for frame, reason in sorted(result.reasons.items())},
        "bytes": len(payload),
        "crc32": isal_zlib.crc32(payload),
    }
    return prefixed(_RESULT_MAGIC, header) + payload


def decode_result(body: bytes | memoryview) -> TaskResult:
    """Read one task's result.

    Raises
    ------
    Invalid
        If the body is not one of ours, or its arrays contradict its range.
    ChecksumMismatch
        If the bytes changed on the way.
    """
    if len(body) > MAX_RESULT_BYTES:
        raise TooLarge(f"a result of {len(body)} bytes is over the limit of {MAX_RESULT_BYTES}")
    header, payload = split(_RESULT_MAGIC, body)
    check_crc(header, payload)
    arrays = unpack(payload)
    start, stop = integer(header, "start"), integer(header, "stop")
    status = _read_npy(arrays, "frame_status")
    if status is None or status.dtype != np.uint8 or status.shape != (stop - start,):
        raise Invalid("a result must hold one status for each of its frames", field="frame_status")
    rows = _read_npy(arrays, "rows")
    if rows is None or rows.ndim != 1:
        raise Invalid("a result must hold a table of rows", field="rows")
    return TaskResult(
        start=start,
        stop=stop,
        rows=rows,
        frame_status=status,
        fiducials=_read_npy(arrays, "fiducials"),
        candidates=_read_npy(arrays, "candidates"),
        reasons=_reasons(header.get("reasons", {})),
        seconds=float(header.get("seconds", 0.0)),
    )


def _decompress(payload: bytes, raw_bytes: int) -> bytes:
    if len(payload) < 16:
        raise Invalid("the compressed frames are too short", field="codec")
    promised = struct.unpack_from("<I", payload, 4)[0]
    if promised != raw_bytes:
        raise Invalid("the compressed frames do not unpack to what their header says", field="codec")
    try:
        raw: bytes = blosc.decompress(payload)
    except (RuntimeError, ValueError) as error:
        raise Invalid("the compressed frames cannot be unpacked", field="codec") from error
    return raw


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
    return out.getvalue()


def _read_npy(arrays: Mapping[str, Any], name: str) -> np.ndarray[Any, Any] | None:
    packed = arrays.get(name)
    if packed is None:
        return None
    if not isinstance(packed, bytes):
        raise Invalid(f"{name} is not an array", field=name)
    try:
        table = _TABLE.match(packed)
        if table is not None and table.end() == 10 + int.from_bytes(packed[8:10], "little"):
            dtype = _dtype_of(table[1])
            # copied as bytes: numpy copies a table field by field, which takes ten times as long
            return np.frombuffer(bytearray(memoryview(packed)[table.end() :]), dtype, count=int(table[2]))
        array: np.ndarray[Any, Any] = np.lib.format.read_array(io.BytesIO(packed), allow_pickle=False)
    except (ValueError, EOFError, MemoryError, OverflowError) as error:
        raise Invalid(f"{name} is not an array that can be read", field=name) from error
    return array


@lru_cache(maxsize=64)
def _dtype_of(start: bytes) -> np.dtype[Any]:
    """Return the type that the header of a table names; numpy parses it as Python, which takes longer than all the rest."""
    text = start + b"(0,), }\n"
    packed = len(text).to_bytes(2, "little") + text
    return np.lib.format.read_array_header_1_0(io.BytesIO(packed))[2]


def _reasons(reasons: object) -> dict[int, str]:
    if not isinstance(reasons, dict):
        raise Invalid("reasons must be a map from frame to text", field="reasons")
    try:
        return {int(frame): str(reason) for frame, reason in reasons.items()}
    except ValueError as error:
        raise Invalid("reasons must be a map from frame to text", field="reasons") from error
