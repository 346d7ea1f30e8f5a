"""The log of a role: nobody waits for a console that nobody reads.

On Windows a click into a console holds up whoever writes to it; anywhere a pipe that nobody empties does. So lines are
written by a thread of their own. When it is held up, so many lines wait; what comes after is dropped, and counted.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
from typing import Final, TextIO

_MOST_WAITING: Final = 10_000
_LAST_WORDS_S: Final = 1.0


class Unhurried(logging.Handler):
    """Hands lines to a thread that writes them."""

    def __init__(self, stream: TextIO, *, most_waiting: int = _MOST_WAITING) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str] = queue.Queue(most_waiting)
        self._dropped = 0
        threading.Thread(target=self._write_on, name="log", daemon=True).start()
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line over, or drop it: the caller never waits."""
        try:
            line = self.format(record)
            if self._dropped:
                line = f"({self._dropped} lines were dropped: nobody read them)\n{line}"
            self._lines.put_nowait(line)
            self._dropped = 0
        except queue.Full:
            self._dropped += 1
        except Exception:  # noqa: BLE001 - logging's own rule: a line that cannot be made harms nobody
            self.handleError(record)

    def flush(self) -> None:
        """Wait until everything is written, for a moment at most: before somebody else writes, and at the end."""
        deadline = time.monotonic() + _LAST_WORDS_S
        while self._lines.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.002)

    def _write_on(self) -> None:
        while True:
            line = self._lines.get()
            try:
                self._write(line + "\n")
            except (OSError, ValueError):  # the console is gone
                pass
            finally:
                self._lines.task_done()

    def _write(self, text: str) -> None:
        if self._stream.isatty():
            self._stream.write(text)
            self._stream.flush()
            return
        # past Python's buffer, whose lock a thread that is held up would keep: then the interpreter cannot end
        left = memoryview(text.encode("utf-8", "backslashreplace"))
        while left:
            left = left[os.write(self._stream.fileno(), left) :]
