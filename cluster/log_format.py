"""How a line of the log looks."""

from __future__ import annotations

import logging
from typing import Final

from cluster.unseen import escaped

LINE: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class OneLine(logging.Formatter):
    """Writes each message on one line, without a character that a terminal would obey: names come from anywhere."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the line; a traceback, which follows it, keeps its lines."""
        return escaped(super().formatMessage(record))
