"""Lumen's camera files (`.lmn`) for clusterofone."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster.dataserver.readers.interface import Frames, Progress, Run, SeriesShape, values_from
from cluster.errors import Invalid
from cluster.protocol import SeriesEvent

_HEADER = struct.Struct("<4sHHHHIff40x")
_FRAME_HEADER_BYTES = 16
_TYPES = {0: np.dtype("u1"), 1: np.dtype("<u2"), 2: np.dtype("<f4")}


class Lumen:
    """An open `.lmn` file.

    Raises
    ------
    Invalid
        If it is none, or holds not one whole frame; names the file and the reason.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._reading = threading.Lock()
        try:
            self._dtype, self._shape = self._understand(path.stat().st_size)
        except BaseException:
            self._file.close()
            raise

    def _understand(self, file_bytes: int) -> tuple[np.dtype[Any], SeriesShape]:
        name, head = self._path.name, self._file.read(_HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(b"LUMN"):
            raise Invalid(f"{name} is not a Lumen file")
        _, version, width, height, kind, asked, exposure_ms, pixel_nm = _HEADER.unpack(head)
        if version != 1 or kind not in _TYPES or not width or not height:
            raise Invalid(
                f"{name} is Lumen version {version} with pixels of type {kind}, {height} × {width} px"
            )
        dtype = _TYPES[kind]
        self._stride = _FRAME_HEADER_BYTES + width * height * dtype.itemsize
        self._asked = asked
        self._bytes = file_bytes
        self._whole = min(asked, (file_bytes - _HEADER.size) // self._stride)
        if self._whole < 1:
            raise Invalid(f"{name} holds not one whole frame")
        pixel_um = pixel_nm / 1000
        noted = {
            "voxelsize.x": pixel_um,
            "voxelsize.y": pixel_um,
            "Camera.IntegrationTime": exposure_ms / 1000,
        }
        shape = SeriesShape(
            format="lumen",
            height=height,
            width=width,
            dtype=dtype.newbyteorder("="),
            frames=asked,
            missing=((self._whole, asked),) if self._whole < asked else (),
            metadata=values_from("file", noted),
        )
        return dtype, shape

    @property
    def shape(self) -> SeriesShape:
        """Return what the series is."""
        return self._shape

    @property
    def files(self) -> Sequence[Path]:
        """Return the one file."""
        return (self._path,)

    def read(self, start: int, stop: int) -> tuple[Frames, tuple[int, ...]]:
        """Return frames [start, stop) and the numbers of those that the file does not hold, which are zero."""
        shape = self._shape
        frames = np.zeros((stop - start, shape.height, shape.width), shape.dtype)
        missing = []
        for number in range(start, stop):
            data = self._pixels(number) if number < self._whole else b""
            if len(data) == shape.frame_bytes:
                frames[number - start] = np.frombuffer(data, self._dtype).reshape(shape.height, shape.width)
            else:
                missing.append(number)
        return frames, tuple(missing)

    def _pixels(self, number: int) -> bytes:
        with self._reading:
            self._file.seek(_HEADER.size + number * self._stride + _FRAME_HEADER_BYTES)
            return self._file.read(self._shape.frame_bytes)

    def runs(self) -> tuple[Run, ...] | None:
        """Return where the whole frames lie: workers on this machine read them there."""
        return (Run(0, self._whole, 0, _HEADER.size + _FRAME_HEADER_BYTES, self._stride),)

    def progress(self, since: int) -> Progress:
        """Return how far the file has come; the camera appends whole frames, so its size tells."""
        del since
        torn = self._whole < self._asked and (self._bytes - _HEADER.size) % self._stride > 0
        return Progress(
            self._whole, promised=self._asked, torn=torn, marked=True, ended=self._whole == self._asked
        )

    def events(self) -> list[SeriesEvent]:
        """Return nothing: the camera records no events."""
        return []

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def open_lumen(path: Path) -> Lumen:
    """Open a `.lmn` file; raises as the reader does."""
    return Lumen(path)
