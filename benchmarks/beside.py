"""How does the cluster compare with nginx as a server of frames, with Dask as a scheduler of tasks, with PYME's cluster as a whole?

    python benchmarks/beside.py [--seconds 4] [--tasks 5000] [--repeats 3] [--without-dask] [--pyme peers/pyme/bin/python] [--quick]

By turns, in one run, on one machine:

1. The data server of `clusterofone -n 0` sends ranges of 8, 64 and 128 MB of 256² frames of a TIFF (workers ask for up to 128 MB at once), and nginx (one worker process,
   sendfile) the same bodies as files, to the same client: a few threads that read plain sockets. Without nginx that part is left out.
2. Tasks without work from two workers: ours over HTTP, each durable before it is acknowledged (`task_rate.py`), and Dask
   distributed's, two worker processes of one thread, in memory (`pip install distributed`). Not with `--without-dask`.
3. With `--pyme` (its environment: benchmarks/README.md) the pipeline of `workload.py`'s 256² frames through PYME's data server, rule server and
   node server with two workers, from the push of the rule until all is localised, and through ours, from the submit to the `.h5r`.

Prints one JSON line: MB/s of both with the processor seconds a GB, tasks/s of both, medians, and their ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import psutil
import tifffile
from running_cluster import Cluster
from surroundings import surroundings
from task_rate import _METADATA, _no_work, _sparse_series
from workload import Workload, series

from cluster.client import Client

_SIDE, _FRAMES, _CLIENTS = 256, 2048, 4
_FRAMES_OF_RANGES = (64, 512, 1024)
_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
  fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 127.0.0.1:{port}; root {folder}/files; }} }}
"""


def main() -> None:
    options = _options()
    if options.quick:
        options.seconds, options.tasks, options.repeats = 0.3, 100, 1
    result: dict[str, Any] = {"benchmark": "beside", "repeats": options.repeats}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        root = Path(name)
        _sparse_series(root / "data")
        rng = np.random.default_rng(1)
        frames = rng.poisson(100.0, (_FRAMES, _SIDE, _SIDE)).astype(np.uint16)
        tifffile.imwrite(root / "data" / "served.tif", frames, photometric="minisblack")
        cluster = Cluster(root, 0)
        with cluster as client:
            if shutil.which("nginx"):
                port = client.identity().dataservers[0].port
                for count in _FRAMES_OF_RANGES:
                    size = round(count * _SIDE * _SIDE * 2 / 1e6)
                    result[f"ranges_of_{size}_mb"] = _served(cluster, port, root, count, options)
            if not options.without_dask:
                result["tasks_per_s"] = _no_work_beside_dask(cluster, client, options)
    if options.pyme is not None:
        result["cluster"] = _beside_pyme(options)
    result["others"] = {"distributed": metadata.version("distributed"), "nginx": _nginx_version()}
    print(json.dumps(result | surroundings()))


def _no_work_beside_dask(cluster: Cluster, client: Client, options: argparse.Namespace) -> dict[str, float]:
    job = client.submit("series.npy", analysis={"background": "0:0"}, metadata=_METADATA)
    ours, dask = [], []
    for _ in range(options.repeats):
        ours.append(asyncio.run(_no_work(cluster, client, job.id, options.tasks))["tasks_per_s"])
        dask.append(_dask(options.tasks))
    return {
        "ours": median(ours),
        "dask": median(dask),
        "ratio": round(median(a / b for a, b in zip(ours, dask, strict=True)), 3),
    }


def _served(
    cluster: Cluster, port: int, root: Path, count: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Compare on ranges of `count` frames."""
    root = root / f"nginx-{count}"
    ours = [
        f"/api/v1/series/served.tif/frames?start={start}&stop={start + count}"
        for start in range(0, _FRAMES, count)
    ]
    nginx_port, process = _nginx(root, port, ours, cluster.token)
    try:
        servers = {
            "ours": (port, ours, cluster.process("dataserver")),
            "nginx": (nginx_port, [f"/{n}" for n in range(len(ours))], psutil.Process(process.pid)),
        }
        rates: dict[str, list[float]] = {name: [] for name in servers}
        cpu: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(options.repeats):
            for name, (at, paths, server) in servers.items():
                before, began = _cpu_s(server), time.perf_counter()
                got = _read(at, paths, cluster.token, options.seconds)
                rates[name].append(got / 1e6 / (time.perf_counter() - began))
                cpu[name].append((_cpu_s(server) - before) / got * 1e9)
        most = servers["ours"][2].memory_info().rss
    finally:
        process.terminate()
        process.wait()
    return {
        "mb_per_s": {name: round(median(values)) for name, values in rates.items()},
        "server_cpu_s_per_gb": {name: round(median(values), 3) for name, values in cpu.items()},
        "ratio": round(median(a / b for a, b in zip(rates["ours"], rates["nginx"], strict=True)), 3),
        "ratios": [round(a / b, 2) for a, b in zip(rates["ours"], rates["nginx"], strict=True)],
        "dataserver_rss_mb": round(most / 1e6),
    }


def _nginx(root: Path, port: int, paths: list[str], token: str) -> tuple[int, subprocess.Popen[bytes]]:
    files = root / "files"
    files.mkdir(parents=True)
    for number, path in enumerate(paths):
        reply = httpx.get(f"http://127.0.0.1:{port}{path}", headers={"authorization": f"Bearer {token}"})
        (files / str(number)).write_bytes(reply.raise_for_status().content)
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = int(free.getsockname()[1])
    config = root / "nginx.conf"
    config.write_text(
        "user root;" * (psutil.Process().username() == "root") + _NGINX.format(folder=root, port=own)
    )
    process = subprocess.Popen(["nginx", "-c", str(config), "-p", str(root)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            httpx.get(f"http://127.0.0.1:{own}/0").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return own, process
    raise SystemExit("nginx does not serve: " + (root / "error.log").read_text())


def _read(port: int, paths: list[str], token: str, seconds: float) -> int:
    """Return how many bytes of bodies a few threads read in so many seconds."""
    ends, got = time.perf_counter() + seconds, [0] * _CLIENTS

    def ask(number: int) -> None:
        buffer = memoryview(bytearray(1 << 20))
        with socket.create_connection(("127.0.0.1", port)) as connection:
            at = number
            while time.perf_counter() < ends:
                asked = f"GET {paths[at % len(paths)]} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n\r\n"
                connection.sendall(asked.encode())
                got[number] += _body(connection, buffer)
                at += _CLIENTS

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(got)


def _body(connection: socket.socket, buffer: memoryview) -> int:
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(4096)
        if not part:
            raise SystemExit("the server closed the connection")
        head += part
    fields, _, body = head.partition(b"\r\n\r\n")
    lines = fields.lower().split(b"\r\n")
    if b" 200" not in lines[0]:
        raise SystemExit(head.decode("latin-1"))
    length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length"))
    left = length - len(body)
    while left:
        left -= connection.recv_into(buffer[: min(left, len(buffer))])
    return length


def _cpu_s(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    return sum(one.cpu_times().user + one.cpu_times().system for one in family)


def _dask(tasks: int) -> float:
    from distributed import Client as DaskClient
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        DaskClient(cluster) as client,
    ):
        client.gather(client.map(_nothing, range(100), pure=False))
        began = time.perf_counter()
        client.gather(client.map(_nothing, range(tasks), pure=False))
        return round(tasks / (time.perf_counter() - began), 1)


def _beside_pyme(options: argparse.Namespace) -> dict[str, Any]:
    """Compare whole clusters of two workers; PYME's gets fewer frames, so that its turn ends."""
    frames, scripts = (60, 400) if options.quick else (options.pyme_frames, 20_000), Path(__file__).parent
    ours, pyme = [], []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            film = Path(name) / "film.npy"
            np.save(film, series(Workload(frames=200))[0])
            words = [str(scripts / "peers" / "run_pyme_cluster.py"), str(film), str(frames[0]), "2", name]
            found = _answer(str(options.pyme), *words)
        rate, after = found["frames"] / found["seconds"], found["seconds"] - found["first_s"]
        pyme.append((rate, (found["frames"] - found["first_done"]) / after, found["first_s"]))
        words = [
            str(scripts / "cluster_rate.py"),
            "--frames",
            str(frames[1]),
            "--repeats",
            "1",
            "--workers",
            "2",
        ]
        ours.append(_answer(sys.executable, *words))
    rates = [one["cluster_frames_per_s"] for one in ours]
    return {
        "frames_per_s": {"ours": median(rates), "pyme": round(median(rate for rate, _, _ in pyme), 2)},
        "pyme_frames_per_s_after_the_first": round(median(after for _, after, _ in pyme), 2),
        "first_s": {
            "ours": median(one["first_result_s"] for one in ours),
            "pyme": round(median(first for _, _, first in pyme), 2),
        },
        "ratio": round(median(a / b for a, (b, _, _) in zip(rates, pyme, strict=True)), 1),
        "ratio_after_the_first": round(median(a / b for a, (_, b, _) in zip(rates, pyme, strict=True)), 1),
    }


def _answer(python: str, *words: str) -> dict[str, Any]:
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [python, *words], check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"PATH": path}
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _nothing(number: int) -> int:
    return number


def _nginx_version() -> str | None:
    if shutil.which("nginx") is None:
        return None
    return (
        subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True)
        .stderr.strip()
        .partition("/")[2]
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without-dask", action="store_true", help="compare with nginx alone")
    parser.add_argument("--pyme", type=Path, help="the interpreter that has PYME")
    parser.add_argument("--pyme-frames", type=int, default=600)
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    return parser.parse_args()


if __name__ == "__main__":
    main()
