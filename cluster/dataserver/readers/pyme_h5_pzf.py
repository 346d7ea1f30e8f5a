"""PYME's `.h5` of compressed frames: `PZFImageData`, one PZF frame a row, in the order they came; `PZFImageIndex` says which is which."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from cluster.dataserver.readers.interface import Frames, SeriesShape, as_ranges, values_from
from cluster.dataserver.readers.one_file import SingleFrames
from cluster.dataserver.readers.pixels import served_dtype
from cluster.dataserver.readers.pyme_h5 import (
    HDF5_FAULTS,
    LOCK,
    open_file,
    read_events,
    read_metadata,
    refuse_elsewhere,
)
from cluster.dataserver.readers.pzf import PzfFault, decode_pzf
from cluster.errors import Invalid
from cluster.protocol import SeriesEvent

_FRAMES, _INDEX = "PZFImageData", "PZFImageIndex"
_MAX_FRAMES: Final = 1 << 24


class PymePzfH5(SingleFrames):
    """An open PYME file of PZF frames.

    Raises
    ------
    Invalid
        If not one frame in it can be read, or it reaches outside itself.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with LOCK:
            self._file, self._source, self._torn = open_file(path)
            try:
                self._refuse_torn()
                self._rows = _rows(self._file, path.name)
                self._row_of = _numbered(self._file, len(self._rows), path.name)
                self._events = read_events(self._file, torn=False)
                self._describe()
            except HDF5_FAULTS as error:
                self.close()
                raise Invalid(f"{path.name} is damaged: {error}") from error
            except BaseException:
                self.close()
                raise

    def _refuse_torn(self) -> None:
        """HDF5 never returns from a heap of rows whose end is torn off, so it is not asked."""
        if self._torn:
            raise Invalid(
                f"{self._path.name} is cut short; of PZF frames in HDF5 only whole files can be read"
            )

    def _describe(self) -> None:
        there = self._row_of >= 0
        first = next(
            (found for n in np.flatnonzero(there).tolist() if (found := self._frame(n)) is not None), None
        )
        if first is None:
            raise Invalid(f"{self._path.name} holds not one whole frame")
        self._shape = SeriesShape(
            format="pyme-h5-pzf",
            height=first.shape[0],
            width=first.shape[1],
            dtype=served_dtype(first.dtype, self._path.name),
            frames=len(there),
            missing=as_ranges(np.flatnonzero(~there).tolist()),
            metadata=values_from("file", read_metadata(self._file, torn=False)),
            events=len(self._events),
        )

    def _frame(self, number: int) -> Frames | None:
        row = int(self._row_of[number])
        if row < 0:
            return None
        try:
            with LOCK:
                stored = np.asarray(self._rows[row], np.uint8).tobytes()
            return decode_pzf(stored)
        except (PzfFault, *HDF5_FAULTS):
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


def _rows(file: h5py.File, name: str) -> h5py.Dataset:
    refuse_elsewhere(file, _FRAMES, name)
    rows = file[_FRAMES]
    kind = h5py.check_vlen_dtype(rows.dtype) if isinstance(rows, h5py.Dataset) else None
    if kind != np.uint8 or rows.ndim != 1 or not 0 < len(rows) <= _MAX_FRAMES:
        raise Invalid(f"{name}: {_FRAMES} holds no PZF frames")
    return rows


def _numbered(file: h5py.File, rows: int, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the row of each frame, -1 where there is none; without an index rows are frames."""
    if _INDEX not in file:
        return np.arange(rows)
    refuse_elsewhere(file, _INDEX, name)
    table = file[_INDEX][:]
    frames, places = table["FrameNum"].astype(np.int64), table["Position"].astype(np.int64)
    if not len(frames) or frames.min() < 0 or frames.max() >= _MAX_FRAMES:
        raise Invalid(f"{name}: {_INDEX} names no frames, or absurd ones")
    sound = (places >= 0) & (places < rows)
    row_of = np.full(int(frames.max()) + 1, -1, np.int64)
    row_of[frames[sound]] = places[sound]
    return row_of
