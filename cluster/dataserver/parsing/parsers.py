"""Where series are opened that something else than this project's few lines understands: in another process.

One process serves all series. If it ends, every request that was under way is tried once more, alone in a process of its
own, so that the guilty file is known and the others never notice; the guilty one is not tried again until it changes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from cluster.dataserver.parsing import wire
from cluster.dataserver.parsing.limits import Limits
from cluster.dataserver.parsing.process import PROGRAM, Ended, ParserProcess
from cluster.dataserver.parsing.refused import Refused
from cluster.dataserver.readers.interface import SeriesReader
from cluster.dataserver.readers.registry import file_on_disk, is_own, open_series, open_written
from cluster.dataserver.sidecars import sidecar_paths
from cluster.errors import Unavailable
from cluster.protocol import MetadataValue

logger = logging.getLogger(__name__)

T = TypeVar("T")
_LIMITS: Final = Limits()


class Parsers:
    """The process that parses files, and its successors. Starting it waits for nothing: it loads while the server does.

    `now` is a monotonic clock in seconds.
    """

    def __init__(
        self,
        limits: Limits = _LIMITS,
        *,
        program: Sequence[str] = PROGRAM,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self._program = program
        self._refused = Refused(now=now, again_after_s=limits.again_after_s, memory_bytes=limits.memory_bytes)
        self._books = threading.Lock()
        self._apart = threading.Lock()
        self._closed = False
        self._numbers = iter(range(1 << 62))
        self._process = self._started()

    @property
    def pid(self) -> int:
        """Return the id of the present process."""
        return self._process.pid

    def open(self, path: Path) -> SeriesReader:
        """Open a series, as `readers.registry.open_series` does; its own format is read here.

        Raises
        ------
        NotFound, Invalid, Unavailable
            As `open_series` does; `Invalid` also if parsing it took more than it may, or ended the process.
        """
        return self._opened(path, written=False)

    def open_written(self, path: Path) -> SeriesReader:
        """Open a series that another program may be writing, as `readers.registry.open_written` does; raises as `open` does."""
        return self._opened(path, written=True)

    def number(self) -> int:
        """Return a number that no series has yet."""
        with self._books:
            return next(self._numbers)

    def _opened(self, path: Path, *, written: bool) -> SeriesReader:
        from cluster.dataserver.parsing.series import open_parsed

        if is_own(path):
            return open_written(path) if written else open_series(path)
        return open_parsed(self, path, written=written)

    def sidecars(self, path: Path) -> dict[str, MetadataValue]:
        """Return what lies beside a series, as `sidecars.read_sidecars` does; raises as `open` does."""
        if not any(sidecar.is_file() for sidecar in _sidecars(path)):
            return {}
        question = {"do": "sidecars", "path": str(path)}
        answer = self.run(
            path,
            lambda process: process.ask(question, limit_s=self.limits.base_s),
            what="the metadata beside ",
        )
        return wire.as_metadata(answer["metadata"])

    def run(self, path: Path, action: Callable[[ParserProcess], T], *, what: str = "") -> T:
        """Have a process do something with a file; what ends the process is tried once more, alone.

        Raises
        ------
        Invalid, Unavailable
            If that, too, ended the process, or took more than it may. Then it is not tried again until the file changes.
        """
        self._refused.check(what, path)
        process = self._living()
        try:
            return action(process)
        except Ended as ended:
            self._replace(process)
            if ended.guilty:
                raise self._refuse(what, path, ended) from ended
        with self._apart:
            self._refused.check(what, path)
            alone = self._started()
            try:
                return action(alone)
            except Ended as ended:
                raise self._refuse(what, path, ended) from ended
            finally:
                alone.close()

    def close(self) -> None:
        """End the process."""
        with self._books:
            self._closed = True
            process = self._process
        process.close()

    def _refuse(self, what: str, path: Path, ended: Ended) -> Exception:
        if self._closed:
            return Unavailable("the data server is stopping")
        error = self._refused.refuse(what, path, ended)
        logger.warning("%s", error.detail)
        return error

    def _started(self) -> ParserProcess:
        try:
            return ParserProcess(self.limits, program=self._program)
        except OSError as error:
            raise Unavailable(
                f"the process that parses files cannot be started: {error.strerror or error}"
            ) from error

    def _living(self) -> ParserProcess:
        process = self._process
        return self._replace(process) if process.is_gone else process

    def _replace(self, process: ParserProcess) -> ParserProcess:
        """Start another process in the place of one that is gone, unless somebody has; return the present one."""
        with self._books:
            if self._closed:
                raise Unavailable("the data server is stopping")
            if self._process is process and process.is_gone:
                self._process = self._started()
                process.close()
            return self._process


def _sidecars(path: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [*sidecar_paths(file_on_disk(path)), *sidecar_paths(path)]
    return []
