"""A small number of open series, kept while they are in use: opening a large one costs a walk along its pages."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cluster.dataserver.lying import KeptSums
from cluster.dataserver.readers.interface import LiesInFiles, Run, SeriesReader
from cluster.dataserver.readers.registry import file_on_disk
from cluster.fingerprint import Stamp, fingerprint, stamp

Clock = Callable[[], float]


@dataclass
class OpenSeries:
    """An open reader, what its files were like when it was opened, and who is using it."""

    reader: SeriesReader
    fingerprint: str
    stamp: Stamp
    used_at: float
    users: int = 0
    closing: bool = False
    sums: KeptSums = field(default_factory=KeptSums)
    _runs: list[tuple[Run, ...] | None] = field(default_factory=list)

    def runs(self) -> tuple[Run, ...] | None:
        """Return where whole frames lie in the files as they are served, or None if they do not lie so or more may come.

        Found once: it takes a look at every frame, and each request asks. Files that change make another series.
        """
        if not self.reader.shape.complete:
            return None
        if not self._runs:
            self._runs.append(self.reader.runs() if isinstance(self.reader, LiesInFiles) else None)
        return self._runs[0]

    def is_current(self) -> bool:
        """Return whether the files are still as they were when the series was opened."""
        return stamp(self.reader.files) == self.stamp

    def is_same(self) -> bool:
        """Return whether it is still the series of its fingerprint, which one that grows remains."""
        return self.reader.shape.identity is not None or self.is_current()


class OpenReaders:
    """Open series by file, least recently used first; safe to use from several threads.

    A reader is closed when it is neither in use nor among the `limit` most recent, when it has been idle for
    `idle_s`, or when its files have changed.
    """

    def __init__(
        self, opener: Callable[[Path], SeriesReader], *, now: Clock, limit: int = 16, idle_s: float = 60.0
    ) -> None:
        self._opener = opener
        self._now = now
        self._limit = limit
        self._idle_s = idle_s
        self._open: OrderedDict[Path, OpenSeries] = OrderedDict()
        self._books = threading.Lock()
        self._opening: dict[Path, threading.Lock] = {}

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def using(self, file: Path) -> Iterator[OpenSeries]:
        """Yield the open series of a file, opened if need be; it stays open until the block ends."""
        series = self._acquire(file)
        try:
            yield series
        finally:
            self._release(series)

    def close_idle(self) -> None:
        """Close what nobody has used for a while, so that its files can be moved or deleted."""
        with self._books:
            before = self._now() - self._idle_s
            for file in [file for file, series in self._open.items() if series.used_at <= before]:
                self._drop(file)

    def close(self) -> None:
        """Close everything that is not in use, and the rest when its user is done."""
        with self._books:
            for file in list(self._open):
                self._drop(file)

    def _acquire(self, file: Path) -> OpenSeries:
        with self._books:
            gate = self._opening.setdefault(file, threading.Lock())
        with gate:
            series = self._find(file)
            if series is None:
                series = self._add(file, self._open_now(file))
        return series

    def _open_now(self, file: Path) -> OpenSeries:
        before = stamp([file_on_disk(file)])  # taken first: a change while it is opened shows at the next use
        reader = self._opener(file)
        try:
            known = Stamp((*before.files, *stamp(reader.files[1:]).files))
            identity = reader.shape.identity
            return OpenSeries(reader, identity or fingerprint(reader.files), known, self._now())
        except BaseException:
            reader.close()
            raise

    def _find(self, file: Path) -> OpenSeries | None:
        with self._books:
            series = self._open.get(file)
            if series is None:
                return None
            self._open.move_to_end(file)
            series.users += 1
        if (
            series.is_current()
        ):  # asks the disk, so outside the lock: a share that hangs must not stop the others
            return series
        with self._books:
            if self._open.get(file) is series:
                self._drop(file)
        self._release(series)
        return None

    def _add(self, file: Path, series: OpenSeries) -> OpenSeries:
        with self._books:
            if file in self._open:
                self._drop(file)
            self._open[file] = series
            series.users += 1
            while len(self._open) > self._limit:
                self._drop(next(iter(self._open)))
            return series

    def _release(self, series: OpenSeries) -> None:
        with self._books:
            series.users -= 1
            series.used_at = self._now()
            if series.closing and series.users == 0:
                series.reader.close()

    def _drop(self, file: Path) -> None:
        series = self._open.pop(file)
        self._opening.pop(file, None)
        if series.users:
            series.closing = True
        else:
            series.reader.close()
