"""What does a task cost the scheduler, and how many workers can it serve?

    python benchmarks/task_rate.py [--tasks 5000] [--workers 100 300 1000 ...] [--at-once 500 2000] [--task-s 10] [--come-per-s 50] [--seconds 40] [--folder DIR]
        [--picture PNG] [--quick]

A real scheduler and data server (`clusterofone -n 0`) and workers that are simulated, but speak to it over real HTTP as real ones do: register,
lease, keep alive, commit a result of one row with a lease for the next in the same request.

1. Two workers whose tasks take no time: tasks a second, and the scheduler's processor time for each.
2. So many workers that begin at once, as an array of a batch system does: how long until each holds a task, and how many requests had to be tried again.
3. So many workers, come one after the other (`--come-per-s`), whose tasks take ten seconds: the latency of commits (each durable before it is answered), and how
   busy the scheduler is. One process plays them all, with an HTTP client made for it (`lean_link.py`), so that the scheduler is what bends first.

Every commit must be acknowledged once and all frames must be in the job's books at the end. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import psutil
from lean_link import LeanLink
from running_cluster import Cluster
from surroundings import surroundings

from cluster.arrays import TaskResult, encode_result
from cluster.backoff import Backoff, Pace, persist
from cluster.client import Client
from cluster.errors import TransientError, Unavailable
from cluster.protocol import PROTOCOL_VERSION, HeldTask, Lease, Versions, WorkerRegistered, WorkerRegistration
from cluster.transport import Link
from cluster.worker.engine import versions
from cluster.worker.scheduler import SchedulerRoutes
from fitting.localisations import LAT_GAUSS_DTYPE, FrameStatus

T = TypeVar("T")
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

_PATIENT = Backoff(
    first_s=0.25, longest_s=5.0, total_s=60.0
)  # a real worker's, but for its patience without end
_LONG_POLL_S = 20.0


@dataclass
class Seen:
    """What the workers of one run saw."""

    latencies_s: list[float] = field(default_factory=list)
    arrivals_s: list[float] = field(default_factory=list)  # from the first request to the first task
    frames: int = 0
    errors: int = 0
    tried_again: int = 0  # requests that were not answered, and made once more


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
            for at_once in (True, False):
                for workers in options.at_once if at_once else options.workers:
                    client.cancel(
                        job.id
                    )  # a job each, so that none comes to its end, where tasks are done twice
                    job = client.submit("series.npy", analysis={"background": "0:0"}, metadata=_METADATA)
                    run = _at_once if at_once else _many
                    case = asyncio.run(run(cluster, client, job.id, workers, options))
                    name = f"{workers}_workers{'_at_once' if at_once else ''}"
                    print(name, json.dumps(case), file=sys.stderr)
                    result[name] = case
                    if not at_once:
                        found[workers] = case
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
    parser.add_argument(
        "--at-once", type=int, nargs="*", default=[], help="so many workers that begin at once"
    )
    parser.add_argument("--task-s", type=float, default=10.0)
    parser.add_argument(
        "--come-per-s",
        type=float,
        default=50.0,
        help="how many workers come in a second, before it is measured",
    )
    parser.add_argument("--seconds", type=float, default=40.0, help="how long each number of workers runs")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    parser.add_argument("--picture", type=Path, help="draw latency and load against the number of workers")
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.workers, options.task_s, options.seconds = 100, [20], 0.5, 2.0
        options.at_once = [20]
    return options


def _sparse_series(folder: Path) -> None:
    folder.mkdir()
    shape = (_FRAMES, _SIDE, _SIDE)
    np.lib.format.open_memmap(folder / "series.npy", mode="w+", dtype=np.uint8, shape=shape)


async def _no_work(cluster: Cluster, client: Client, job_id: str, tasks: int) -> dict[str, float]:
    scheduler, seen = cluster.process("scheduler"), Seen()
    before = client.job(job_id).frames.localised
    began, cpu = time.perf_counter(), _cpu_s(scheduler)
    each, cluster_id, connections = tasks // 2, client.identity().cluster_id, _connections(2)
    links = [Link(cluster.url, cluster.token, transport=connections) for _ in range(2)]
    await asyncio.gather(*(_worker(link, cluster_id, seen, 0.0, tasks=each) for link in links))
    seconds, cpu = time.perf_counter() - began, _cpu_s(scheduler) - cpu
    _check(client, job_id, before, seen)
    return {
        "tasks_per_s": round(2 * each / seconds, 1),
        "scheduler_ms_per_task": round(1000 * cpu / (2 * each), 3),
        **_latency(seen),
    }


async def _at_once(
    cluster: Cluster, client: Client, job_id: str, workers: int, _: argparse.Namespace
) -> dict[str, float]:
    """Workers that all begin now: until each holds its first task, which it hands in at once."""
    scheduler, seen, own = cluster.process("scheduler"), Seen(), psutil.Process()
    before = client.job(job_id).frames.localised
    cluster_id = client.identity().cluster_id
    links = [LeanLink(cluster.url, cluster.token) for _ in range(workers)]
    began, cpu, mine = time.perf_counter(), _cpu_s(scheduler), _cpu_s(own)
    await asyncio.gather(*(_worker(link, cluster_id, seen, 0.0, tasks=1) for link in links))
    for link in links:
        await link.aclose()
    seconds, cpu, mine = time.perf_counter() - began, _cpu_s(scheduler) - cpu, _cpu_s(own) - mine
    _check(client, job_id, before, seen)
    median, last = np.quantile(seen.arrivals_s, [0.5, 1.0])
    return {
        "first_task_median_s": round(median, 2),
        "first_task_last_s": round(last, 2),
        "tried_again": seen.tried_again,
        "scheduler_ms_per_worker": round(1000 * cpu / workers, 2),
        "scheduler_busy": round(cpu / seconds, 3),
        "driver_busy": round(mine / seconds, 3),
    }


async def _many(
    cluster: Cluster, client: Client, job_id: str, workers: int, options: argparse.Namespace
) -> dict[str, float]:
    scheduler, seen, own = cluster.process("scheduler"), Seen(), psutil.Process()
    before = client.job(job_id).frames.localised
    cluster_id = client.identity().cluster_id
    links = [LeanLink(cluster.url, cluster.token) for _ in range(workers)]
    coming_s = max(options.task_s, workers / options.come_per_s)
    spread = coming_s / workers
    ends = time.perf_counter() + coming_s + options.seconds
    working = [
        asyncio.create_task(
            _worker(
                link,
                cluster_id,
                seen,
                options.task_s,
                until=ends,
                after=number * spread,
            )
        )
        for number, link in enumerate(links)
    ]
    await asyncio.sleep(coming_s)
    seen.latencies_s.clear()
    began, cpu, mine = time.perf_counter(), _cpu_s(scheduler), _cpu_s(own)
    await asyncio.sleep(options.seconds * 0.9)
    seconds, cpu, mine = time.perf_counter() - began, _cpu_s(scheduler) - cpu, _cpu_s(own) - mine
    commits, latency = len(seen.latencies_s), _latency(seen)
    await asyncio.gather(*working)
    for link in links:
        await link.aclose()
    _check(client, job_id, before, seen)
    return {
        "commits_per_s": round(commits / seconds, 1),
        **latency,
        "scheduler_busy": round(cpu / seconds, 3),
        "driver_busy": round(mine / seconds, 3),
        "scheduler_ms_per_task": round(1000 * cpu / max(1, commits), 3),
        "scheduler_mb": round(scheduler.memory_info().rss / 1e6),
        "tried_again": seen.tried_again,
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
    link: Link,
    cluster_id: str,
    seen: Seen,
    task_s: float,
    *,
    until: float = math.inf,
    tasks: float = math.inf,
    after: float = 0.0,
) -> None:
    """One simulated worker: until a moment, or for so many tasks."""
    await asyncio.sleep(after)
    began = time.perf_counter()
    routes = SchedulerRoutes(link, lambda _: link, cluster_id=cluster_id)
    standing = await _persist(lambda: routes.register(_hello(id(routes))), seen)
    leases: list[Lease] = []
    done, say_alive_at = 0, _next_keep_alive(standing)
    while done < tasks and time.perf_counter() < until:
        if not leases:
            leases = await _persist(lambda: routes.lease(standing.worker_id, 1, _LONG_POLL_S), seen)
            continue
        if done == 0:
            seen.arrivals_s.append(time.perf_counter() - began)
        lease = leases.pop()
        say_alive_at = await _working(routes, standing, lease, task_s, say_alive_at, seen)
        leases = await _committed(routes, standing, lease, seen)
        done += 1
    with suppress(Unavailable):  # said once, as a real worker does; it will be missed
        await routes.goodbye(standing.worker_id)


async def _persist(call: Callable[[], Awaitable[T]], seen: Seen) -> T:
    """Try again as a worker does, and count it."""

    async def counted() -> T:
        try:
            return await call()
        except TransientError:
            seen.tried_again += 1
            raise

    return await persist(counted, _PATIENT, Pace())


def _hello(number: int) -> WorkerRegistration:
    return WorkerRegistration(
        machine=f"m{number}",
        host="simulated",
        pid=os.getpid(),
        cores=1,
        protocol=PROTOCOL_VERSION,
        versions=_own_versions(),
        cpu="simulated",
        fits=["LatGaussFitFR"],
    )


@cache
def _own_versions() -> Versions:
    return versions()


def _next_keep_alive(standing: WorkerRegistered) -> float:
    return time.perf_counter() + standing.keep_alive_s * random.uniform(0.85, 1.0)


async def _working(
    routes: SchedulerRoutes,
    standing: WorkerRegistered,
    lease: Lease,
    task_s: float,
    say_alive_at: float,
    seen: Seen,
) -> float:
    """Work on a task, and say between whiles that the worker lives; return when it is to say so again."""
    ends = time.perf_counter() + task_s
    held = [HeldTask(job_id=lease.job_id, task_id=lease.task_id, attempt=lease.attempt)]
    while say_alive_at < ends:
        await asyncio.sleep(say_alive_at - time.perf_counter())
        await _persist(lambda: routes.keep_alive(standing.worker_id, held), seen)
        say_alive_at = _next_keep_alive(standing)
    await asyncio.sleep(ends - time.perf_counter())
    return say_alive_at


async def _committed(
    routes: SchedulerRoutes, standing: WorkerRegistered, lease: Lease, seen: Seen
) -> list[Lease]:
    count = lease.stop - lease.start
    rows = np.zeros(1, LAT_GAUSS_DTYPE)
    rows["tIndex"] = lease.start
    status = np.full(count, FrameStatus.LOCALISED, np.uint8)
    body = encode_result(TaskResult(lease.start, lease.stop, rows, status, seconds=count / _FRAMES_A_S))
    began = time.perf_counter()
    reply = await _persist(lambda: routes.commit(standing.worker_id, lease, body, 1), seen)
    seen.latencies_s.append(time.perf_counter() - began)
    if reply.outcome != "committed" and not seen.tried_again:
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
