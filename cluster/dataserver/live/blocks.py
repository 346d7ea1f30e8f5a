"""A chunk of frames as it lies on the disk: one of `cluster.blocks`, filled up to its full length."""

from __future__ import annotations

from typing import Any

import numpy as np

from cluster.blocks import packed, unpacked
from cluster.dataserver.live.layout import Layout

Frames = np.ndarray[Any, np.dtype[Any]]


def encode_chunk(layout: Layout, frames: Frames) -> list[bytes]:
    """Return a chunk's file as buffers; a chunk of fewer frames is filled with black ones."""
    if len(frames) < layout.chunk_frames:
        whole = np.zeros((layout.chunk_frames, layout.height, layout.width), layout.dtype)
        whole[: len(frames)] = frames
        frames = whole
    return packed(frames.astype(layout.dtype, copy=False))


def decode_chunk(layout: Layout, data: bytes, what: str) -> Frames:
    """Return the frames of a chunk's file.

    Raises
    ------
    ChecksumMismatch
        If the file is damaged or is not one of this layout; says `what`.
    """
    return as_frames(layout, unpacked(data, layout.chunk_bytes, what))


def as_frames(layout: Layout, raw: bytes | memoryview) -> Frames:
    """Return little-endian pixels as frames."""
    found: Frames = np.frombuffer(raw, layout.dtype.newbyteorder("<"))
    return found.reshape(-1, layout.height, layout.width).astype(layout.dtype, copy=False)
