"""Files of a folder that are one frame each, in the order of the numbers in their names; gaps are frames that are missing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.dataserver.readers.interface import Ranges, as_ranges
from cluster.errors import Invalid

_NUMBER: Final = re.compile(r"\d{1,12}")
_MAX_FRAMES: Final = 1 << 24
_WATCHED: Final = 64


@dataclass(frozen=True)
class NumberedFiles:
    """Frame n is the file `names[n]`, or missing where that is None; `first` is the number of frame 0."""

    folder: Path
    names: Sequence[str | None]
    first: int

    @property
    def missing(self) -> Ranges:
        """Return the frames that have no file."""
        return as_ranges([number for number, name in enumerate(self.names) if name is None])

    def path(self, frame: int) -> Path | None:
        """Return the file of a frame, if there is one."""
        name = self.names[frame]
        return None if name is None else self.folder / name

    def watched(self) -> list[Path]:
        """Return some of the files, evenly: to ask after every one of 100,000 at each request would take too long."""
        there = [name for name in self.names if name is not None]
        step = max(1, -(-len(there) // _WATCHED))
        return [self.folder / name for name in dict.fromkeys([*there[::step], there[-1]])]


def plain_files(folder: Path, suffixes: Sequence[str]) -> list[str]:
    """Return the names of the visible files of a folder that end so; links are left out, they may lead anywhere."""
    with os.scandir(folder) as found:
        return [
            item.name
            for item in found
            if item.name.lower().endswith(tuple(suffixes))
            and not item.name.startswith(".")
            and item.is_file(follow_symlinks=False)
        ]


def number_files(folder: Path, names: Iterable[str], *, first: int | None = None) -> NumberedFiles:
    """Put files in the order of the one number in which their names differ; `first` is frame 0, or the lowest there is.

    Raises
    ------
    Invalid
        If they differ in more than one number (several channels or positions), or otherwise.
    """
    numbers = _varying_number(folder.name, sorted(names))
    lowest = min(numbers) if first is None else first
    frames = max(numbers) - lowest + 1
    if min(numbers) < lowest or frames > _MAX_FRAMES:
        raise Invalid(f"the files of {folder.name} are numbered {min(numbers)} to {max(numbers)}")
    ordered: list[str | None] = [None] * frames
    for number, name in numbers.items():
        ordered[number - lowest] = name
    return NumberedFiles(folder, ordered, lowest)


def form_of(name: str) -> str:
    """Return a file's name without its numbers: files of one sequence have one form."""
    return _NUMBER.sub("#", name)


def _varying_number(folder: str, names: Sequence[str]) -> dict[int, str]:
    forms = {form_of(name) for name in names}
    if len(forms) > 1:
        said = ", ".join(sorted(forms)[:3])
        raise Invalid(
            f"{folder} holds files of several sequences ({said}); a series is one, in its own folder"
        )
    found = [_NUMBER.findall(name) for name in names]
    places = [place for place in range(len(found[0])) if len({int(numbers[place]) for numbers in found}) > 1]
    if len(places) > 1:
        raise Invalid(
            f"the files of {folder} differ in {len(places)} numbers (channels or positions?); "
            "a series is of one channel at one position, in its own folder"
        )
    if not found[0]:
        raise Invalid(f"the files of {folder} have no number in their names")
    place = places[0] if places else len(found[0]) - 1
    by_number = {int(numbers[place]): name for numbers, name in zip(found, names, strict=True)}
    if len(by_number) < len(names):
        raise Invalid(f"{folder} holds two files of the same number")
    return by_number
