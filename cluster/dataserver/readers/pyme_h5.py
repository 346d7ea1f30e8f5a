"""PYME's `.h5`: `ImageData` is (frame, x, y) and is transposed here; `Events` and `MetaData` come along.

HDF5 is not to be run by several threads: one lock serves all files. Links and storage outside the file are refused.
"""

from __future__ import annotations

import io
import math
import threading
import zlib
from pathlib import Path
from typing import Any, Final, NamedTuple

import h5py
import numpy as np

from cluster.dataserver.readers import hdf5_chunks, torn_hdf5
from cluster.dataserver.readers.interface import Frames, Progress, SeriesShape, as_ranges, values_from
from cluster.dataserver.readers.one_file import OneFile
from cluster.dataserver.readers.pixels import served_dtype, to_served
from cluster.errors import Invalid, Unavailable
from cluster.protocol import SeriesEvent
from cluster.pyme_metadata import read_tree

LOCK: Final = threading.RLock()
_MAX_EVENTS: Final = 1_000_000
_MAX_CHUNK_BYTES: Final = 256 << 20
_CACHE_BYTES: Final = 16 << 20
_MAX_FRAMES: Final = 1 << 31
HDF5_FAULTS: Final = (
    OSError, RuntimeError, ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError,
)  # fmt: skip


class PymeH5(OneFile):
    """An open PYME spool file, or an HDF5 file with `dataset`, an array of frames as they are shown.

    Raises
    ------
    Invalid
        If it is no HDF5 file, holds no `ImageData` of frames, or reaches outside itself.
    """

    def __init__(self, path: Path, dataset: str | None = None, *, written: bool = False) -> None:
        super().__init__(path)
        self._turned = dataset is None  # PYME's are (frame, x, y)
        with LOCK:
            self._file, self._source, self._torn = open_file(path, written=written)
            try:
                self._images = _images(self._file, dataset or "ImageData", path.name)
                self._unpack = hdf5_chunks.whole_frame_unpacker(self._images)
                self._events = read_events(self._file, torn=self._torn)
                self._describe()
            except HDF5_FAULTS as error:
                self.close()
                raise Invalid(f"{path.name} is damaged: {error}") from error
            except BaseException:
                self.close()
                raise

    def _describe(self) -> None:
        frames, width, height = self._images.shape if self._turned else np.take(self._images.shape, (0, 2, 1))
        self._present = np.ones(frames, bool)
        if self._torn:
            self._present = hdf5_chunks.present_frames(self._images, self._path.stat().st_size)
        if not self._present.any():
            raise Invalid(f"{self._path.name} is cut short before its first whole frame")
        self._shape = SeriesShape(
            format="pyme-h5" if self._turned else "hdf5",
            height=int(height),
            width=int(width),
            dtype=served_dtype(self._images.dtype, self._path.name),
            frames=int(frames),
            missing=as_ranges(np.flatnonzero(~self._present).tolist()),
            metadata=values_from("file", read_metadata(self._file, torn=self._torn)),
            events=len(self._events),
        )

    def read(self, start: int, stop: int) -> tuple[Frames, tuple[int, ...]]:
        """Return frames [start, stop) and the numbers of those that could not be read."""
        frames = np.zeros((stop - start, self._shape.height, self._shape.width), self._images.dtype)
        depth = self._images.chunks[0] if self._unpack is not None else 1
        missing: list[int] = []
        for first in range(start - start % depth, stop, depth):
            slab = range(max(first, start), min(first + depth, stop))
            pixels = self._slab(first, slab)
            if pixels is None:
                missing.extend(slab)
            else:
                frames[slab.start - start : slab.stop - start] = (
                    pixels.transpose(0, 2, 1) if self._turned else pixels
                )
        served = to_served(frames, self._shape.dtype, first_frame=start, name=self._path.name)
        return served, tuple(missing)

    def progress(self, since: int) -> Progress:
        """Return how many frames have all of their chunks in the index, and a chunk after them.

        Dimensions, index and chunks reach the disk in any order. A chunk of several frames may be there with only its
        first ones: it counts when its last frame is not black, as no frame of a camera is.
        """
        frames, depth = self._shape.frames, self._depth()
        try:
            with LOCK:
                there = hdf5_chunks.present_frames(self._images, self._path.stat().st_size)
        except HDF5_FAULTS as error:
            raise Unavailable(
                f"{self._path.name} cannot be read now, while it is written: {error}"
            ) from error
        gap = frames if there.all() else int(np.argmin(there))
        ended = self._turned and not self._torn and "EndTime" in self._shape.metadata
        whole = gap if ended and gap == frames else max(0, (gap - 1) // depth * depth)
        if depth > 1 and not ended:
            whole = next(
                (n for n in range(since - since % depth, whole, depth) if self._is_black(n + depth - 1)),
                whole,
            )
        return Progress(whole, torn=gap < frames, marked=self._turned, ended=ended and gap == frames)

    def _depth(self) -> int:
        return self._images.chunks[0] if self._images.chunks else 1

    def _is_black(self, frame: int) -> bool:
        pixels, missing = self.read(frame, frame + 1)
        return bool(missing) or not pixels.any()

    def _slab(self, first: int, slab: range) -> Frames | None:
        """Return the frames of `slab`, which lie in the chunk that begins at `first`; None if damaged or torn off."""
        if not self._present[slab.start : slab.stop].all():
            return None
        try:
            if self._unpack is None:
                with LOCK:
                    return np.asarray(self._images[slab.start : slab.stop])
            with LOCK:
                stored = hdf5_chunks.read_stored(self._images, first)
            return None if stored is None else self._unpack(stored)[slab.start - first : slab.stop - first]
        except (zlib.error, *HDF5_FAULTS):
            return None

    def events(self) -> list[SeriesEvent]:
        """Return the acquisition's events, in the file's order."""
        return self._events

    def close(self) -> None:
        """Let go of the file."""
        with LOCK:
            self._file.close()
            if self._source is not None:
                self._source.close()


class Opened(NamedTuple):
    """An HDF5 file, and what it reads from if that is not the path; close them in this order."""

    file: h5py.File
    source: io.RawIOBase | None
    torn: bool


def open_file(path: Path, *, written: bool = False) -> Opened:
    """Open without locking: the program that writes the file must not notice.

    HDF5 opens a file only once in a process, and gives whoever opens it again what it read of it the first time. With
    `written` it is read as it is now, whoever else has it open.
    """
    try:
        if written:
            return Opened(*torn_hdf5.open_torn(path, path.stat().st_size), torn=False)
        return Opened(h5py.File(path, "r", locking=False, rdcc_nbytes=_CACHE_BYTES), None, torn=False)
    except OSError as error:
        promised = torn_hdf5.promised_bytes(error)
        if "open for write" in str(error):
            raise Invalid(
                f"{path.name} is open in the program that writes it, and HDF5 lets nobody read it until that closes it; "
                "if that program was killed, h5clear -s makes it readable"
            ) from error
        if promised is None:
            raise Invalid(f"{path.name} is not an HDF5 file that can be read") from error
    try:
        return Opened(*torn_hdf5.open_torn(path, promised), torn=True)
    except HDF5_FAULTS as error:
        raise Invalid(f"{path.name} is cut short, and nothing of it can be read") from error


def _images(file: h5py.File, key: str, name: str) -> h5py.Dataset:
    refuse_elsewhere(file, key, name)
    images = file[key]
    if not isinstance(images, h5py.Dataset) or images.ndim != 3 or images.size == 0:
        order = "frame, x, y" if key == "ImageData" else "frame, y, x"
        raise Invalid(f"{name}: {key} holds no frames; it must be an array of {order}")
    if max(images.shape) >= _MAX_FRAMES:
        raise Invalid(f"{name}: {key} claims the shape {images.shape}")
    if images.chunks and math.prod(images.chunks) * images.dtype.itemsize > _MAX_CHUNK_BYTES:
        raise Invalid(f"{name} is stored in chunks of {images.chunks}, too large to be served")
    if int(images.attrs.get("SizeC", 1)) > 1:
        raise Invalid(f"{name} holds several colours; a series of one can be localised")
    served_dtype(images.dtype, name)
    return images


def refuse_elsewhere(file: h5py.File, key: str, name: str) -> None:
    """Refuse a key that is, or lies below, a link, or whose data lie in other files; raises `Invalid`, also for no such key."""
    group: Any = file
    for part in key.split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            raise Invalid(f"{name} holds no {key}")
        if not isinstance(link, h5py.HardLink):
            raise Invalid(f"{name} links {key} to elsewhere; links are not followed")
        group = group[part]
    if isinstance(group, h5py.Dataset) and (group.external or group.is_virtual):
        raise Invalid(f"{name} keeps {key} in other files; that is not followed")


def read_metadata(file: h5py.File, *, torn: bool) -> dict[str, Any]:
    """Return PYME's metadata. A torn file may have lost its metadata; what is needed is then asked for by name."""
    try:
        if "MetaData" not in file:
            return {}
        refuse_elsewhere(file, "MetaData", _name(file))
        return read_tree(file["MetaData"])
    except HDF5_FAULTS:
        if torn:
            return {}
        raise


def read_events(file: h5py.File, *, torn: bool) -> list[SeriesEvent]:
    """Return the acquisition's events; of a torn file those that are left."""
    try:
        if "Events" not in file:
            return []
        refuse_elsewhere(file, "Events", _name(file))
        table = file["Events"][:_MAX_EVENTS]
        return [_event(row) for row in table]
    except HDF5_FAULTS:
        if torn:
            return []
        raise


def _event(row: Any) -> SeriesEvent:
    return SeriesEvent(
        name=_text(row["EventName"]), description=_text(row["EventDescr"]), time=float(row["Time"])
    )


def _name(file: h5py.File) -> str:
    return Path(str(file.filename)).name


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
