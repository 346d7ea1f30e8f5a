"""Frames of an HDF5 dataset taken as stored chunks and unpacked here: bounded, and outside HDF5's one lock."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any, Final

import h5py
import numpy as np

_DEFLATE, _SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE
_UNDERSTOOD: Final = ((), (_DEFLATE,), (_SHUFFLE, _DEFLATE))
Unpack = Callable[[bytes], np.ndarray[Any, Any]]


def whole_frame_unpacker(images: h5py.Dataset) -> Unpack | None:
    """Return how to unpack one stored chunk of whole frames, or None if the dataset is stored otherwise."""
    if images.chunks is None or images.chunks[1:] != images.shape[1:]:
        return None
    plist = images.id.get_create_plist()
    filters = tuple(plist.get_filter(number)[0] for number in range(plist.get_nfilters()))
    if filters not in _UNDERSTOOD or images.dtype.kind not in "iuf":
        return None
    shape, dtype = images.chunks, images.dtype

    def unpack(stored: bytes) -> np.ndarray[Any, Any]:
        length = math.prod(shape) * dtype.itemsize
        raw: bytes | memoryview = stored
        if _DEFLATE in filters:
            raw = zlib.decompressobj().decompress(stored, length)
        if _SHUFFLE in filters and dtype.itemsize > 1:
            planes = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1)
            raw = np.ascontiguousarray(planes.T).data
        return np.frombuffer(raw, dtype).reshape(shape)

    return unpack


def read_stored(images: h5py.Dataset, frame: int) -> bytes | None:
    """Return the stored chunk that begins at `frame`, or None if it has no bytes or left out a filter."""
    try:
        mask, stored = images.id.read_direct_chunk((frame, 0, 0))
    except OSError:
        return None
    return None if mask else stored


def present_frames(images: h5py.Dataset, file_bytes: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which frames lie wholly within a file that ends at `file_bytes`."""
    frames = images.shape[0]
    if images.chunks is None:
        offset = images.id.get_offset()
        frame_bytes = math.prod(images.shape[1:]) * images.dtype.itemsize
        whole = 0 if offset is None else max(0, file_bytes - offset) // frame_bytes
        return np.arange(frames) < whole
    depth = images.chunks[0]
    needed = math.prod(
        -(-side // chunk) for side, chunk in zip(images.shape[1:], images.chunks[1:], strict=True)
    )
    found = np.zeros(-(-frames // depth), np.int64)

    def count(chunk: h5py.h5d.StoreInfo) -> None:
        beyond = (
            chunk.chunk_offset[0] >= frames
        )  # of a file that is being written the index may be ahead of the shape
        if chunk.byte_offset + chunk.size <= file_bytes and not beyond:
            found[chunk.chunk_offset[0] // depth] += 1

    images.id.chunk_iter(count)
    present: np.ndarray[Any, np.dtype[np.bool_]] = np.repeat(found == needed, depth)[:frames]
    return present
