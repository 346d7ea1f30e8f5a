"""A worker's standing with its scheduler: registered, and registered again whenever the scheduler has forgotten it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from cluster.backoff import Attempts, Backoff, Pace
from cluster.errors import CallerError, NotFound, TransientError, Unauthorised, Unavailable
from cluster.protocol import WorkerRegistered, WorkerRegistration
from cluster.worker.scheduler import Scheduler

logger = logging.getLogger(__name__)

T = TypeVar("T")
Relocate = Callable[[], Awaitable[str | None]]
PATIENT: Final = Backoff(first_s=0.25, longest_s=5.0, total_s=float("inf"))
_SEEK_AFTER_S: Final = 5.0


class Dismissed(Exception):
    """The scheduler will not have this worker: no single request is at fault, and no other will fare better."""

    def __init__(self, reason: CallerError) -> None:
        super().__init__(reason.detail)
        self.reason = reason


class Session:
    """Every request of a worker to its scheduler goes through here.

    A scheduler that does not answer is tried again for as long as it takes, with full jitter so that a lab's workers do
    not return all at once; after a while it is also looked for elsewhere (`relocate`), for it may have moved.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        registration: WorkerRegistration,
        *,
        cluster_id: str,
        relocate: Relocate,
        pace: Pace,
        backoff: Backoff = PATIENT,
    ) -> None:
        self.scheduler = scheduler
        self._registration = registration
        self._cluster_id = cluster_id
        self._relocate = relocate
        self._pace = pace
        self._backoff = backoff
        self._registered: WorkerRegistered | None = None
        self._epoch = 0
        self._registering = asyncio.Lock()
        self._asking: asyncio.Future[WorkerRegistered] | None = None
        self._sought_at = pace.clock()

    @property
    def keep_alive_s(self) -> float:
        """How often the scheduler wants to hear from this worker."""
        return self._registered.keep_alive_s if self._registered else 5.0

    @property
    def worker_id(self) -> str | None:
        """The name the scheduler gave this worker, if it has."""
        return self._registered.worker_id if self._registered else None

    async def begin(self) -> None:
        """Register, however long the scheduler takes to answer.

        Raises
        ------
        Dismissed
            If the scheduler will not have this worker: because of its token, or of its versions.
        """
        await self.call(lambda _: _nothing())

    async def call(self, action: Callable[[str], Awaitable[T]]) -> T:
        """Do something that needs this worker's id; tried until it is done or refused.

        An id that is not known, or a token that is not, may mean that another scheduler answers at the old address:
        registering anew finds out which.

        Raises
        ------
        CallerError
            What the scheduler refuses, `NotFound` included once this worker is registered anew.
        Dismissed
            If the scheduler will not have this worker any more.
        """
        attempts = Attempts(self._backoff, clock=self._pace.clock, rng=self._pace.rng)
        renewed = False
        while True:
            try:
                worker_id = await self._known_as()
                try:
                    return await action(worker_id)
                except (NotFound, Unauthorised) as error:
                    if renewed:
                        raise _final(error) from error
                    renewed = True
                    self._forgotten(worker_id)
            except TransientError as error:
                pause = attempts.pause_s(error)
                logger.warning("%s; trying again in %.1f s", error.detail, pause)
                await self._seek(attempts)
                await self._pace.sleep(pause)

    async def once(self, action: Callable[[str], Awaitable[T]]) -> T | None:
        """Do something with the last known id, a single time: for goodbyes. None if there is no id."""
        return await action(self._registered.worker_id) if self._registered else None

    async def leave(self) -> None:
        """Say goodbye; also when the scheduler was still answering the registration when this worker was stopped.

        Raises
        ------
        ClusterError
            If the scheduler does not hear it; it will find out by itself.
        """
        if self._asking is not None and self._registered is None:
            self._registered = await self._asking
        await self.once(self.scheduler.goodbye)

    async def _known_as(self) -> str:
        async with self._registering:
            if self._registered is None:
                self._asking = asyncio.ensure_future(self.scheduler.register(self._registration))
                try:
                    reply = await asyncio.shield(self._asking)  # a stop now must not lose the id it brings
                except CallerError as error:
                    raise Dismissed(error) from error
                self._check(reply)
                self._registered = reply
                logger.info("registered as worker %s", reply.worker_id)
            return self._registered.worker_id

    def _check(self, reply: WorkerRegistered) -> None:
        """Refuse another cluster at the old address, and a scheduler that has been replaced meanwhile."""
        if reply.cluster_id != self._cluster_id:
            raise Unavailable(f"another cluster ({reply.cluster_id}) answers where ours was")
        if reply.epoch < self._epoch:
            raise Unavailable("a scheduler that has been replaced answers; waiting for its successor")
        self._epoch = reply.epoch

    def _forgotten(self, worker_id: str) -> None:
        if self._registered is not None and self._registered.worker_id == worker_id:
            logger.info("the scheduler does not know worker %s any more; registering again", worker_id)
            self._registered = None

    async def _seek(self, attempts: Attempts) -> None:
        now = self._pace.clock()
        if attempts.elapsed_s < _SEEK_AFTER_S or now - self._sought_at < _SEEK_AFTER_S:
            return
        self._sought_at = now
        url = await self._relocate()
        if url is not None:
            logger.info("the scheduler is at %s now", url)
            await self.scheduler.move(url)


def _final(error: CallerError) -> Exception:
    return Dismissed(error) if isinstance(error, Unauthorised) else error


async def _nothing() -> None:
    return None
