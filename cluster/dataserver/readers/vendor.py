"""Cameras' own formats, read by libraries of `clusterofone[formats]`: Nikon ND2, Zeiss CZI.

Each library gives one frame by number; what is not one grey series is refused here, as for every format.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.dataserver.readers.interface import Frames, SeriesShape, values_from
from cluster.dataserver.readers.one_file import SingleFrames
from cluster.dataserver.readers.pixels import served_dtype
from cluster.errors import Invalid

_FAULTS: Final = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, NotImplementedError, OverflowError,
    AssertionError, MemoryError, OSError,
)  # fmt: skip


class LibraryFrames(SingleFrames):
    """An open file whose frames a library gives, one at a time: few of these libraries may be called from several threads."""

    def __init__(
        self, path: Path, shape: SeriesShape, frame: Callable[[int], Frames], close: Callable[[], None]
    ) -> None:
        super().__init__(path)
        self._shape = shape
        self._ask = frame
        self._close = close
        self._lock = threading.Lock()

    def _frame(self, number: int) -> Frames | None:
        try:
            with self._lock:
                return np.array(self._ask(number)).reshape(self._shape.height, self._shape.width)
        except _FAULTS:
            return None

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._close()


def _library(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Invalid(
            f"to open {path.name}, install its reader: pip install 'clusterofone[formats]'"
        ) from error


def open_nd2(path: Path) -> LibraryFrames:
    """Open a Nikon `.nd2`; raises `Invalid` if it is no grey series, or its library is not installed."""
    library = _library("nd2", path)
    try:
        file = library.ND2File(path)
    except _FAULTS as error:
        raise _unreadable(path, error) from error
    try:
        sizes = {axis: int(size) for axis, size in file.sizes.items()}
        _refuse_axes(path, {axis: size for axis, size in sizes.items() if axis not in "TZYX"})
        frames = sizes.get("T", 1) * sizes.get("Z", 1)
        shape = _shape("nd2", path, (frames, sizes["Y"], sizes["X"]), file.dtype, _nd2_pixels(file))
    except _FAULTS as error:
        file.close()
        raise _unreadable(path, error) from error
    except BaseException:
        file.close()
        raise
    return LibraryFrames(path, shape, file.read_frame, file.close)


def _nd2_pixels(file: Any) -> dict[str, Any]:
    """Return the size of pixels [µm], where the file tells it; notes that its library does not understand hide no frames."""
    with contextlib.suppress(*_FAULTS, NameError):
        voxel = file.voxel_size()
        if voxel.x > 0:
            return {"voxelsize.x": float(voxel.x), "voxelsize.y": float(voxel.y)}
    return {}


def open_czi(path: Path) -> LibraryFrames:
    """Open a Zeiss `.czi`; raises `Invalid` if it is no grey series, or its library is not installed."""
    library = _library("pylibCZIrw.czi", path)
    try:
        file = library.CziReader(str(path))
    except _FAULTS as error:
        raise _unreadable(path, error) from error
    try:
        box = {axis: last - first for axis, (first, last) in file.total_bounding_box.items()}
        _refuse_axes(path, {axis: size for axis, size in box.items() if axis not in "TZYX"})
        slices = box.get("Z", 1)
        kind = {"Gray8": "u1", "Gray16": "u2", "Gray32Float": "f4"}.get(str(file.get_channel_pixel_type(0)))
        dtype = np.dtype(kind or "V3")  # a colour's bytes, which are refused by name
        shape = _shape("czi", path, (box.get("T", 1) * slices, box["Y"], box["X"]), dtype, {})
    except _FAULTS as error:
        file.close()
        raise _unreadable(path, error) from error
    except BaseException:
        file.close()
        raise

    def frame(number: int) -> Frames:
        found: Frames = file.read(plane={"T": number // slices, "Z": number % slices, "C": 0})
        return found

    return LibraryFrames(path, shape, frame, file.close)


def _shape(
    kind: str, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], metadata: dict[str, Any]
) -> SeriesShape:
    if len(shape) != 3 or min(shape) < 1:
        raise Invalid(f"{path.name} is of shape {shape}; a series is frame, y, x")
    served = served_dtype(dtype, path.name)
    return SeriesShape(kind, shape[1], shape[2], served, shape[0], metadata=values_from("file", metadata))


def _refuse_axes(path: Path, others: dict[str, int]) -> None:
    several = [f"{size} of {axis}" for axis, size in others.items() if size > 1]
    if several:
        raise Invalid(f"{path.name} holds {', '.join(several)}; a series is of one channel at one position")


def _unreadable(path: Path, error: BaseException) -> Invalid:
    if isinstance(error, FileNotFoundError):
        raise error
    said = str(error)[:300] or type(error).__name__
    return Invalid(f"{path.name} is cut short, damaged, or of a kind that its reader does not know: {said}")
