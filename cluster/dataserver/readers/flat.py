"""Frames that lie one after the other in a file: read by offset arithmetic, whatever the size of the file.

Plain reads, not a memory map: a mapped file that is cut short under us would end the process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from cluster.dataserver.readers.interface import Frames, Progress, Ranges, Run, SeriesShape
from cluster.dataserver.readers.pixels import served_dtype, to_served
from cluster.errors import Invalid
from cluster.protocol import MetadataValue, SeriesEvent


@dataclass(frozen=True)
class FlatLayout:
    """Where frames lie: frame n begins at `offset + n * frame bytes`; `dtype` carries the byte order."""

    offset: int
    height: int
    width: int
    dtype: np.dtype[Any]
    frames: int

    @property
    def frame_bytes(self) -> int:
        """Return the size of one frame in the file."""
        return self.height * self.width * self.dtype.itemsize

    def whole_frames(self, file_bytes: int) -> int:
        """Return how many of the frames a file of this size holds."""
        return max(0, min(self.frames, (file_bytes - self.offset) // self.frame_bytes))

    @property
    def as_served(self) -> bool:
        """Return whether the bytes in the file are those that are served, in the order of little-endian machines."""
        return self.dtype.newbyteorder("<") == self.dtype and self.dtype.name in {
            "uint8",
            "uint16",
            "float32",
        }

    def missing(self, file_bytes: int) -> Ranges:
        """Return the frames that a file of this size does not hold."""
        whole = self.whole_frames(file_bytes)
        return ((whole, self.frames),) if whole < self.frames else ()


class FlatFile:
    """An open file of frames laid flat.

    Raises
    ------
    Invalid
        If the pixels are of a type that cannot be served.
    """

    def __init__(self, path: Path, layout: FlatLayout) -> None:
        self._served = served_dtype(layout.dtype, path.name)
        self._file = path.open("rb", buffering=0)
        self._path = path
        self._layout = layout
        self._reading = threading.Lock()

    @property
    def served(self) -> np.dtype[Any]:
        """Return the type in which frames are served."""
        return self._served

    def read(self, start: int, stop: int) -> tuple[Frames, tuple[int, ...]]:
        """Return frames [start, stop), and those the file turned out not to hold, zeroed."""
        layout = self._layout
        frames = np.empty((stop - start, layout.height, layout.width), layout.dtype)
        target = frames.reshape(-1).view(np.uint8).data
        with self._reading:
            filled = read_into(self._file, layout.offset + start * layout.frame_bytes, target)
        whole = filled // layout.frame_bytes
        frames[whole:] = 0
        served = to_served(frames, self._served, first_frame=start, name=self._path.name)
        return served, tuple(range(start + whole, stop))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def read_into(file: FileIO, offset: int, target: memoryview) -> int:
    """Fill `target` from `offset` on; return how many bytes there were."""
    filled = 0
    if offset >= os.fstat(file.fileno()).st_size:
        return filled  # no seek: an absurd offset is an error to some file systems
    file.seek(offset)
    while filled < target.nbytes:
        got = file.readinto(target[filled:])
        if not got:
            break
        filled += got
    return filled


class FlatSeries:
    """A series whose frames lie flat in one file, described by what its opener found out."""

    def __init__(
        self,
        path: Path,
        layout: FlatLayout,
        *,
        format_name: str,
        metadata: dict[str, MetadataValue],
        companions: Sequence[Path] = (),
    ) -> None:
        file_bytes = path.stat().st_size
        check_not_empty(path, file_bytes, layout)
        self._frames = FlatFile(path, layout)
        self._layout = layout
        self._file_bytes = file_bytes
        self._files = (path, *companions)
        self._shape = SeriesShape(
            format=format_name,
            height=layout.height,
            width=layout.width,
            dtype=self._frames.served,
            frames=layout.frames,
            missing=layout.missing(file_bytes),
            metadata=metadata,
        )

    @property
    def shape(self) -> SeriesShape:
        """Return what the series is."""
        return self._shape

    @property
    def files(self) -> Sequence[Path]:
        """Return the file of frames and those that describe it."""
        return self._files

    def read(self, start: int, stop: int) -> tuple[Frames, tuple[int, ...]]:
        """Return frames [start, stop) and the numbers of those that are missing."""
        return self._frames.read(start, stop)

    def progress(self, since: int) -> Progress:
        """Return how many frames the file's size shows to be whole; those are final, for frames follow each other."""
        del since
        layout = self._layout
        whole = layout.whole_frames(self._file_bytes)
        beyond = self._file_bytes - layout.offset - layout.frames * layout.frame_bytes
        is_outgrown = (
            layout.offset == 0 and beyond >= layout.frame_bytes
        )  # nothing but frames, and more than described
        return Progress(
            whole,
            promised=layout.frames,
            torn=whole < layout.frames and (self._file_bytes - layout.offset) % layout.frame_bytes > 0,
            marked=True,
            ended=whole == layout.frames and not is_outgrown,
        )

    def runs(self) -> tuple[Run, ...] | None:
        """Return the one run of whole frames, if their bytes are as served."""
        layout = self._layout
        whole = layout.whole_frames(self._files[0].stat().st_size)
        return (Run(0, whole, 0, layout.offset, layout.frame_bytes),) if layout.as_served else None

    def events(self) -> list[SeriesEvent]:
        """Return nothing: these formats record no events."""
        return []

    def close(self) -> None:
        """Let go of the file."""
        self._frames.close()


def check_not_empty(path: Path, file_bytes: int, layout: FlatLayout) -> None:
    """Refuse a file that holds no frame at all; raises `Invalid`."""
    if min(layout.height, layout.width) < 1:
        raise Invalid(f"{path.name} is described as {layout.height} × {layout.width} px: that is no image")
    if layout.frames < 1:
        raise Invalid(f"{path.name} holds no frames")
    if layout.whole_frames(file_bytes) == 0:
        raise Invalid(
            f"{path.name} holds {file_bytes} bytes, less than one frame of {layout.frame_bytes} bytes "
            f"({layout.height} × {layout.width} px {layout.dtype.name})"
        )
