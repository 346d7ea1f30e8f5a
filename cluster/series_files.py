"""Series that a calibration reads itself, block by block and without a cluster: any format that the data server reads."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.dataserver.open_readers import OpenReaders
from cluster.dataserver.readers.interface import Frames, SeriesReader, SeriesShape
from cluster.dataserver.readers.registry import file_on_disk, open_series
from cluster.dataserver.sidecars import read_sidecars
from cluster.errors import Invalid

_AT_ONCE_BYTES: Final = 32 << 20


@dataclass(frozen=True)
class SeriesFile:
    """An open series: its metadata by PYME's keys, and which file it was."""

    file: Path
    metadata: Mapping[str, Any]
    fingerprint: str
    _reader: SeriesReader

    @property
    def shape(self) -> SeriesShape:
        """What the series is."""
        return self._reader.shape

    def read(self, start: int, stop: int) -> tuple[Frames, tuple[int, ...]]:
        """Frames [start, stop), and the numbers of those that are missing."""
        frames, unreadable = self._reader.read(start, stop)
        absent = {frame for a, b in self.shape.missing for frame in range(max(a, start), min(b, stop))}
        return frames, tuple(sorted(absent | set(unreadable)))

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Ranges of frames, one after the other, each small enough to be in memory."""
        block = max(1, _AT_ONCE_BYTES // max(1, self.shape.frame_bytes))
        for start in range(0, self.shape.frames, block):
            yield start, min(start + block, self.shape.frames)

    def blocks(self) -> Iterator[tuple[np.ndarray[Any, Any], Frames]]:
        """Numbers and pixels of the frames that there are, block by block."""
        for start, stop in self.ranges():
            frames, missing = self.read(start, stop)
            numbers = np.arange(start, stop)
            there = ~np.isin(numbers, missing)
            yield numbers[there], frames[there]


@contextlib.contextmanager
def opened(file: Path) -> Iterator[SeriesFile]:
    """Open a series.

    Raises
    ------
    Invalid, NotFound
        If it is no series; names the file.
    """
    readers = OpenReaders(open_series, now=time.monotonic)
    try:
        with readers.using(file) as series:
            shape = series.reader.shape
            if not shape.frames:
                raise Invalid(f"{file.name} holds no frames")
            beside = read_sidecars(file_on_disk(file)) | read_sidecars(file)
            said = {key: value.value for key, value in (shape.metadata | beside).items()}
            yield SeriesFile(file, said, series.fingerprint, series.reader)
    finally:
        readers.close()
