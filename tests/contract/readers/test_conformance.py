"""What every reader must do, asked of all of them; the formats are in `conftest.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.dataserver.parsing.parsers import Parsers
from cluster.dataserver.readers.conformance import ReaderConformance
from cluster.dataserver.readers.interface import SeriesReader


class TestEveryFormat(ReaderConformance):
    """The suite that authors of readers run, too."""


class TestEveryFormatParsedApart(ReaderConformance):
    """The same of what a data server gets from the process in which it has files parsed."""

    @pytest.fixture(autouse=True)
    def apart(self, parsers: Parsers) -> None:
        """Open nothing in this process."""
        self.parsers = parsers

    def open(self, path: Path) -> SeriesReader:
        """Have it parsed."""
        return self.parsers.open(path)
