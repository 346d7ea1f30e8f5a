"""A scheduler, frames and time that tests hold in their hands."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from cluster.arrays import FrameRange, TaskResult, decode_result
from cluster.backoff import Pace
from cluster.errors import ClusterError
from cluster.protocol import (
    Committed,
    HeldTask,
    JobSpec,
    KeptAlive,
    Lease,
    TaskFailure,
    Versions,
    WorkerRegistered,
    WorkerRegistration,
)
from cluster.worker.loop import Loop
from cluster.worker.session import Session
from fitting.localisations import LAT_GAUSS_DTYPE

CLUSTER = "c1"
FRAMES = 1000


class FakeTime:
    """A clock that moves only when a test lets it; sleepers wake in their order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        future = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, future))
        await future

    def step(self) -> None:
        """Move to the moment at which the next sleeper wakes."""
        self._sleepers = [(at, future) for at, future in self._sleepers if not future.done()]
        if self._sleepers:
            at, future = min(self._sleepers, key=lambda sleeper: sleeper[0])
            self.now = max(self.now, at)
            future.set_result(None)

    async def until(self, condition: Callable[[], bool], *, moving: bool = True) -> None:
        """Let the loop, and the clock with it, run until a condition holds; fails after 10 real seconds."""
        async with asyncio.timeout(10):
            while not condition():
                if moving:
                    self.step()
                await asyncio.sleep(0.001)


class FakeScheduler:
    """Keeps the protocol's promises in a few lines, and breaks them where a test says so."""

    def __init__(self, tasks: list[Lease]) -> None:
        self.waiting = deque(tasks)
        self.registrations: list[WorkerRegistration] = []
        self.reply = WorkerRegistered(
            worker_id="w1", cluster_id=CLUSTER, epoch=1, lease_s=30, keep_alive_s=10
        )
        self.faults: dict[str, deque[ClusterError]] = {}
        self.calls: list[str] = []
        self.committed: list[tuple[str, Lease, TaskResult]] = []
        self.failed: list[tuple[Lease, TaskFailure]] = []
        self.kept_alive: list[list[HeldTask]] = []
        self.lost: list[HeldTask] = []
        self.drain = False
        self.left: list[str] = []
        self.urls: list[str] = []
        self.known = {"w1"}
        self.spec_of: Callable[[str], JobSpec] = spec

    def fault(self, method: str, *errors: ClusterError) -> None:
        """Let the next calls of a method fail with these."""
        self.faults.setdefault(method, deque()).extend(errors)

    def _enter(self, method: str) -> None:
        self.calls.append(method)
        if self.faults.get(method):
            raise self.faults[method].popleft()

    async def register(self, registration: WorkerRegistration) -> WorkerRegistered:
        self._enter("register")
        self.registrations.append(registration)
        return self.reply

    async def lease(self, worker_id: str, count: int, wait_s: float) -> list[Lease]:
        self._enter("lease")
        async with asyncio.timeout(10):
            while not self.waiting:  # noqa: ASYNC110 -- a test appends to it
                await asyncio.sleep(0.001)
        return self._grant(count)

    async def spec(self, job_id: str) -> JobSpec:
        self._enter("spec")
        return self.spec_of(job_id)

    async def keep_alive(self, worker_id: str, held: list[HeldTask]) -> KeptAlive:
        self._enter("keep_alive")
        self.kept_alive.append(held)
        return KeptAlive(lost=self.lost, drain=self.drain)

    async def commit(self, worker_id: str, lease: Lease, body: bytes, count: int) -> Committed:
        self._enter("commit")
        self.committed.append((worker_id, lease, decode_result(body)))
        return Committed(outcome="committed", next=self._grant(count))

    async def fail(self, worker_id: str, lease: Lease, failure: TaskFailure) -> None:
        self._enter("fail")
        self.failed.append((lease, failure))

    async def goodbye(self, worker_id: str) -> None:
        self._enter("goodbye")
        self.left.append(worker_id)

    async def move(self, url: str) -> None:
        self.urls.append(url)

    def _grant(self, count: int) -> list[Lease]:
        return [self.waiting.popleft() for _ in range(min(count, len(self.waiting)))]


@dataclass
class FakeFrames:
    """Frames whose pixels are their numbers."""

    asked: list[tuple[int, int]] = field(default_factory=list)
    errors: deque[Exception] = field(default_factory=deque)

    async def range(self, spec: JobSpec, start: int, stop: int) -> FrameRange:
        self.asked.append((start, stop))
        if self.errors:
            raise self.errors.popleft()
        return frame_range(start, stop)

    async def maps(self, spec: JobSpec) -> dict[str, np.ndarray[Any, Any]]:
        return {}


class FakeFit:
    """Gives one row a frame; can be made to wait, or to fail."""

    def __init__(self) -> None:
        self.began: list[tuple[int, int]] = []
        self.errors: deque[Exception] = deque()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, spec: JobSpec, start: int, stop: int, frames: FrameRange, maps: Any) -> TaskResult:
        self.began.append((start, stop))
        assert self.gate.wait(10)
        if self.errors:
            raise self.errors.popleft()
        rows = np.zeros(stop - start, LAT_GAUSS_DTYPE)
        rows["tIndex"] = np.arange(start, stop)
        return TaskResult(start=start, stop=stop, rows=rows, frame_status=np.ones(stop - start, np.uint8))


def frame_range(start: int, stop: int, missing: tuple[int, ...] = ()) -> FrameRange:
    numbers = np.arange(start, stop, dtype=np.uint16)
    return FrameRange(start, np.broadcast_to(numbers[:, None, None], (stop - start, 4, 5)).copy(), missing)


def spec(job_id: str = "j1", **changes: Any) -> JobSpec:
    values: dict[str, Any] = {
        "job_id": job_id,
        "kind": "localise",
        "series": "cells/a b.tif",
        "fingerprint": "f1",
        "height": 4,
        "width": 5,
        "dtype": "uint16",
        "frames": FRAMES,
        "missing": [],
        "fit": "LatGaussFitFR",
        "analysis": {"background": "-10:0", "background_percentile": None},
        "metadata": {"voxelsize.x": 0.1, "voxelsize.y": 0.1},
        "dataservers": [],
    }
    return JobSpec.model_validate(values | changes)


def lease(number: int, *, attempt: int = 1, frames: int = 10, job_id: str = "j1") -> Lease:
    start = number * frames
    return Lease(
        job_id=job_id, task_id=number, attempt=attempt, start=start, stop=start + frames, lease_s=30.0
    )


@dataclass
class Rig:
    """A loop and everything around it."""

    time: FakeTime
    scheduler: FakeScheduler
    frames: FakeFrames
    fit: FakeFit
    loop: Loop
    session: Session
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.session.begin()
        self.running = asyncio.create_task(self.loop.run(self.stop))

    async def finish(self) -> None:
        """Stop, and wait for the worker to leave."""
        assert self.running is not None
        self.stop.set()
        running = self.running
        await self.time.until(running.done)
        running.result()


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def pace(fake_time: FakeTime) -> Pace:
    return Pace(clock=fake_time.clock, sleep=fake_time.sleep, rng=random.Random(7))


@pytest.fixture
def registration() -> WorkerRegistration:
    versions = Versions(clusterofone="1", numpy="2", numba="0.6", python="3.11")
    return WorkerRegistration(
        machine="m1",
        host="lab",
        pid=1,
        cores=1,
        protocol=1,
        versions=versions,
        cpu="zen",
        fits=["LatGaussFitFR"],
    )


@pytest.fixture
def make_lease() -> Callable[..., Lease]:
    return lease


@pytest.fixture
def make_spec() -> Callable[..., JobSpec]:
    return spec


@pytest.fixture
def make_frames() -> Callable[..., FrameRange]:
    return frame_range


@pytest.fixture
def make_rig(fake_time: FakeTime, pace: Pace, registration: WorkerRegistration) -> Callable[..., Rig]:
    def make(tasks: list[Lease], *, moved_to: str | None = None, drain_s: float = 5.0) -> Rig:
        scheduler, frames, fit = FakeScheduler(tasks), FakeFrames(), FakeFit()

        async def relocate() -> str | None:
            return moved_to

        session = Session(scheduler, registration, cluster_id=CLUSTER, relocate=relocate, pace=pace)
        loop = Loop(session, frames, fit, pace=pace, drain_s=drain_s)
        return Rig(fake_time, scheduler, frames, fit, loop, session)

    return make
