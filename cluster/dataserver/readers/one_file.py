"""What readers of a series that is one file have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cluster.dataserver.readers.interface import Frames, SeriesShape
from cluster.dataserver.readers.pixels import served_dtype, to_served
from cluster.errors import Invalid
from cluster.protocol import SeriesEvent


class OneFile:
    """An open series in one file, without events. Who derives from it sets `_shape`, and reads."""

    _shape: SeriesShape

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def shape(self) -> SeriesShape:
        """Return what the series is."""
        return self._shape

    @property
    def files(self) -> Sequence[Path]:
        """Return the one file."""
        return (self._path,)

    def events(self) -> list[SeriesEvent]:
        """Return nothing: the format records none, or they are not read."""
        return []

    def close(self) -> None:
        """Let go of the file, where it is kept open."""


class SingleFrames(OneFile, ABC):
    """An open series in one file whose frames are had one by one."""

    @abstractmethod
    def _frame(self, number: int) -> Frames | None:
        """Return a frame as it is stored, or None if it cannot be read."""

    def read(self, start: int, stop: int) -> tuple[Frames, tuple[int, ...]]:
        """Return frames [start, stop) and the numbers of those that could not be read."""
        shape = self._shape
        frames = np.zeros((stop - start, shape.height, shape.width), shape.dtype)
        missing: list[int] = []
        for number in range(start, stop):
            found = self._frame(number)
            if found is None:
                missing.append(number)
            else:
                frames[number - start] = self._served(found, number)
        return frames, tuple(missing)

    def _served(self, found: Frames, number: int) -> Frames:
        shape, name = self._shape, self._path.name
        if found.shape != (shape.height, shape.width) or served_dtype(found.dtype, name) != shape.dtype:
            raise Invalid(
                f"frame {number} of {name} is {found.shape} {found.dtype}, "
                f"the series {(shape.height, shape.width)} {shape.dtype}: a series has frames of one kind",
                frame=number,
            )
        frame: Frames = to_served(found[None], shape.dtype, first_frame=number, name=name)[0]
        return frame
