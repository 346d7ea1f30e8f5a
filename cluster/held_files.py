"""Files that another program holds open: a viewer, a virus scanner, a backup.

Windows lets nobody replace, rename or remove them meanwhile. Most let go soon, so it is tried again for ten seconds.
Elsewhere a refusal is a matter of permissions, and is told at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")
LONGEST_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.5
_pause: Final = time.sleep
_HELD: Final = frozenset({5, 32, 33})  # ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION


def replace(source: Path, target: Path) -> None:
    """Give a file the name of another, which it replaces."""
    patiently(lambda: source.replace(target))


def rename(source: Path, target: Path) -> None:
    """Give a file or folder another name."""
    patiently(lambda: source.rename(target))


def remove(path: Path) -> None:
    """Remove a file; one that is not there is no error."""
    patiently(lambda: path.unlink(missing_ok=True))


def is_held(error: BaseException | None) -> bool:
    """Return whether an error of the system says that somebody holds the file."""
    return isinstance(error, PermissionError) and getattr(error, "winerror", None) in _HELD


def patiently(
    action: Callable[[], T],
    *,
    longest_s: float = LONGEST_S,
) -> T:
    """Return what an action on a file returns, tried again while somebody holds the file."""
    waited_s, pause_s = 0.0, _FIRST_PAUSE_S
    while True:
        try:
            return action()
        except PermissionError as error:
            if not is_held(error) or waited_s >= longest_s:
                raise
        _pause(pause_s)
        waited_s += pause_s
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
