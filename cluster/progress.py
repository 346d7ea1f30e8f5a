"""Whether the other side of a connection takes what is sent to it."""

from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import Callable

if sys.platform == "linux":
    import fcntl
    import termios

    def unacknowledged_bytes(socket_descriptor: int) -> int:
        """Return how much of what the system took for a socket the other side has not acknowledged; 0 where it does not say.

        The system asks for more only once a third of its buffer is free again, a megabyte or so: by that alone, a
        slow and steady reader looks as if it took nothing for minutes.
        """
        try:
            told = fcntl.ioctl(socket_descriptor, termios.TIOCOUTQ, bytes(4))
        except OSError:  # closed meanwhile
            return 0
        return int(struct.unpack("i", told)[0])

else:

    def unacknowledged_bytes(socket_descriptor: int) -> int:  # noqa: ARG001
        """Return 0: this system does not say what the other side has acknowledged."""
        return 0


class Watch:
    """Calls `stalled` when nothing was taken for `longest_s`, between `start` and `stop`.

    `left` is what has not been taken yet. Any change of it is progress: bytes move on only where others were taken.
    """

    def __init__(self, longest_s: float, *, left: Callable[[], object], stalled: Callable[[], None]) -> None:
        self._longest_s = longest_s
        self._left = left
        self._stalled = stalled
        self._left_before: object = None
        self._due: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on."""
        self.stop()
        self._left_before = self._left()
        self._due = asyncio.get_running_loop().call_later(self._longest_s, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _look(self) -> None:
        if self._left() == self._left_before:
            self._due = None
            self._stalled()
        else:
            self.start()
