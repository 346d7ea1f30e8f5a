"""Files that are not tried again: what stopped a parser once would stop it at every request."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.dataserver.parsing.process import Ended
from cluster.dataserver.readers.registry import file_on_disk
from cluster.dataserver.sidecars import sidecar_paths
from cluster.errors import ClusterError, Invalid, Unavailable
from cluster.fingerprint import Stamp, stamp

_MOST: Final = 1000


@dataclass(frozen=True)
class _Refusal:
    stamp: Stamp
    until: float | None
    kind: type[ClusterError]
    detail: str


class Refused:
    """Which files, until they change, and in which words. `now` is a monotonic clock in seconds."""

    def __init__(self, *, now: Callable[[], float], again_after_s: float, memory_bytes: int) -> None:
        self._now = now
        self._again_after_s = again_after_s
        self._memory_bytes = memory_bytes
        self._books = threading.Lock()
        self._known: OrderedDict[tuple[str, Path], _Refusal] = OrderedDict()

    def check(self, what: str, path: Path) -> None:
        """Raise what was said of a file (or of what belongs to it), if it is as it was then."""
        with self._books:
            found = self._known.get((what, path))
        if found is None:
            return
        lapsed = found.until is not None and self._now() >= found.until
        if lapsed or _stamp(path) != found.stamp:
            with self._books:
                self._known.pop((what, path), None)
            return
        raise found.kind(found.detail)

    def refuse(self, what: str, path: Path, ended: Ended) -> ClusterError:
        """Note how the process ended over a file; return what to say of it."""
        kind, detail = self._said(f"{what}{path.name}", ended)
        until = self._now() + self._again_after_s if ended.why == "waiting" else None
        with self._books:
            self._known[what, path] = _Refusal(_stamp(path), until, kind, detail)
            self._known.move_to_end((what, path))
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
        return kind(detail)

    def _said(self, name: str, ended: Ended) -> tuple[type[ClusterError], str]:
        again = "it is not tried again until it changes"
        match ended.why:
            case "crash":
                return Invalid, (
                    f"parsing {name} made the process that parses files end ({ended.how}): the file may be damaged; {again}"
                )
            case "memory":
                return Invalid, (
                    f"parsing {name} took more than {self._memory_bytes >> 20} MB of memory and was stopped: "
                    f"the file may be damaged; {again}"
                )
            case "computing":
                took = ended.how.removeprefix("it ")
                return Invalid, f"parsing {name} {took} and was stopped: the file may be damaged; {again}"
            case "waiting":
                return Unavailable, (
                    f"{name} could not be read: {ended.how}, in which the disk or share gave next to nothing; "
                    f"it is tried again in {self._again_after_s:.0f} s"
                )


def _stamp(path: Path) -> Stamp:
    """Return the stamp of a series and of what may describe it: a description that was mended is a change too."""
    file = file_on_disk(path)
    beside = [file.with_suffix(suffix) for suffix in (".yaml", ".inf")] if file.suffix else []
    return stamp([file, *beside, file.with_name("metadata.txt"), *sidecar_paths(file)])
