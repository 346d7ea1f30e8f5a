"""Use a real cluster for an hour and see whether it grows: `python -m tests.soak --minutes 60`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.chaos.cluster import NAME, ChaosCluster
from tests.soak.load import Day
from tests.soak.samples import Samples, Trend

PATIENCE_S = 240.0
WARM_UP_S = 20.0


def summary(day: Day, trends: list[Trend], seconds: float) -> str:
    """Return what happened, as a table."""
    kinds = ", ".join(f"{count} {what}" for what, count in sorted(day.ended.items()))
    head = f"{'':>12} {'':>12} {'first':>10} {'last':>10} {'most':>10} {'rise/h':>10} {'allowed':>10}"
    lines = [f"{seconds / 60:.1f} minutes, {day.jobs} jobs; {kinds}", "", head]
    lines += [trend.line(seconds / 3600) for trend in trends]
    return "\n".join([*lines, "", *(f"BROKEN  {what}" for what in day.broken)])


async def soak(seed: int, seconds: float, workers: int, folder: Path, every_s: float) -> int:
    """Run it; return 0 if nothing grows and nothing is broken."""
    async with ChaosCluster(folder, workers, Random(seed), Counter[str]()) as cluster:
        series = {"short.tif": 60, "middle.tif": 200, "long.tif": 500}
        for number, (path, frames) in enumerate(series.items()):
            await cluster.simulate(path, frames, seed + number)
        day, stop = Day(cluster, Random(seed), tuple(series)), asyncio.Event()
        working = asyncio.create_task(day.go_on(stop))
        samples = Samples(folder / "home" / "state" / "clusters" / NAME)
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds and not working.done():
            if now >= min(WARM_UP_S, seconds / 4):
                await asyncio.to_thread(samples.look, cluster.roles, now, day.jobs)
            await asyncio.wait([working], timeout=every_s)
        stop.set()
        try:
            await asyncio.wait_for(working, PATIENCE_S)
        except TimeoutError:
            day.broken.append(f"jobs had not ended {PATIENCE_S:.0f} s after the last was submitted")
        await asyncio.to_thread(samples.look, cluster.roles, time.monotonic() - began, day.jobs)
    trends = samples.trends()
    print(summary(day, trends, seconds), flush=True)
    return 1 if day.broken or not day.ended or any(trend.grows(seconds / 3600) for trend in trends) else 0


def main() -> int:
    """Return the exit status: 0 if nothing grows."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="for how long it is used")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every-s", type=float, default=5.0, help="how often to look at it [s]")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    parser.add_argument("--keep", type=Path, help="work in this new folder and leave it, with the logs")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        where = asked.keep or Path(folder)
        return asyncio.run(soak(asked.seed, 60 * asked.minutes, asked.workers, where, asked.every_s))


if __name__ == "__main__":
    sys.exit(main())
