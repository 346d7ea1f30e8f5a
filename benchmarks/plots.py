"""Draw how close to the bound the fit is at every brightness, and how frames/s depend on the frame's size.

    python benchmarks/plots.py [--out docs/pictures] [--quick] [--only precision|speed]

Prints what it drew as JSON lines.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from turns import machine, pin
from workload import PIXEL_NM, Workload, crlb_px, rois, series

from fitting import analyse, fit_rois
from fitting.localisations import ResultCode

try:
    import matplotlib as mpl
except ModuleNotFoundError:
    raise SystemExit("plots.py needs matplotlib: pip install matplotlib") from None

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

SIDE = 7
INKS = ("#0b5394", "#c55a11", "#6aa84f")
BAND = (0.97, 1.04)  # what the tests accept
COPIED = 40  # frames copied for comparison
WHOLE = 0.99
FAR = 2.5  # [px] a fit farther from the truth has lost its molecule


def main() -> None:
    options = parse()
    core = pin(options.core)
    if options.quick:  # never over the documentation's pictures
        options.out = Path(tempfile.mkdtemp(prefix="plots-"))
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only in (None, "precision"):
        precision = measure_precision(1_000 if options.quick else 40_000, 3 if options.quick else 12)
        say({"name": "rmse_over_crlb", "curves": precision}, core)
        draw_precision(precision, options.out / "rmse_over_crlb.png")
    if options.only in (None, "speed"):
        sizes = [128, 256] if options.quick else [128, 256, 512, 1024, 2048]
        speed = measure_speed(sizes, 2 if options.quick else options.repeat)
        say({"name": "frames_per_s", "sizes": speed}, core)
        draw_speed(speed, options.out / "frames_per_s.png")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "pictures")
    parser.add_argument("--only", choices=("precision", "speed"))
    parser.add_argument("--repeat", type=int, default=5, help="turns of each size; figures are their medians")
    parser.add_argument("--core", type=int, help="the core to use; by default the last")
    parser.add_argument("--quick", action="store_true", help="few points, to see that everything runs")
    return parser.parse_args()


def measure_precision(count: int, points: int) -> dict[str, list[dict[str, float]]]:
    """Compare RMSE and bound from 100 to 20,000 photons, for three backgrounds and two estimators."""
    photons = np.geomspace(100, 20_000, points)
    curves = {
        "mle, 2 background photons/px": ("mle", 2.0),
        "mle, 20 background photons/px": ("mle", 20.0),
        "wls, 20 background photons/px": ("wls", 20.0),
    }
    return {
        name: [_ratio(Workload(photons=float(n), background=background), estimator, count) for n in photons]
        for name, (estimator, background) in curves.items()
    }


def _ratio(work: Workload, estimator: str, count: int) -> dict[str, float]:
    images, truth = rois(replace(work, seed=round(work.photons)), count, SIDE)
    table = fit_rois(images, estimator=estimator, sigma_px=work.sigma_px)
    off = np.stack([table["x_px"], table["y_px"]], axis=1) - truth
    kept = (table["status"] == ResultCode.CONVERGED) & (np.hypot(*off.T) < FAR)
    rmse, bound = math.sqrt((off[kept] ** 2).mean()), crlb_px(work, SIDE)
    return {
        "photons": round(work.photons, 1),
        "crlb_nm": round(bound * PIXEL_NM, 3),
        "ratio": round(rmse / bound, 4),
        "uncertainty": round(1 / math.sqrt(4 * kept.sum()), 4),
        "kept": round(float(kept.mean()), 4),
    }


def measure_speed(sizes: list[int], repeat: int) -> list[dict[str, float]]:
    """Time the whole pipeline beside a plain copy of the frames to float32, the sizes taking turns."""
    works = [Workload(size_px=size, frames=_frames(size)) for size in sizes]
    stacks = [series(work)[0] for work in works]
    copies = [
        np.full(stack[:COPIED].shape, 0, np.float32) for stack in stacks
    ]  # their pages exist from now on
    settings = {
        "background": "-30:0",
        "background_percentile": None,
        "roi_half_size": 3,
        "psf_sigma_nm": works[0].sigma_px * PIXEL_NM,
    }
    for stack, work in zip(stacks, works, strict=True):
        analyse(stack, settings, work.metadata)
    turns: list[list[tuple[float, ...]]] = [[] for _ in sizes]
    for _ in range(repeat):
        for done, stack, copy, work in zip(turns, stacks, copies, works, strict=True):
            ours = _timed(partial(analyse, stack, settings, work.metadata))
            plain = _timed(partial(np.copyto, copy, stack[:COPIED]))
            done.append((*ours, *plain))
    return [_speed(work, done) for work, done in zip(works, turns, strict=True)]


def _frames(size: int) -> int:
    """As many frames as 300 of 256² px have pixels, but enough to make little of filling the background window once."""
    return max(80, 300 * 256**2 // size**2)


def _timed(run: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def _speed(work: Workload, turns: list[tuple[float, ...]]) -> dict[str, float]:
    wall, cpu, copy_wall, copy_cpu = (median(column) for column in zip(*turns, strict=True))
    megapixels = work.frames * work.size_px**2 / 1e6
    return {
        "size_px": work.size_px,
        "frames": work.frames,
        "frames_per_s": round(work.frames / wall, 2),
        "frames_per_cpu_s": round(work.frames / cpu, 2),
        "megapixels_per_cpu_s": round(megapixels / cpu, 1),
        "copy_frames_per_s": round(COPIED / copy_wall, 2),
        "copy_frames_per_cpu_s": round(COPIED / copy_cpu, 2),
    }


def draw_precision(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    _, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    axes.axhspan(*BAND, color="0.92", label=f"accepted by the tests, {BAND[0]}–{BAND[1]}")
    axes.axhline(1, color="0.4", linewidth=1)
    for (name, points), ink in zip(curves.items(), INKS, strict=True):
        axes.errorbar(
            [point["photons"] for point in points],
            [point["ratio"] for point in points],
            yerr=[2 * point["uncertainty"] for point in points],
            color=ink,
            marker="o",
            markersize=4,
            linewidth=1.3,
            label=name,
        )
        lost = [point for point in points if point["kept"] < WHOLE]
        axes.plot(
            [point["photons"] for point in lost],
            [point["ratio"] for point in lost],
            "o",
            color="white",
            markersize=2,
            zorder=5,
        )
    axes.plot(
        [],
        [],
        "o",
        color="0.4",
        markerfacecolor="white",
        markersize=4,
        label=f"less than {WHOLE:.0%} of the fits converged",
    )
    axes.set(
        xscale="log",
        ylim=(0.95, None),
        xlabel="photons of a molecule",
        ylabel="RMSE / Cramér–Rao bound",
        title=f"Precision of a position, {SIDE} × {SIDE} px, sigma 1.3 px (bars: 2 standard errors)",
    )
    axes.set_xticks([100, 1000, 10_000], ["100", "1,000", "10,000"])
    axes.title.set_fontsize(10)
    _finish(axes, path)


def draw_speed(sizes: list[dict[str, float]], path: Path) -> None:
    _, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    size = np.array([point["size_px"] for point in sizes])
    ours = np.array([point["frames_per_cpu_s"] for point in sizes])
    copy = np.array([point["copy_frames_per_cpu_s"] for point in sizes])
    reference = 1 if len(size) > 1 else 0
    axes.plot(
        size,
        ours[reference] * (size[reference] / size) ** 2,
        ":",
        color="0.5",
        label="as many pixels/s as at 256²",
    )
    axes.plot(
        size, copy, "s-", color=INKS[1], markersize=4, linewidth=1.3, label="copying the frames to float32"
    )
    axes.plot(
        size, ours, "o-", color=INKS[0], markersize=5, linewidth=1.6, label="background, detection and fit"
    )
    for x, y in zip(size, ours, strict=True):
        axes.annotate(
            f"{y:,.0f}", (x, y), xytext=(-4, -12), textcoords="offset points", ha="right", fontsize=8
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="side of a frame [px]",
        ylabel="frames per second of one core",
        title="Speed, 20 molecules for each 256 × 256 px, background -30:0, ROI 7 × 7 px",
    )
    axes.set_xticks(size, [str(value) for value in size])
    axes.minorticks_off()
    axes.set_ylim(ours.min() / 3, None)
    axes.set_xlim(size[0] / 1.5, size[-1] * 1.2)
    axes.title.set_fontsize(10)
    _finish(axes, path)


def _finish(axes: Axes, path: Path) -> None:
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    plt.savefig(path, dpi=150, metadata={"Software": None})
    plt.close()


def say(report: dict[str, Any], core: int | None) -> None:
    print(json.dumps({**report, **machine(), "pinned_to_core": core}, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
