"""How a result file comes to be: whole under its final name, or not there at all.

A file is written beside its place under a hidden temporary name, flushed to the disk and then given its name in one
step. Nothing that exists is written over unless that was asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Literal

from cluster import held_files
from cluster.errors import Conflict, Invalid, OutOfSpace

IfExists = Literal["refuse", "number", "replace", "replace or number"]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
_NO_ROOM_WINERROR = frozenset({39, 112})  # ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL
_NO_FOLDER = (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError)
_SPARE_BYTES = 12 << 20  # what a file needs beyond its rows, and a file system to stay usable


def free_name(path: Path, taken: Collection[str] = ()) -> Path:
    """Return the path itself, or with _1, _2, … after its stem: the first that does not exist and is not `taken`."""
    numbered, number = path, 0
    while numbered.exists() or str(numbered) in taken:
        number += 1
        numbered = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return numbered


@contextlib.contextmanager
def writing(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary path; what was written there gets its final name when the block ends well.

    Raises
    ------
    Conflict
        If the file exists and is not to be replaced.
    OutOfSpace
        If the disk is full.
    Invalid
        If the folder cannot be written.
    """
    if_exists: IfExists = "replace" if replace else "refuse"
    temporary = temporary_for(path, if_exists=if_exists)
    try:
        with clear_errors(path):
            yield temporary
        publish(temporary, path, if_exists=if_exists)
    finally:
        with contextlib.suppress(OSError):
            held_files.remove(temporary)


def unfinished(path: Path) -> list[Path]:
    """Return the temporary files of `path` that whoever wrote it has left behind."""
    start = hidden_start(path)
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    return [one for one in beside if one.name.startswith(start) and one.name.endswith(".part")]


def hidden_start(path: Path) -> str:
    """Return how the temporary names of a file begin; file systems count bytes, or UTF-16 units, never letters."""
    return f".{path.name.encode('utf-8', 'surrogateescape')[:100].decode('utf-8', 'ignore')}."


def temporary_for(path: Path, *, if_exists: IfExists = "refuse") -> Path:
    """Return a name for writing `path` under; its folder exists afterwards.

    Raises
    ------
    Conflict
        If the file exists and is not to be replaced or numbered: better said before the work than after it.
    Invalid
        If the folder cannot be made or written.
    """
    if if_exists == "refuse" and path.exists():
        raise Conflict(f"{path} exists already", path=str(path))
    temporary = path.with_name(f"{hidden_start(path)}{secrets.token_hex(4)}.part")
    with clear_errors(path):
        try:
            _begin(temporary)
        except FileNotFoundError:  # `check_writable` has just taken away a folder that it had made
            _begin(temporary)
    return temporary


def _begin(temporary: Path) -> None:
    temporary.parent.mkdir(parents=True, exist_ok=True)
    temporary.touch(exist_ok=False)


def check_writable(path: Path) -> None:
    """Find out whether a file could be written; nothing of it is left, nor the folders that it would need.

    Raises
    ------
    Invalid
        If the folder cannot be made or written.
    """
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        temporary_for(path, if_exists="replace").unlink()
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):  # never made, or somebody has put something there meanwhile
                folder.rmdir()


def publish(temporary: Path, path: Path, *, if_exists: IfExists = "refuse") -> Path:
    """Give a finished file its name, in one step, and see both to the disk.

    Returns
    -------
    Path
        The name it got: `path`, or a numbered one.

    Raises
    ------
    Conflict
        If the name was taken meanwhile and is not to be replaced.
    """
    with clear_errors(path):
        sync_file(temporary)
        if if_exists.startswith("replace"):
            path = _replace(temporary, path, or_number=if_exists == "replace or number")
        else:
            path = _claim(temporary, path, numbered=if_exists == "number")
        sync_folder(path.parent)
    return path


def _replace(temporary: Path, path: Path, *, or_number: bool) -> Path:
    """Replace a file; where somebody holds the old one for too long, take the next free name if that will do."""
    try:
        held_files.replace(temporary, path)
    except PermissionError as error:
        if not (or_number and held_files.is_held(error)):
            raise
        return _claim(temporary, path, numbered=True)
    return path


def _claim(temporary: Path, path: Path, *, numbered: bool) -> Path:
    while True:
        target = free_name(path) if numbered else path
        try:
            _rename_to_new(temporary, target)
        except FileExistsError:
            if not numbered:
                raise Conflict(f"{path} exists already", path=str(path)) from None
        else:
            return target


def _rename_to_new(temporary: Path, target: Path) -> None:
    """Rename, unless the target exists: FileExistsError then."""
    if sys.platform == "win32":
        held_files.rename(temporary, target)
    else:
        _link_to_new(temporary, target)


def _link_to_new(temporary: Path, target: Path) -> None:
    try:
        target.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: claim the name first, then replace what claims it
        target.touch(exist_ok=False)
        held_files.replace(temporary, target)
    else:
        temporary.unlink()


def sync_file(path: Path) -> None:
    """Return once the file's bytes are on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Return once the folder's entries are on the disk, where the system can promise that."""
    # Windows has no handle on a folder to flush; NTFS journals the rename
    if sys.platform != "win32":
        _sync_descriptor(folder)


def _sync_descriptor(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems cannot
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES}:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system or HDF5 says about a file into a sentence that names it."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if _is_no_room(error):
            raise OutOfSpace(f"the disk is full: {path} could not be written", path=str(path)) from error
        if isinstance(error, _NO_FOLDER):
            raise Invalid(
                f"the folder {path.parent} cannot be written: {error.strerror}", path=str(path)
            ) from error
        if isinstance(error, OSError) and error.errno == errno.EROFS:
            raise Invalid(f"the folder {path.parent} is read-only", path=str(path)) from error
        raise


def _is_no_room(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return True
    if getattr(error, "winerror", None) in _NO_ROOM_WINERROR:
        return True
    # HDF5 keeps the number in its text
    return any(f"errno = {number}," in str(error) for number in _NO_ROOM)


def free_bytes(folder: Path) -> int:
    """Return the room that is left on a folder's disk."""
    return shutil.disk_usage(folder).free


def check_room(path: Path, needed_bytes: int, free: Callable[[Path], int] = free_bytes) -> None:
    """Say that the disk is full before it is: a library that meets the end of a disk may not recover.

    Raises
    ------
    OutOfSpace
        If fewer bytes are free than needed and a little more.
    """
    left = free(path.parent)
    if left < needed_bytes + _SPARE_BYTES:
        raise OutOfSpace(
            f"the disk is full: {path} needs {needed_bytes / 1e6:.1f} MB and {left / 1e6:.1f} MB are left",
            path=str(path),
        )
