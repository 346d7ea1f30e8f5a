"""A folder of single-frame TIFF files: microscope programs' "separate image files", PYME's `SeriesPattern`."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile

from cluster.dataserver.readers import micromanager, tiff_index
from cluster.dataserver.readers.frame_files import FrameFiles
from cluster.dataserver.readers.interface import Frames, SeriesReader, SeriesShape, values_from
from cluster.dataserver.readers.numbered import NumberedFiles, form_of, number_files, plain_files
from cluster.dataserver.readers.tiff import TIFF_FAULTS, open_tiff
from cluster.errors import Invalid
from cluster.protocol import MetadataValue

_SUFFIXES: Final = (".tif", ".tiff")


def is_tiff_sequence(folder: Path) -> bool:
    """Return whether a folder looks like one sequence: its TIFF files differ in numbers only, and have one page each."""
    names = sorted(plain_files(folder, _SUFFIXES))
    if len(names) < 2 or len({form_of(name) for name in names}) != 1:
        return False
    return all(_is_single(folder / name) for name in (names[0], names[-1]))


def _is_single(path: Path) -> bool:
    """OME-TIFF files say themselves which others belong to them: any of those is opened, not the folder."""
    with contextlib.suppress(Invalid, OSError), path.open("rb", buffering=0) as file:
        return tiff_index.is_single_image(tiff_index.Window(file), path.name)
    return False


def open_tiff_sequence(folder: Path) -> FrameFiles:
    """Open a folder of single-frame TIFF files.

    Raises
    ------
    Invalid
        If there are none, they are of several sequences, or hold more than a frame each.
    """
    names = plain_files(folder, _SUFFIXES)
    if not names:
        raise Invalid(f"{folder.name} is a folder that holds no series")
    numbered = number_files(folder, names)
    with contextlib.closing(_first_whole(numbered)) as first:
        one = first.shape
    if one.frames != 1:
        raise Invalid(f"{folder.name} holds files of several frames each; each of them is a series")
    notes = folder / "metadata.txt"
    shape = SeriesShape(
        format="tiff-sequence",
        height=one.height,
        width=one.width,
        dtype=one.dtype,
        frames=len(numbered.names),
        missing=numbered.missing,
        metadata=one.metadata | _noted(notes),
    )
    companions = [notes] if notes.is_file() else []
    return FrameFiles(folder, numbered, shape, _decode, companions=companions, promised=_promised(notes))


def _first_whole(numbered: NumberedFiles) -> SeriesReader:
    refusal: Invalid | None = None
    for frame in range(len(numbered.names)):
        path = numbered.path(frame)
        if path is not None:
            try:
                return open_tiff(path)
            except Invalid as error:
                refusal = refusal or error
    raise refusal or Invalid(f"{numbered.folder.name} holds no frames")


def _noted(notes: Path) -> dict[str, MetadataValue]:
    if not notes.is_file():
        return {}
    summary, frame = micromanager.read_metadata_txt(notes)
    return values_from(f"sidecar {notes.name}", micromanager.to_pyme(summary, frame))


def _promised(notes: Path) -> int | None:
    """Return how many frames Micro-Manager was told to take."""
    if not notes.is_file():
        return None
    summary, _ = micromanager.read_metadata_txt(notes)
    counts = [summary.get("Frames", 0), summary.get("Slices") or 1]
    return int(np.prod(counts)) or None if all(isinstance(count, int) for count in counts) else None


def _decode(data: bytes) -> Frames:
    """Return the one frame of a TIFF file; raises `ValueError` if it is cut short or damaged."""
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tif:
            page = tif.pages.first
            ends = [
                offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            ]
            if not ends or max(ends) > len(data) or page.nbytes > 4 * len(data) + (64 << 20):
                raise ValueError("it is cut short")
            pixels: np.ndarray[Any, Any] = page.asarray()
    except TIFF_FAULTS as error:
        raise ValueError(str(error)) from error
    return pixels
