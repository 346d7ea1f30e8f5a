"""NumPy's `.npy` of three axes (frame, y, x): read by offset arithmetic; arrays of objects, which would be pickles, are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from cluster.dataserver.readers.flat import FlatLayout, FlatSeries, read_into
from cluster.dataserver.readers.interface import Frames, SeriesReader, SeriesShape
from cluster.dataserver.readers.one_file import OneFile
from cluster.dataserver.readers.pixels import served_dtype, to_served
from cluster.errors import Invalid

_BLOCK_BYTES: Final = 8 << 20
_HEADERS: Final = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def open_npy(path: Path) -> SeriesReader:
    """Open a `.npy` file.

    Raises
    ------
    Invalid
        If it is no array of frames of numbers.
    """
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            shape, turned, dtype = _HEADERS[version](file)
        except (ValueError, KeyError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            raise Invalid(f"{path.name} is not a .npy file that can be read: {str(error)[:200]}") from error
        offset = file.tell()
    if len(shape) != 3 or min(shape) < 1 or max(shape) >= 1 << 31:
        raise Invalid(f"{path.name} is an array of shape {shape}; a series is one of frame, y, x")
    served_dtype(dtype, path.name)
    frames, height, width = shape
    if turned:
        return FortranNpy(path, FlatLayout(offset, height, width, dtype, frames))
    return FlatSeries(path, FlatLayout(offset, height, width, dtype, frames), format_name="npy", metadata={})


class FortranNpy(OneFile):
    """An open `.npy` in Fortran's order, where the frame is what changes from one number to the next.

    A pixel's values over time lie together. A range is read in rows of pixels; a file cut short has no whole frame.
    """

    def __init__(self, path: Path, layout: FlatLayout) -> None:
        needed = layout.offset + layout.frames * layout.frame_bytes
        if path.stat().st_size < needed:
            raise Invalid(
                f"{path.name} is cut short: it is in Fortran's order, in which every frame ends at the file's end"
            )
        super().__init__(path)
        self._layout = layout
        self._shape = SeriesShape(
            "npy", layout.height, layout.width, served_dtype(layout.dtype, path.name), layout.frames
        )

    def read(self, start: int, stop: int) -> tuple[Frames, tuple[int, ...]]:
        """Return frames [start, stop)."""
        layout, size = self._layout, self._layout.dtype.itemsize
        count, pixels = stop - start, layout.height * layout.width
        found = np.empty((pixels, count), layout.dtype)
        block = max(1, _BLOCK_BYTES // (layout.frames * size))
        with self._path.open("rb", buffering=0) as file:
            for first in range(0, pixels, block):
                many = min(block, pixels - first)
                rows = np.empty((many, layout.frames), layout.dtype)
                at = layout.offset + first * layout.frames * size
                if read_into(file, at, rows.reshape(-1).view(np.uint8).data) < rows.nbytes:
                    raise OSError(f"{self._path.name} became shorter")
                found[first : first + many] = rows[:, start:stop]
        frames = np.ascontiguousarray(found.reshape(layout.width, layout.height, count).transpose(2, 1, 0))
        return to_served(frames, self._shape.dtype, first_frame=start, name=self._path.name), ()
