"""A data server that is killed while frames come in, and a camera program that goes on sending."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.backoff import Backoff
from cluster.dataserver.readers.acquired import AcquiredZarr
from cluster.errors import ClusterError
from cluster.protocol import NewSeries
from cluster.series_writer import SeriesWriter
from cluster.transport import BlockingLink

pytestmark = pytest.mark.e2e
FRAMES, SIDE, CHUNK = 1500, 64, 16


class Server:
    """A data server on a port of its own, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "data"
        self.root.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._environ = {**os.environ, "CLUSTEROFONE_HOME": str(folder / "home"), "PYTHONUTF8": "1"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = [
            "--scheduler",
            "http://127.0.0.1:9",
            "--insecure",
            "--port",
            self.port,
            "--root",
            self.root,
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "clusterofone", "dataserver", *map(str, arguments)],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def link(self) -> BlockingLink:
        return BlockingLink(f"http://127.0.0.1:{self.port}")

    def answers(self) -> bool:
        link = self.link()
        try:
            return link.request("GET", "/healthz").status == 200
        except ClusterError:
            return False
        finally:
            link.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.start()
    yield made
    made.kill()


def camera_order() -> list[tuple[int, int]]:
    """Ranges of frames, of uneven length: a twentieth of them twice, a twentieth after their successor."""
    rng = np.random.default_rng(11)
    edges = [0]
    while edges[-1] < FRAMES:
        edges.append(min(edges[-1] + int(rng.integers(1, 9)), FRAMES))
    ranges = list(itertools.pairwise(edges))
    for at in np.flatnonzero(rng.random(len(ranges) - 1) < 0.05):
        ranges[at], ranges[at + 1] = ranges[at + 1], ranges[at]
    for at in np.flatnonzero(rng.random(len(ranges)) < 0.05)[::-1]:
        ranges.insert(int(rng.integers(at + 1, len(ranges) + 1)), ranges[at])
    return ranges


def test_a_data_server_killed_in_the_middle_loses_no_frame_nor_counts_one_twice(
    server: Server, eventually: Callable[..., Any]
) -> None:
    stack = np.random.default_rng(2).poisson(100, (FRAMES, SIDE, SIDE)).astype(np.uint16)
    eventually(server.answers, "a data server")
    ranges = camera_order()
    kills = {len(ranges) // 3, 2 * len(ranges) // 3}
    wanted = NewSeries(height=SIDE, width=SIDE, chunk_frames=CHUNK)
    backoff = Backoff(first_s=0.05, longest_s=0.5, total_s=120)

    with SeriesWriter(server.link, "cell.zarr", wanted, flush_s=0.2, backoff=backoff) as writer:
        for turn, (start, stop) in enumerate(ranges):
            writer.append(stack[start:stop], start=start)
            if turn in kills:
                server.kill()
                server.start()

    shape = (reader := AcquiredZarr(server.root / "cell.zarr")).shape
    assert (shape.frames, shape.missing, shape.complete) == (FRAMES, (), True)
    read, unreadable = reader.read(0, FRAMES)
    assert unreadable == ()
    assert np.array_equal(read, stack)
    left = [file.name for file in (server.root / "cell.zarr").rglob("*") if file.suffix == ".frames"]
    assert left == []
