"""Names of files and folders that mean the same on every system: a cluster of many systems must agree on them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cluster.unseen import OBEYED, fault_of_unseen

_LONGEST_NAME_BYTES: Final = 240  # file systems take 255, and what lies beside a series has a longer name
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_FORBIDDEN: Final = re.compile(f'[{OBEYED}\\\\<>"|?*]')
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\.|:|$)", re.IGNORECASE)


def holds_forbidden(path: str) -> bool:
    """Return whether a path holds a character that names cannot hold somewhere, or that is not seen as itself."""
    return _FORBIDDEN.search(path) is not None


def begins_with_drive(path: str) -> bool:
    """Return whether Windows would look for it on a drive, or in a stream of a file of one letter."""
    return _DRIVE.match(path) is not None


def fault_of_name(name: str) -> str | None:
    """Return what is wrong with one part of a path, in words, or None."""
    if name in {"", ".", ".."}:
        return "it holds an empty part, '.' or '..'"
    if name != name.rstrip(". ") or begins_with_drive(name):
        return f"Windows would take {name!r} for another name"
    if _RESERVED.match(name):
        return f"{name!r} is the name of a device on Windows"
    if (size := len(name.encode("utf-8", "surrogateescape"))) > _LONGEST_NAME_BYTES:
        return f"{name[:40]!r}… takes {size} bytes; a name here may take {_LONGEST_NAME_BYTES}"
    return None


def fault_of_new_name(name: str) -> str | None:
    """Return what is wrong with a name for something that is made now: also what a file that is there may have.

    That is a ':', and the marks between letters of Hebrew or Arabic, which nobody sees.
    """
    if ":" in name:
        return f"on Windows {name[:40]!r} would be a hidden stream of another file; leave the ':' out"
    return fault_of_unseen(name) or fault_of_name(name)


def fault_of_new_path(root: Path, parts: Sequence[str]) -> str | None:
    """Return what is wrong with a path under a root for something that is made now; folders that are there keep their names."""
    at = str(root)
    for part in parts:
        at = os.path.join(at, part)  # noqa: PTH118 - isdir takes every name, also one that is too long
        if fault := (fault_of_name if os.path.isdir(at) else fault_of_new_name)(part):  # noqa: PTH112
            return fault
    return None
