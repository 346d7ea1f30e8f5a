"""Workers of the simulation: the real loop and session, over the simulated network, with a fit that takes virtual time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.arrays import FrameRange, TaskResult
from cluster.backoff import Backoff, Pace
from cluster.errors import Unavailable
from cluster.protocol import (
    Committed,
    HeldTask,
    JobSpec,
    KeepAlive,
    KeptAlive,
    Lease,
    LeaseRequest,
    TaskFailure,
    Versions,
    WorkerRegistered,
    WorkerRegistration,
)
from cluster.worker.loop import Loop
from cluster.worker.session import Dismissed, Session
from tests.simulation.series import localised
from tests.simulation.virtual_time import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")
VERSIONS = Versions(clusterofone="0.1.0", numpy="2.0.0", numba="0.61.0", python="3.11.4")
FITS = ["LatGaussFitFR"]
CLUSTER_ID = "c1"


@dataclass(frozen=True)
class Temper:
    """What is wrong with a worker: how often its fit fails, and how much slower than others it is."""

    fails: float = 0.0
    slowness: float = 1.0


class FitThread:
    """Stands in for the worker's fitting thread: the work takes virtual time, also while the worker is stopped."""

    def __init__(self, _name: str) -> None:
        self.seconds: Callable[[], float] = lambda: 0.0

    async def call(self, function: Callable[[], T]) -> T:
        await asyncio.sleep(self.seconds())
        return function()

    def close(self) -> None:
        """Nothing runs."""


class SimulatedWorker:
    """A worker process: started, stopped, killed."""

    def __init__(self, world: World, name: str, temper: Temper) -> None:
        self.process = Process(name)
        self.temper = temper
        self._world = world
        self._chance = Random(world.chance.random())
        self._stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        pace = Pace(clock=loop.time, rng=self._chance)
        card = WorkerRegistration(
            machine="m", host=name, pid=7, cores=8, protocol=1, versions=VERSIONS, cpu="skylake", fits=FITS
        )
        session = Session(
            Routes(world, self._chance), card, cluster_id=CLUSTER_ID, relocate=_nowhere, pace=pace,
            backoff=Backoff(first_s=0.25, longest_s=3.0, total_s=float("inf")),
        )  # fmt: skip
        self._session = session
        self._loop = Loop(session, self, self._localise, pace=pace)
        thread: Any = self._loop._thread
        thread.seconds = self._seconds
        self.process.spawn(self._run())

    async def _run(self) -> None:
        try:
            await self._session.begin()
            await self._loop.run(self._stop)
        except Dismissed:
            self._world.count("dismissed")
        finally:
            self.process.alive = False

    def drain(self) -> None:
        """SIGTERM."""
        self._stop.set()

    def _seconds(self) -> float:
        loop = asyncio.get_running_loop()
        stopped_s = max(0.0, self.process.stopped_until - loop.time())
        return stopped_s + self._chance.uniform(0.02, 0.3) * self.temper.slowness

    async def range(self, spec: JobSpec, start: int, stop: int) -> FrameRange:
        """Return frames, unless this worker cannot reach the data server."""
        await asyncio.sleep(self._chance.uniform(0.0, 0.02))
        if self.process.name in self._world.without_data:
            raise Unavailable("no data server of the series answers")
        return FrameRange(start, self._world.series[spec.series].pixels(start, stop))

    async def maps(self, spec: JobSpec) -> dict[str, Any]:
        """No job here names a camera map."""
        return {}

    def _localise(self, spec: JobSpec, start: int, stop: int, frames: FrameRange, _maps: Any) -> TaskResult:
        poison = self._world.series[spec.series].poison
        if poison is not None and start <= poison < stop:
            raise RuntimeError("poison")
        if self._chance.random() < self.temper.fails:
            raise RuntimeError("this machine is broken")
        return localised(frames, start, stop)


class Routes:
    """The scheduler's routes as this worker reaches them."""

    def __init__(self, world: World, chance: Random) -> None:
        self._world = world
        self._chance = chance

    @property
    def _desk(self) -> Any:
        return self._world.service.workers

    async def register(self, registration: WorkerRegistration) -> WorkerRegistered:
        return await self._call(lambda: self._desk.register(registration), 10.0)

    async def lease(self, worker_id: str, count: int, wait_s: float) -> list[Lease]:
        asked, given_up = LeaseRequest(count=count, wait_s=wait_s), asyncio.Event()

        async def absent() -> bool:
            return given_up.is_set()

        async def served() -> list[Lease]:
            leases = (await self._desk.lease(worker_id, asked, absent)).leases
            self._world.granted(leases)
            return list(leases)

        try:
            return await self._call(served, wait_s + 10.0)
        finally:
            given_up.set()

    async def spec(self, job_id: str) -> JobSpec:
        return await self._call(lambda: self._world.service.spec(job_id), 10.0)

    async def keep_alive(self, worker_id: str, held: list[HeldTask]) -> KeptAlive:
        return await self._call(lambda: self._desk.keep_alive(worker_id, KeepAlive(held=held)), 10.0)

    async def commit(self, worker_id: str, lease: Lease, body: bytes, count: int) -> Committed:
        sha256 = hashlib.sha256(body).hexdigest()
        task = (lease.job_id, lease.task_id, lease.attempt)

        async def served() -> Committed:
            arrived = body
            if self._chance.random() < self._world.network.weather.damaged:
                self._world.count("damaged")
                arrived = body[:-1] + bytes([body[-1] ^ 1])
            said: Committed = await self._desk.commit(worker_id, *task, arrived, sha256, count)
            self._world.acknowledged_commit(*task, sha256)
            self._world.granted(said.next)
            return said

        return await self._call(served, 60.0)

    async def fail(self, worker_id: str, lease: Lease, failure: TaskFailure) -> None:
        await self._call(lambda: self._desk.fail(worker_id, lease.job_id, lease.task_id, failure), 10.0)

    async def goodbye(self, worker_id: str) -> None:
        await self._call(lambda: self._desk.leave(worker_id), 2.0)

    async def move(self, url: str) -> None:
        raise AssertionError(url)

    async def _call(self, handler: Callable[[], Any], timeout_s: float) -> Any:
        async def served() -> Any:
            said = await handler()
            self._world.check()
            return said

        return await self._world.network.call(served, timeout_s)


async def _nowhere() -> None:
    return None
