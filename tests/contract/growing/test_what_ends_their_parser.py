"""A file that another program writes may end the process that parses it, or grow while that is replaced."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

from cluster.dataserver.growing import GrowingReaders
from cluster.dataserver.parsing.limits import Limits
from cluster.dataserver.parsing.parsers import Parsers
from cluster.errors import Invalid

PROGRAM = (sys.executable, str(Path(__file__).parents[1] / "parsing" / "hostile_program.py"))
LIMITS = replace(Limits(), memory_bytes=300 << 20)
STACK = np.random.default_rng(8).integers(90, 4000, (30, 16, 24), dtype=np.uint16)


class Bench:
    def __init__(self) -> None:
        self.now = 100.0
        self.parsers = Parsers(LIMITS, program=PROGRAM)
        self.readers = GrowingReaders(self.parsers.open_written, now=lambda: self.now)

    def counted(self, path: Path) -> int:
        self.now += 60.0
        return self.readers.look(path).progress.whole

    def kill_parser(self) -> None:
        process = psutil.Process(self.parsers.pid)
        process.kill()
        process.wait(timeout=30)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.readers.close()
    bench.parsers.close()


def write(path: Path, frames: int) -> None:
    with tifffile.TiffWriter(path) as writer:
        for frame in STACK[:frames]:
            writer.write(frame, contiguous=False, metadata=None, photometric="minisblack")


def after_growing(bench: Bench, path: Path) -> None:
    write(path, 20)
    bench.kill_parser()


def before_growing(bench: Bench, path: Path) -> None:
    bench.kill_parser()
    write(path, 20)


@pytest.mark.parametrize("happens", [after_growing, before_growing])
def test_frames_come_and_it_is_the_same_series_when_its_parser_was_killed(
    tmp_path: Path, bench: Bench, happens: Callable[[Bench, Path], None]
) -> None:
    path = tmp_path / "cell.tif"
    write(path, 10)
    pinned = bench.readers.look(path).fingerprint
    happens(bench, path)

    frames, missing, _ = bench.readers.frames(path, 2, 8, pinned)

    np.testing.assert_array_equal(frames, STACK[2:8])
    assert missing == ()
    assert bench.counted(path) == 19
    assert bench.readers.look(path).fingerprint == pinned
    np.testing.assert_array_equal(bench.readers.frames(path, 0, 19, pinned)[0], STACK[:19])


@pytest.mark.skipif(sys.platform == "win32", reason="processes end in other ways there")
@pytest.mark.parametrize(
    ("does", "reason"),
    [("abort open", "SIGABRT"), ("segfault 0", "SIGSEGV"), ("eat 9", "took more than 300 MB of memory")],
)
def test_one_that_ends_its_parser_is_named_and_the_others_go_on(
    tmp_path: Path, bench: Bench, does: str, reason: str
) -> None:
    """Where it happens: at its opening, with the frame that it is known by, with the one that was counted last."""
    good, bad = tmp_path / "cell.tif", tmp_path / "bad.hostile"
    write(good, 10)
    assert bench.counted(good) == 9
    bad.write_text(does, "utf-8")
    os.utime(bad, (0, 0))  # one written just now may only be unfinished: that would be for later

    with pytest.raises(Invalid, match=rf"parsing bad\.hostile .*{reason}"):
        bench.counted(bad)

    write(good, 12)
    assert bench.counted(good) == 11
    bad.write_text("goes on", "utf-8")  # mended: it is tried again
    assert bench.counted(bad) == 10


def test_a_series_is_let_go_of_each_time_it_is_opened_anew(tmp_path: Path, bench: Bench) -> None:
    path = tmp_path / "cell.hostile"
    path.write_text("goes on", "utf-8")
    for _ in range(5):
        assert bench.counted(path) == 10
    bench.readers.close()
    bench.parsers.open_written(path).close()  # closed in turn: those before it are, too

    log = path.with_suffix(".log").read_text("utf-8").split()
    assert log.count("open") == 6
    assert log.count("close") >= 5
