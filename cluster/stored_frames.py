"""A range of frames as the blocks in which it is stored: sent as they lie, unpacked by whoever asked.

The body is one of `cluster.bodies`: its header says shape, type and how many frames a block holds, and of each block its first
frame and its bytes; the payload is the blocks (`cluster.blocks`), one after the other. A block may reach beyond the range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from isal import isal_zlib

from cluster.arrays import MAX_FRAMES_BYTES, FrameRange, decode_frames
from cluster.blocks import unpack_into
from cluster.bodies import check_crc, checked_shape, integer, integers, prefixed, split
from cluster.errors import ChecksumMismatch, Invalid

_MAGIC: Final = b"C1ST"
_LARGEST_BLOCK_BYTES: Final = 512 << 20


@dataclass(frozen=True)
class StoredRange:
    """Frames [start, stop) of a series, h × w pixels each, in blocks by their first frame.

    Frames that no block holds are black; those in `missing` do not exist.
    """

    start: int
    stop: int
    height: int
    width: int
    dtype: np.dtype[Any]
    block_frames: int
    blocks: tuple[tuple[int, bytes], ...]
    missing: tuple[int, ...] = ()


def encode_stored(stored: StoredRange) -> list[bytes | memoryview]:
    """Return the body as buffers to send one after the other."""
    blocks = [memoryview(data) for _, data in stored.blocks]
    crc = 0
    for block in blocks:
        crc = isal_zlib.crc32(block, crc)
    header = {
        "start": stored.start,
        "shape": [stored.stop - stored.start, stored.height, stored.width],
        "dtype": stored.dtype.name,
        "block_frames": stored.block_frames,
        "first": [first for first, _ in stored.blocks],
        "lengths": [block.nbytes for block in blocks],
        "bytes": sum(block.nbytes for block in blocks),
        "crc32": crc,
        "missing": list(stored.missing),
    }
    return [prefixed(_MAGIC, header), *blocks]


def decode(body: bytes | memoryview, *, limit_bytes: int = MAX_FRAMES_BYTES) -> FrameRange:
    """Read a range of frames, whether it came as it is stored or not; a block that was damaged on the disk is missing.

    Raises as `decode_frames` does.
    """
    if bytes(memoryview(body)[:4]) != _MAGIC:
        return decode_frames(body, limit_bytes=limit_bytes)
    header, payload = split(_MAGIC, body)
    shape, dtype = checked_shape(header, limit_bytes)
    check_crc(header, payload)
    start, block_frames = integer(header, "start"), integer(header, "block_frames")
    first, lengths = integers(header, "first"), integers(header, "lengths")
    block_bytes = block_frames * shape[1] * shape[2] * dtype.itemsize
    if not 0 < block_bytes <= _LARGEST_BLOCK_BYTES:
        raise Invalid("the blocks of the frames are of no size that they can have", field="block_frames")
    if len(first) != len(lengths) or sum(lengths) != payload.nbytes:
        raise Invalid("the blocks of the frames are not as long as their header says", field="lengths")
    frames = np.zeros(shape, dtype)
    missing = set(integers(header, "missing"))
    at, stop = 0, start + shape[0]
    for begin, length in zip(first, lengths, strict=True):
        a, b = max(start, begin), min(stop, begin + block_frames)
        block = payload[at : at + length]
        whole = (a, b) == (begin, begin + block_frames)
        room: np.ndarray[Any, np.dtype[Any]]
        room = frames[a - start : b - start] if whole else np.zeros((block_frames, *shape[1:]), dtype)
        try:
            unpack_into(room.data.cast("B"), block, f"the block from frame {begin}")
        except ChecksumMismatch:
            frames[max(0, a - start) : max(0, b - start)] = 0
            missing.update(range(a, b))
        else:
            if not whole:
                frames[max(0, a - start) : max(0, b - start)] = room[a - begin : max(a, b) - begin]
        at += length
    return FrameRange(start, frames, tuple(sorted(missing)))
