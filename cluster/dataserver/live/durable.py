"""Writing so that what was acknowledged is still there after a crash: bytes to the disk first, then the name."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from cluster import held_files
from cluster.errors import OutOfSpace, Unavailable
from cluster.results.publish import sync_folder

Part = bytes | memoryview
TEMPORARY: Final = ".part"
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT if hasattr(errno, "EDQUOT") else errno.ENOSPC})
_numbers: Final = itertools.count()


def write_whole(path: Path, parts: Sequence[Part]) -> None:
    """Write a file in one step, over one of that name: it is there whole or not at all, whatever happens."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{next(_numbers)}{TEMPORARY}")
    try:
        write_synced(temporary, parts)
        held_files.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_synced(path: Path, parts: Iterable[Part]) -> None:
    """Write a new file and return once its bytes are on the disk."""
    with path.open("xb", buffering=0) as file:
        _write_all(file.fileno(), parts)
        os.fsync(file.fileno())


def append_synced(path: Path, parts: Sequence[Part], at: int) -> None:
    """Write at the end of a file, which is `at`; what lies beyond is what a crash left and is cut off."""
    made = not path.exists()
    with path.open("ab", buffering=0) as file:
        if file.seek(0, os.SEEK_END) != at:
            file.truncate(at)
        _write_all(file.fileno(), parts)
        os.fsync(file.fileno())
    if made:
        sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file that is not needed any more; one that cannot be removed now does no harm."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def is_leftover(name: str) -> bool:
    """Return whether a file of this name is what a crash left half-written."""
    return name.startswith(".") and name.endswith(TEMPORARY)


@contextlib.contextmanager
def clear_failures(path: str) -> Iterator[None]:
    """Say of a disk that is full or fails which series could not be written; either may be over later.

    Raises
    ------
    OutOfSpace, Unavailable
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise OutOfSpace(f"the disk is full: {path} could not be written", path=path) from error
        raise Unavailable(f"{path} cannot be written now: {error.strerror or error}") from error


def _write_all(descriptor: int, parts: Iterable[Part]) -> None:
    for part in parts:
        left = memoryview(part).cast("B")
        while left.nbytes:
            left = left[os.write(descriptor, left) :]
