"""Zarr of version 2 or 3 and OME-Zarr, through zarr-python: a folder of chunks. A chunk that is not there is frames that are missing.

Zarr itself takes an absent chunk for zeros, which for a camera is a lie: a frame lost without a word.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.dataserver.readers.interface import Frames, SeriesShape, as_ranges
from cluster.dataserver.readers.pixels import served_dtype, to_served
from cluster.dataserver.readers.text import read_text
from cluster.errors import Invalid
from cluster.protocol import SeriesEvent

_MARKS: Final = ("zarr.json", ".zarray", ".zgroup")
_MAX_CHUNK_BYTES: Final = 256 << 20
_MAX_FRAMES: Final = 1 << 31
_MAX_CHUNKS: Final = 1 << 24
_CODECS: Final = frozenset(
    ("blosc", "bytes", "transpose", "crc32c", "crc32", "gzip", "zlib", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta",
     "sharding_indexed")
)  # fmt: skip
# no other codec: one of numcodecs' unpickles what it finds
_FAULTS: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, NotImplementedError, OverflowError, MemoryError)  # fmt: skip


def is_zarr(folder: Path) -> bool:
    """Return whether a folder is a Zarr array or group."""
    return any((folder / mark).is_file() for mark in _MARKS)


class ZarrSeries:
    """An open Zarr array, or the full-resolution one of an OME-Zarr.

    Raises
    ------
    Invalid
        If it holds no array of frames, or is stored in a way that is not read.
    """

    def __init__(self, folder: Path) -> None:
        import zarr  # heavy: half a second that other formats need not wait for
        from zarr.storage import LocalStore

        self._folder = folder
        self._place = _array_folder(folder)
        said = _check_stored(self._place, folder.name)
        try:
            self._array: Any = zarr.open_array(LocalStore(self._place, read_only=True), mode="r")
            shape = tuple(self._array.shape)
            stored = tuple(self._array.shards or self._array.chunks)
            self._depth = int(stored[0])
        except _FAULTS as error:
            raise Invalid(f"{folder.name} is no Zarr array that can be read: {str(error)[:200]}") from error
        _check_axes(shape, stored, self._array.dtype, folder.name)
        frames = shape[0]
        self._present = self._present_frames(frames, stored)
        if not self._present.any():
            raise Invalid(f"{folder.name} holds not one whole frame")
        self._shape = SeriesShape(
            format=f"zarr{self._array.metadata.zarr_format}",
            height=int(shape[-2]),
            width=int(shape[-1]),
            dtype=served_dtype(self._array.dtype, folder.name),
            frames=int(frames),
            missing=as_ranges(np.flatnonzero(~self._present).tolist()),
        )
        self._files = (folder, *({self._place} - {folder}), *said)

    def _present_frames(self, frames: int, stored: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which frames have all their chunk files; the names are asked for by folder, once."""
        grid = [-(-side // part) for side, part in zip(self._array.shape, stored, strict=True)]
        if math.prod(grid) > _MAX_CHUNKS:
            raise Invalid(f"{self._folder.name} claims {math.prod(grid)} chunks")
        names = _chunk_files(self._place)
        encode = self._array.metadata.encode_chunk_key
        across = list(np.ndindex(*grid[1:]))
        there = [all(encode((first, *rest)) in names for rest in across) for first in range(grid[0])]
        return np.repeat(np.array(there, bool), stored[0])[:frames]

    @property
    def shape(self) -> SeriesShape:
        """Return what the series is."""
        return self._shape

    @property
    def files(self) -> Sequence[Path]:
        """Return the folder and the files that describe the array."""
        return self._files

    def read(self, start: int, stop: int) -> tuple[Frames, tuple[int, ...]]:
        """Return frames [start, stop) and the numbers of those that could not be read."""
        frames = np.zeros((stop - start, self._shape.height, self._shape.width), self._array.dtype)
        missing: list[int] = []
        for first in range(start - start % self._depth, stop, self._depth):
            slab = range(max(first, start), min(first + self._depth, stop))
            pixels = self._slab(slab)
            if pixels is None:
                missing.extend(slab)
                continue
            absent = self._absent_in_shards(pixels)
            missing.extend(slab.start + int(n) for n in np.flatnonzero(absent))
            frames[slab.start - start : slab.stop - start][~absent] = pixels[~absent]
        served = to_served(frames, self._shape.dtype, first_frame=start, name=self._folder.name)
        return served, tuple(missing)

    def _slab(self, slab: range) -> Frames | None:
        """Return frames of one chunk along time; None if it is absent or damaged."""
        if not self._present[slab.start]:
            return None
        try:
            pixels = np.asarray(self._array[slab.start : slab.stop])
        except _FAULTS:
            return None
        return pixels.reshape(len(slab), self._shape.height, self._shape.width)

    def _absent_in_shards(self, pixels: Frames) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which frames lack a part in a shard that is there: Zarr says nothing and gives the fill value.

        A whole part of exactly that value is no picture of a camera, which has noise and an offset.
        """
        absent = np.zeros(len(pixels), bool)
        if self._array.shards is None:
            return absent
        height, width = (int(side) for side in self._array.chunks[-2:])
        for y in range(0, self._shape.height, height):
            for x in range(0, self._shape.width, width):
                part = pixels[:, y : y + height, x : x + width]
                absent |= (part == self._array.fill_value).all(axis=(1, 2))
        return absent

    def events(self) -> list[SeriesEvent]:
        """Return nothing: Zarr records no events."""
        return []

    def close(self) -> None:
        """Nothing stays open between reads."""


def _array_folder(folder: Path) -> Path:
    """Return where the array is: the folder, or the first data set that OME-Zarr names, or "0"."""
    if (folder / ".zarray").is_file() or _notes(folder / "zarr.json").get("node_type") == "array":
        return folder
    attributes = _notes(folder / "zarr.json").get("attributes") or _notes(folder / ".zattrs")
    name = "0"
    try:
        scales = attributes.get("ome", attributes)["multiscales"]
        name = str(scales[0]["datasets"][0]["path"])
    except (KeyError, IndexError, TypeError, AttributeError):
        pass
    place = folder / name
    if not place.resolve().is_relative_to(folder.resolve()) or not is_zarr(place):
        raise Invalid(f"{folder.name} is a Zarr group without an array {name!r} in it")
    return place


def _notes(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        notes = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{path.name} is no JSON that can be read") from error
    return notes if isinstance(notes, dict) else {}


def _check_stored(place: Path, name: str) -> list[Path]:
    """Return the files that describe the array, having refused codecs that could do more than decode."""
    said = [place / mark for mark in ("zarr.json", ".zarray", ".zattrs") if (place / mark).is_file()]
    for path in said:
        notes = _notes(path)
        codecs = [notes.get("compressor"), *(notes.get("filters") or []), *(notes.get("codecs") or [])]
        for codec in _with_inner([codec for codec in codecs if isinstance(codec, dict)]):
            which = str(codec.get("id", codec.get("name", "")))
            if which.removeprefix("numcodecs.") not in _CODECS:
                raise Invalid(f"{name} is stored by the codec {which[:50]!r}, which is not read")
    return said


def _with_inner(codecs: Sequence[dict[str, Any]], depth: int = 0) -> list[dict[str, Any]]:
    """Return the codecs and those within shards."""
    found = list(codecs)
    for codec in codecs:
        configuration = codec.get("configuration")
        if isinstance(configuration, dict) and depth < 4:
            for key in ("codecs", "index_codecs"):
                inner = configuration.get(key)
                if isinstance(inner, list):
                    found += _with_inner([item for item in inner if isinstance(item, dict)], depth + 1)
    return found


def _check_axes(shape: tuple[int, ...], stored: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    """Axes between time and the image (channel, z) must be of length 1."""
    served_dtype(dtype, name)
    if len(shape) < 3 or any(side != 1 for side in shape[1:-2]):
        raise Invalid(f"{name} is an array of shape {shape}; a series is frame, y, x, of one channel")
    if min(shape) < 1 or max(shape) >= _MAX_FRAMES:
        raise Invalid(f"{name} claims the shape {shape}")
    if math.prod(stored) * dtype.itemsize > _MAX_CHUNK_BYTES:
        raise Invalid(f"{name} is stored in chunks of {stored}, too large to be served")


def _chunk_files(place: Path) -> set[str]:
    return {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
