"""A series of one file a frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from cluster.dataserver.readers.interface import Frames, Progress, SeriesShape
from cluster.dataserver.readers.numbered import NumberedFiles
from cluster.dataserver.readers.pixels import to_served
from cluster.dataserver.readers.whole_file import read_at_most
from cluster.errors import Invalid
from cluster.protocol import SeriesEvent

MAX_FILE_BYTES: Final = 512 << 20
_LATEST: Final = 64  # of the files that came last, one written beside another may be whole before it
Decode = Callable[[bytes], Frames]


class FrameFiles:
    """An open series of one file a frame; no file stays open.

    `decode` gives a frame's pixels in the file's type and raises `ValueError` for one that is damaged.
    """

    def __init__(
        self,
        series: Path,
        numbered: NumberedFiles,
        shape: SeriesShape,
        decode: Decode,
        *,
        companions: Sequence[Path] = (),
        events: Sequence[SeriesEvent] = (),
        promised: int | None = None,
        end_mark: bool | None = None,
    ) -> None:
        self._promised = promised
        self._end_mark = end_mark  # whether it is there; None for a format that has none
        self._numbered = numbered
        self._shape = shape
        self._decode = decode
        self._files = (series, *companions, *numbered.watched())
        self._events = list(events)

    @property
    def shape(self) -> SeriesShape:
        """Return what the series is."""
        return self._shape

    @property
    def files(self) -> Sequence[Path]:
        """Return the folder, which changes when files come or go, what describes it, and some of the frames."""
        return self._files

    def read(self, start: int, stop: int) -> tuple[Frames, tuple[int, ...]]:
        """Return frames [start, stop) and the numbers of those that could not be read."""
        shape = self._shape
        frames = np.zeros((stop - start, shape.height, shape.width), shape.dtype)
        missing: list[int] = []
        for frame in range(start, stop):
            pixels = self._read_one(frame)
            if pixels is None:
                missing.append(frame)
            else:
                frames[frame - start] = pixels
        return frames, tuple(missing)

    def progress(self, since: int) -> Progress:
        """Return how many files there are without a gap, the latest of them looked into; the last one may be half written."""
        frames = self._shape.frames
        gap = min([frames, *(start for start, _ in self._shape.missing)])
        is_all = self._promised is not None and gap >= self._promised
        held = gap if is_all or self._end_mark or gap < frames else gap - 1
        first = max(since, held - _LATEST)
        whole = next((frame for frame in range(first, held) if self._read_one(frame) is None), held)
        return Progress(
            whole,
            promised=self._promised,
            torn=gap < frames or whole < held,
            marked=self._promised is not None or self._end_mark is not None,
            ended=whole == frames and (is_all or bool(self._end_mark)),
        )

    def _read_one(self, frame: int) -> Frames | None:
        path = self._numbered.path(frame)
        if path is None:
            return None
        try:
            pixels = self._decode(read_frame_file(path))
        except (ValueError, FileNotFoundError):
            return None
        if pixels.shape != (self._shape.height, self._shape.width):
            raise Invalid(
                f"frame {frame} ({path.name}) is {' × '.join(map(str, pixels.shape))} px, "
                f"the series {self._shape.height} × {self._shape.width} px: a series has frames of one kind",
                frame=frame,
            )
        if pixels.dtype.itemsize > self._shape.dtype.itemsize and self._shape.dtype.kind == "u":
            raise Invalid(f"frame {frame} ({path.name}) holds {pixels.dtype}, the series {self._shape.dtype}")
        served: Frames = to_served(pixels[None], self._shape.dtype, first_frame=frame, name=path.name)[0]
        return served

    def events(self) -> list[SeriesEvent]:
        """Return the acquisition's events."""
        return self._events

    def close(self) -> None:
        """Nothing is open."""


def read_frame_file(path: Path) -> bytes:
    """Return the bytes of a file of one frame; raises `ValueError` if it is too large to be one."""
    data = read_at_most(path, MAX_FILE_BYTES)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{path.name} is too large to be one frame")
    return data
