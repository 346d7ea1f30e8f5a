"""What every reader must do, asked of all of them; the formats are in `conftest.py`."""

from __future__ import annotations

from cluster.dataserver.readers.conformance import ReaderConformance


class TestEveryFormat(ReaderConformance):
    """The suite that authors of readers run, too."""
