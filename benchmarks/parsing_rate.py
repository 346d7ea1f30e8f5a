"""What does it cost that files are parsed in a process of their own?

    python benchmarks/parsing_rate.py [--seconds 4] [--repeats 3] [--clients 4] [--quick]

Two data servers, one that parses in its own process and one that has it done by another, serve the same TIFF files, by
turns: frames of 256² and 2048², uncompressed and deflated, 8 MB a request, to a few clients at once. Prints one JSON line:
MB/s of both for each file, medians, their ratio (over 1: faster with the parser apart), the time of a first open of each,
and the servers' largest resident size.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import psutil
import tifffile
from surroundings import surroundings

from cluster.dataserver.app import create_app
from cluster.dataserver.calibrations import Calibrations
from cluster.dataserver.parsing.parsers import Parsers
from cluster.dataserver.store import SeriesStore
from cluster.http import Gate
from cluster.protocol import Identity
from cluster.serving import Server, bind, serve

_REQUEST_BYTES = 8 << 20
_WAYS = ("here", "apart")


def main() -> None:
    arguments = _arguments()
    if arguments.serve:
        asyncio.run(_serve(arguments.serve, Path(arguments.root)))
        return
    seconds, repeats = (0.3, 1) if arguments.quick else (arguments.seconds, arguments.repeats)
    result: dict[str, Any] = {"benchmark": "parsing_rate", "clients": arguments.clients}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        names = _written(Path(folder), quick=arguments.quick)
        servers = {way: _Served(way, Path(folder)) for way in _WAYS}
        for name in names:
            opened = {way: round(servers[way].open_s(name), 4) for way in _WAYS}
            rates: dict[str, list[float]] = {way: [] for way in _WAYS}
            for _ in range(repeats):
                for way in _WAYS:
                    rates[way].append(servers[way].rate(name, seconds, arguments.clients))
            ratio = median(b / a for a, b in zip(rates["here"], rates["apart"], strict=True))
            mb_per_s = {way: round(median(rates[way]), 1) for way in _WAYS}
            result[name] = {"mb_per_s": mb_per_s, "ratio": round(ratio, 3), "open_s": opened}
        result["rss_mb"] = {way: servers[way].stop() for way in _WAYS}
    print(json.dumps(result | surroundings()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    parser.add_argument("--serve", choices=_WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    return parser.parse_args()


def _written(folder: Path, *, quick: bool) -> list[str]:
    rng = np.random.default_rng(1)
    names = []
    for size, frames in ((256, 2000), (2048, 40)):
        stack = rng.poisson(100.0, (frames // (8 if quick else 1), size, size)).astype(np.uint16)
        for kind in ("plain", "deflated"):
            names.append(f"{kind}_{size}.tif")
            compression = "zlib" if kind == "deflated" else None
            tifffile.imwrite(folder / names[-1], stack, compression=compression, photometric="minisblack")
    return names


class _Served:
    """A data server in a process of its own."""

    def __init__(self, way: str, root: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", way, "--root", str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self._url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/api/v1/series"
        time.sleep(1.0)  # both have loaded whatever they load
        self._most = 0

    def open_s(self, name: str) -> float:
        began = time.perf_counter()
        self._frames = httpx.get(f"{self._url}/{name}").raise_for_status().json()["frames"]
        return time.perf_counter() - began

    def rate(self, name: str, seconds: float, clients: int) -> float:
        facts = httpx.get(f"{self._url}/{name}").raise_for_status().json()
        many = max(1, _REQUEST_BYTES // (facts["height"] * facts["width"] * 2))
        ends = time.perf_counter() + seconds
        got = [0] * clients

        def ask(number: int) -> None:
            with httpx.Client(timeout=60) as client:
                at = number * many
                while time.perf_counter() < ends:
                    start = at % max(1, facts["frames"] - many)
                    at += clients * many
                    query = {"start": start, "stop": start + many}
                    with client.stream("GET", f"{self._url}/{name}/frames", params=query) as reply:
                        reply.raise_for_status()
                        got[number] += sum(len(part) for part in reply.iter_raw(1 << 20))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._most = max(self._most, psutil.Process(self._process.pid).memory_info().rss)
        return sum(got) / 1e6 / (time.perf_counter() - began)

    def stop(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        return round(self._most / 1e6, 1)


async def _serve(way: str, root: Path) -> None:
    parsers = Parsers() if way == "apart" else None
    store = SeriesStore([root], parsers=parsers)
    gate = Gate(verifiers={}, hosts=frozenset(), insecure=True)
    identity = Identity(role="dataserver", cluster_id="", name="", machine="", version="")
    app = create_app(store, Calibrations([root], store), gate, lambda: identity)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def until_told() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=until_told, daemon=True).start()
    listener = bind("dataserver", host="127.0.0.1", port=0)
    print(listener.getsockname()[1], flush=True)
    await serve(Server(app), listener, stop)
    store.close()
    if parsers is not None:
        parsers.close()


if __name__ == "__main__":
    main()
