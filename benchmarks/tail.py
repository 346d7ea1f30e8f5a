"""What does one slow worker cost at the end of a job?

    python benchmarks/tail.py [--workers 2 5 10 30 100] [--factors 1 2 5 10 30] [--job-s 60] [--picture PNG] [--quick]

The scheduler's core itself, in virtual time: workers that hold two leases, fit one after the other and ask for the next
with each commit, as real ones do; one of them is slower than the rest by a factor. The tail is what the job takes beyond
frames / (sum of all workers' rates), as a part of what it takes. Each case is the worst of three lengths of the job and of
five speeds of its frames. Prints one JSON line.

With `--real SECONDS` also a real cluster, two workers, of which one is stopped nine tenths of the time (not on Windows): how
long, in the job's last part, a worker had nothing to do before the last result was in.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import json
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from cluster.errors import ClusterError
from cluster.scheduler.core import Counts, JobOrder, Rules, Scheduler, TaskLease, WorkerOrder

_FRAME_BYTES = 2 * 256 * 256
_DEPTH = 2  # leases that a worker holds: one is fitted, the next is fetched
_ROUND_TRIP_S = 0.01
_KEEP_ALIVE_S = 10.0
_LENGTHS = (
    0.9,
    0.95,
    1.0,
    1.05,
    1.1,
)  # of the job, so that no lucky division of its frames is taken for a rule
_FRAME_S = (0.0002, 0.001, 0.005, 0.02, 0.1)  # what a frame takes


@dataclass
class _Hand:
    """A simulated worker."""

    name: str
    frame_s: float
    leased: deque[TaskLease] = field(default_factory=deque)
    fitting: TaskLease | None = None


class Simulation:
    """One job and its workers, in virtual time."""

    def __init__(self, rules: Rules, frames: int, frame_s: list[float]) -> None:
        self.core = Scheduler(rules)
        self.now = 0.0
        self.attempts = 0
        self._order = itertools.count()
        self._events: list[tuple[float, int, Any]] = []
        self._hands = [_Hand(f"w{n}", each) for n, each in enumerate(frame_s)]
        for hand in self._hands:
            self.core.register(WorkerOrder(hand.name, frozenset({"fit"})), now=0.0)
        self.core.submit(JobOrder("job", 0, frames, frames, _FRAME_BYTES, "fit"))

    def run(self) -> float:
        """Return how long the job takes."""
        for hand in self._hands:
            self._at(0.0, lambda hand=hand: self._ask(hand))
            self._at(_KEEP_ALIVE_S, lambda hand=hand: self._keep_alive(hand))
        self._at(1.0, self._tick)
        while self.core.job("job").is_open:
            self.now, _, what = heapq.heappop(self._events)
            what()
        return self.now

    def _at(self, after_s: float, what: Any) -> None:
        heapq.heappush(self._events, (self.now + after_s, next(self._order), what))

    def _tick(self) -> None:
        self.core.tick(now=self.now)
        for hand in self._hands:  # a held request for work is looked at again
            if not hand.leased and hand.fitting is None:
                self._ask(hand)
        self._at(1.0, self._tick)

    def _keep_alive(self, hand: _Hand) -> None:
        held = [*hand.leased, *([hand.fitting] if hand.fitting else [])]
        self.core.keep_alive(hand.name, [(x.job_id, x.task_id, x.attempt) for x in held], now=self.now)
        self._at(_KEEP_ALIVE_S, lambda: self._keep_alive(hand))

    def _ask(self, hand: _Hand) -> None:
        wanted = _DEPTH - len(hand.leased) - (hand.fitting is not None)
        given = self.core.lease(hand.name, wanted, now=self.now).value
        self.attempts += len(given)
        hand.leased.extend(given)
        self._begin(hand)

    def _begin(self, hand: _Hand) -> None:
        if hand.fitting is None and hand.leased:
            hand.fitting = lease = hand.leased.popleft()
            self._at((lease.stop - lease.start) * hand.frame_s, lambda: self._fitted(hand, lease))

    def _fitted(self, hand: _Hand, lease: TaskLease) -> None:
        hand.fitting = None
        self._at(_ROUND_TRIP_S, lambda: self._commit(hand, lease))
        self._begin(hand)

    def _commit(self, hand: _Hand, lease: TaskLease) -> None:
        frames = lease.stop - lease.start
        counts = Counts(localised=frames, seconds=frames * hand.frame_s)
        with contextlib.suppress(ClusterError):  # another was faster
            self.core.commit(hand.name, lease.job_id, lease.task_id, lease.attempt, counts, now=self.now)
        if self.core.job("job").is_open:
            self._ask(hand)


def tail(workers: int, factor: float, job_s: float, rules: Rules | None = None) -> dict[str, float]:
    """Return the worst tail and the most work done twice of all lengths and speeds."""
    worst = {"tail": 0.0, "twice": 0.0, "tail_s": 0.0}
    for length, frame_s in itertools.product(_LENGTHS, _FRAME_S):
        paces = [frame_s] * (workers - 1) + [frame_s * factor]
        rate = sum(1 / pace for pace in paces)
        frames = round(length * job_s * rate)
        simulation = Simulation(rules or Rules(), frames, paces)
        took = simulation.run()
        tasks = simulation.core.job("job").tasks
        worst["tail"] = max(worst["tail"], 1 - frames / rate / took)
        worst["tail_s"] = max(worst["tail_s"], took - frames / rate)
        worst["twice"] = max(worst["twice"], simulation.attempts / tasks - 1)
    return {name: round(value, 4) for name, value in worst.items()}


def main() -> None:
    options = _options()
    if options.quick:
        options.workers, options.factors, options.job_s = [2, 5], [1.0, 10.0], 5.0
    found = {
        workers: {factor: tail(workers, factor, options.job_s) for factor in options.factors}
        for workers in options.workers
    }
    if options.picture:
        _draw(found, options.job_s, options.picture)
    real = {"real": _real(5.0 if options.quick else options.real)} if options.real else {}
    print(json.dumps({"benchmark": "tail", "job_s": options.job_s, "by_workers_and_factor": found} | real))


def _real(job_s: float) -> dict[str, float]:
    """Run a job of about so many seconds on a real cluster with a slow worker; its tail is a worker's idle time at the end."""
    from cluster_rate import _DISTINCT, _SETTINGS, _written
    from running_cluster import Cluster
    from workload import Workload, series

    work = Workload(frames=_DISTINCT)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        frames = round(job_s * 2500)
        path = _written(Path(folder) / "data", series(work)[0], frames, work)
        cluster = Cluster(Path(folder), 2)
        with cluster as client, _slowed(cluster.process("worker")):
            began = time.perf_counter()
            job = client.submit(path.name, analysis=_SETTINGS)
            idle_since = None
            while client.job(job.id).frames.localised < frames:
                now = time.perf_counter()
                working = [worker.state == "working" for worker in client.workers()]
                idle_since = None if all(working) or now - began < job_s / 4 else idle_since or now
                time.sleep(0.05)
            took = time.perf_counter() - began
            tail_s = 0.0 if idle_since is None else began + took - idle_since
            by_worker = sorted(worker.frames for worker in client.workers())
            list(client.watch(job.id))
    return {
        "job_s": round(took, 2),
        "tail_s": round(tail_s, 2),
        "tail": round(tail_s / took, 4),
        "slow_did": round(by_worker[0] / sum(by_worker), 3),
    }


@contextlib.contextmanager
def _slowed(process: psutil.Process) -> Iterator[None]:
    """Let a process run for a tenth of the time."""
    ended = threading.Event()

    def hold_up() -> None:
        while not ended.is_set():
            process.suspend()
            ended.wait(0.09)
            process.resume()
            ended.wait(0.01)

    holding = threading.Thread(target=hold_up)
    holding.start()
    try:
        yield
    finally:
        ended.set()
        holding.join()


def _draw(found: dict[int, dict[float, dict[str, float]]], job_s: float, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for workers, cases in found.items():
        axes.plot(
            list(cases), [100 * case["tail"] for case in cases.values()], "o-", label=f"{workers} workers"
        )
    axes.axhline(5, color="0.5", linestyle="--", linewidth=1)
    axes.set(xscale="log", xlabel="one worker is slower by", ylabel="tail [% of the job]", ylim=(0, None))
    axes.set_xticks(
        list(next(iter(found.values()))), [f"{f:g}×" for f in next(iter(found.values()))], minor=False
    )
    axes.minorticks_off()
    axes.set_title(f"A job of {job_s:g} s, worst of 15 cases (dashed: the goal)", fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 5, 10, 30, 100])
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 2.0, 5.0, 10.0, 30.0])
    parser.add_argument("--job-s", type=float, default=60.0)
    parser.add_argument("--real", type=float, metavar="SECONDS", help="also run a job of about this length")
    parser.add_argument("--picture", type=Path, help="draw the tail against the factor")
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    return parser.parse_args()


if __name__ == "__main__":
    main()
