"""Does the scheduler's memory stay bounded, however long its jobs and however many their rows?

    python benchmarks/memory.py [--rows 2000000 20000000] [--jobs 100] [--ended 600] [--folder DIR] [--quick]
    python benchmarks/memory.py --only-ended

1. Jobs of so many rows, committed over HTTP to a real scheduler (`clusterofone -n 0`) by a worker that makes them up, and
   merged into `.h5r`: the scheduler's resident memory before and its peak while the file is made, and rows/s of the merge.
2. So many jobs of a million frames each submitted to a real scheduler: its resident memory.
3. The scheduler's core with as many jobs, all their tasks of a thousand frames done: how much the process grows.
4. So many small jobs, each submitted, committed and merged, of a series with the metadata of a simulation and of one with
   two hundred values more: the scheduler's resident memory at the end, and the rise a job from the first third on, when
   caches and allocators are warm.

Prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from running_cluster import Cluster
from surroundings import surroundings
from task_rate import _METADATA, _connections

from cluster.arrays import TaskResult, encode_result
from cluster.client import Client
from cluster.protocol import PROTOCOL_VERSION, WorkerRegistration
from cluster.scheduler.core import Counts, JobOrder, Rules, Scheduler, WorkerOrder
from cluster.transport import Link
from cluster.worker.engine import versions
from cluster.worker.scheduler import SchedulerRoutes
from fitting.localisations import LAT_GAUSS_DTYPE, FrameStatus

_ROWS_A_FRAME = 100
_FRAMES_A_S = 1000  # that the worker says it localises: tasks of 1500 frames
_MB = 1e6


def main() -> None:
    options = _options()
    result: dict[str, Any] = {"benchmark": "memory"}
    if not options.only_ended:
        result["merges"] = [_merge(n, options.folder) for n in options.rows]
        result["submitted"] = _submitted(options.jobs, options.frames, options.folder)
        result["core_with_all_tasks_done"] = _core(options.jobs, options.frames)
    result["ended"] = [_ended(options.ended, values, options.folder) for values in (14, 214)]
    print(json.dumps(result | surroundings()))


def _merge(rows: int, folder: Path | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as name:
        root = Path(name)
        _sparse(root / "data", rows // _ROWS_A_FRAME)
        cluster = Cluster(root, 0)
        with cluster as client:
            scheduler = cluster.process("scheduler")
            before = scheduler.memory_info().rss
            job = client.submit("series.npy", analysis={"background": "0:0"}, metadata=_METADATA)
            with _peak(scheduler) as committing:
                asyncio.run(_committed(cluster, client, rows // _ROWS_A_FRAME))
            began = time.perf_counter()
            with _peak(scheduler) as merging:
                *_, ended = client.watch(job.id)
            took = time.perf_counter() - began
            if ended.state != "done" or ended.localisations != rows:
                raise SystemExit(f"{ended.state}: {ended.localisations} rows of {rows}; {ended.error}")
            size = Path(str(ended.output)).stat().st_size
    return {
        "rows": rows,
        "rss_before_mb": round(before / _MB),
        "peak_committing_mb": round(max(committing) / _MB),
        "peak_merging_mb": round(max(merging) / _MB),
        "merge_s": round(took, 1),
        "file_mb": round(size / _MB),
    }


async def _committed(cluster: Cluster, client: Client, frames: int) -> None:
    link = Link(cluster.url, cluster.token, transport=_connections(2))
    routes = SchedulerRoutes(link, lambda _: link, cluster_id=client.identity().cluster_id)
    card = {"machine": "m", "host": "simulated", "pid": os.getpid(), "cores": 1, "cpu": "simulated"}
    hello = WorkerRegistration(**card, protocol=PROTOCOL_VERSION, versions=versions(), fits=["LatGaussFitFR"])
    worker_id = (await routes.register(hello)).worker_id
    done, leases, rng = 0, [], np.random.default_rng(1)
    while done < frames:
        leases = leases or await routes.lease(worker_id, 1, 5.0)
        lease = leases.pop()
        count = lease.stop - lease.start
        rows = np.zeros(count * _ROWS_A_FRAME, LAT_GAUSS_DTYPE)
        rows["tIndex"] = np.repeat(np.arange(lease.start, lease.stop), _ROWS_A_FRAME)
        rows["fitResults"]["x0"] = rng.uniform(0, 25_600, len(rows))
        rows["fitResults"]["A"] = rng.uniform(50, 500, len(rows))
        status = np.full(count, FrameStatus.LOCALISED, np.uint8)
        body = encode_result(TaskResult(lease.start, lease.stop, rows, status, seconds=count / _FRAMES_A_S))
        leases = list((await routes.commit(worker_id, lease, body, 1)).next)
        done += count
    await routes.goodbye(worker_id)


def _submitted(jobs: int, frames: int, folder: Path | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as name:
        root = Path(name)
        _sparse(root / "data", frames)
        cluster = Cluster(root, 0)
        with cluster as client:
            scheduler = cluster.process("scheduler")
            before = scheduler.memory_info().rss
            for _ in range(jobs):
                client.submit("series.npy", analysis={"background": "0:0"}, metadata=_METADATA)
            after = scheduler.memory_info().rss
    return {
        "jobs": jobs,
        "frames_each": frames,
        "rss_before_mb": round(before / _MB),
        "rss_mb": round(after / _MB),
    }


def _core(jobs: int, frames: int) -> dict[str, float]:
    process = psutil.Process()
    before = process.memory_info().rss
    core = Scheduler(Rules(task_frames=1000))
    core.register(WorkerOrder("w", frozenset({"fit"})), now=0.0)
    for number in range(jobs):
        core.submit(JobOrder(f"job{number}", 0, frames, frames, 512, "fit"))
    while leases := core.lease("w", 64, now=0.0).value:
        for lease in leases:
            counts = Counts(localised=lease.stop - lease.start, rows=20_000, seconds=1.0)
            core.commit("w", lease.job_id, lease.task_id, lease.attempt, counts, now=0.0)
    tasks = sum(job.tasks for job in core.jobs.values())
    return {"tasks_done": tasks, "grew_mb": round((process.memory_info().rss - before) / _MB, 1)}


def _ended(jobs: int, values: int, folder: Path | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as name:
        root = Path(name)
        _sparse(root / "data", 60)
        said = {**_METADATA, **{f"Camera.Setting{number}": f"value {number}" for number in range(values)}}
        (root / "data" / "series.json").write_text(json.dumps(said))
        cluster = Cluster(root, 0)
        with cluster as client:
            scheduler = cluster.process("scheduler")
            seen = asyncio.run(_worked_off(cluster, client, jobs, scheduler))
    warm = seen[len(seen) // 3 :]
    return {
        "jobs": jobs,
        "metadata_values": len(said),
        "rss_mb": round(seen[-1] / _MB),
        "rise_kb_a_job": round(float(np.polyfit(np.arange(len(warm)), warm, 1)[0]) / 1e3, 1),
    }


async def _worked_off(cluster: Cluster, client: Client, jobs: int, scheduler: psutil.Process) -> list[int]:
    """Do one job after the other; return the scheduler's resident memory after each."""
    link = Link(cluster.url, cluster.token, transport=_connections(2))
    routes = SchedulerRoutes(link, lambda _: link, cluster_id=client.identity().cluster_id)
    card = {"machine": "m", "host": "simulated", "pid": os.getpid(), "cores": 1, "cpu": "simulated"}
    hello = WorkerRegistration(**card, protocol=PROTOCOL_VERSION, versions=versions(), fits=["LatGaussFitFR"])
    worker_id = (await routes.register(hello)).worker_id
    seen = []
    for number in range(jobs):
        client.submit("series.npy", analysis={"background": "0:0"}, output=f"analysis/{number}.h5r")
        while leases := await routes.lease(worker_id, 64, 0.0):
            for lease in leases:
                await routes.commit(worker_id, lease, _made_up(lease.start, lease.stop), 0)
        seen.append(scheduler.memory_info().rss)
    await routes.goodbye(worker_id)
    return seen


def _made_up(start: int, stop: int) -> bytes:
    rows = np.zeros(stop - start, LAT_GAUSS_DTYPE)
    rows["tIndex"] = np.arange(start, stop)
    status = np.full(stop - start, FrameStatus.LOCALISED, np.uint8)
    return encode_result(TaskResult(start, stop, rows, status, seconds=(stop - start) / _FRAMES_A_S))


@contextmanager
def _peak(process: psutil.Process) -> Iterator[list[int]]:
    """Sample a process's resident memory for the length of a block."""
    seen, ended = [process.memory_info().rss], threading.Event()

    def sample() -> None:
        while not ended.wait(0.02):
            seen.append(process.memory_info().rss)

    sampling = threading.Thread(target=sample)
    sampling.start()
    try:
        yield seen
    finally:
        ended.set()
        sampling.join()


def _sparse(folder: Path, frames: int) -> None:
    folder.mkdir()
    np.lib.format.open_memmap(folder / "series.npy", mode="w+", dtype=np.uint8, shape=(frames, 16, 16))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000_000, 20_000_000])
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--frames", type=int, default=1_000_000, help="of each of these jobs")
    parser.add_argument("--ended", type=int, default=600, help="how many jobs are submitted and done")
    parser.add_argument("--only-ended", action="store_true", help="only what such jobs cost")
    parser.add_argument("--folder", type=Path, help="where the journal and the files go")
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.jobs, options.frames, options.ended = [20_000], 3, 10_000, 6
    return options


if __name__ == "__main__":
    main()
