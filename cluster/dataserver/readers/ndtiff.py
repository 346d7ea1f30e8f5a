"""Micro-Manager's NDTiff: a folder of TIFF files and `NDTiff.index`, which says where the pixels of each image lie."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.dataserver.readers.flat import read_into
from cluster.dataserver.readers.interface import Frames, Progress, SeriesShape, as_ranges
from cluster.dataserver.readers.pixels import served_dtype, to_served
from cluster.dataserver.readers.whole_file import read_at_most
from cluster.errors import Invalid
from cluster.protocol import SeriesEvent

INDEX: Final = "NDTiff.index"
_MAX_INDEX_BYTES: Final = 1 << 30
_MAX_FRAMES: Final = 1 << 24
_ENTRY: Final = struct.Struct("<8I")
_LENGTH: Final = struct.Struct("<I")
_TYPES: Final = {kind: np.dtype("<u1" if kind == 0 else "<u2") for kind in (0, 1, 3, 4, 5, 6)}
_RGB: Final = 2
_LAID_OUT_BYTES: Final = (
    1 << 32
)  # of a file of pixels while it is written; it is cut to its length at the end
_FRAME_AXES: Final = ("time", "z")


@dataclass(frozen=True)
class _Image:
    axes: dict[str, Any]
    file: str
    offset: int
    width: int
    height: int
    kind: int
    compression: int


def is_ndtiff(folder: Path) -> bool:
    """Return whether a folder is an NDTiff data set."""
    return (folder / INDEX).is_file()


class NdTiff:
    """An open NDTiff folder.

    Raises
    ------
    Invalid
        If its index is none, or it is not one grey series.
    """

    def __init__(self, folder: Path) -> None:
        index = folder / INDEX
        data = read_at_most(index, _MAX_INDEX_BYTES)
        images = list(_images(data[:_MAX_INDEX_BYTES], folder.name))
        if not images:
            raise Invalid(f"{folder.name}: {INDEX} names no images")
        self._folder = folder
        first = images[0]
        _check_kind(images, folder.name)
        self._dtype = _TYPES[first.kind]
        self._places = _placed(images, folder.name)
        names = list(dict.fromkeys(image.file for image in images))
        sizes = {name: _size(folder / name) for name in names}
        frame_bytes = first.width * first.height * self._dtype.itemsize
        whole = [
            place is not None and place.offset + frame_bytes <= sizes[place.file] for place in self._places
        ]
        if not any(whole):
            raise Invalid(f"{folder.name} holds not one whole frame")
        self._is_unfinished = _LAID_OUT_BYTES in sizes.values()
        self._files = (folder, index, *(folder / name for name in names if sizes[name] >= 0))
        self._shape = SeriesShape(
            format="ndtiff",
            height=first.height,
            width=first.width,
            dtype=served_dtype(self._dtype, folder.name),
            frames=len(whole),
            missing=as_ranges([number for number, is_whole in enumerate(whole) if not is_whole]),
        )

    @property
    def shape(self) -> SeriesShape:
        """Return what the series is."""
        return self._shape

    @property
    def files(self) -> Sequence[Path]:
        """Return the folder, the index and the files of pixels that are there."""
        return self._files

    def progress(self, since: int) -> Progress:
        """Return how many frames have a successor in the index.

        The files of pixels are laid out at their full size before frames come, so the last one's may still be on their way.
        """
        del since
        frames = self._shape.frames
        whole = min([frames - 1, *(start for start, _ in self._shape.missing)])
        return Progress(whole, torn=bool(self._shape.missing) or self._is_unfinished)

    def read(self, start: int, stop: int) -> tuple[Frames, tuple[int, ...]]:
        """Return frames [start, stop) and the numbers of those that could not be read."""
        frames = np.zeros((stop - start, self._shape.height, self._shape.width), self._dtype)
        missing: list[int] = []
        with contextlib.ExitStack() as opened:
            files: dict[str, Any] = {}
            for frame in range(start, stop):
                place, target = self._places[frame], frames[frame - start]
                if place is not None and place.file not in files:
                    with contextlib.suppress(FileNotFoundError):
                        path = self._folder / place.file
                        files[place.file] = opened.enter_context(path.open("rb", buffering=0))
                file = files.get(place.file) if place is not None else None
                if place is None or file is None or not _fill(file, place.offset, target):
                    target[:] = 0
                    missing.append(frame)
        served = to_served(frames, self._shape.dtype, first_frame=start, name=self._folder.name)
        return served, tuple(missing)

    def events(self) -> list[SeriesEvent]:
        """Return nothing: NDTiff records no events."""
        return []

    def close(self) -> None:
        """Nothing is open."""


def _fill(file: Any, offset: int, target: Frames) -> bool:
    return read_into(file, offset, target.reshape(-1).view(np.uint8).data) == target.nbytes


def _images(data: bytes, name: str) -> Iterator[_Image]:
    """Yield what the index names; one whose end is not written yet, or is torn off, ends there."""
    at = 0
    try:
        while at < len(data):
            said, at = _text(data, at)
            if not said:
                return
            file, at = _text(data, at)
            if at + _ENTRY.size > len(data):
                return
            offset, width, height, kind, compression, _, _, _ = _ENTRY.unpack_from(data, at)
            at += _ENTRY.size
            axes = json.loads(said)
            if not isinstance(axes, dict) or set(file) & set("/\\:\0") or file in {"", ".", ".."}:
                raise Invalid(f"{name}: {INDEX} names the file {file[:100]!r}, which is not in the folder")
            yield _Image(axes, file, offset, width, height, kind, compression)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{name}: {INDEX} is damaged: {str(error)[:200]}") from error


def _text(data: bytes, at: int) -> tuple[str, int]:
    if at + _LENGTH.size > len(data):
        return "", len(data)
    (length,) = _LENGTH.unpack_from(data, at)
    at += _LENGTH.size
    if at + length > len(data):
        return "", len(data)
    return data[at : at + length].decode("utf-8"), at + length


def _check_kind(images: Sequence[_Image], name: str) -> None:
    first = images[0]
    if first.kind == _RGB:
        raise Invalid(f"{name} is of colour (RGB) images; a series is grey")
    if first.kind not in _TYPES or first.compression:
        raise Invalid(f"{name} holds pixels of kind {first.kind}, compressed by {first.compression}")
    if not first.width or not first.height:
        raise Invalid(f"{name} is described as {first.height} × {first.width} px: that is no image")
    form = (first.width, first.height, _TYPES[first.kind])
    for number, image in enumerate(images):
        if (image.width, image.height, _TYPES.get(image.kind)) != form or image.compression:
            raise Invalid(f"image {number} of {name} differs from the first in size or type", frame=number)


def _placed(images: Sequence[_Image], name: str) -> list[_Image | None]:
    """Return the image of each frame; frames are what the one axis that varies counts, from 0."""
    varying = [
        axis
        for axis in images[0].axes
        if len({json.dumps(image.axes.get(axis), sort_keys=True) for image in images}) > 1
    ]
    others = [axis for axis in varying if axis not in _FRAME_AXES]
    if others or len(varying) > 1:
        said = ", ".join(others or varying)
        raise Invalid(f"{name} varies in {said}; a series is of one channel at one position, over time or z")
    axis = varying[0] if varying else ""
    numbers = [image.axes.get(axis, 0) for image in images]
    if not all(isinstance(number, int) and 0 <= number < _MAX_FRAMES for number in numbers):
        raise Invalid(f"{name}: the axis {axis} is not numbered from 0")
    placed: list[_Image | None] = [None] * (max(numbers) + 1)
    for number, image in zip(numbers, images, strict=True):
        placed[number] = image
    return placed


def _size(path: Path) -> int:
    try:
        return -1 if path.is_symlink() else path.stat().st_size
    except OSError:
        return -1
