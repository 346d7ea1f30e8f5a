"""How many frames a second do so many workers localise: measured on this machine, simulated beyond it?

    python benchmarks/workers_rate.py [--workers 1 2 4] [--simulated 8 80 800] [--frames 20000] [--repeats 1] [--picture PNG] [--quick]

Measured: `cluster_rate.py` with each number of workers, on 256² frames (more workers than cores share them). Simulated: the model of
`scaling.py`, nodes of eight cores with 10 GbE and a data server for ten of them, each core as fast as the one worker that was measured here.
Prints one JSON line, and draws the two apart.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from scaling import Figures, run
from surroundings import surroundings

_SIDE, _CORES_OF_A_SERVER, _LINK_MB_S = 256, 80, 1180.0


def main() -> None:
    options = _options()
    measured = {n: _measured(n, options) for n in options.workers}
    one = measured[min(measured)]["cluster_frames_per_s"] / min(measured)
    figures = Figures(one * _SIDE * _SIDE / 1e6, options.scheduler_ms, options.server_mb_s, ratio=2.4)
    simulated = {
        n: run(_SIDE, n, math.ceil(n / _CORES_OF_A_SERVER), _LINK_MB_S, figures, 12)
        for n in options.simulated
    }
    if options.picture is not None:
        _draw(measured, simulated, options.picture)
    print(
        json.dumps(
            {"benchmark": "workers_rate", "cores": os.cpu_count(), "measured": measured}
            | {"figures": vars(figures), "simulated": simulated}
            | surroundings()
        )
    )


def _measured(workers: int, options: argparse.Namespace) -> dict[str, float]:
    script = Path(__file__).with_name("cluster_rate.py")
    settings = {"--workers": workers, "--frames": options.frames, "--repeats": options.repeats}
    words = [str(word) for pair in settings.items() for word in pair]
    done = subprocess.run(
        [sys.executable, str(script), *words], check=True, stdout=subprocess.PIPE, text=True
    )
    line = json.loads(done.stdout)
    return {key: line[key] for key in ("cluster_frames_per_s", "engine_frames_per_s", "efficiency")}


def _draw(measured: dict[int, dict[str, float]], simulated: dict[int, dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    real = [case["cluster_frames_per_s"] for case in measured.values()]
    engine = [case["engine_frames_per_s"] for case in measured.values()]
    axes.plot(list(measured), engine, "s:", color="0.5", label="measured: as many engines, frames in memory")
    axes.plot(list(measured), real, "o-", label=f"measured: cluster on {os.cpu_count()} cores")
    axes.plot(
        list(simulated),
        [case["frames_per_s"] for case in simulated.values()],
        "x--",
        label="simulated: nodes of 8 cores, 10 GbE",
    )
    for workers, case in simulated.items():
        axes.annotate(
            case["busiest"], (workers, case["frames_per_s"]), fontsize=7, xytext=(0, -12), ha="center",
            textcoords="offset points",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="frames/s of 256²")
    axes.set_title("Under the crosses: what is busiest there", fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--simulated", type=int, nargs="+", default=[8, 80, 800, 8000])
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--scheduler-ms", type=float, default=1.4, help="of a task (task_rate.py)")
    parser.add_argument("--server-mb-s", type=float, default=1000.0, help="of a data server (beside.py)")
    parser.add_argument("--picture", type=Path, help="draw frames/s against workers")
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    options = parser.parse_args()
    if options.quick:
        options.workers, options.simulated, options.frames = [1], [8], 2000
    return options


if __name__ == "__main__":
    main()
