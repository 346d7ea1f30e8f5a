"""How a line of the log looks."""

from __future__ import annotations

import logging
import re
from typing import Final

LINE: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class OneLine(logging.Formatter):
    """Writes each message on one line, without a character that a terminal would obey: names come from anywhere."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the line; a traceback, which follows it, keeps its lines."""
        return _CONTROL.sub(
            lambda found: found[0].encode("unicode_escape").decode(), super().formatMessage(record)
        )
