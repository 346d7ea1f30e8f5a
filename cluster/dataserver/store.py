"""The series under the roots: what there is, what each one is, and its frames. Synchronous, for use from threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final, Literal, TypeVar

from cluster import job_calibrations
from cluster.arrays import FrameRange
from cluster.dataserver.growing import GrowingReaders, Look
from cluster.dataserver.live.layout import is_acquired
from cluster.dataserver.lying import LyingFrames, lying_frames
from cluster.dataserver.open_readers import Clock, OpenReaders, OpenSeries
from cluster.dataserver.parsing.parsers import Parsers
from cluster.dataserver.paths import Roots, checked_segments
from cluster.dataserver.readers.interface import LiesInBlocks, SeriesShape
from cluster.dataserver.readers.registry import (
    file_on_disk,
    is_series_folder,
    is_series_name,
    is_series_path,
    open_series,
    open_written,
)
from cluster.dataserver.sidecars import read_sidecars
from cluster.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable
from cluster.fingerprint import GROWS, Stamp
from cluster.protocol import (
    CalibrationFile,
    FrameRun,
    Growing,
    MetadataValue,
    RootSpace,
    SeriesEntry,
    SeriesEvent,
    SeriesFacts,
    SeriesListing,
    SeriesPlace,
)
from cluster.stored_frames import StoredRange

T = TypeVar("T")
MAX_REQUEST_BYTES: Final = 256 << 20
_RESULTS_FOLDER: Final = "analysis"
_CALIBRATION_SUFFIX: Final = ".json"


class SeriesStore:
    """What a data server serves. `now` is a monotonic clock in seconds; files are parsed by `parsers`, or else right here."""

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        shelves: Mapping[str, Path] | None = None,
        now: Clock = time.monotonic,
        open_limit: int = 16,
        parsers: Parsers | None = None,
    ) -> None:
        self._folders = tuple(roots)
        self._roots = Roots(roots, shelves)
        self._sidecars = _sidecars_here if parsers is None else parsers.sidecars
        self._readers = OpenReaders(
            open_series if parsers is None else parsers.open, now=now, limit=open_limit
        )
        self._growing = GrowingReaders(open_written if parsers is None else parsers.open_written, now=now)

    @property
    def roots(self) -> Sequence[Path]:
        """Return the folders that are served."""
        return self._folders

    @property
    def open_series(self) -> int:
        """Return how many series are held open."""
        return len(self._readers)

    def listing(self, under: str, *, calibrations: bool = False) -> SeriesListing:
        """Return the folders and series in a folder; of two roots that have the same name, the first's.

        With `calibrations` also the files that may be a shift field or width curves, and the folders of results, where those lie.

        Raises
        ------
        Invalid, NotFound
            If the folder's name is malformed, or no root has it.
        """
        entries: dict[str, SeriesEntry] = {}
        for root, folder in self._roots.folders(under):
            with os.scandir(folder) as found:
                for item in found:
                    entry = _entry(item, root, under, calibrations=calibrations)
                    if entry is not None:
                        entries.setdefault(entry.path, entry)
        return SeriesListing(under=under, entries=[entries[path] for path in sorted(entries, key=_listed_by)])

    def space(self) -> list[RootSpace]:
        """Return the folders that are served, with the room on their disks."""
        return self._roots.space()

    def facts(self, path: str, *, follow: bool = False) -> SeriesFacts:
        """Return what a series is; sidecars are read anew each time.

        With `follow` a series that another program may still be writing is taken as one that grows: its frames are those
        that will not change any more, and its fingerprint stays the same.

        Raises
        ------
        Invalid, NotFound
            If there is no such series, or it or a sidecar cannot be read.
        Unavailable
            If one that grows cannot be read yet, or just now.
        """
        file = self._file(path)
        if follow and not is_acquired(file):
            look = self._growing.look(file)
            return _facts_of(
                path, look.shape, look.fingerprint, look.stamp, self._sidecars(file), _growing(look)
            )
        with self._readers.using(file) as series:
            return _facts_of(
                path, series.reader.shape, series.fingerprint, series.stamp, self._sidecars(file)
            )

    def _file(self, path: str) -> Path:
        return self._roots.file(path, accepts=is_series_path)

    def extent(
        self, path: str, start: int, stop: int | None, *, pinned: str | None = None
    ) -> tuple[int, int, int]:
        """Return (start, stop, bytes) of a range of frames as it will be read, having checked it.

        Raises
        ------
        Invalid
            If the series has no such frames; says how many it has.
        TooLarge
            If the range is over `MAX_REQUEST_BYTES`; says the largest range.
        """
        file = self._file(path)
        if pinned is not None and pinned.startswith(GROWS):
            shape = self._growing.shape(file, pinned, stop or 0)
        else:
            with self._readers.using(file) as series:
                shape = series.reader.shape
        stop = shape.frames if stop is None else stop
        _check_range(path, shape, start, stop)
        return start, stop, (stop - start) * shape.frame_bytes

    def frames(self, path: str, start: int, stop: int, *, pinned: str | None = None) -> FrameRange:
        """Return frames [start, stop); those that cannot be read are zero and listed as missing.

        Raises
        ------
        Conflict
            If the series is not, or is no longer, the one of the fingerprint `pinned`.
        Invalid, NotFound, TooLarge
            As `extent` does.
        """
        file = self._file(path)
        if pinned is not None and pinned.startswith(GROWS):
            frames, unreadable, shape = self._growing.frames(file, start, stop, pinned)
            missing = _within(shape.missing, start, stop) | set(unreadable)
            return FrameRange(start=start, frames=frames, missing=tuple(sorted(missing)))
        with self._readers.using(file) as series:
            _check_range(path, series.reader.shape, start, stop)
            _check_pinned(path, series, pinned)
            frames, unreadable = _from_disk(path, lambda: series.reader.read(start, stop))
            if pinned is not None and not series.is_same():
                raise _changed(path)
            missing = _within(series.reader.shape.missing, start, stop) | set(unreadable)
            return FrameRange(start=start, frames=frames, missing=tuple(sorted(missing)))

    def stored(self, path: str, start: int, stop: int, *, pinned: str | None = None) -> StoredRange | None:
        """Return frames [start, stop) in the blocks in which they lie, or None if they lie in none; raises as `frames` does."""
        if pinned is not None and pinned.startswith(
            GROWS
        ):  # blocks of a file that is written may change place
            return None
        with self._readers.using(self._file(path)) as series:
            reader = series.reader
            if not isinstance(reader, LiesInBlocks):
                return None
            _check_range(path, reader.shape, start, stop)
            _check_pinned(path, series, pinned)
            found = _from_disk(path, lambda: reader.stored(start, stop))
            if pinned is not None and not series.is_same():
                raise _changed(path)
            missing = _within(reader.shape.missing, start, stop) | set(found.missing)
            return replace(found, missing=tuple(sorted(missing)))

    def lying(
        self, path: str, start: int, stop: int | None, *, pinned: str | None = None
    ) -> LyingFrames | None:
        """Return frames [start, stop) as pieces of the files in which they lie, or None if they must be read; raises as `frames` does.

        Whoever gets them closes them.
        """
        if pinned is not None and pinned.startswith(GROWS):
            return None
        with self._readers.using(self._file(path)) as series:
            shape = series.reader.shape
            stop = shape.frames if stop is None else stop
            _check_range(path, shape, start, stop)
            _check_pinned(path, series, pinned)
            found = _from_disk(
                path, lambda: lying_frames(series.runs(), series.reader, start, stop, series.sums)
            )
            if found is not None and pinned is not None and not series.is_same():
                found.close()
                raise _changed(path)
            return found

    def place(self, path: str, *, pinned: str | None = None) -> SeriesPlace:
        """Return in which files the frames lie, for a worker that can open them itself.

        Raises
        ------
        NotFound
            If there is no such series, it was asked for as one that grows, or its frames do not lie in files as they
            are served.
        Conflict
            As `frames` does.
        """
        file = self._file(path)
        if pinned is not None and pinned.startswith(GROWS):
            raise NotFound(f"the frames of {path} come from here: it may still be written", path=path)
        with self._readers.using(file) as series:
            _check_pinned(path, series, pinned)
            runs = series.runs()
            if runs is None:
                raise NotFound(f"the frames of {path} do not lie in files as they are served", path=path)
            return SeriesPlace(
                fingerprint=series.fingerprint,
                files=[str(file) for file in series.reader.files],
                stamps=[(size, modified_ns) for _, size, modified_ns in series.stamp.files],
                runs=[FrameRun(**asdict(run)) for run in runs],
            )

    def events(self, path: str, *, pinned: str | None = None) -> list[SeriesEvent]:
        """Return the acquisition's events; those so far of a series that is pinned as one that grows."""
        file = self._file(path)
        if pinned is not None and pinned.startswith(GROWS):
            return self._growing.events(file)
        with self._readers.using(file) as series:
            return series.reader.events()

    def calibration(self, path: str) -> CalibrationFile:
        """Return what a shift field or width curves under the roots hold; no other file is handed out.

        Raises
        ------
        Invalid, NotFound
            If there is no such file, or it is no calibration.
        TooLarge
            If it is larger than any.
        """
        file = self._roots.file(path, "calibration")
        if not path.lower().endswith(_CALIBRATION_SUFFIX):
            raise Invalid(f"{path} is not a calibration: those are .json", field="path")
        try:
            with file.open("rb") as opened:
                text = opened.read(job_calibrations.MOST_BYTES + 1)
        except OSError as error:
            raise Unavailable(f"{path} cannot be read now: {error.strerror or error}") from error
        if len(text) > job_calibrations.MOST_BYTES:
            raise TooLarge(f"{path} is over {job_calibrations.MOST_BYTES} bytes, larger than any calibration")
        value = job_calibrations.parse(path, text)
        return CalibrationFile(path=path, value=value, digest=job_calibrations.digest(value))

    def close_idle(self) -> None:
        """Let go of files that nobody has asked for lately."""
        self._readers.close_idle()
        self._growing.close_idle()

    def close(self) -> None:
        """Let go of all files."""
        self._readers.close()
        self._growing.close()


def _sidecars_here(file: Path) -> dict[str, MetadataValue]:
    return read_sidecars(file_on_disk(file)) | read_sidecars(file)


def _growing(look: Look) -> Growing:
    progress = look.progress
    return Growing(promised=progress.promised, torn=progress.torn, marked=progress.marked)


def _facts_of(
    path: str,
    shape: SeriesShape,
    fingerprint: str,
    files: Stamp,
    sidecars: dict[str, MetadataValue],
    growing: Growing | None = None,
) -> SeriesFacts:
    return SeriesFacts.model_validate(
        {
            "path": path,
            "height": shape.height,
            "width": shape.width,
            "dtype": shape.dtype.name,
            "frames": shape.frames,
            "missing": shape.missing,
            "complete": shape.complete,
            "fingerprint": fingerprint,
            "bytes": files.bytes if shape.stored_bytes is None else shape.stored_bytes,
            "format": shape.format,
            "metadata": shape.metadata | sidecars,
            "events": shape.events,
            "growing": growing,
        }
    )


def _check_range(path: str, shape: SeriesShape, start: int, stop: int) -> None:
    if not 0 <= start < stop <= shape.frames:
        raise Invalid(
            f"{path} has frames 0 to {shape.frames - 1}; [{start}, {stop}) is no range of them",
            field="start" if not 0 <= start < shape.frames else "stop",
        )
    if (stop - start) * shape.frame_bytes > MAX_REQUEST_BYTES:
        most = MAX_REQUEST_BYTES // shape.frame_bytes
        raise TooLarge(
            f"{stop - start} frames of {path} are over {MAX_REQUEST_BYTES} bytes; ask for at most {most} at a time, "
            f"such as [{start}, {start + most})",
            most_frames=most,
        )


def _from_disk(path: str, read: Callable[[], T]) -> T:
    """A share that fails for a moment is no reason to call frames lost."""
    try:
        return read()
    except OSError as error:
        raise Unavailable(f"{path} cannot be read now: {error.strerror or error}") from error


def _check_pinned(path: str, series: OpenSeries, pinned: str | None) -> None:
    if pinned is not None and pinned != series.fingerprint:
        raise _changed(path)


def _changed(path: str) -> Conflict:
    return Conflict(f"the file changed: {path} is not the series that this was asked of", path=path)


def _within(ranges: Sequence[tuple[int, int]], start: int, stop: int) -> set[int]:
    return {n for first, last in ranges for n in range(max(first, start), min(last, stop))}


def _entry(
    item: os.DirEntry[str], root: Path, under: str, *, calibrations: bool = False
) -> SeriesEntry | None:
    """Return the line of a folder, series or calibration, or None for what is neither, cannot be asked for, or leads elsewhere."""
    path = f"{under}/{item.name}" if under else item.name
    try:
        checked_segments(path)
        if item.name.startswith(".") or (item.is_symlink() and not _stays_within(item, root)):
            return None
        if item.is_dir() and is_series_folder(Path(item.path)):
            return SeriesEntry(path=path, kind="series", modified=item.stat().st_mtime)
        if item.is_dir():
            hidden = not calibrations and item.name == _RESULTS_FOLDER and not _holds_series(item)
            return None if hidden else SeriesEntry(path=path, kind="folder")
        kind: Literal["series", "calibration"] = "series"
        if not is_series_name(item.name):
            if not (calibrations and item.name.lower().endswith(_CALIBRATION_SUFFIX)):
                return None
            kind = "calibration"
        found = item.stat()
    except (OSError, Invalid):
        return None
    return SeriesEntry(path=path, kind=kind, bytes=found.st_size, modified=found.st_mtime)


def _holds_series(folder: os.DirEntry[str]) -> bool:
    """Whether a folder of results holds series too."""
    with os.scandir(folder) as found:
        return any(is_series_name(item.name) for item in found)


def _stays_within(item: os.DirEntry[str], root: Path) -> bool:
    return Path(item.path).resolve().is_relative_to(root)


def _listed_by(path: str) -> tuple[str, str]:
    return (path.casefold(), path)
