"""What each role holds, over time, and whether it keeps growing: memory, descriptors, threads, the scheduler's files."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import psutil

from tests.chaos.roles import RoleProcess

MEGABYTE = 1e6


@dataclass(frozen=True)
class Sample:
    """One look: at what time [s], after how many jobs, how much."""

    at_s: float
    jobs: int
    value: float


@dataclass(frozen=True)
class Allowed:
    """By how much a quantity may rise: in an hour, and with each job that the scheduler remembers."""

    an_hour: float
    a_job: float
    unit: float
    name: str


# A job stays known until somebody removes the cluster: what lists show of it and the bounds of its tasks in memory, some 3 kB
# (tests/http/scheduler/test_memory.py), its whole sheet in the journal. Nothing else may grow. Memory that an allocator holds on to moves by some megabytes.
RULES = {
    "rss": Allowed(12 * MEGABYTE, 10e3, MEGABYTE, "MB"),
    "descriptors": Allowed(4, 0.0, 1, ""),
    "threads": Allowed(4, 0.0, 1, ""),
    "journal": Allowed(1 * MEGABYTE, 25e3, MEGABYTE, "MB"),
    "results": Allowed(1 * MEGABYTE, 0.0, MEGABYTE, "MB"),
}


@dataclass(frozen=True)
class Trend:
    """How a quantity of a role went: at first, at the end, the most, and the slope of the second half."""

    role: str
    what: str
    first: float
    last: float
    most: float
    an_hour: float
    jobs_an_hour: float

    @property
    def allowed_an_hour(self) -> float:
        """Return by how much it may rise in an hour."""
        rule = RULES[self.what]
        return rule.an_hour + rule.a_job * self.jobs_an_hour

    def grows(self, hours: float) -> bool:
        """Return whether it rose by more than an hour may bring: a short run is held to the rise, not to the slope."""
        return self.an_hour * max(hours, 0.0) > self.allowed_an_hour * max(hours, 1.0 / 6)

    def line(self, hours: float) -> str:
        """Return it as a line of the table."""
        rule = RULES[self.what]
        numbers = (self.first, self.last, self.most, self.an_hour, self.allowed_an_hour)
        shown = " ".join(f"{number / rule.unit:10.2f}" for number in numbers)
        return (
            f"{self.role:>12} {self.what:>12} {shown} {rule.name:3}{'  GROWS' if self.grows(hours) else ''}"
        )


@dataclass
class Samples:
    """Everything seen."""

    state: Path
    seen: defaultdict[tuple[str, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))

    def look(self, roles: Iterable[RoleProcess], at_s: float, jobs: int) -> None:
        """Note what every role holds now, its own processes included."""
        numbers: defaultdict[str, int] = defaultdict(int)
        for role in roles:
            numbers[role.kind] += 1
            name = role.kind if role.kind != "worker" else f"worker {numbers[role.kind]}"
            self._look_at(name, role.pid, at_s, jobs)
        journal = sum(self._size(self.state / f"journal.sqlite{suffix}") for suffix in ("", "-wal"))
        self.note("scheduler", "journal", at_s, jobs, journal)
        files = [path for path in (self.state / "results").rglob("*") if path.is_file()]
        self.note("scheduler", "results", at_s, jobs, sum(map(self._size, files)))

    def trends(self) -> list[Trend]:
        """Return how everything went."""
        return [self._trend(role, what, seen) for (role, what), seen in sorted(self.seen.items())]

    def _look_at(self, name: str, pid: int, at_s: float, jobs: int) -> None:
        process = psutil.Process(pid)
        both = [process, *process.children(recursive=True)]
        totals = {"rss": 0, "descriptors": 0, "threads": 0}
        for one in both:
            try:
                totals["rss"] += one.memory_info().rss
                totals["descriptors"] += one.num_fds() if hasattr(one, "num_fds") else one.num_handles()
                totals["threads"] += one.num_threads()
            except psutil.NoSuchProcess:  # a child that ended meanwhile
                continue
        for what, value in totals.items():
            self.note(name, what, at_s, jobs, value)

    def note(self, role: str, what: str, at_s: float, jobs: int, value: float) -> None:
        """Note one quantity of one role."""
        self.seen[role, what].append(Sample(at_s, jobs, value))

    def _size(self, file: Path) -> int:
        try:
            return file.stat().st_size
        except OSError:
            return 0

    def _trend(self, role: str, what: str, seen: Sequence[Sample]) -> Trend:
        settled = seen[len(seen) // 2 :]
        hours = max((settled[-1].at_s - settled[0].at_s) / 3600, 1e-9)
        return Trend(
            role,
            what,
            first=seen[0].value,
            last=seen[-1].value,
            most=max(sample.value for sample in seen),
            an_hour=slope(settled) * 3600,
            jobs_an_hour=(settled[-1].jobs - settled[0].jobs) / hours,
        )


def slope(samples: Sequence[Sample]) -> float:
    """Return the rise in a second: the median of the slopes between all pairs (Theil-Sen), which no single peak moves."""
    rises = [
        (late.value - early.value) / (late.at_s - early.at_s)
        for early, late in combinations(samples, 2)
        if late.at_s > early.at_s
    ]
    return statistics.median(rises) if rises else 0.0
