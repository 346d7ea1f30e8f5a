"""What goes wrong, and when: drawn from the seed, over by a set time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.network import FAIR, Weather
from tests.simulation.workers import SimulatedWorker, Temper

if TYPE_CHECKING:
    from tests.simulation.world import World

CRASH_POINTS = (
    "begin", "before commit", "committed", "blob begun", "blob half written", "blob written", "blob in place",
    "file begun", "file in place",
)  # fmt: skip


class Storm:
    """Faults at random times; `over` once all is well again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.chance
        self.over = world.calm

    def temper(self) -> Temper:
        """Return what is wrong with the next worker: nothing, mostly."""
        kind = self._chance.random()
        if self._world.calm or kind < 0.75:
            return Temper()
        if kind < 0.85:
            return Temper(fails=0.2)
        return Temper(slowness=60.0) if kind < 0.95 else Temper(fails=1.0)

    async def rage(self) -> None:
        """Let things go wrong until it is over, then mend everything."""
        if self.over:
            return
        loop, scale = asyncio.get_running_loop(), self._world.scale
        faults: list[Callable[[], None]] = [
            self._kill_scheduler, self._kill_scheduler, self._arm, self._arm, self._arm, self._restart_scheduler,
            self._kill_worker, self._kill_worker, self._stop_worker, self._drain_worker, self._hire,
            self._part, self._part, self._bad_weather, self._bad_weather, self._full_disk, self._no_data,
            self._data_server_away, self._step_wall_clock,
        ]  # fmt: skip
        for at_s in sorted(self._chance.uniform(0.0, scale.storm_s) for _ in range(scale.faults)):
            await asyncio.sleep(max(0.0, at_s - loop.time()))
            fault = self._chance.choice(faults)
            name = fault.__name__.strip("_").replace("_", " ")
            self._world.note(name)
            self._world.count(name)
            fault()
        await asyncio.sleep(max(0.0, scale.storm_s - loop.time()))
        self._mend()

    def _mend(self) -> None:
        world = self._world
        world.network.weather = FAIR
        world.network.cut_to.clear()
        world.network.cut_from.clear()
        world.without_data.clear()
        world.source.away = False
        world.full_until = 0.0
        world.armed = None
        self.over = True
        world.note("all is well again")
        for _ in range(2):
            world.hire()

    def _later(self, least_s: float, most_s: float, undo: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(self._chance.uniform(least_s, most_s), undo)

    def _one(self) -> SimulatedWorker:
        return self._chance.choice(self._world.workers)

    def _some(self) -> set[str]:
        names = [worker.process.name for worker in self._world.workers]
        return set(self._chance.sample(names, self._chance.randint(1, len(names))))

    # --- faults ------------------------------------------------------------------------------------------------

    def _kill_scheduler(self) -> None:
        self._world.crash()

    def _restart_scheduler(self) -> None:
        self._world.restart()

    def _arm(self) -> None:
        self._world.armed = self._chance.choice(CRASH_POINTS)

    def _kill_worker(self) -> None:
        self._one().process.kill()
        self._hire()

    def _stop_worker(self) -> None:
        now = asyncio.get_running_loop().time()
        self._one().process.stopped_until = now + self._chance.uniform(0.5, 15.0)

    def _drain_worker(self) -> None:
        self._one().drain()
        self._hire()

    def _hire(self) -> None:
        self._world.hire(self.temper())

    def _part(self) -> None:
        network, some, way = self._world.network, self._some(), self._chance.choice(["to", "from", "both"])
        cut = [network.cut_to] * (way != "from") + [network.cut_from] * (way != "to")
        for names in cut:
            names |= some
        self._later(0.5, 12.0, lambda: [names.difference_update(some) for names in cut] and None)

    def _bad_weather(self) -> None:
        network = self._world.network
        network.weather = Weather(
            delay_s=self._chance.choice([0.002, 0.05, 0.5]),
            lost=self._chance.choice([0.0, 0.02, 0.2]),
            repeated=self._chance.choice([0.0, 0.05, 0.3]),
            damaged=self._chance.choice([0.0, 0.0, 0.1]),
        )
        self._later(1.0, 12.0, lambda: setattr(network, "weather", FAIR))

    def _full_disk(self) -> None:
        self._world.full_until = asyncio.get_running_loop().time() + self._chance.uniform(0.2, 8.0)

    def _no_data(self) -> None:
        some = self._some()
        self._world.without_data |= some
        self._later(0.5, 10.0, lambda: self._world.without_data.difference_update(some))

    def _data_server_away(self) -> None:
        self._world.source.away = True
        self._later(0.5, 8.0, lambda: setattr(self._world.source, "away", False))

    def _step_wall_clock(self) -> None:
        self._world.step_wall_clock(self._chance.choice([-86400.0, -3600.0, 3600.0, 86400.0]))
