"""The parsing process with a few more formats: readers that do to it what the worst file could do to a parser.

`NAME.hostile` holds one line: what the reader does, and when (`open`, or the frame at which it does it).
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from cluster.dataserver.parsing.__main__ import main
from cluster.dataserver.readers import registry
from cluster.dataserver.readers.interface import Progress, SeriesShape
from cluster.protocol import SeriesEvent


def abort() -> None:
    os.abort()


def segfault() -> None:
    ctypes.string_at(0)


def leave() -> None:
    os._exit(3)


def spin() -> None:
    while True:
        pass


def sleep() -> None:
    time.sleep(600)


def hold_the_lock() -> None:
    """A loop in C that never lets Python run: the worst a library can do."""
    ctypes.PyDLL(None).usleep(600_000_000) if os.name != "nt" else spin()


def eat() -> None:
    kept = []
    while True:
        kept.append(np.ones(1 << 20))


def raise_something() -> None:
    raise ZeroDivisionError("what no reader should raise")


def fail_for_a_moment() -> None:
    raise OSError(5, "Input/output error")


def print_something() -> None:
    sys.stdout.write("a library that talks\n")
    sys.stdout.flush()
    os.write(1, b'{"id": 0}\n')


DOES = {
    f.__name__: f
    for f in (
        abort, segfault, leave, spin, sleep, hold_the_lock, eat, raise_something, fail_for_a_moment, print_something
    )
}  # fmt: skip


class Hostile:
    """Ten frames, each of its own number, unless something happens first; notes each open and each read beside itself."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._note("open")
        does, _, when = path.read_text("utf-8").strip().partition(" ")
        self._does = DOES.get(does)
        self._at = (-1 if when == "open" else int(when or 99)) if self._does is not None else 99
        self.files = (path,)
        self.shape = SeriesShape("hostile", 200, 300, np.dtype("u2"), 10, events=1)
        if self._at < 0 and self._does is not None:
            self._does()

    def _note(self, what: str) -> None:
        with self._path.with_suffix(".log").open("a", encoding="utf-8") as log:
            log.write(f"{what}\n")

    def read(self, start: int, stop: int) -> tuple[np.ndarray[Any, Any], tuple[int, ...]]:
        self._note("read")
        if start <= self._at < stop and self._does is not None:
            self._does()
        frames = np.zeros((stop - start, 200, 300), np.uint16)
        frames[:] = np.arange(start, stop, dtype=np.uint16)[:, None, None]
        return frames, ()

    def progress(self, since: int) -> Progress:
        return Progress(10)

    def events(self) -> list[SeriesEvent]:
        return [SeriesEvent(name="StartAq", description="ü", time=1.5)]

    def close(self) -> None:
        self._note("close")


if __name__ == "__main__":
    registry.OPENERS[".hostile"] = Hostile  # type: ignore[index]
    main()
