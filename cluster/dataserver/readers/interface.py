"""The one narrow interface behind which every format hides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from cluster.protocol import MetadataValue, SeriesEvent
from cluster.stored_frames import StoredRange

Frames = np.ndarray[Any, np.dtype[Any]]  # (n, h, w) uint8 | uint16 | float32 ADU, native byte order
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class SeriesShape:
    """What a series is: `frames` counts what the file promises, `missing` what of it the file does not hold.

    `dtype` is the type in which frames are served, which need not be the file's. A series that still grows is not
    `complete`, and its `frames` end after the last that is there. Its `identity` is its fingerprint: that stays the
    same while it grows and when it is completed, so a changed file means "look again", not "another series".
    """

    format: str
    height: int
    width: int
    dtype: np.dtype[Any]
    frames: int
    missing: Ranges = ()
    metadata: dict[str, MetadataValue] = field(default_factory=dict)
    events: int = 0
    complete: bool = True
    identity: str | None = None
    stored_bytes: int | None = None  # of a series that is a folder

    @property
    def frame_bytes(self) -> int:
        """Return the size of one frame as served."""
        return self.height * self.width * self.dtype.itemsize


@dataclass(frozen=True)
class Run:
    """Frames [frame, frame + count) lie in file number `file`, each `stride` bytes after the one before."""

    frame: int
    count: int
    file: int
    offset: int
    stride: int


class SeriesReader(Protocol):
    """An open series. `read` may be called from several threads at once."""

    @property
    def shape(self) -> SeriesShape:
        """Return what the series is; it does not change while the reader is open."""
        ...

    @property
    def files(self) -> Sequence[Path]:
        """Return every file whose bytes decide the frames, the one that was opened first."""
        ...

    def read(self, start: int, stop: int) -> tuple[Frames, tuple[int, ...]]:
        """Return frames [start, stop) and the numbers of those that could not be read, which are zero.

        Raises
        ------
        Invalid
            If a frame holds values that the served type cannot hold.
        """
        ...

    def events(self) -> list[SeriesEvent]:
        """Return the acquisition's events."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


@dataclass(frozen=True)
class Progress:
    """How far a series has come that another program may still be writing.

    Frames [0, whole) are there and will not change. `promised` is how many the files say there will be, if they do.
    `torn`: something of a further frame is there, or room for it. `marked`: the format has a mark of its end, and `ended`: it is there,
    or all that was promised is.
    """

    whole: int
    promised: int | None = None
    torn: bool = False
    marked: bool = False
    ended: bool = False


@runtime_checkable
class Grows(Protocol):
    """A reader of a format of which the frames that are there can be told while another program writes them."""

    def progress(self, since: int) -> Progress:
        """Return how far the series had come when it was opened; frames before `since` are known to be whole.

        A frame counts once bytes after it, an entry of an index or the file's size show that it is whole.
        """
        ...


@runtime_checkable
class GoesOn(Protocol):
    """A reader that can be opened anew without reading again what it knows."""

    def renewed(self) -> SeriesReader:
        """Return a reader of the series as it is now; this one stays open. Raises as opening does."""
        ...


@runtime_checkable
class LiesInFiles(Protocol):
    """A reader of a format whose frames may lie in its files byte for byte as they are served."""

    def runs(self) -> tuple[Run, ...] | None:
        """Return where the whole frames lie, or None if these do not lie so."""
        ...


@runtime_checkable
class LiesInBlocks(Protocol):
    """A reader of a format that keeps frames in the blocks of `cluster.blocks`, so that these can be sent as they lie."""

    def stored(self, start: int, stop: int) -> StoredRange:
        """Return the blocks that hold frames [start, stop); `missing` names those that `read` could not read either."""
        ...


def values_from(source: str, values: dict[str, Any]) -> dict[str, MetadataValue]:
    """Return metadata with where it came from, as values that JSON can carry."""
    return {key: MetadataValue(value=_plain(value), source=source) for key, value in values.items()}


def _plain(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)


def as_ranges(numbers: Sequence[int]) -> Ranges:
    """Return ascending frame numbers as half-open ranges."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number:
            ranges[-1] = (ranges[-1][0], number + 1)
        else:
            ranges.append((number, number + 1))
    return tuple(ranges)
