"""From the name of a series in a request to a file under a root, and no further.

A name is refused by how it looks (on every system in the same way, so that a cluster of many systems agrees), and
then by where it leads: what resolves to outside its root is not there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from cluster.errors import Invalid, NotFound
from cluster.file_names import begins_with_drive, fault_of_name, holds_forbidden
from cluster.protocol import RootSpace

_MAX_LENGTH: Final = 1024


def checked_segments(path: str) -> tuple[str, ...]:
    """Return the parts of a '/'-separated relative path; an empty path is the root itself.

    Raises
    ------
    Invalid
        If it could mean anything but a file below a root: says why.
    """
    if not path:
        return ()
    segments = tuple(path.split("/"))
    reason = _fault(path, segments)
    if reason:
        raise Invalid(f"{path[:200]!r} is no path of a series: {reason}", field="path")
    return segments


def _fault(path: str, segments: Sequence[str]) -> str | None:
    if len(path) > _MAX_LENGTH:
        return f"it is longer than {_MAX_LENGTH} characters"
    if not path.isascii() and any("\ud800" <= character <= "\udfff" for character in path):
        return "it is not Unicode"
    if holds_forbidden(path):
        return "it holds a character that paths here cannot hold; parts are separated by '/'"
    if begins_with_drive(path) and path[2:3] != "/":
        return f"Windows would take its beginning, {path[:2]!r}, for a drive; rename it"
    if begins_with_drive(path) or not segments[0]:
        return "it is absolute, and not under a root that is served; it must be relative to one"
    faults = (fault_of_name(segment) for segment in segments)
    return next((fault for fault in faults if fault), None)


class Roots:
    """The folders that are served. The first that has a name wins.

    A shelf is a folder beside the roots: its files go by its name (`@profiles/left/dark.tif`), and it is in no listing.
    """

    def __init__(self, folders: Sequence[Path], shelves: Mapping[str, Path] | None = None) -> None:
        self._folders = tuple(folders)
        self._shelves = dict(shelves or {})

    def file(
        self, path: str, what: str = "series", *, accepts: Callable[[Path], bool] = Path.is_file
    ) -> Path:
        """Return the file of this name, or the folder if `accepts` takes it; `what` it should be is for the message.

        Raises
        ------
        Invalid
            If the name is malformed.
        NotFound
            If no root has it.
        """
        return self.located(path, what, accepts=accepts)[1]

    def located(
        self, path: str, what: str = "series", *, accepts: Callable[[Path], bool] = Path.is_file
    ) -> tuple[Path, Path]:
        """Return the root that has a file of this name, and the file; raises as `file` does."""
        segments = checked_segments(path)
        if segments:
            for root, candidate in self._candidates_with_root(segments):
                if accepts(candidate):
                    return root, candidate
        roots = [str(folder) for folder in self._folders]
        raise NotFound(f"there is no {what} {path!r} under {self._said()}", path=path, roots=roots)

    def folders(self, under: str) -> list[tuple[Path, Path]]:
        """Return (root, folder) for each root that has this folder; raises as `file` does."""
        segments = checked_segments(under)
        found = [(root, folder) for root, folder in self._candidates_with_root(segments) if folder.is_dir()]
        if not found and segments:
            raise NotFound(f"there is no folder {under!r} under {self._said()}", path=under)
        return found

    def space(self) -> list[RootSpace]:
        """Return the folders with the room on their disks."""
        return [_space(folder) for folder in self._folders]

    def _candidates_with_root(self, segments: Sequence[str]) -> Iterator[tuple[Path, Path]]:
        """Yield where each root would have it; roots are resolved anew, for a share may come and go."""
        shelf = self._shelves.get(segments[0]) if segments else None
        on_shelf = [(shelf, segments[1:])] if shelf is not None else []
        for folder, parts in (*on_shelf, *((folder, segments) for folder in self._folders)):
            try:
                root = folder.resolve()
                candidate = root.joinpath(*parts).resolve()
            except (OSError, RuntimeError, ValueError):
                continue
            if candidate.is_relative_to(root):
                yield root, candidate

    def _said(self) -> str:
        return ", ".join(str(folder) for folder in self._folders) or "no root"


def _space(folder: Path) -> RootSpace:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return RootSpace(path=str(folder), free_bytes=None, total_bytes=None, writable=False)
    writable = os.access(folder, os.W_OK)
    return RootSpace(path=str(folder), free_bytes=usage.free, total_bytes=usage.total, writable=writable)
