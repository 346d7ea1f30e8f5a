"""How many files and connections this process may have open at once."""

from __future__ import annotations

import contextlib
import sys
from typing import Final

_WANTED: Final = 8192  # many systems allow 1024 or 256 until a program asks for more


if sys.platform == "win32":

    def allow_many() -> int:
        """Return how many there may be: Windows has no limit that a program is told or asks for."""
        return _WANTED

else:
    import resource

    def allow_many() -> int:
        """Ask the system for as many as a server of a thousand workers needs, and return how many there may be."""
        allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        if _is_less(allowed, _WANTED):
            wanted = most if _is_less(most, _WANTED) else _WANTED
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
                allowed = wanted
        return allowed if _is_less(allowed, _WANTED) else _WANTED

    def _is_less(limit: int, wanted: int) -> bool:
        return 0 <= limit < wanted  # no limit is written as -1, or as a very large number
