"""What room a job will need, and whether there is that much: a job that cannot fit is refused before an hour of work is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.errors import OutOfSpace
from cluster.results.publish import free_bytes
from cluster.scheduler.sheets import Sheet

PX_PER_LOCALISATION: Final = 200  # dense: at 100 nm a pixel one in 2 µm², about where PSFs begin to touch
_FIXED_BYTES: Final = 16 << 20  # a file without rows, with what `results.publish` wants left beside it
_LEDGER_BYTES: Final = 16  # a frame: its status, and its share of a task's record


@dataclass(frozen=True)
class Forecast:
    """How many bytes of results a job makes in each of the two places that hold them.

    `dense` if every frame is as full of molecules as can be told apart, `sparse` if it shows one.
    """

    sparse_bytes: int
    dense_bytes: int


@dataclass(frozen=True)
class Place:
    """A folder that results go to, and its disk."""

    folder: Path
    device: int
    free_bytes: int


def forecast(frames: int, field_px: int, row_bytes: int) -> Forecast:
    """Return what the results of so many frames take.

    How dense the molecules are nobody knows before they are detected, so there are two answers: one localisation a frame,
    and one in every 200 px of the analysed field.
    """
    dense_rows = max(1, field_px // PX_PER_LOCALISATION)
    fixed = _FIXED_BYTES + frames * _LEDGER_BYTES
    return Forecast(fixed + frames * row_bytes, fixed + frames * dense_rows * row_bytes)


def forecast_of(sheet: Sheet) -> Forecast:
    """Forecast a job's results; of a series that grows, those of the frames that it has by now."""
    facts, roi = sheet.facts, sheet.analysis["roi"]
    stop = facts.frames if sheet.follow else sheet.stop
    width, height = (facts.width, facts.height) if roi is None else (roi[2] - roi[0], roi[3] - roi[1])
    return forecast(max(0, stop - sheet.start), width * height, sheet.dtype.itemsize)


def verdict(wanted: Forecast, places: list[Place]) -> str | None:
    """Return a note if room is tight, None if there is enough. Places on one disk need their room together.

    Raises
    ------
    OutOfSpace
        If not even sparse results fit; names the folder, what is needed and what is free.
    """
    note = None
    for device in dict.fromkeys(place.device for place in places):
        there = [place for place in places if place.device == device]
        folder, free = there[0].folder, min(place.free_bytes for place in there)
        sparse, dense = len(there) * wanted.sparse_bytes, len(there) * wanted.dense_bytes
        if free < sparse:
            raise OutOfSpace(
                f"the disk of {folder} is too full: with one localisation a frame the results take {said(sparse)}, "
                f"and {said(free)} are free",
                folder=str(folder),
                needed_bytes=sparse,
                free_bytes=free,
            )
        if free < dense and note is None:
            note = (
                f"the disk of {folder} may become full: {said(free)} are free, and the results of a dense sample "
                f"(one localisation in {PX_PER_LOCALISATION} px) take {said(dense)}"
            )
    return note


def said(size_bytes: int) -> str:
    """Return a size as people read it."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


class Room:
    """The disks that take results: that of the state folder, where workers hand them in, and that of the result file."""

    def __init__(self, state: Path, free: Callable[[Path], int] = free_bytes) -> None:
        self._state = state
        self._free = free

    def noted(self, sheet: Sheet) -> Sheet:
        """Return a job's sheet, with a note if room is tight; raises `OutOfSpace` if there is none."""
        tight = self.check(forecast_of(sheet), Path(str(sheet.output)))
        return sheet.model_copy(update={"notes": [*sheet.notes, tight]}) if tight else sheet

    def check(self, wanted: Forecast, output: Path) -> str | None:
        """Return a note if room is tight; raises `OutOfSpace`. A disk that does not say how full it is refuses nothing."""
        places = [found for folder in (output.parent, self._state) if (found := self._place(folder))]
        return verdict(wanted, places)

    def _place(self, folder: Path) -> Place | None:
        """Look at the disk of a folder, which may be made only with the file."""
        try:
            there = next(one for one in (folder, *folder.parents) if one.exists())
            return Place(folder, there.stat().st_dev, self._free(there))
        except OSError:
            return None
