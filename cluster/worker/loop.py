"""The life of a worker: lease, fetch, fit, commit, and again, until told to stop.

Each step is a task of its own, with a queue before it, so that while one range is fitted the next is fetched and the
one before is handed in:

    lease ──► fetch ──► fit (one thread) ──► commit ──► (the next leases ride on the commit)
       ▲__________________________________________________│

At most `depth` ranges are held that are not fitted yet. A result is kept until the scheduler has taken it or does not
want it any more; nothing is kept beyond that, so a worker can be lost at any time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from cluster.arrays import FrameRange, TaskResult, encode_result
from cluster.backoff import Pace
from cluster.errors import CallerError, ChecksumMismatch, ClusterError, Conflict, Gone, NotFound
from cluster.protocol import Committed, HeldTask, JobSpec, KeptAlive, Lease, TaskFailure
from cluster.threads import DaemonThread
from cluster.worker.engine import Maps
from cluster.worker.failures import failure_of, handed_back
from cluster.worker.keepalive import keep_alive
from cluster.worker.session import Session
from fitting import fits
from fitting.errors import FittingError

logger = logging.getLogger(__name__)

LONG_POLL_S: Final = 20.0
_DEPTH: Final = 2
_SPECS_KEPT: Final = 16
_DAMAGED_LIMIT: Final = 3
_DRAIN_S: Final = 3.5
GOODBYE_S: Final = 1.0
_REFUSED_PAUSE_S: Final = 5.0


class Frames(Protocol):
    """Where frames and maps come from."""

    async def range(self, spec: JobSpec, start: int, stop: int) -> FrameRange:
        """Return frames [start, stop) of a job's series."""
        ...

    async def maps(self, spec: JobSpec) -> Maps:
        """Return the camera maps of a job."""
        ...


Localise = Callable[[JobSpec, int, int, FrameRange, Maps], TaskResult]


@dataclass(frozen=True)
class Prepared:
    """A task with all that fitting it needs."""

    lease: Lease
    spec: JobSpec
    frames: FrameRange
    maps: Maps


@dataclass(frozen=True)
class Outcome:
    """What became of a task: a result, or why there is none."""

    lease: Lease
    ended: TaskResult | TaskFailure


def key_of(lease: Lease) -> HeldTask:
    """Return which attempt a lease is for."""
    return HeldTask(job_id=lease.job_id, task_id=lease.task_id, attempt=lease.attempt)


class Loop:
    """One worker. `localise` runs in one thread of its own and may take as long as it likes."""

    def __init__(
        self,
        session: Session,
        frames: Frames,
        localise: Localise,
        *,
        pace: Pace,
        depth: int = _DEPTH,
        drain_s: float = _DRAIN_S,
    ) -> None:
        self._session = session
        self._frames = frames
        self._localise = localise
        self._pace = pace
        self._depth = depth
        self._drain_s = drain_s
        self._thread = DaemonThread("fit")
        self._specs: OrderedDict[str, JobSpec] = OrderedDict()
        self._held: dict[HeldTask, Lease] = {}  # neither handed in nor given up
        self._unfitted: set[HeldTask] = set()
        self._fitting: HeldTask | None = None
        self._leased: asyncio.Queue[Lease] = asyncio.Queue()
        self._prepared: asyncio.Queue[Prepared] = asyncio.Queue()
        self._ended: asyncio.Queue[Outcome] = asyncio.Queue()
        self._unsettled = 0  # outcomes not yet taken by the scheduler
        self._asked = 0
        self._paused = False
        self._stopping = False
        self._changed = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish or hand back what is held and say goodbye.

        Raises
        ------
        Dismissed
            If the scheduler will not have this worker any more.
        """
        taking = [asyncio.create_task(self._keep_leasing()), asyncio.create_task(self._keep_fetching())]
        finishing = [
            asyncio.create_task(self._keep_fitting()),
            asyncio.create_task(self._keep_committing()),
            asyncio.create_task(keep_alive(self._session, lambda: list(self._held), self._heard, self._pace)),
        ]
        stopping = asyncio.create_task(stop.wait())
        steps = [*taking, *finishing]
        try:
            done, _ = await asyncio.wait([stopping, *steps], return_when=asyncio.FIRST_COMPLETED)
            for step in done - {stopping}:
                step.result()
            await _cancelled(taking)
            await self._drain(finishing)
        finally:
            await _cancelled([stopping, *steps])
            await self._leave()
            self._thread.close()

    def holds_leases(self) -> bool:
        """Return whether there is something to fit or to hand in."""
        return bool(self._held)

    # --- lease ---

    def _wanted(self) -> int:
        """How many leases to ask for now: enough to fit one range while the next is fetched."""
        return (
            0 if self._paused or self._stopping else max(0, self._depth - len(self._unfitted) - self._asked)
        )

    async def _keep_leasing(self) -> None:
        while True:
            await self._until(lambda: self._wanted() > 0 and self._unsettled == 0)
            count = self._asked = self._wanted()
            try:
                leases = await self._session.call(
                    lambda worker_id: self._session.scheduler.lease(worker_id, count, LONG_POLL_S)  # noqa: B023
                )
            finally:
                self._asked = 0
            self._take(leases)
            if not leases:  # a scheduler that does not hold requests must not be asked in a tight circle
                await self._pace.sleep(self._pace.rng.uniform(0.0, 0.5))

    def _take(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            self._held[key_of(lease)] = lease
            self._unfitted.add(key_of(lease))
            self._leased.put_nowait(lease)

    # --- fetch ---

    async def _keep_fetching(self) -> None:
        while True:
            lease = await self._leased.get()
            if key_of(lease) not in self._unfitted:
                continue
            try:
                self._prepared.put_nowait(await self._prepare(lease))
            except Gone as error:
                logger.info("task %s of %s is not wanted any more: %s", lease.task_id, lease.job_id, error)
                self._drop(key_of(lease))
            except (ClusterError, FittingError) as error:
                failure = failure_of(error, lease.attempt)
                self._end(Outcome(lease, failure))
                if failure.kind == "refused":  # others may reach the data; give them time to take it
                    await self._pace.sleep(self._pace.rng.uniform(0.0, _REFUSED_PAUSE_S))

    async def _prepare(self, lease: Lease) -> Prepared:
        spec = await self._spec(lease.job_id)
        if lease.series_frames is not None:  # a series that grows has as many frames as the lease says
            spec = spec.model_copy(update={"frames": lease.series_frames})
        settings = fits.resolve(spec.analysis, spec.metadata)
        start, stop = fits.context_range(settings, spec.metadata, (0, spec.frames), lease.start, lease.stop)
        maps = await self._frames.maps(spec)
        return Prepared(lease, spec, await self._frames.range(spec, start, stop), maps)

    async def _spec(self, job_id: str) -> JobSpec:
        spec = self._specs.get(job_id)
        if spec is None:
            try:
                spec = await self._session.call(lambda _: self._session.scheduler.spec(job_id))
            except NotFound as error:
                raise Gone(f"the scheduler knows no job {job_id}") from error
            self._specs[job_id] = spec
            while len(self._specs) > _SPECS_KEPT:
                self._specs.popitem(last=False)
        return spec

    # --- fit ---

    async def _keep_fitting(self) -> None:
        while True:
            prepared = await self._prepared.get()
            if key_of(prepared.lease) not in self._unfitted:
                continue
            self._fitting = key_of(prepared.lease)
            try:
                ended = await self._fit(prepared)
            finally:
                self._fitting = None
            self._end(Outcome(prepared.lease, ended))

    async def _fit(self, task: Prepared) -> TaskResult | TaskFailure:
        lease = task.lease
        try:
            return await self._thread.call(
                lambda: self._localise(task.spec, lease.start, lease.stop, task.frames, task.maps)
            )
        except Exception as error:
            logger.warning("task %s of %s failed", lease.task_id, lease.job_id, exc_info=error)
            return failure_of(error, lease.attempt)

    def _end(self, outcome: Outcome) -> None:
        self._unfitted.discard(key_of(outcome.lease))
        self._unsettled += 1
        self._ended.put_nowait(outcome)

    # --- commit ---

    async def _keep_committing(self) -> None:
        while True:
            outcome = await self._ended.get()
            await self._settle(outcome)
            self._held.pop(key_of(outcome.lease), None)
            self._unsettled -= 1
            self._changed.set()

    async def _settle(self, outcome: Outcome) -> None:
        lease, ended = outcome.lease, outcome.ended
        try:
            if isinstance(ended, TaskResult):
                self._take((await self._commit(lease, ended)).next)
            else:
                await self._fail(lease, ended)
        except (Conflict, Gone, NotFound) as error:
            logger.info("the result of task %s of %s is not wanted: %s", lease.task_id, lease.job_id, error)
        except CallerError as error:
            logger.warning("task %s of %s was refused: %s", lease.task_id, lease.job_id, error)
            if isinstance(ended, TaskResult):
                refusal = TaskFailure(kind="error", attempt=lease.attempt, message=str(error)[:4096])
                await self._settle(Outcome(lease, refusal))

    async def _commit(self, lease: Lease, result: TaskResult) -> Committed:
        body = await asyncio.to_thread(encode_result, result)
        damaged = 0
        while True:
            try:
                return await self._session.call(
                    lambda worker_id: self._session.scheduler.commit(worker_id, lease, body, self._wanted())
                )
            except ChecksumMismatch:
                damaged += 1
                if damaged >= _DAMAGED_LIMIT:
                    raise

    async def _fail(self, lease: Lease, failure: TaskFailure) -> None:
        await self._session.call(lambda worker_id: self._session.scheduler.fail(worker_id, lease, failure))

    # --- keep alive ---

    def _heard(self, reply: KeptAlive) -> None:
        """Drop what is no longer ours unless it is nearly done: a late result is taken while there is no other."""
        for lost in reply.lost:
            if lost != self._fitting and lost in self._unfitted:
                self._drop(lost)
        self._paused = reply.drain
        self._changed.set()

    def _drop(self, task: HeldTask) -> None:
        self._held.pop(task, None)
        self._unfitted.discard(task)
        self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # --- stop ---

    async def _drain(self, finishing: list[asyncio.Task[None]]) -> None:
        """Let the range that is being fitted finish and be handed in, for a few seconds; the rest goes back."""
        self._stopping = True
        for task in self._unfitted - {self._fitting}:
            self._end(Outcome(self._held[task], handed_back(task.attempt)))
        settled = asyncio.create_task(self._until(lambda: self._fitting is None and self._unsettled == 0))
        try:
            await asyncio.wait(
                [settled, *finishing], timeout=self._drain_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            await _cancelled([settled])

    async def _leave(self) -> None:
        """Say goodbye, which hands back every lease; a scheduler that does not answer will find out by itself."""
        with suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                for lease in list(self._held.values()):
                    await self._hand_back(lease)
                await self._session.leave()

    async def _hand_back(self, lease: Lease) -> None:
        failure = handed_back(lease.attempt)
        with suppress(CallerError):
            await self._session.once(
                lambda worker_id: self._session.scheduler.fail(worker_id, lease, failure)
            )


async def _cancelled(tasks: Iterable[asyncio.Task[None] | asyncio.Task[bool]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
