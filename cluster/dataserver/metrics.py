"""The data server's figures for Prometheus."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cluster.dataserver.parsing.parsers import Parsers
from cluster.dataserver.parsing.process import ParserProcess
from cluster.metrics import gauge_by, new_registry


class DataServerMetrics:
    """The registry of a data server's app, and what is counted into it. May be used from any thread."""

    def __init__(self) -> None:
        self.registry = registry = new_registry()
        self._served = Counter("clusterofone_served_frames", "Frames sent.", registry=registry)
        self._served_bytes = Counter(
            "clusterofone_served_bytes", "Bytes of the bodies of frames sent.", registry=registry
        )
        self._appends = Counter("clusterofone_appends", "Appends acknowledged.", registry=registry)
        self._appended = Counter(
            "clusterofone_appended_frames", "Frames appended that were not there.", registry=registry
        )
        self.parser_starts = Counter(
            "clusterofone_parser_starts",
            "Processes that parse files started: one, and one for each file that ended one.",
            registry=registry,
        )

    def served(self, frames: int, size: int) -> None:
        """Count a range of frames that is being sent."""
        self._served.inc(frames)
        self._served_bytes.inc(size)

    def appended(self, new: int) -> None:
        """Count an append that is on the disk."""
        self._appends.inc()
        self._appended.inc(new)

    def watch(self, roots: Sequence[Path], open_series: Callable[[], int]) -> None:
        """Look at the disks of the roots, and at the open series, when somebody asks."""
        self.registry.register(_State(Room(roots), open_series))


class Room:
    """The room on the disks of the roots, as it was when last asked: a share that hangs must hold nobody up."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._looking: threading.Thread | None = None
        self._found: dict[str, float] = {}
        self.look()

    def look(self) -> dict[str, float]:
        """Return what is known [bytes], and look again meanwhile, unless the last look has not come back."""
        if self._looking is None or not self._looking.is_alive():
            self._looking = threading.Thread(target=self._look, name="disk-room", daemon=True)
            self._looking.start()
        return dict(self._found)

    def _look(self) -> None:
        for root in self._roots:
            with suppress(OSError):
                self._found[str(root)] = shutil.disk_usage(root).free


class _State(Collector):
    def __init__(self, room: Room, open_series: Callable[[], int]) -> None:
        self._room = room
        self._open_series = open_series

    def describe(self) -> list[Metric]:
        """Name nothing before there is something to look at."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield what is open and what room there is."""
        yield GaugeMetricFamily("clusterofone_open_series", "Series held open.", value=self._open_series())
        room = self._room.look()
        yield gauge_by("clusterofone_root_free_bytes", "Room on the disk of a root.", "root", room.items())


class CountedParsers(Parsers):
    """The processes that parse files, each start counted."""

    def __init__(self, starts: Counter) -> None:
        self._starts = starts
        super().__init__()

    def _started(self) -> ParserProcess:
        self._starts.inc()
        return super()._started()
