"""Stacks of beads from files of any format that the data server reads, and what the files say of the microscope."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.errors import Invalid, TooLarge
from cluster.series_files import SeriesFile, opened
from fitting.geometry import chip_origin

_LARGEST_BYTES: Final = 4 << 30
_ALIKE: Final = 1.001  # pixel sizes whose ratio is within this are the same


@dataclass(frozen=True)
class BeadStack:
    """One file: its planes (z, y, x) [ADU], its metadata in PYME's keys, and which file it was."""

    file: Path
    planes: np.ndarray[Any, Any]
    metadata: Mapping[str, Any]
    fingerprint: str


def read_stacks(files: Sequence[Path], advance: Callable[[int, int], None]) -> list[BeadStack]:
    """Read whole stacks; `advance` hears how many frames of how many are read.

    Raises
    ------
    Invalid
        If a file is no series, or frames of it are missing; names the file.
    TooLarge
        If they would not fit into memory: films, not stacks.
    """
    return [_read(file, advance) for file in files]


def _read(file: Path, advance: Callable[[int, int], None]) -> BeadStack:
    with opened(file) as series:
        shape = series.shape
        if shape.frames * shape.frame_bytes > _LARGEST_BYTES:
            raise TooLarge(
                f"{file.name} holds {shape.frames} frames of {shape.width} × {shape.height} px: a stack of beads has a frame or a few for "
                "each plane, and fewer than 4 GB"
            )
        if shape.missing:
            raise Invalid(f"{file.name}: frames {_ranges(shape.missing)} are missing; a stack must be whole")
        return BeadStack(file, _planes(series, advance), series.metadata, series.fingerprint)


def _planes(series: SeriesFile, advance: Callable[[int, int], None]) -> np.ndarray[Any, Any]:
    shape = series.shape
    planes = np.empty((shape.frames, shape.height, shape.width), shape.dtype)
    for start, stop in series.ranges():
        planes[start:stop], unreadable = series.read(start, stop)
        if unreadable:
            raise Invalid(f"{series.file.name}: frame {unreadable[0]} cannot be read; a stack must be whole")
        advance(stop, shape.frames)
    return planes


def _ranges(missing: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{start}" if stop == start + 1 else f"{start}–{stop - 1}" for start, stop in missing)


def said_by(stacks: Sequence[BeadStack]) -> tuple[dict[str, Any], list[str]]:
    """Return the options that the files' metadata give, and remarks for the person.

    Raises
    ------
    Invalid
        If the files contradict each other.
    """
    options: dict[str, Any] = {}
    remarks: list[str] = []
    for stack in stacks:
        found = _sizes(stack, remarks) | _channels(stack.metadata)
        for name, value in found.items():
            if name in options and not _same(options[name], value):
                raise Invalid(
                    f"{stack.file.name} says {name} is {value}, {stacks[0].file.name} says {options[name]}; stacks of one PSF are recorded alike"
                )
            options.setdefault(name, value)
    return options, remarks


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return max(one, other) <= _ALIKE * min(one, other)
    return bool(one == other)


def _sizes(stack: BeadStack, remarks: list[str]) -> dict[str, Any]:
    x, y, z = (_number(stack.metadata.get(f"voxelsize.{axis}")) for axis in "xyz")
    found: dict[str, Any] = {}
    if x is not None:
        found["pixel_nm"] = 1000 * x
        if y is not None and not _same(x, y):
            found["pixel_nm"] = 1000 * float(np.sqrt(x * y))
            remarks.append(
                f"{stack.file.name}: pixels of {1000 * x:g} × {1000 * y:g} nm; a PSF has one pitch, their mean, {found['pixel_nm']:.1f} nm"
            )
    if z is not None:
        found["step_nm"] = 1000 * z
    return found


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value < 1e6 else None


def _channels(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A splitter's channels as boxes in the frame; PYME has them as [x, y, width, height] on the chip."""
    boxes = [metadata.get(f"Splitter.Channel{number}ROI") for number in (0, 1)]
    if not all(isinstance(box, list | tuple) and len(box) == 4 for box in boxes):
        return {}
    x0, y0 = chip_origin(metadata)
    found: dict[str, Any] = {}
    for number, box in enumerate(boxes):
        x, y, width, height = (int(edge) for edge in box or ())
        found[f"channel{number}"] = [x - x0, y - y0, x - x0 + width, y - y0 + height]
    if "Splitter.Flip" in metadata:
        found["flip"] = bool(metadata["Splitter.Flip"])
    return found
