"""Where does the time of detection go? Nanoseconds a pixel of each stage, on one core.

    python benchmarks/stage_rate.py [--sizes 256 2048] [--repeats N] [--quick]

Processor time, the least of `repeats` runs: stages take turns in short runs, so that the least is what an undisturbed machine does. Each stage runs on the
buffers that the stages before it left, frame after frame. Beside them the whole of detection, `np.copyto` of a frame into float32, and
for each stage how many vector operations and loads a group of sixteen pixels takes. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any, NamedTuple

import numpy as np
from surroundings import surroundings
from workload import Workload, series

from fitting import detection, fits
from fitting.background import RunningSum
from fitting.bandpass import make_workspace
from fitting.camera import Camera
from fitting.filters import make_filters
from fitting.kernel import kernel

_WINDOW = 30
_PIXELS = 6_000_000  # in one run
OPERATIONS = {"signal": (12, 5), "wide": (17, 9), "band": (35, 15)}
"""Vector operations and loads for sixteen pixels, with widths of 1 and 3 px: counted in the code."""


class Given(NamedTuple):
    """What the stages work on; see `fitting.detection.find_peaks`."""

    frame: Any
    background: Any
    per_frame: Any
    law: Any
    filters: Any
    work: Any
    peaks: Any
    values: Any


@kernel
def _signal(g: Any, runs: int) -> None:
    for _ in range(runs):
        for y0 in range(0, g.frame.shape[0], g.work.band):
            rows = min(g.work.band, g.frame.shape[0] - y0)
            detection.fill_signal(
                g.frame, g.background, g.per_frame, True, g.frame, g.frame, g.law, g.work, y0, rows
            )


@kernel
def _wide(g: Any, runs: int) -> None:
    for _ in range(runs):
        for y0 in range(0, g.frame.shape[0], g.work.band):
            rows = min(g.work.band, g.frame.shape[0] - y0)
            detection.filter_wide(g.filters, g.work, g.frame.shape[1], y0, rows)


@kernel
def _band(g: Any, runs: int) -> None:
    for _ in range(runs):
        for y0 in range(0, g.frame.shape[0], g.work.band):
            rows = min(g.work.band, g.frame.shape[0] - y0)
            detection.filter_band(
                g.frame, g.background, g.frame, g.frame, g.law, g.filters, g.work, np.float32(1.0), y0, rows
            )


@kernel
def _detect(g: Any, runs: int) -> None:
    for _ in range(runs):
        detection.find_peaks(
            g.frame, g.background, g.per_frame, True, g.frame, g.frame, g.law, g.filters, g.work,
            np.float32(1.0), np.float32(0.0), g.peaks, g.values,
        )  # fmt: skip


STAGES = {"signal": _signal, "wide": _wide, "band": _band, "all": _detect}


def main() -> None:
    arguments = _arguments()
    sizes, repeats = ([64], 2) if arguments.quick else (arguments.sizes, arguments.repeats)
    result: dict[str, Any] = {"benchmark": "stage_rate", "repeats": repeats, "unit": "ns a pixel"}
    for size in sizes:
        result[f"{size}x{size}"] = _measure(size, repeats)
    result["operations_and_loads_for_16_px"] = OPERATIONS
    print(json.dumps(result | surroundings()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 2048], help="sides of a frame")
    parser.add_argument("--repeats", type=int, default=9, help="turns, of which the quickest counts")
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    return parser.parse_args()


def _measure(size: int, repeats: int) -> dict[str, float]:
    work = Workload(frames=_WINDOW + 1, size_px=size)
    images, _ = series(work)
    settings = fits.resolve({"background_percentile": None}, work.metadata)
    camera = Camera.from_metadata(work.metadata, settings, (size, size))
    filters = make_filters(size, size, 1.0, 3.0)
    room = size * size // 4 + 2 * size + 1
    given = Given(
        images[_WINDOW], RunningSum(images[:_WINDOW].sum(axis=0).astype(np.int32), np.zeros(3, np.int64)), np.float32(1 / _WINDOW),
        camera.pixel_law(1.0, 65535.0, (size, size)), filters, make_workspace(size, filters),
        np.empty((room, 2), np.int32), np.empty((room, 4), np.float32),
    )  # fmt: skip
    runs = max(1, _PIXELS // size**2)
    best = dict.fromkeys([*STAGES, "copy"], np.inf)
    copied = np.empty((size, size), np.float32)
    for _ in range(repeats + 1):  # the first compiles
        for name, stage in STAGES.items():
            best[name] = min(best[name], _time(lambda stage=stage: stage(given, runs)))
        best["copy"] = min(
            best["copy"], _time(lambda: [np.copyto(copied, image) for image in images]) * runs / len(images)
        )
    each = {name: round(seconds / runs / size**2 * 1e9, 3) for name, seconds in best.items()}
    each["peaks"] = round(each["all"] - each["signal"] - each["wide"] - each["band"], 3)
    return each


def _time(action: Any) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


if __name__ == "__main__":
    main()
