"""One calibration as a process of its own: asked by a line of JSON on standard input, answered by one on standard output, after lines of progress.

It ends when its standard input does: whoever asked is gone.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import psutil

from cluster.calibrating.kinds import KINDS
from cluster.calibrating.made import Advance, Made, nobody
from cluster.errors import ClusterError
from fitting.errors import FittingError

_GAP_S: Final = 0.25
"""Between two lines of progress, at least."""


class Progress:
    """Says how far a calibration is, not too often. `now` is a monotonic clock in seconds."""

    def __init__(
        self, say: Callable[[dict[str, Any]], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._now = now
        self._doing = ""
        self._due = now()

    def __call__(self, doing: str, done: int, total: int | None) -> None:
        """Hear of progress, as `cluster.calibrating.made.Advance`."""
        if doing == self._doing and self._now() < self._due:
            return
        self._doing, self._due = doing, self._now() + _GAP_S
        self._say({"doing": doing, "fraction": min(1.0, done / total) if total else None})


def answer(asked: Mapping[str, Any], advance: Advance = nobody) -> dict[str, Any]:
    """Make a calibration; return what it came to, or what was wrong in a sentence."""
    try:
        return told(make(asked, advance))
    except (ClusterError, FittingError) as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "the series are larger than the memory of the data server's machine"}
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return {"error": f"{where}{error.strerror or error}"}


def make(asked: Mapping[str, Any], advance: Advance = nobody) -> Made:
    """Make what was asked for, by the functions that the commands use."""
    kind = KINDS[asked["kind"]]
    series = [Path(file) for file in asked["series"]]
    options, metadata, output = asked["options"], asked["metadata"], Path(asked["output"])
    if kind.name == "psf":
        from cluster.calibrating.psf import make_psf

        return make_psf(series, options, output, metadata=metadata, advance=advance)
    if kind.name == "shifts":
        from cluster.calibrating.shifts import make_shifts

        return make_shifts(series[0], options, output, metadata=metadata, advance=advance)
    if kind.name == "drift":
        from cluster.calibrating.drift import make_drift

        corrected = kind.targets(output)["corrected"] if options.get("apply") else None
        return make_drift(series[0], options, output, corrected=corrected, advance=advance)
    from cluster.calibrating.camera_maps import make_camera_maps

    return make_camera_maps(series[0], series[1:], options, output, metadata=metadata, advance=advance)


def told(made: Made) -> dict[str, Any]:
    """Return what was made as plain values; numbers that are not finite are null."""
    return {
        "files": {what: str(path) for what, path in made.files.items()},
        "findings": [{"level": finding.level, "text": finding.text} for finding in made.findings],
        "numbers": plain(dict(made.numbers)),
    }


def plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    match value:
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case float():
            return float(value) if math.isfinite(value) else None
        case _:
            return value


def _end_with_standard_input() -> None:
    def watch() -> None:
        while os.read(0, 1024):  # not buffered: a buffer's lock, held at the end, would be fatal
            pass
        os._exit(1)

    threading.Thread(target=watch, name="asker", daemon=True).start()


def main() -> None:
    """Answer one question."""
    asked = json.loads(sys.stdin.buffer.readline())
    _end_with_standard_input()
    psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 5)
    _say(answer(asked, Progress(_say)))


def _say(said: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(said, allow_nan=False) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
