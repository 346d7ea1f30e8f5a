"""What does a task cost the scheduler, and how many workers can it serve?

    python benchmarks/task_rate.py [--tasks 5000] [--workers 100 300 1000 ...] [--task-s 10] [--seconds 40] [--folder DIR] [--picture PNG] [--quick]

A real scheduler and data server (`clusterofone -n 0`) and workers that are simulated, but speak to it over real HTTP as real ones do: register,
lease, keep alive, commit a result of one row with a lease for the next in the same request.

1. Two workers whose tasks take no time: tasks a second, and the scheduler's processor time for each.
2. So many workers whose tasks take ten seconds: the latency of commits (each durable before it is answered), and how busy the scheduler is. One
   client process drives them all, so that on a small machine a part of the latency is its own.

Every commit must be acknowledged once and all frames must be in the job's books at the end. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from running_cluster import Cluster
from surroundings import surroundings

from cluster.arrays import TaskResult, encode_result
from cluster.client import Client
from cluster.protocol import PROTOCOL_VERSION, HeldTask, Lease, WorkerRegistered, WorkerRegistration
from cluster.transport import Link
from cluster.worker.engine import versions
from cluster.worker.scheduler import SchedulerRoutes
from fitting.localisations import LAT_GAUSS_DTYPE, FrameStatus

_FRAMES = 10_000_000
_SIDE = 16
_METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 0,
    "Camera.ElectronsPerCount": 1,
    "Camera.ReadNoise": 1,
}
_FRAMES_A_S = (
    100  # that a simulated worker says it localises, so that its tasks are of the length that is wanted
)

_A_POOL = 100  # workers that share a pool of connections, which is searched at each request


@dataclass
class Seen:
    """What the workers of one run saw."""

    latencies_s: list[float] = field(default_factory=list)
    frames: int = 0
    errors: int = 0


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        _sparse_series(root / "data")
        cluster = Cluster(root, 0)
        with cluster as client:
            began = time.perf_counter()
            job = client.submit("series.npy", analysis={"background": "0:0"}, metadata=_METADATA)
            result: dict[str, Any] = {
                "benchmark": "task_rate",
                "submit_of_10_million_frames_s": round(time.perf_counter() - began, 3),
            }
            result["two_workers"] = asyncio.run(_no_work(cluster, client, job.id, options.tasks))
            found = {}
            for workers in options.workers:
                client.cancel(job.id)  # a job each, so that none comes to its end, where tasks are done twice
                job = client.submit("series.npy", analysis={"background": "0:0"}, metadata=_METADATA)
                found[workers] = asyncio.run(_many(cluster, client, job.id, workers, options))
                print(workers, "workers:", json.dumps(found[workers]), file=sys.stderr)
                result[f"{workers}_workers"] = found[workers]
    if options.picture is not None:
        _draw(
            {n: case for n, case in found.items() if case["commits_per_s"]}, options.task_s, options.picture
        )
    print(json.dumps(result | surroundings()))


def _draw(found: Mapping[int, Mapping[str, float]], task_s: float, path: Path) -> None:
    """Latency, and what is busy, against the number of workers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=[3, 2])
    workers = list(found)
    for key, label in (("commit_p99_ms", "99 %"), ("commit_p50_ms", "median")):
        above.plot(workers, [case[key] for case in found.values()], "o-", label=label)
    above.axhline(50, color="0.5", linestyle="--", linewidth=1)
    above.set(yscale="log", ylabel="from a commit to its answer [ms]")
    above.set_title(
        f"Simulated workers over real HTTP, tasks of {task_s:g} s (dashed: the goal)", fontsize=10
    )
    above.legend(fontsize=8)
    for key, label in (("scheduler_busy", "scheduler"), ("driver_busy", "process that plays the workers")):
        below.plot(workers, [case[key] for case in found.values()], "o-", label=label)
    below.set(xscale="log", xlabel="workers", ylabel="busy [part of a core]", ylim=(0, 1.05))
    below.set_xticks(workers, [f"{n:,}" for n in workers], minor=False)
    below.minorticks_off()
    below.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--workers", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--task-s", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=40.0, help="how long each number of workers runs")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    parser.add_argument("--picture", type=Path, help="draw latency and load against the number of workers")
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.workers, options.task_s, options.seconds = 100, [20], 0.5, 2.0
    return options


def _sparse_series(folder: Path) -> None:
    folder.mkdir()
    shape = (_FRAMES, _SIDE, _SIDE)
    np.lib.format.open_memmap(folder / "series.npy", mode="w+", dtype=np.uint8, shape=shape)


async def _no_work(cluster: Cluster, client: Client, job_id: str, tasks: int) -> dict[str, float]:
    scheduler, seen = cluster.process("scheduler"), Seen()
    before = client.job(job_id).frames.localised
    began, cpu = time.perf_counter(), _cpu_s(scheduler)
    each, ours = tasks // 2, (cluster, _connections(2), client.identity().cluster_id, seen)
    await asyncio.gather(*(_worker(*ours, 0.0, until=None, tasks=each) for _ in range(2)))
    seconds, cpu = time.perf_counter() - began, _cpu_s(scheduler) - cpu
    _check(client, job_id, before, seen)
    return {
        "tasks_per_s": round(2 * each / seconds, 1),
        "scheduler_ms_per_task": round(1000 * cpu / (2 * each), 3),
        **_latency(seen),
    }


async def _many(
    cluster: Cluster, client: Client, job_id: str, workers: int, options: argparse.Namespace
) -> dict[str, float]:
    scheduler, seen, own = cluster.process("scheduler"), Seen(), psutil.Process()
    before = client.job(job_id).frames.localised
    cluster_id = client.identity().cluster_id
    pools = [_connections(_A_POOL) for _ in range(0, workers, _A_POOL)]
    spread = options.task_s / workers
    ends = time.perf_counter() + options.task_s + options.seconds
    working = [
        asyncio.create_task(
            _worker(
                cluster,
                pools[number // _A_POOL],
                cluster_id,
                seen,
                options.task_s,
                until=ends,
                after=number * spread,
            )
        )
        for number in range(workers)
    ]
    await asyncio.sleep(options.task_s)  # until all have come
    seen.latencies_s.clear()
    began, cpu, mine = time.perf_counter(), _cpu_s(scheduler), _cpu_s(own)
    await asyncio.sleep(options.seconds * 0.9)
    seconds, cpu, mine = time.perf_counter() - began, _cpu_s(scheduler) - cpu, _cpu_s(own) - mine
    commits, latency = len(seen.latencies_s), _latency(seen)
    await asyncio.gather(*working)
    _check(client, job_id, before, seen)
    return {
        "commits_per_s": round(commits / seconds, 1),
        **latency,
        "scheduler_busy": round(cpu / seconds, 3),
        "driver_busy": round(mine / seconds, 3),
        "scheduler_mb": round(scheduler.memory_info().rss / 1e6),
    }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _latency(seen: Seen) -> dict[str, float]:
    if not seen.latencies_s:
        return {}
    p50, p99 = np.quantile(seen.latencies_s, [0.5, 0.99]) * 1000
    return {"commit_p50_ms": round(p50, 1), "commit_p99_ms": round(p99, 1)}


def _check(client: Client, job_id: str, before: int, seen: Seen) -> None:
    counted = client.job(job_id).frames.localised - before
    if counted != seen.frames or seen.errors:
        raise SystemExit(
            f"{seen.frames} frames were acknowledged, {counted} are in the books; {seen.errors} errors"
        )


async def _worker(
    cluster: Cluster,
    connections: httpx.AsyncHTTPTransport,
    cluster_id: str,
    seen: Seen,
    task_s: float,
    *,
    until: float | None,
    tasks: int = 0,
    after: float = 0.0,
) -> None:
    """One simulated worker: until a moment, or for so many tasks."""
    await asyncio.sleep(after)
    link = Link(cluster.url, cluster.token, transport=connections)
    routes = SchedulerRoutes(link, lambda _: link, cluster_id=cluster_id)
    hello = WorkerRegistration(
        machine=f"m{id(routes)}",
        host="simulated",
        pid=os.getpid(),
        cores=1,
        protocol=PROTOCOL_VERSION,
        versions=versions(),
        cpu="simulated",
        fits=["LatGaussFitFR"],
    )
    standing = await routes.register(hello)
    leases: list[Lease] = []
    done = 0
    while (done < tasks) if until is None else (time.perf_counter() < until):
        if not leases:
            leases = await routes.lease(standing.worker_id, 1, 5.0)
            continue
        lease = leases.pop()
        await _working(routes, standing, lease, task_s)
        leases = await _committed(routes, standing, lease, seen)
        done += 1
    await routes.goodbye(standing.worker_id)


async def _working(routes: SchedulerRoutes, standing: WorkerRegistered, lease: Lease, task_s: float) -> None:
    ends = time.perf_counter() + task_s
    held = [HeldTask(job_id=lease.job_id, task_id=lease.task_id, attempt=lease.attempt)]
    while (left := ends - time.perf_counter()) > 0:
        await asyncio.sleep(min(left, standing.keep_alive_s))
        if left > standing.keep_alive_s:
            await routes.keep_alive(standing.worker_id, held)


async def _committed(
    routes: SchedulerRoutes, standing: WorkerRegistered, lease: Lease, seen: Seen
) -> list[Lease]:
    count = lease.stop - lease.start
    rows = np.zeros(1, LAT_GAUSS_DTYPE)
    rows["tIndex"] = lease.start
    status = np.full(count, FrameStatus.LOCALISED, np.uint8)
    body = encode_result(TaskResult(lease.start, lease.stop, rows, status, seconds=count / _FRAMES_A_S))
    began = time.perf_counter()
    reply = await routes.commit(standing.worker_id, lease, body, 1)
    seen.latencies_s.append(time.perf_counter() - began)
    if reply.outcome != "committed":
        seen.errors += 1
    seen.frames += count
    return list(reply.next)


def _connections(workers: int) -> httpx.AsyncHTTPTransport:
    """Connections for all of them: a client each would spend the machine on its preparations for TLS."""
    return httpx.AsyncHTTPTransport(
        verify=False,
        limits=httpx.Limits(max_connections=workers + 8, max_keepalive_connections=workers + 8),
    )


if __name__ == "__main__":
    main()
