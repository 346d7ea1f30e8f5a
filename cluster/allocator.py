"""What the C allocator holds on to. glibc gives threads heaps of their own, eight a core, and none gives back what others need.

A server whose threads take turns at pictures and tables ends with the most that any of them ever took, in each of these
heaps. Two, which all threads share, are enough where the interpreter lets one thread at a time go on.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_M_ARENA_MAX: Final = -8  # of malloc.h
_HEAPS: Final = 2


if sys.platform == "linux":

    def share_heaps() -> bool:
        """Have the threads of this process share two heaps; return whether there was anything to say: not beside glibc."""
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        return mallopt is not None and bool(mallopt(_M_ARENA_MAX, _HEAPS))

else:

    def share_heaps() -> bool:
        """Return that there is nothing to say."""
        return False
