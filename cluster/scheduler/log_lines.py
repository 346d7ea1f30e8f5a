"""The last lines of the log, for people who look at the page and not at files."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from typing import Final

from cluster.log_format import LINE, OneLine

KEPT_LINES: Final = 500
_LONGEST: Final = 2000
_IN_FULL: Final = 20
_AFTERWARDS: Final = 80
_JOBS: Final = 64


class FaultLines:
    """What the log says of the failures of a job: the first in full, those of a storm in a few words, as they are alike."""

    def __init__(self) -> None:
        self._counted: OrderedDict[str, int] = OrderedDict()  # of the jobs that failed last

    def message(self, job_id: str, message: str) -> str:
        """Return as much of one more failure's message as is written down."""
        count = self._counted.pop(job_id, 0) + 1
        self._counted[job_id] = count
        while len(self._counted) > _JOBS:
            self._counted.popitem(last=False)
        if count <= _IN_FULL or len(message) <= _AFTERWARDS:
            return message
        return f"{message[:_AFTERWARDS]}…"


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
