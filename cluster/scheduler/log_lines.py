"""The last lines of the log, for people who look at the page and not at files."""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

from cluster.log_format import LINE, OneLine

KEPT_LINES: Final = 500
_LONGEST: Final = 2000


class LogLines(logging.Handler):
    """Keeps what was logged last; a traceback by its last line, as the file has the rest."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.setFormatter(OneLine(LINE))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        try:
            first, *rest = self.format(record).splitlines() or [""]
        except Exception:  # noqa: BLE001 - what cannot be written down is no reason to fail
            self.handleError(record)
            return
        said = f"{first} … {rest[-1].strip()}" if rest else first
        self._lines.append(said[:_LONGEST])

    def last(self, number: int) -> list[str]:
        """Return the last lines, oldest first."""
        return list(self._lines)[-number:]
