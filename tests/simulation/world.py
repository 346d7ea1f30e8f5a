"""One cluster, one seed: everything that may go wrong goes wrong for a while, then it heals and the books must balance."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np

from cluster.errors import ClusterError, Unavailable
from cluster.protocol import Job, JobRequest, Lease
from cluster.scheduler.core import Rules
from cluster.scheduler.core.phases import Cancelled, Finished
from cluster.scheduler.core.tasks import Done, Failed
from cluster.scheduler.entries import results_by_row
from cluster.scheduler.progress import TERMINAL
from cluster.scheduler.results import Plan, Results
from cluster.scheduler.service import Cluster, Service
from cluster.scheduler.state import Clocks
from cluster.trust import token, verifiers
from fitting.localisations import FrameStatus
from tests.simulation import invariants
from tests.simulation.disk import SimulatedBlobs, SimulatedJournal
from tests.simulation.network import Network
from tests.simulation.series import DescribedSeries, Series, undisturbed
from tests.simulation.storm import Storm
from tests.simulation.virtual_time import Crashed, Process, VirtualLoop, uncaught
from tests.simulation.workers import CLUSTER_ID, VERSIONS, FitThread, SimulatedWorker, Temper

SECRET = bytes(32)
LEASE_S = 4.0
PATIENCE_S = 900.0  # virtual time in which every job must have ended once all is well again


@dataclass(frozen=True)
class Scale:
    """How large a world is, and how long things go wrong in it [s of virtual time]."""

    workers: int
    jobs: int
    frames: int
    storm_s: float
    faults: int


def scale_of(seed: int) -> Scale:
    """Return the size of a seed's world: most are small, one in a hundred has a thousand workers."""
    if seed % 100 == 99:
        return Scale(workers=1000, jobs=3, frames=6000, storm_s=12.0, faults=12)
    chance = Random(f"scale {seed}")
    return Scale(
        chance.randint(2, 9), chance.randint(1, 3), chance.randint(1, 400), 25.0, chance.randint(3, 14)
    )


@dataclass(frozen=True)
class Table:
    """A result file of the simulation: rows, what became of each frame, and how often each was settled."""

    job_id: str
    rows: bytes
    status: bytes
    settled: bytes


@dataclass
class Told:
    """What one run tells: counts of what happened, and a digest that the same seed always gives."""

    seed: int
    counts: Counter[str]
    frames: int
    jobs: int
    virtual_s: float
    digest: str


class Broken(AssertionError):
    """A promise was broken; says the seed, how to see it again, and what happened last."""


class World:
    """The simulation of one seed. `folder` holds the journals; it should be in memory."""

    def __init__(self, seed: int, folder: Path, scale: Scale | None = None, *, calm: bool = False) -> None:
        self.seed = seed
        self.scale = scale or scale_of(seed)
        self.chance = Random(seed)
        self.calm = calm
        self.counts: Counter[str] = Counter()
        self.trace: list[str] = []
        self.workers: list[SimulatedWorker] = []
        self.without_data: set[str] = set()
        self.full_until = 0.0
        self.armed: str | None = None  # the point of a write at which the scheduler dies next
        self.tables: dict[str, Table] = {}
        self.series: dict[str, Series] = {}
        self.people: dict[str, str] = {}  # job → series, of the submits that were acknowledged
        self._folder = folder
        self._files: dict[str, bytes] = {}
        self._committed: dict[tuple[str, int], tuple[int, str]] = {}
        self._attempts: set[tuple[str, int, int]] = set()
        self._starts = 0
        self._wall_s = 1.8e9
        self._calls = 0
        self._digest = hashlib.sha256()

    # --- what others call --------------------------------------------------------------------------------------

    def count(self, what: str) -> None:
        """Count something that went wrong."""
        self.counts[what] += 1

    def note(self, what: str) -> None:
        """Add a line to the story."""
        line = f"{asyncio.get_running_loop().time():8.3f} s  {what}"
        self.trace.append(line)
        self._digest.update(line.encode())

    def granted(self, leases: list[Lease]) -> None:
        """Note what a worker was promised: no attempt is ever given twice, nor one of what is done."""
        for lease in leases:
            attempt = (lease.job_id, lease.task_id, lease.attempt)
            assert attempt not in self._attempts, f"attempt {attempt} was granted twice"
            assert attempt[:2] not in self._committed, f"{attempt} was granted after it was acknowledged"
            self._attempts.add(attempt)
            self.note(f"grant {attempt}")

    def acknowledged_commit(self, job_id: str, task_id: int, attempt: int, sha256: str) -> None:
        """Note what a worker was told is kept."""
        said = self._committed.setdefault((job_id, task_id), (attempt, sha256))
        assert said == (attempt, sha256), f"two results of task {task_id} were acknowledged"
        self.note(f"commit {(job_id, task_id, attempt)}")

    def check(self) -> None:
        """Look whether the books balance now."""
        self._calls += 1
        core = self.service.state.core
        every = 1 + sum(job.tasks for job in core.jobs.values()) // 40
        if self._calls % every == 0:
            invariants.check(core)

    def disk(self, label: str) -> None:
        """Be at a point of a write: the process may die here, or the disk be full."""
        if self.armed == label:
            self.armed = None
            self.count(f"crash at {label}")
            self.note(f"the scheduler dies at {label!r}")
            self.crash()
            raise Crashed
        begins = label == "begin" or label.endswith("begun")
        if begins and asyncio.get_running_loop().time() < self.full_until:
            self.count("write refused")
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

    def step_wall_clock(self, seconds: float) -> None:
        """Set the clock that people read."""
        self._wall_s += seconds

    # --- the scheduler -----------------------------------------------------------------------------------------

    def start_scheduler(self) -> None:
        """Start one on what the last one left on the disk."""
        self._starts += 1
        self.note("the scheduler starts")
        self._process = Process(f"scheduler {self._starts}")
        self._clock_began = self.chance.uniform(0.0, 1e6)  # a monotonic clock starts anywhere
        self._process.spawn(self._serve(self._process))

    async def _serve(self, process: Process) -> None:
        loop = asyncio.get_running_loop()
        began = self._clock_began
        self._journal = SimulatedJournal(self._state_folder(), process, self.chance, self.disk)
        self.service = service = Service(
            Cluster(
                cluster_id=CLUSTER_ID, name="lab", machine="m", versions=VERSIONS,
                worker_token=token(SECRET, "worker"), verifiers=verifiers(SECRET),
                roots=(self._folder,), tick_s=1.0, cancel_wait_s=5.0,
                keep_blobs=True,  # result files are made in memory here
            ),
            self.rules,
            self._journal,
            SimulatedBlobs(self._files, self.disk),  # type: ignore[arg-type]
            lambda _: self.source,  # type: ignore[arg-type, return-value]
            Clocks(now=lambda: began + loop.time(), wall=lambda: self._wall_s + loop.time()),
            free=lambda _: 1 << 60,  # the disk of whoever runs this says nothing about the seed
        )  # fmt: skip
        service.results.make = lambda plan: self._make(service.results, plan)  # type: ignore[method-assign]
        try:
            await service.start()
        except ClusterError as error:  # a full disk: whoever starts it tries again
            self.note(f"the scheduler cannot start: {error}")
            self.crash()
            raise Crashed from error
        self._check_what_was_promised()
        self.network.serving = process
        self.note("the scheduler serves")

    def crash(self) -> None:
        """Kill -9; it is started again a little later."""
        if not self._process.alive:
            return
        self.note("the scheduler is killed")
        self.network.serving = None
        self._process.kill()
        self.service._lab.close()  # its threads are real, and would outlive it
        self._journal.image(self._folder / f"state {self._starts + 1}")
        self._journal.abandon()
        self._start_again(self.chance.uniform(0.0, 6.0))

    def restart(self) -> None:
        """Stop it as planned, and start it again."""
        if self._process.alive and self.network.serving is self._process:
            self.network.serving = None
            self._process.spawn(self._close())

    async def _close(self) -> None:
        await self.service.close()
        self._journal.image(self._folder / f"state {self._starts + 1}")
        self._process.kill()
        self._start_again(self.chance.uniform(0.0, 2.0))

    def _start_again(self, after_s: float) -> None:
        asyncio.get_running_loop().call_later(after_s, self.start_scheduler)

    def _state_folder(self) -> Path:
        return self._folder / f"state {self._starts}"

    def _check_what_was_promised(self) -> None:
        state = self.service.state
        for job_id in self.people:
            assert job_id in state.known, f"job {job_id} was acknowledged and is gone"
        for (job_id, task_id), (attempt, sha256) in self._committed.items():
            assert state.core.job(job_id).state(task_id) == Done(attempt), (
                f"commit {job_id}/{task_id} is gone"
            )
            kept = self._journal.read_now(lambda db, of=(job_id, task_id): _sha256(db, *of))
            assert kept == [(attempt, sha256)]
        invariants.check(state.core)

    def _make(self, results: Results, plan: Plan) -> Path:
        """Make a result file, in memory, of the committed results as they lie in the journal."""
        job_id = plan.sheet.job_id
        try:
            self.disk("file begun")
        except sqlite3.OperationalError as error:
            raise OSError(28, "no space left", str(plan.path)) from error
        status = np.full(plan.frames, FrameStatus.FAILED, np.uint8)
        settled = np.zeros(plan.frames, np.uint8)
        for frames in plan.given_up:
            settled[frames.start : frames.stop] = 1
        parts = []
        for _, result in results.by_task(job_id):
            status[result.start : result.stop] = result.frame_status
            settled[result.start : result.stop] += ~np.isin(result.frame_status, FrameStatus.FAILED)
            parts.append(result.rows.tobytes())
        self.tables[job_id] = Table(job_id, b"".join(parts), status.tobytes(), settled.tobytes())
        self.disk("file in place")
        return plan.path

    # --- workers and people ------------------------------------------------------------------------------------

    def hire(self, temper: Temper | None = None) -> None:
        """Start a worker."""
        self.workers.append(SimulatedWorker(self, f"w{len(self.workers)}", temper or Temper()))

    async def _person(self, series: Series, *, twice: bool, fickle: bool) -> None:
        """Submit a job, perhaps twice, perhaps change one's mind; come back until it has ended well."""
        request = JobRequest(series=series.path, follow=series.frames_per_s is not None)
        asked = [
            self._until_answered(lambda: self.service.submit(request, series.path)) for _ in range(1 + twice)
        ]
        answers = await asyncio.gather(*asked)
        job_id = answers[0][0].id
        assert {job.id for job, _ in answers} == {job_id}, "one key made two jobs"
        if fickle and self.chance.random() < 0.5:
            await asyncio.sleep(self.chance.uniform(0.0, 10.0))
            self.note(f"cancel {job_id}")
            with _refusable():
                await self._until_answered(lambda: self.service.cancel(job_id))
        retries = 0
        while not self._satisfied(await self._ended(job_id), series):
            retries += 1
            assert retries < 40, f"job {job_id} cannot be brought to its end"
            self.note(f"retry {job_id}")
            with _refusable():
                await self._until_answered(lambda: self.service.retry(job_id))

    async def _until_answered(self, ask: Any) -> Any:
        while True:
            try:
                return await self.network.call(lambda: self._answered(ask), 20.0)
            except (Unavailable, ClusterError) as error:
                if error.status < 500:
                    raise
                await asyncio.sleep(self.chance.uniform(0.2, 2.0))

    async def _answered(self, ask: Any) -> Any:
        said = await ask()
        job = said[0] if isinstance(said, tuple) else said
        if job.id not in self.people:
            self.people[job.id] = job.series
            self.note(f"submit {job.id}")
        self.check()
        return said

    async def _ended(self, job_id: str) -> Job:
        """Return a job once it has ended and nothing goes wrong any more."""
        while True:
            job = await self._until_answered(lambda: _soon(lambda: self.service.state.view(job_id)))
            if job.state in TERMINAL and self.storm.over:
                return job
            await asyncio.sleep(1.0)

    def _satisfied(self, job: Job, series: Series) -> bool:
        """Return whether what failed could not have gone better."""
        if job.state == "failed":
            return False
        core = self.service.state.core.job(job.id)
        given_up = [core.bounds(task_id) for task_id in core.failed]
        poison = -1 if series.poison is None else series.poison
        return job.state == "cancelled" or all(start <= poison < stop for start, stop in given_up)

    # --- the run -----------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Play the whole story."""
        loop = asyncio.get_running_loop()
        chance = self.chance
        self.network = Network(chance, self.count)
        self.rules = Rules(
            lease_s=LEASE_S, task_frames=chance.choice([None, chance.randint(1, 60)]), least_frames=1 if self.scale.workers < 100 else 5,
            refusal_pause_s=0.5, longest_pause_s=5.0, forget_worker_s=30.0, straggler_least_s=1.0, asleep_s=LEASE_S / 2,
        )  # fmt: skip
        self.storm = Storm(self)
        for number in range(self.scale.jobs):
            self._invent(number)
        self.source = DescribedSeries(self.series, loop.time)
        self.start_scheduler()
        for _ in range(self.scale.workers):
            self.hire(self.storm.temper())
        people = [
            asyncio.ensure_future(
                self._person(one, twice=chance.random() < 0.3, fickle=chance.random() < 0.3 and not self.calm)
            )
            for one in self.series.values()
        ]
        await self.storm.rage()
        async with asyncio.timeout(PATIENCE_S):
            while not all(person.done() for person in people):
                assert not uncaught, f"nobody caught {uncaught[0]!r}"
                await asyncio.wait(people, timeout=5.0)
            while self.network.serving is None:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.5)
        await asyncio.gather(*people)
        self._check_the_end()

    def _invent(self, number: int) -> None:
        chance = self.chance
        frames = chance.randint(1, self.scale.frames)
        grows = chance.random() < 0.25
        path = f"series {number}.tif"
        self.series[path] = Series(
            path,
            frames,
            poison=chance.randrange(frames) if chance.random() < 0.15 and not self.calm else None,
            frames_per_s=chance.uniform(5.0, 60.0) if grows else None,
        )

    def _check_the_end(self) -> None:
        assert not uncaught, f"nobody caught {uncaught[0]!r}"
        self._check_what_was_promised()
        for job_id, path in self.people.items():
            self._check_table(job_id, self.series[path])

    def _check_table(self, job_id: str, series: Series) -> None:
        job, expected = self.service.state.core.job(job_id), undisturbed(series)
        table = self.tables.get(job_id)
        done = [job.bounds(task) for task in range(job.tasks) if isinstance(job.state(task), Done)]
        inside = np.zeros(series.frames, bool)
        for start, stop in done:
            assert not inside[start:stop].any()
            inside[start:stop] = True
        if isinstance(job.phase, Cancelled):
            assert table is not None or not done or job.phase.reason  # which tells that the disk was full
        else:
            assert isinstance(job.phase, Finished)
            given_up = [job.bounds(task) for task in range(job.tasks) if isinstance(job.state(task), Failed)]
            assert inside.sum() + sum(stop - start for start, stop in given_up) == series.frames == job.total
            assert job.phase.errors == bool(
                given_up or (expected.frame_status[inside] == FrameStatus.FAILED).any()
            )
        if table is not None:
            rows = expected.rows[inside[expected.rows["tIndex"]]]
            assert table.rows == rows.tobytes(), f"the table of {job_id} is not that of an undisturbed run"
            status = np.where(inside, expected.frame_status, FrameStatus.FAILED)[: len(table.status)]
            assert table.status == status.astype(np.uint8).tobytes()
            assert max(table.settled, default=1) == 1, "a frame was settled twice"
            assert job.tally.rows == len(rows)
        pages = self._journal.read_now(lambda db: results_by_row(db, job_id, -1, 10**9))
        ends = 0
        for row in pages:
            assert row.first_row == ends, "rows overlap, or some are nobody's"
            ends += row.rows
        assert ends == job.tally.rows

    async def end(self) -> None:
        """Leave nothing behind."""
        for worker in self.workers:
            worker.process.kill()
        if self._process.alive:
            self._process.kill()
            self._journal.abandon()


def _sha256(db: sqlite3.Connection, job_id: str, task_id: int) -> list[tuple[int, str]]:
    return db.execute(
        "SELECT attempt, sha256 FROM results WHERE job_id = ? AND task_id = ?", (job_id, task_id)
    ).fetchall()


@contextlib.contextmanager
def _refusable() -> Iterator[None]:
    """What the scheduler refuses may be refused: the job has ended meanwhile."""
    try:
        yield
    except ClusterError as error:
        if error.status not in {404, 409}:
            raise


async def _soon(look: Any) -> Any:
    return look()


class _Names:
    """Names that the program makes up, from the seed."""

    def __init__(self, seed: int) -> None:
        self._chance = Random(f"names {seed}")

    def token_hex(self, count: int) -> str:
        return self._chance.randbytes(count).hex()


def run(seed: int, folder: Path, scale: Scale | None = None, *, calm: bool = False) -> Told:
    """Simulate one seed.

    Raises
    ------
    Broken
        If a promise was broken.
    """
    world = World(seed, folder, scale, calm=calm)
    loop = VirtualLoop(world.chance)
    names = _Names(seed)
    uncaught.clear()
    logging.disable(logging.CRITICAL)  # what goes wrong here is meant to
    with (
        mock.patch("cluster.worker.loop.DaemonThread", FitThread),
        mock.patch("cluster.scheduler.workers.secrets", names),
        mock.patch("cluster.scheduler.jobs.secrets", names),
        asyncio.Runner(loop_factory=lambda: loop) as runner,
    ):
        try:
            runner.run(world.live())
        except BaseException as error:
            story = "\n".join(world.trace[-40:])
            raise Broken(
                f"seed {seed}: {type(error).__name__}: {error}\n{story}\n"
                f"again: PYTHONHASHSEED=0 python -m tests.simulation --seed {seed}"
            ) from error
        finally:
            virtual_s = loop.time()
            runner.run(world.end())
            logging.disable(logging.NOTSET)
    frames = sum(one.frames for one in world.series.values())
    return Told(seed, world.counts, frames, len(world.people), virtual_s, world._digest.hexdigest())
