"""Break a real cluster for a while, and see what is left: `python -m tests.chaos --minutes 5`.

Everything is drawn from a seed that is printed; processes are no simulation, so the same seed does the same things at
the same moments, but what they meet may differ.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.chaos.cluster import LEASE_S, ChaosCluster
from tests.chaos.load import Load
from tests.chaos.roles import RoleProcess

PATIENCE_S = 240.0


async def storm(cluster: ChaosCluster, chance: Random, counts: Counter[str], seconds: float) -> None:
    """Do something to a role every few seconds; several at once now and then."""
    doing: set[asyncio.Task[None]] = set()
    end = time.monotonic() + seconds
    cluster.calm(False)
    while time.monotonic() < end:
        await asyncio.sleep(chance.uniform(0.3, 4.0))
        kind = chance.choice(["scheduler", "dataserver", "worker", "worker"])
        idle = [role for role in cluster.roles if role.kind == kind and not role.busy]
        if idle:
            doing.add(asyncio.create_task(hurt(chance.choice(idle), chance, counts)))
    cluster.calm(True)
    await asyncio.gather(*doing)


async def hurt(role: RoleProcess, chance: Random, counts: Counter[str]) -> None:
    """Kill a role, or hold it for a while: shorter or longer than a lease."""
    role.busy = True
    try:
        if chance.random() < 0.6:
            counts[f"kill -9 {role.kind}"] += 1
            await role.kill_and_start()
        else:
            counts[f"SIGSTOP {role.kind}"] += 1
            await role.suspend(chance.uniform(0.2, 3 * LEASE_S))
    finally:
        role.busy = False


def summary(seed: int, load: Load, roles: list[RoleProcess], counts: Counter[str], seconds: float) -> str:
    """Return what happened, as a table."""
    lines = [f"seed {seed}, {seconds:.0f} s of faults", "", "faults injected"]
    lines += [f"{count:8d}  {what}" for what, count in sorted(counts.items())]
    lines += [f"{sum(counts.values()):8d}  altogether", "", "kill -9 until it serves again [s]"]
    for kind in ("scheduler", "dataserver", "worker"):
        times = [one for role in roles if role.kind == kind for one in role.recoveries_s]
        if times:
            lines.append(
                f"{kind:>12}  median {statistics.median(times):5.1f}  longest {max(times):5.1f}  of {len(times)}"
            )
    frames = Counter[str]()
    for one in load.ended:
        frames.update(one.frames)
    kinds = Counter(one.what for one in load.ended)
    lines += [
        "",
        f"jobs    {len(load.ended)} ended ({', '.join(f'{count} {what}' for what, count in sorted(kinds.items()))})",
        f"        {sum(one.retried > 0 for one in load.ended)} of them were retried by hand",
        f"frames  {frames['total']}: {frames['localised']} localised, {frames['skipped']} skipped, {frames['failed']} failed",
        f"tables  {sum(one.same_table for one in load.ended)} of {len(load.ended)} are those of an undisturbed run, as far as they go",
        *(f"BROKEN  {what}" for what in load.broken),
    ]
    return "\n".join(lines)


async def chaos(seed: int, seconds: float, workers: int, folder: Path) -> int:
    """Run it; return 0 if nothing is broken."""
    chance, counts = Random(seed), Counter[str]()

    def count(what: str) -> None:
        counts[what] += 1

    async with ChaosCluster(folder, workers, chance, counts) as cluster:
        series = {"short.tif": 60, "middle.tif": 200, "long.tif": 500}
        for number, (path, frames) in enumerate(series.items()):
            await cluster.simulate(path, frames, seed + number)
        load = Load(cluster, Random(seed + 1), count, series)
        await load.note_references()
        print(
            f"undisturbed tables of {len(load.references)} jobs are noted; seed {seed}; now the faults",
            flush=True,
        )
        stop = asyncio.Event()
        working = asyncio.create_task(load.go_on(stop))
        storming = asyncio.create_task(storm(cluster, chance, counts, seconds))
        done, _ = await asyncio.wait([working, storming], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        for task in done:
            task.result()
        try:
            await asyncio.wait_for(working, PATIENCE_S)
        except TimeoutError:
            load.broken.append(f"jobs had not ended {PATIENCE_S:.0f} s after the last fault")
        print(summary(seed, load, cluster.roles, counts, seconds), flush=True)
    return 1 if load.broken or not load.ended else 0


def main() -> int:
    """Return the exit status: 0 if every table is that of an undisturbed run."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="for how long things go wrong")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    parser.add_argument("--keep", type=Path, help="work in this new folder and leave it, with the logs")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    if asked.keep is not None:
        return asyncio.run(chaos(asked.seed, 60 * asked.minutes, asked.workers, asked.keep))
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(chaos(asked.seed, 60 * asked.minutes, asked.workers, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
