"""How many frames are localised in a second, on one core, from raw frames to rows?

    python benchmarks/pipeline_rate.py [--sizes 128 256 ...] [--repeats N] [--background=-30:0] [--emitters] [--percentile] [--quick] [--cold]

Processor time, so that other work on the machine counts little. The workload of `workload.py` at each frame size. Prints one JSON line: for each size the median rate of `repeats` runs in
frames/s and Mpx/s, the same as a part of the pace of `np.copyto` of the frames into a float32 array of their size, which is the memory's pace, and of that of a copy of each
into the same float32 frame, which stays in the cache; and the largest memory that one run added, alone and with the frames themselves. With --emitters also the time of a frame of 256² against the molecules in it, and the line through that; with --percentile how many times longer an
analysis takes with a percentile as background instead of the mean, in turns; with
--cold also the time from a new process with an empty cache to the first result, as a worker starts, once more with the cache filled, and
with an empty one without `warm_up`, which has a second process compile a share.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np
import psutil
from surroundings import surroundings
from workload import Workload, series

from fitting import analyse

_PIXELS = 25_000_000  # in one run: 380 frames of 256², 6 of 2048²
_FEWEST = 150
_COPIED = 250_000_000  # pixels: a gigabyte of float32, more than any cache holds
_EMITTERS = (1, 5, 10, 20, 40, 80)
_START = """
import time; start = time.perf_counter()
import sys; sys.path.insert(0, {folder!r})
from workload import Workload, series
from fitting import analyse, warm_up
{warm_up}
work = Workload(frames=40, size_px=64)
analyse(series(work)[0], {{}}, work.metadata)
print(time.perf_counter() - start)
"""


def main() -> None:
    arguments = _arguments()
    sizes, repeats = ([64], 2) if arguments.quick else (arguments.sizes, arguments.repeats)
    result: dict[str, Any] = {
        "benchmark": "pipeline_rate",
        "background": arguments.background,
        "repeats": repeats,
    }
    settings = {"background": arguments.background or None, "background_percentile": None, "roi_half_size": 3}
    for size in sizes:
        result[f"{size}x{size}"] = _measure(size, settings, repeats, arguments.quick)
    quick_or_not = (20, 2) if arguments.quick else (_FEWEST, repeats)
    if arguments.emitters:
        result["emitters"] = _against_emitters(settings, *quick_or_not)
    if arguments.percentile:
        result["percentile"] = _percentile_over_mean(settings, *quick_or_not)
    if arguments.cold:
        result["first_start_s"], result["later_start_s"] = _cold_starts("warm_up({})")
        result["first_start_in_one_process_s"], _ = _cold_starts("")
    print(json.dumps(result | surroundings()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[128, 256, 512, 1024, 2048], help="sides of a frame"
    )
    parser.add_argument("--repeats", type=int, default=5, help="runs, of which the median counts")
    parser.add_argument("--background", default="-30:0", help='frames of the background; "" for none')
    parser.add_argument(
        "--emitters", action="store_true", help="measure against the molecules in a frame too"
    )
    parser.add_argument("--percentile", action="store_true", help="measure a percentile as background too")
    parser.add_argument("--cold", action="store_true", help="measure the first start too")
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    return parser.parse_args()


def _measure(size: int, settings: dict[str, object], repeats: int, quick: bool) -> dict[str, float]:
    frames = 20 if quick else max(_FEWEST, _PIXELS // size**2)
    work = Workload(frames=min(frames, 40 if size > 512 else frames), size_px=size)
    images, truth = series(work)
    images = np.concatenate([images] * -(-frames // len(images)))[:frames]
    analyse(images[:35], settings, work.metadata)
    with _PeakMemory() as memory:
        analysis = analyse(images, settings, work.metadata)
    times = [_time(lambda: analyse(images, settings, work.metadata)) for _ in range(repeats)]
    copied = images[: min(frames, _COPIED // size**2)]
    targets = np.ones(copied.shape, np.float32), np.ones(images.shape[1:], np.float32)
    whole = [_time(lambda: np.copyto(targets[0], copied)) * frames / len(copied) for _ in range(repeats)]
    cached = [_time(lambda: _copy(images, targets[1])) for _ in range(repeats)]
    return {
        "frames": frames,
        "frames_per_s": round(frames / median(times), 1),
        "mpx_per_s": round(images.size / median(times) / 1e6, 1),
        "localisations_per_s": round(len(analysis.rows) / median(times)),
        "share_of_copy_pace": round(median(whole) / median(times), 4),
        "share_of_cached_copy_pace": round(median(cached) / median(times), 4),
        "peak_mb": round(memory.peak / 1e6, 1),
        "peak_with_frames_mb": round((memory.peak + images.nbytes) / 1e6, 1),
        "rows_per_molecule": round(len(analysis.rows) / (len(truth["frame"]) * frames / work.frames), 4),
    }


def _against_emitters(settings: dict[str, object], frames: int, repeats: int) -> dict[str, Any]:
    """Microseconds of a frame for each number of molecules in it, and the straight line through them."""
    films = {n: series(Workload(frames=frames, emitters_per_256=n))[0] for n in _EMITTERS}
    metadata = Workload().metadata
    analyse(films[_EMITTERS[0]], settings, metadata)
    times: dict[int, list[float]] = {n: [] for n in films}
    for _ in range(repeats):
        for n, images in films.items():
            times[n].append(_time(lambda images=images: analyse(images, settings, metadata)) / frames * 1e6)
    us = np.array([median(times[n]) for n in _EMITTERS])
    slope, empty = np.polyfit(_EMITTERS, us, 1, w=1 / us)
    return {
        "us_per_frame": {str(n): round(float(value), 1) for n, value in zip(_EMITTERS, us, strict=True)},
        "us_per_emitter": round(float(slope), 2),
        "us_of_an_empty_frame": round(float(empty), 1),
        "largest_departure_from_the_line": round(
            float(abs(us / (slope * np.array(_EMITTERS) + empty) - 1).max()), 3
        ),
    }


def _percentile_over_mean(settings: dict[str, object], frames: int, repeats: int) -> dict[str, float]:
    images = series(Workload(frames=frames))[0]
    ways = {"mean": settings, "percentile": {**settings, "background_percentile": 0.25}}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, chosen in ways.items():
            took = _time(lambda chosen=chosen: analyse(images, chosen, Workload().metadata))
            if turn:  # the first compiles, or loads what is compiled
                times[name].append(took)
    mean, percentile = (median(times[name]) for name in ways)
    return {
        "mean_frames_per_s": round(frames / mean, 1),
        "percentile_frames_per_s": round(frames / percentile, 1),
        "times_as_long": round(percentile / mean, 2),
    }


def _time(action: Any) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def _copy(images: Any, target: Any) -> None:
    for image in images:
        np.copyto(target, image)


class _PeakMemory:
    """The most resident memory above that at entry, looked at every 2 ms."""

    def __enter__(self) -> Self:
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self.peak = 0
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.peak = max(self.peak, self._process.memory_info().rss - self._before)


def _cold_starts(warm_up: str) -> tuple[float, float]:
    code = _START.format(folder=str(Path(__file__).parent), warm_up=warm_up)
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        first, later = (
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
            )
            for _ in range(2)
        )
    return round(float(first.stdout), 2), round(float(later.stdout), 2)


if __name__ == "__main__":
    main()
