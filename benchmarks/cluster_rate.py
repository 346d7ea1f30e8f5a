"""What of the engine's pace reaches the user through the cluster?

    python benchmarks/cluster_rate.py [--frames 20000] [--workers 2] [--repeats 3] [--quick]

The workload of `workload.py` at 256². In turns, on the same machine: `--workers` processes that each call
`fitting.analyse` on their share of the frames, already in memory, side by side; and a real cluster (`clusterofone -n N`:
HTTP, journal with fsync, `.h5r`), from the submit to the job's end, on the same frames in a TIFF. Prints one JSON line:
frames/s of both, medians, their ratio, and the time from the submit to the first row that can be read, warm.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tifffile
from running_cluster import Cluster
from surroundings import surroundings
from workload import Workload, series

from cluster.client import Client

_SETTINGS = {"background": "-30:0", "background_percentile": None, "roi_half_size": 3}
_DISTINCT = 1000  # frames that differ; the series repeats them


def main() -> None:
    arguments = _arguments()
    frames = 400 if arguments.quick else arguments.frames
    repeats = 1 if arguments.quick else arguments.repeats
    work = Workload(frames=min(frames, _DISTINCT))
    images = series(work)[0]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        path = _written(root / "data", images, frames, work)
        engine, cluster, first = [], [], []
        with Cluster(root, arguments.workers) as client:
            _job(client, path.name)  # kernels, caches and connections are warm from here on
            for _ in range(repeats):
                engine.append(frames / _side_by_side(images, frames, arguments.workers, work))
                seconds, first_s = _job(client, path.name)
                cluster.append(frames / seconds)
                first.append(first_s)
    result = {
        "benchmark": "cluster_rate",
        "frames": frames,
        "workers": arguments.workers,
        "repeats": repeats,
        "engine_frames_per_s": round(median(engine), 1),
        "cluster_frames_per_s": round(median(cluster), 1),
        "efficiency": round(median(c / e for c, e in zip(cluster, engine, strict=True)), 3),
        "first_result_s": round(median(first), 2),
    }
    print(json.dumps(result | surroundings()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    return parser.parse_args()


def _written(folder: Path, images: np.ndarray[Any, Any], frames: int, work: Workload) -> Path:
    folder.mkdir()
    path = folder / "series.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for start in range(0, frames, len(images)):
            part = images[: frames - start]
            writer.write(part, contiguous=True, photometric="minisblack")
    path.with_suffix(".json").write_text(json.dumps(work.metadata), encoding="utf-8")
    return path


def _side_by_side(images: np.ndarray[Any, Any], frames: int, workers: int, work: Workload) -> float:
    """Return the seconds that `workers` processes take for all frames, once all of them are warm."""
    context = multiprocessing.get_context("spawn")
    ready, times = context.Barrier(workers), context.Queue()
    share = frames // workers
    processes = [
        context.Process(target=_engine, args=(images, share, work.metadata, ready, times))
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    took = [times.get() for _ in processes]
    for process in processes:
        process.join()
    return max(took) * frames / (share * workers)


def _engine(
    images: np.ndarray[Any, Any], frames: int, metadata: dict[str, object], ready: Barrier, times: Any
) -> None:
    from fitting import analyse

    analyse(images[:40], _SETTINGS, metadata)
    ready.wait()
    began = time.perf_counter()
    for start in range(0, frames, len(images)):
        analyse(images[: frames - start], _SETTINGS, metadata)
    times.put(time.perf_counter() - began)


def _job(client: Client, name: str) -> tuple[float, float]:
    """Localise a series; return the seconds to the end, and to the first row."""
    began = time.perf_counter()
    job = client.submit(name, analysis=_SETTINGS)
    first: list[float] = []

    def look() -> None:
        while not first:
            if len(client.localisations(job.id)):
                first.append(time.perf_counter() - began)
            time.sleep(0.05)

    looking = threading.Thread(target=look)
    looking.start()
    *_, now = client.watch(job.id)  # as `clusterofone localise` waits
    took = time.perf_counter() - began
    looking.join()
    if now.state != "done":
        raise SystemExit(f"the job ended as {now.state}: {now.error}")
    return took, first[0]


if __name__ == "__main__":
    main()
