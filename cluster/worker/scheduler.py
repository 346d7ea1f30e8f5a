"""The scheduler's routes for workers, one method each. Nothing here tries twice; see `cluster.worker.session`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, Protocol

from cluster.arrays import RESULT_MEDIA_TYPE
from cluster.errors import Unavailable
from cluster.protocol import (
    Committed,
    HeldTask,
    Identity,
    JobSpec,
    KeepAlive,
    KeptAlive,
    Lease,
    LeaseRequest,
    Leases,
    TaskFailure,
    WorkerLoad,
    WorkerRegistered,
    WorkerRegistration,
)
from cluster.transport import Link

_API: Final = "/api/v1"
_LONG_POLL_MARGIN_S: Final = 10.0
_COMMIT_TIMEOUT_S: Final = 60.0
_HELLO_TIMEOUT_S: Final = (
    20.0  # thousands that are started together wait for each other; who gives up only asks once more
)


class Scheduler(Protocol):
    """What a worker asks of a scheduler. Every method may raise any `ClusterError`."""

    async def register(self, registration: WorkerRegistration) -> WorkerRegistered:
        """Say hello; raises `VersionMismatch` if this worker would give other numbers."""
        ...

    async def lease(self, worker_id: str, count: int, wait_s: float) -> list[Lease]:
        """Ask for work, and wait for it a while."""
        ...

    async def spec(self, job_id: str) -> JobSpec:
        """Return all there is to know of a job."""
        ...

    async def keep_alive(self, worker_id: str, held: list[HeldTask]) -> KeptAlive:
        """Say that this worker is alive, and on what it works."""
        ...

    async def commit(self, worker_id: str, lease: Lease, body: bytes, count: int) -> Committed:
        """Hand in a result, and ask for more leases with it."""
        ...

    async def fail(self, worker_id: str, lease: Lease, failure: TaskFailure) -> None:
        """Say that an attempt came to nothing."""
        ...

    async def goodbye(self, worker_id: str) -> None:
        """Leave as planned; what is still held is handed back."""
        ...

    async def move(self, url: str) -> None:
        """Speak to the same cluster at another address from now on."""
        ...


class SchedulerRoutes:
    """`Scheduler` over HTTP."""

    def __init__(
        self,
        link: Link,
        connect: Callable[[str], Link],
        *,
        cluster_id: str,
        load: Callable[[], WorkerLoad | None] = lambda: None,
    ) -> None:
        self._link = link
        self._load = load
        self._cluster_id = cluster_id
        self._connect = connect

    @property
    def url(self) -> str:
        """Where the scheduler is."""
        return self._link.url

    async def register(self, registration: WorkerRegistration) -> WorkerRegistered:
        """Say hello, once it is certain that our cluster answers: strangers get no token."""
        identity = await self._link.get(
            f"{_API}/identity", Identity, timeout_s=_HELLO_TIMEOUT_S, anonymous=True
        )
        if identity.cluster_id != self._cluster_id:
            raise Unavailable(f"another cluster ({identity.name}) answers at {self.url}")
        return await self._link.send(f"{_API}/workers", registration, WorkerRegistered)

    async def lease(self, worker_id: str, count: int, wait_s: float) -> list[Lease]:
        """Ask for work; the request is held for up to `wait_s`."""
        asked = LeaseRequest(count=count, wait_s=wait_s)
        route, limit_s = f"{_API}/workers/{worker_id}/tasks", wait_s + _LONG_POLL_MARGIN_S
        return (await self._link.send(route, asked, Leases, timeout_s=limit_s)).leases

    async def spec(self, job_id: str) -> JobSpec:
        """Return all there is to know of a job."""
        return await self._link.get(f"{_API}/jobs/{job_id}/spec", JobSpec)

    async def keep_alive(self, worker_id: str, held: list[HeldTask]) -> KeptAlive:
        """Say that this worker is alive."""
        return await self._link.send(
            f"{_API}/workers/{worker_id}/keepalive",
            KeepAlive(held=held, load=self._load()),
            KeptAlive,
            timeout_s=10.0,
        )

    async def commit(self, worker_id: str, lease: Lease, body: bytes, count: int) -> Committed:
        """Hand in a result with its checksum."""
        headers = {"content-type": RESULT_MEDIA_TYPE, "x-content-sha256": hashlib.sha256(body).hexdigest()}
        return await self._link.send(
            f"{_task_route(worker_id, lease)}/result",
            body,
            Committed,
            params={"attempt": lease.attempt, "next": count},
            headers=headers,
            timeout_s=_COMMIT_TIMEOUT_S,
        )

    async def fail(self, worker_id: str, lease: Lease, failure: TaskFailure) -> None:
        """Say that an attempt came to nothing."""
        await self._link.request("POST", f"{_task_route(worker_id, lease)}/failure", failure, timeout_s=10.0)

    async def goodbye(self, worker_id: str) -> None:
        """Leave as planned."""
        await self._link.request("DELETE", f"{_API}/workers/{worker_id}", timeout_s=2.0)

    async def move(self, url: str) -> None:
        """Speak to the same cluster at another address from now on."""
        if url != self._link.url:
            old, self._link = self._link, self._connect(url)
            await old.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._link.aclose()


def _task_route(worker_id: str, lease: Lease) -> str:
    return f"{_API}/workers/{worker_id}/tasks/{lease.job_id}/{lease.task_id}"
