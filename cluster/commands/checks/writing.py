"""Whether a folder can be written: by writing to it, as permissions say too little of shares, quotas and virus scanners."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cluster import held_files
from cluster.commands.checks.finding import Finding, ok, problem

Replace = Callable[[Path, Path], None]
Remove = Callable[[Path], None]
_BYTES: Final = os.urandom(64 << 10)  # more than a file system keeps beside the name
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC})
_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def fault_of_writing(
    folder: Path, *, replace: Replace = held_files.replace, remove: Remove = held_files.remove
) -> str | None:
    """Write a file into a folder, which is made if need be, read it back and remove it; return what went wrong, or None."""
    part, whole = (folder / f".trial-{os.getpid()}{end}" for end in (".part", ""))
    written = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(part)
        written = True
        replace(part, whole)
        read = whole.read_bytes()
        remove(whole)
    except OSError as error:
        return _told(folder, error, written=written)
    finally:
        _tidy(part, whole)
    if read != _BYTES:
        return f"what is written to {folder} is not what is read back: its disk, or its share, is at fault"
    return None


def _write(path: Path) -> None:
    with path.open("wb") as file:
        file.write(_BYTES)
        file.flush()
        os.fsync(file.fileno())


def _tidy(*paths: Path) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError:  # told already, by whatever failed before
            continue


def _told(folder: Path, error: OSError, *, written: bool) -> str:
    said = error.strerror or str(error)
    if error.errno in _FULL:
        return f"there is no room in {folder} ({said}): free some, or have your quota raised"
    if written and isinstance(error, PermissionError):
        return (
            f"files can be written to {folder} but not renamed or removed there ({said}): another program holds them, mostly a "
            "virus scanner or a backup; except this folder from it"
        )
    if error.errno in _READ_ONLY:
        return f"{folder} cannot be written ({said}): it is read-only, or not yours"
    return f"{folder} cannot be written ({said})"


def state_folder(folder: Path) -> Finding:
    """Look at where secrets, journals and logs are kept."""
    fault = fault_of_writing(folder)
    if fault is not None:
        return problem("state folder", f"{fault}. Another one: set CLUSTEROFONE_HOME")
    return ok("state folder", str(folder))


def compiled_kernels(folder: Path, *, write: Callable[[Path], str | None] = fault_of_writing) -> Finding:
    """Look at where numba keeps what it has compiled: where it cannot, every worker compiles anew, and says nothing."""
    fault = write(folder)
    if fault is None:
        return ok("compiled kernels", f"kept in {folder} (written to and read back)")
    return problem(
        "compiled kernels",
        f"{fault}. Until then every worker compiles for some seconds as it starts, if it starts at all. "
        "For another folder set NUMBA_CACHE_DIR",
    )
