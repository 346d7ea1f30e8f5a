"""The series under the roots that are being acquired through this server, and files that are put beside them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cluster import held_files
from cluster.dataserver.live.durable import clear_failures, write_synced
from cluster.dataserver.live.layout import (
    ARRAY,
    DOCUMENT,
    STAGED,
    SUFFIX,
    Record,
    array_document,
    group_document,
    is_acquired,
    layout_of,
    read_record,
)
from cluster.dataserver.live.series import AcquiredSeries
from cluster.dataserver.paths import Roots, checked_segments
from cluster.errors import Conflict, Forbidden, Invalid, OutOfSpace
from cluster.file_names import fault_of_new_path
from cluster.protocol import NewSeries
from cluster.results.publish import hidden_start, sync_folder

RESERVE_BYTES: Final = 1 << 30
_LARGEST_CHUNK_BYTES: Final = 64 << 20
_FORGET_S: Final = 600.0


def free_bytes(folder: Path) -> int:
    """Return the room on a folder's disk."""
    return shutil.disk_usage(folder).free


class Acquisitions:
    """What may be written below the roots: new series in the first root that can be written, never over anything.

    `reserve_bytes` of each disk are left free.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        allowed: bool = True,
        reserve_bytes: int = RESERVE_BYTES,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._folders = tuple(roots)
        self._roots = Roots(roots)
        self._allowed = allowed
        self._reserve_bytes = reserve_bytes
        self._free = free
        self._books = threading.Lock()
        self._open: dict[Path, tuple[float, AcquiredSeries]] = {}

    def create(self, path: str, wanted: NewSeries) -> bool:
        """Make an empty series; returns whether it is new, false where the same one was made before.

        Raises
        ------
        Conflict
            If there is another of this name.
        Forbidden
            If nothing may be written here.
        Invalid
            If the name or what is wanted makes no series.
        OutOfSpace
            If the disk is nearly full.
        """
        self.check_allowed()
        _check_wanted(path, wanted)
        folder = self._existing(path)
        if folder is None:
            folder = self._place(path)
            self.check_room(folder.parent, wanted.height * wanted.width)
            with clear_failures(path):
                if _make(folder, wanted):
                    return True
        record = read_record(folder) if is_acquired(folder) else None
        if record is None or record.created != wanted:
            raise Conflict(f"{path} exists already, and is another series", path=path)
        return False

    def series(self, path: str) -> AcquiredSeries:
        """Return a series to write to.

        Raises
        ------
        Forbidden
            If nothing may be written here.
        NotFound
            If there is none of this name.
        Invalid
            If it was not acquired through a data server.
        """
        self.check_allowed()
        folder = self._roots.file(path, accepts=Path.exists)
        if not is_acquired(folder):
            raise Invalid(
                f"{path} was not acquired through a data server, which adds nothing to it", field="path"
            )
        with self._books, clear_failures(path):
            self._forget_old()
            record = read_record(folder)
            _, known = self._open.get(folder, (0.0, None))
            if known is None or record is None or known.record.identity != record.identity:
                known = AcquiredSeries(folder, path)
            self._open[folder] = (time.monotonic(), known)
            return known

    def place_upload(self, path: str, bytes_expected: int) -> Path:
        """Return where a file goes that is to be put under the roots; raises as `create` does."""
        self.check_allowed()
        if self._existing(path) is not None:
            raise Conflict(f"{path} exists already; nothing is written over", path=path)
        target = self._place(path)
        self.check_room(target.parent, bytes_expected)
        return target

    def check_allowed(self) -> None:
        """Raise `Forbidden` if nothing may be written here."""
        if not self._allowed:
            raise Forbidden("this data server only reads: it was started with --read-only")

    def check_room(self, folder: Path, wanted_bytes: int) -> None:
        """Raise `OutOfSpace` if the disk would be nearly full."""
        present = next((found for found in (folder, *folder.parents) if found.is_dir()), folder)
        with clear_failures(str(folder)):
            free = self._free(present)
        if free - wanted_bytes < self._reserve_bytes:
            raise OutOfSpace(
                f"the disk of {present} is nearly full: {free >> 20} MB are free and {self._reserve_bytes >> 20} MB are "
                "kept free; writing goes on once there is room",
                free_bytes=free,
            )

    def _existing(self, path: str) -> Path | None:
        """Return where a root has something of this name."""
        segments = checked_segments(path)
        for folder in self._folders:
            with contextlib.suppress(OSError):
                candidate = folder.resolve().joinpath(*segments)
                if candidate.exists() or candidate.is_symlink():
                    return candidate
        return None

    def _place(self, path: str) -> Path:
        """Return where something new goes, its folders made."""
        segments = checked_segments(path)
        if not segments or any(segment.startswith(".") for segment in segments):
            raise Invalid(
                f"{path!r} is no name for what is to be seen: no part may begin with a dot", field="path"
            )
        if any(segment.lower().endswith(SUFFIX) for segment in segments[:-1]):
            raise Invalid(f"{path!r} lies within a series", field="path")
        root = next((found for found in self._folders if found.is_dir() and os.access(found, os.W_OK)), None)
        if root is None:
            raise Forbidden("no root of this data server can be written")
        root = root.resolve()
        if fault := fault_of_new_path(root, segments):
            raise Invalid(f"{path!r} is no name for a new file: {fault}", field="path")
        target = root.joinpath(*segments)
        if not target.resolve().is_relative_to(root):
            raise Invalid(f"{path!r} leads out of the root", field="path")
        with clear_failures(path):
            _make_folders(target.parent)
        return target

    def _forget_old(self) -> None:
        """Let go of series that took their last frames a while ago."""
        before = time.monotonic() - _FORGET_S
        for folder, (used_at, series) in list(self._open.items()):
            if series.record.complete and used_at < before:
                del self._open[folder]


def _check_wanted(path: str, wanted: NewSeries) -> None:
    if not path.lower().endswith(SUFFIX):
        raise Invalid(f"{path!r} must end in {SUFFIX}: frames land in a Zarr folder", field="path")
    if wanted.lossy and wanted.dtype == "float32":
        raise Invalid("values of float32 are not rounded; leave lossy out", field="lossy")
    layout = layout_of(wanted)
    if layout.chunk_bytes > _LARGEST_CHUNK_BYTES and layout.chunk_frames > 1:
        most = max(1, _LARGEST_CHUNK_BYTES // layout.frame_bytes)
        raise Invalid(f"chunk_frames may be at most {most} for frames of this size", field="chunk_frames")


def _make(folder: Path, wanted: NewSeries) -> bool:
    """Make a series' folder in one step; returns false if there is one by now."""
    layout = layout_of(wanted)
    record = Record(identity=secrets.token_hex(16), created=wanted, chunk_frames=layout.chunk_frames)
    temporary = folder.with_name(f"{hidden_start(folder)}{secrets.token_hex(4)}.part")
    try:
        for part in (temporary, temporary / ARRAY, temporary / STAGED):
            part.mkdir()
        write_synced(temporary / ARRAY / DOCUMENT, [array_document(layout, wanted.frames or 0)])
        write_synced(temporary / DOCUMENT, [group_document(folder.name, record)])
        for part in (temporary / ARRAY, temporary / STAGED, temporary):
            sync_folder(part)
        try:
            held_files.rename(temporary, folder)
        except OSError:
            if folder.exists():
                return False
            raise
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def _make_folders(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)
