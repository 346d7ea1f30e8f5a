"""Simulate many seeds, or one that failed: `python -m tests.simulation --seeds 10000`, `--seed 4711`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.simulation.world import Broken, Told, run

MEMORY = Path("/dev/shm")


def in_memory() -> str | None:
    """Return a folder that lives in memory, where the system has one."""
    return str(MEMORY) if MEMORY.is_dir() else None


def simulate(seed: int) -> Told:
    """Simulate a seed in a folder of its own."""
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
        return run(seed, Path(folder))


def main() -> int:
    """Return how many seeds broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone")
    asked = parser.parse_args()
    seeds = [asked.seed] if asked.seed is not None else range(asked.first, asked.first + asked.seeds)
    began, counts, broken, frames, virtual_s = time.monotonic(), Counter[str](), [], 0, 0.0
    for number, seed in enumerate(seeds):
        if number and number % 500 == 0:
            print(f"{number} seeds in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        try:
            told = simulate(seed)
        except Broken as error:
            print(error, file=sys.stderr, flush=True)
            broken.append(seed)
            continue
        counts += told.counts
        frames += told.frames
        virtual_s += told.virtual_s
    for what, count in sorted(counts.items()):
        print(f"{count:9d}  {what}")
    print(
        f"{len(seeds)} seeds, {frames} frames, {virtual_s / 3600:.1f} h of virtual time in "
        f"{time.monotonic() - began:.1f} s; broken: {broken or 'none'}"
    )
    return len(broken)


if __name__ == "__main__":
    sys.exit(min(main(), 100))
