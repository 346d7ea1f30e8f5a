"""The TIFF family: multi-page, BigTIFF, OME-TIFF in one file or several, ImageJ with its raw tail beyond 4 GB."""

from __future__ import annotations

import itertools
import logging
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile

from cluster.dataserver.readers import ome, tiff_notes
from cluster.dataserver.readers.flat import FlatLayout, FlatSeries
from cluster.dataserver.readers.interface import (
    Frames,
    Progress,
    Ranges,
    Run,
    SeriesReader,
    SeriesShape,
    as_ranges,
    values_from,
)
from cluster.dataserver.readers.pixels import served_dtype, to_served
from cluster.dataserver.readers.runs import runs_of
from cluster.dataserver.readers.tiff_index import PageIndex, Window, read_dialect, read_entries
from cluster.dataserver.readers.tiff_pages import TiffPages
from cluster.errors import Invalid
from cluster.protocol import SeriesEvent

TIFF_FAULTS: Final = (
    tifffile.TiffFileError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError,
    ZeroDivisionError, NotImplementedError, struct.error, MemoryError,
)  # fmt: skip
logging.getLogger("tifffile").setLevel(logging.CRITICAL)
_OME_SUFFIX: Final = ".ome.tif"
_STACK_SUMMARY: Final = struct.pack("<I", 2355492), struct.pack(">I", 2355492)  # Micro-Manager's, at byte 32
_STACK_INDEX: Final = (
    struct.pack("<I", 54773648),
    struct.pack(">I", 54773648),
)  # at byte 8, once a file is finished


@dataclass(frozen=True)
class _Found:
    """The first page, and what the file says of the whole series; `frames` is 0 where it says nothing."""

    key: tifffile.TiffPage
    kind: str
    frames: int
    planes: ome.OmePlanes | None
    metadata: dict[str, Any]


def open_tiff(path: Path, known: PageIndex | None = None) -> SeriesReader:
    """Open a TIFF file; `known` is where its first pages lie, if it has only grown since.

    Raises
    ------
    Invalid
        If it is no TIFF, not a grey series, or not one whole frame is in it; names the file and the reason.
    """
    with _damage_named(path.name):
        with tifffile.TiffFile(path) as tif:
            found = _understand(tif, path.name)
        flat = _flat_layout(path, found)
        if flat is not None:
            metadata = values_from("file", found.metadata)
            return FlatSeries(path, flat, format_name=found.kind, metadata=metadata)
        return TiffSeries(path, found, known)


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """Say which file it was in which tifffile came upon nonsense."""
    try:
        yield
    except TIFF_FAULTS as error:
        reason = str(error) or type(error).__name__
        raise Invalid(f"{name} is not a TIFF file that can be read: {reason[:300]}") from error


def _understand(tif: tifffile.TiffFile, name: str) -> _Found:
    key = tif.pages.first
    _check_grey(key, name)
    imagej = tif.imagej_metadata if tif.is_imagej else None
    big = "bigtiff" if tif.is_bigtiff else "tiff"
    if tif.is_ome and tif.ome_metadata:
        notes = ome.read_notes(tif.ome_metadata, name)
        metadata = tiff_notes.micromanager_metadata(key) | notes.metadata
        return _Found(key, "ome-tiff", notes.frames, notes.planes, metadata)
    if imagej:
        frames = tiff_notes.imagej_frames(imagej, name)
        metadata = tiff_notes.micromanager_metadata(key) | tiff_notes.imagej_metadata(imagej, key)
        return _Found(key, "imagej-tiff", frames, None, metadata)
    metadata = tiff_notes.resolution_metadata(key) | tiff_notes.micromanager_metadata(key)
    return _Found(key, big, tiff_notes.shaped_frames(key), None, metadata)


def _check_grey(key: tifffile.TiffPage, name: str) -> None:
    if int(key.samplesperpixel) != 1:
        raise Invalid(
            f"{name} is a colour (RGB) image of {key.samplesperpixel} samples a pixel; a series is grey"
        )
    if key.imagelength < 1 or key.imagewidth < 1 or key.imagedepth != 1 or len(key.shape) > 2:
        raise Invalid(f"{name} holds images of shape {key.shape}; a series holds plane images")
    if key.dtype is None:
        raise Invalid(f"{name} holds pixels of {key.bitspersample} bit; 8, 16 and 32 can be read")
    served_dtype(key.dtype, name)


def _flat_layout(path: Path, found: _Found) -> FlatLayout | None:
    """Return where frames lie, if the file promises that they lie flat after the first page.

    ImageJ does so (and beyond 4 GB describes only the first page); so does a stack whose further descriptions,
    which would follow the pixels, are cut off.
    """
    key, frames = found.key, found.frames
    if found.planes is not None or frames < 2 or not key.is_final or key.is_tiled or not key.dataoffsets:
        return None
    with path.open("rb", buffering=0) as file:
        window = Window(file)
        dialect = read_dialect(window, path.name)
        _, following = read_entries(window, dialect, dialect.first_ifd)
    dtype = np.dtype(dialect.order + key.dtype.str[1:])
    layout = FlatLayout(key.dataoffsets[0], key.imagelength, key.imagewidth, dtype, frames)
    if not following:
        return layout if following == 0 and found.kind != "ome-tiff" else None
    lies_after = following >= layout.offset + frames * layout.frame_bytes
    cut_off = following >= path.stat().st_size
    return layout if lies_after and (found.kind == "imagej-tiff" or cut_off) else None


class TiffSeries:
    """A series whose frames are pages, of one file or of several beside each other."""

    def __init__(self, path: Path, found: _Found, known: PageIndex | None = None) -> None:
        self._path = path
        self._found = found
        self._pages: list[TiffPages | None] = []
        try:
            self._open_all(path, found, known)
            self._shape = self._describe(found)
        except BaseException:
            self.close()
            raise

    def _open_all(self, path: Path, found: _Found, known: PageIndex | None) -> None:
        first = TiffPages(path, found.key, known)
        self._pages.append(first)
        self._present = [path]
        planes = found.planes
        if planes is None and (further := _further_files(path)):
            self._open_in_a_row(further, first)
            return
        if planes is None:
            frames = max(found.frames, len(first.index) + int(first.index.broken))
            planes = ome.OmePlanes(
                (path.name,), np.zeros(frames, np.int32), np.arange(frames, dtype=np.int32)
            )
        elif _is_renamed(path, planes):
            planes = ome.OmePlanes((path.name,), np.minimum(planes.file, 0), planes.page)
        for name in planes.names[1:]:
            self._open_part(path.with_name(name), first)
        self._planes = planes

    def _open_in_a_row(self, further: Sequence[Path], first: TiffPages) -> None:
        """Open the files in which a stack goes on; while it is written nothing but their names says that they belong to it."""
        for part in further:
            try:
                self._open_part(part, first)
            except Invalid:  # its first page is not there yet
                if part is further[-1] and part not in self._present:
                    break
                raise
        counts = [len(pages.index) for pages in self._pages if pages is not None]
        self._planes = ome.OmePlanes(
            tuple(part.name for part in self._present),
            np.repeat(np.arange(len(counts), dtype=np.int32), counts),
            np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        )

    def _open_part(self, part: Path, first: TiffPages) -> None:
        if not part.is_file() or part.resolve().parent != self._path.resolve().parent:
            self._pages.append(None)
            return
        pages = TiffPages(part, _look_at_key(part))
        self._pages.append(pages)
        self._present.append(part)
        if pages.index.form != first.index.form or pages.dtype != first.dtype:
            raise Invalid(f"{part.name} holds frames of another size or type than {self._path.name}")

    def _describe(self, found: _Found) -> SeriesShape:
        missing = self._missing()
        frames = len(self._planes.page)
        if missing == ((0, frames),):
            raise Invalid(f"{self._path.name} holds not one whole frame")
        return SeriesShape(
            format=found.kind,
            height=found.key.imagelength,
            width=found.key.imagewidth,
            dtype=served_dtype(np.dtype(found.key.dtype), self._path.name),
            frames=frames,
            missing=missing,
            metadata=values_from("file", found.metadata),
        )

    def _missing(self) -> Ranges:
        whole = np.zeros(len(self._planes.page), bool)
        for number, pages in enumerate(self._pages):
            if pages is not None:
                mine = np.flatnonzero((self._planes.file == number) & (self._planes.page < len(pages.index)))
                whole[mine] = pages.whole[self._planes.page[mine]]
        return as_ranges(np.flatnonzero(~whole).tolist())

    @property
    def shape(self) -> SeriesShape:
        """Return what the series is."""
        return self._shape

    @property
    def files(self) -> Sequence[Path]:
        """Return the files that are there."""
        return self._present

    def read(self, start: int, stop: int) -> tuple[Frames, tuple[int, ...]]:
        """Return frames [start, stop) and the numbers of those that could not be read."""
        key = self._pages[0]
        assert key is not None
        frames = np.zeros((stop - start, self._shape.height, self._shape.width), key.dtype)
        missing: list[int] = []
        at = start
        while at < stop:
            run = self._run(at, stop)
            got = self._read_run(at, frames[at - start : at - start + run])
            if got < run:
                frames[at - start + got] = 0
                missing.append(at + got)
                got += 1
            at += got
        served = to_served(frames, self._shape.dtype, first_frame=start, name=self._path.name)
        return served, tuple(missing)

    def _run(self, at: int, stop: int) -> int:
        """Return how many frames from `at` on are successive pages of one file."""
        file, page = self._planes.file[at:stop], self._planes.page[at:stop]
        same = (file == file[0]) & (page - page[0] == np.arange(len(page)))
        return int(np.argmin(same)) if not same.all() else len(same)

    def _read_run(self, at: int, out: Frames) -> int:
        number = int(self._planes.file[at])
        pages = self._pages[number] if number >= 0 else None
        return pages.read(int(self._planes.page[at]), out) if pages is not None else 0

    def renewed(self) -> SeriesReader:
        """Return the series as it is now; the chain of pages is walked on from where it ended."""
        first = self._pages[0]
        return open_tiff(self._path, first.index if first is not None else None)

    def progress(self, since: int) -> Progress:
        """Return how many pages are followed by another, or are all that was promised.

        A page's description may be there before its pixels, also in a file that was given its full size beforehand: its
        successor shows that it is whole.
        """
        del since
        said = self._found.frames if self._found.frames > 1 else 0
        known = sum(len(pages.index) for pages in self._pages if pages is not None)
        promised = said if known <= said else None
        gap = min([len(self._planes.page), *(start for start, _ in self._shape.missing)])
        stack, finished = _stack_mark(self._present[-1])
        finished = finished and (
            self._found.planes is not None or len(_further_files(self._path)) < len(self._present)
        )
        ended = gap == promised if promised is not None else finished
        last = self._pages[-1]
        return Progress(
            gap if ended or gap < known else gap - 1,
            promised=promised,
            torn=last is not None and last.is_torn,
            marked=promised is not None or stack,
            ended=ended,
        )

    def runs(self) -> tuple[Run, ...] | None:
        """Return the runs of pages that lie flat in their served type; None if one does not, or they are too many."""
        key = self._pages[0]
        assert key is not None
        if key.dtype.newbyteorder("<") != key.dtype or key.dtype.newbyteorder("=") != self._shape.dtype:
            return None
        offsets = np.full(len(self._planes.page), -1, np.int64)
        for number, pages in enumerate(self._pages):
            if pages is None:
                continue
            flat = pages.flat_offsets()
            if flat is None:
                return None
            mine = np.flatnonzero((self._planes.file == number) & (self._planes.page < len(flat)))
            offsets[mine] = flat[self._planes.page[mine]]
        present = {
            number: index
            for index, number in enumerate(n for n, p in enumerate(self._pages) if p is not None)
        }
        return runs_of(offsets, self._planes.file, present, self._shape.frame_bytes)

    def events(self) -> list[SeriesEvent]:
        """Return nothing: TIFF records no events."""
        return []

    def close(self) -> None:
        """Let go of the files."""
        for pages in self._pages:
            if pages is not None:
                pages.close()


def _stack_mark(path: Path) -> tuple[bool, bool]:
    """Return whether Micro-Manager wrote a file as a stack, and whether it has finished it."""
    with path.open("rb") as file:
        head = file.read(40)
    stack = head[32:36] in _STACK_SUMMARY
    return stack, stack and head[8:12] in _STACK_INDEX


def _further_files(path: Path) -> list[Path]:
    """Return the files in which Micro-Manager goes on with a stack when one is full: `a.ome.tif`, `a_1.ome.tif` …"""
    if not path.name.lower().endswith(_OME_SUFFIX) or not _stack_mark(path)[0]:
        return []
    cut = len(path.name) - len(_OME_SUFFIX)
    names = (f"{path.name[:cut]}_{number}{path.name[cut:]}" for number in itertools.count(1))
    return list(itertools.takewhile(Path.is_file, (path.with_name(name) for name in names)))


def _look_at_key(part: Path) -> tifffile.TiffPage:
    with _damage_named(part.name), tifffile.TiffFile(part) as tif:
        key = tif.pages.first
        _check_grey(key, part.name)
        return key


def _is_renamed(path: Path, planes: ome.OmePlanes) -> bool:
    """Whether the only file the XML names is not there and nothing is said to be in this one: it is this one."""
    return (
        len(planes.names) == 2
        and not (planes.file == 0).any()
        and not path.with_name(planes.names[1]).exists()
    )
