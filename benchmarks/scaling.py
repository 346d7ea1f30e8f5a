"""How far does a cluster go: what follows a 2048² camera at 100 frames/s, and what saturates first?

    python benchmarks/scaling.py [--mpx-s 319] [--scheduler-ms 1.4] [--server-mb-s 1000] [--ratio 2.4] [--picture PNG] [--quick]

A simulation with measured figures (the defaults; docs/scaling.md says which script gave each): nodes of eight cores, each core
fits one task while it fetches the next; every lease and commit takes the one scheduler its milliseconds; every byte passes
through a data server's processor and link, and the node's own link. The series lie on one data server, or on one for ten nodes. Tasks are as long as the scheduler cuts them; the frames
that their background needs are fetched once for as many neighbouring tasks as it gives to one worker. Prints one JSON line: frames/s by cores and link, and what was busiest.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.scheduler.core import Rules

_CORES_A_NODE = 8
_CONTEXT_FRAMES = 30
_CAMERA_FRAMES_S = 100
_LINKS = {
    "1 GbE": 118.0,
    "10 GbE": 1180.0,
    "100 GbE": 11_800.0,
}  # MB/s after Ethernet, IP and TCP took theirs
_LINES = {"1 GbE": "o-", "10 GbE": "s-", "100 GbE": "x--"}
_SIDES = (256, 2048)
_SERVERS = {
    "one data server": lambda _: 1,
    "one for 10 nodes": lambda cores: math.ceil(cores / _CORES_A_NODE / 10),
}


@dataclass(frozen=True)
class Figures:
    """What was measured: of a core, the scheduler, the data server, and the codec."""

    mpx_s: float
    scheduler_ms: float
    server_mb_s: float
    ratio: float


class Resource:
    """Serves one after the other."""

    def __init__(self) -> None:
        self.free = self.busy = 0.0

    def serve(self, at: float, seconds: float) -> float:
        """Return when something that comes at a time has been served."""
        self.free = max(self.free, at) + seconds
        self.busy += seconds
        return self.free


def task_frames(side: int, figures: Figures) -> int:
    """Return how many frames a task has, by the scheduler's rules."""
    rules, frame_s = Rules(), side * side / figures.mpx_s / 1e6
    return int(min(rules.task_s / frame_s, rules.largest_task_bytes / (2 * side * side)))


def fetched_frames(frames: int) -> float:
    """Return how many frames a task of so many brings, with its part of the context of its run."""
    return frames + _CONTEXT_FRAMES / Rules().wanted_run(_CONTEXT_FRAMES, frames)


def run(
    side: int, cores_there: int, servers: int, link_mb_s: float, figures: Figures, rounds: int
) -> dict[str, Any]:
    """Let each core do so many tasks."""
    frames = task_frames(side, figures)
    task_s = frames * side * side / figures.mpx_s / 1e6
    raw_mb = fetched_frames(frames) * 2 * side * side / 1e6
    wire_mb = raw_mb / figures.ratio
    scheduler = Resource()
    processors, uplinks = [Resource() for _ in range(servers)], [Resource() for _ in range(servers)]
    links = [Resource() for _ in range(math.ceil(cores_there / _CORES_A_NODE))]
    cores = [Resource() for _ in range(cores_there)]
    waiting = [(0.0, core) for core in range(len(cores))]
    for _ in range(rounds * len(cores)):
        now, core = heapq.heappop(waiting)
        leased = scheduler.serve(now, figures.scheduler_ms / 1e3)
        at = core // _CORES_A_NODE % servers
        sent = uplinks[at].serve(
            processors[at].serve(leased, wire_mb / figures.server_mb_s), wire_mb / link_mb_s
        )
        node = links[core // _CORES_A_NODE]
        there = max(sent, node.serve(leased, wire_mb / link_mb_s))
        done = cores[core].serve(there, task_s)
        heapq.heappush(waiting, (done - task_s, core))  # the next is fetched while this one is fitted
    took = max(core.free for core in cores)
    busy = {"scheduler": scheduler.busy, "data server": _mean(processors), "its link": _mean(uplinks)}
    busy |= {"cores": _mean(cores)}
    return {
        "frames_per_s": round(rounds * len(cores) * frames / took, 1),
        "busiest": max(busy, key=lambda name: busy[name]),
        "busy": {name: round(seconds / took, 2) for name, seconds in busy.items()},
    }


def _mean(resources: list[Resource]) -> float:
    return sum(one.busy for one in resources) / len(resources)


def needs(figures: Figures) -> dict[str, float]:
    """Return what a 2048² camera at 100 frames/s takes."""
    side, frames = 2048, task_frames(2048, figures)
    raw = _CAMERA_FRAMES_S * 2 * side * side / 1e6
    fetched = raw * fetched_frames(frames) / frames
    return {
        "camera_mb_s": round(raw, 1),
        "cores": round(_CAMERA_FRAMES_S * side * side / 1e6 / figures.mpx_s, 2),
        "task_frames": frames,
        "fetched_mb_s": round(fetched, 1),
        "on_the_wire_mb_s": round(fetched / figures.ratio, 1),
        "data_server_cores": round(fetched / figures.ratio / figures.server_mb_s, 2),
        "scheduler_busy": round(_CAMERA_FRAMES_S / frames * figures.scheduler_ms / 1e3, 4),
        **{f"links_{name}": round(fetched / figures.ratio / mb_s, 2) for name, mb_s in _LINKS.items()},
    }


def main() -> None:
    options = _options()
    figures = Figures(options.mpx_s, options.scheduler_ms, options.server_mb_s, options.ratio)
    cores = [1, 8] if options.quick else [1, 2, 4, 8, 24, 80, 240, 800, 2400, 8000]
    rounds = 2 if options.quick else 12
    found = {
        f"{side}², {where}": {
            name: {n: run(side, n, servers(n), mb_s, figures, rounds) for n in cores}
            for name, mb_s in _LINKS.items()
        }
        for side in _SIDES
        for where, servers in _SERVERS.items()
    }
    if options.picture:
        _draw(found, options.picture)
    print(
        json.dumps(
            {"benchmark": "scaling", "figures": vars(figures), "camera": needs(figures), "simulated": found}
        )
    )


def _draw(found: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    for axes, (side, links) in zip(figure.subplots(2, 2).flat, found.items(), strict=True):
        for name, cases in links.items():
            rates = [case["frames_per_s"] for case in cases.values()]
            axes.plot(list(cases), rates, _LINES[name], markersize=4, label=name)
            axes.annotate(
                cases[max(cases)]["busiest"],
                (max(cases), rates[-1]),
                fontsize=7,
                textcoords="offset points",
                xytext=(0, 5),
                ha="right",
            )
        if side.startswith("2048"):
            axes.axhline(_CAMERA_FRAMES_S, color="0.5", linestyle="--", linewidth=1, label="camera")
        axes.set(xscale="log", yscale="log", xlabel="cores, 8 a node", ylabel="frames/s")
        axes.set_title(f"{side} (at the end: what is busiest)", fontsize=10)
        axes.set_ylim(
            top=4 * max(case["frames_per_s"] for cases in links.values() for case in cases.values())
        )
        axes.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=130)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mpx-s", type=float, default=267.0, help="Mpx/s a core (pipeline_rate.py, 2048²)")
    parser.add_argument(
        "--scheduler-ms", type=float, default=3.4, help="of a task and its keep-alive (task_rate.py)"
    )
    parser.add_argument(
        "--server-mb-s", type=float, default=1800.0, help="that a data server sends, asked once (beside.py)"
    )
    parser.add_argument("--ratio", type=float, default=2.4, help="of lz4 with bitshuffle")
    parser.add_argument("--picture", type=Path, help="draw frames/s against nodes")
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    return parser.parse_args()


if __name__ == "__main__":
    main()
