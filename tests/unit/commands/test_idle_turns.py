"""Workers yield to the person at the machine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.commands.idle_turns import work_when_idle
from cluster.idle import idle_s, parse_ioreg, parse_mutter, terminals_s


@dataclass
class FakeCrew:
    fails: str | None = None
    stopped: bool = False

    async def wait(self, stop: asyncio.Event) -> str | None:
        if self.fails is None:
            await stop.wait()
        return self.fails

    async def stop(self) -> None:
        self.stopped = True


@dataclass
class Desk:
    """A computer on which time passes by looking at it; somebody touches it at the moments given."""

    touched: list[float]
    ends: float
    now: float = 0.0
    crews: list[tuple[float, FakeCrew]] = field(default_factory=list)
    fails: str | None = None

    def idle(self) -> float | None:
        return self.now - max([at for at in self.touched if at <= self.now], default=0.0)

    def start(self) -> FakeCrew:
        self.crews.append((self.now, FakeCrew(self.fails)))
        return self.crews[-1][1]

    async def wait(self, stop: asyncio.Event, seconds: float) -> bool:
        await asyncio.sleep(0)
        self.now += seconds
        if self.now >= self.ends:
            stop.set()
        return stop.is_set()

    def run(self, after_s: float = 60.0) -> str | None:
        async def main() -> str | None:
            return await work_when_idle(
                self.start, asyncio.Event(), idle=self.idle, after_s=after_s, wait=self.wait
            )

        return asyncio.run(main())


def test_work_begins_once_nobody_was_there_for_long_enough() -> None:
    desk = Desk(touched=[50.0], ends=200.0)

    desk.run()

    assert [began for began, _ in desk.crews] == [110.0]


def test_somebody_who_comes_back_gets_the_cores_at_once_and_work_begins_again_when_they_leave() -> None:
    desk = Desk(touched=[100.0], ends=300.0)

    desk.run()

    assert [began for began, _ in desk.crews] == [60.0, 160.0]
    assert all(crew.stopped for _, crew in desk.crews)


def test_told_to_stop_it_stops_its_workers() -> None:
    desk = Desk(touched=[], ends=70.0)

    assert desk.run() is None
    assert desk.crews[0][1].stopped


def test_it_never_begins_on_a_computer_that_is_always_in_use() -> None:
    desk = Desk(touched=[float(second) for second in range(0, 400, 10)], ends=300.0)

    desk.run()

    assert desk.crews == []


def test_workers_that_cannot_work_end_it_with_the_reason() -> None:
    desk = Desk(touched=[], ends=1e6, fails="no worker can work: another version")

    assert desk.run() == "no worker can work: another version"


def test_what_the_platforms_say_is_read_in_their_units() -> None:
    assert parse_mutter("(uint64 61250,)\n") == pytest.approx(61.25)
    assert parse_mutter("Error: no such name") is None
    assert parse_ioreg('    | |   "HIDIdleTime" = 2500000000\n') == pytest.approx(2.5)
    assert parse_ioreg("") is None


def test_of_several_terminals_the_one_used_last_counts(tmp_path: Path) -> None:
    import os

    for name, at in (("0", 100.0), ("1", 400.0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (at, at))
    terminals = [tmp_path / "0", tmp_path / "1", tmp_path / "gone"]

    assert terminals_s(460.0, terminals) == pytest.approx(60.0)
    assert terminals_s(460.0, [tmp_path / "gone"]) is None


def test_this_computer_answers_or_says_that_it_cannot() -> None:
    found = idle_s()

    assert found is None or found >= 0.0
