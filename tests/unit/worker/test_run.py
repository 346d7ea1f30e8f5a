"""A whole worker process but for the process: over HTTP, with the real gate, in one event loop."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from fastapi import Depends, FastAPI, Request, Response

from cluster import http, trust
from cluster.arrays import FrameRange, TaskResult, decode_result, encode_frames
from cluster.backoff import Pace
from cluster.config import WorkerSettings
from cluster.discovery import Found
from cluster.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable, VersionMismatch
from cluster.machine import KnownCluster, KnownClusters
from cluster.protocol import (
    Committed,
    DataServerInfo,
    Identity,
    JobSpec,
    JoinReply,
    JoinRequest,
    KeepAlive,
    KeptAlive,
    Lease,
    LeaseRequest,
    Leases,
    WorkerRegistered,
    WorkerRegistration,
)
from cluster.transport import Link
from cluster.worker.engine import Engine
from cluster.worker.run import Network, find_cluster, run
from fitting.localisations import LAT_GAUSS_DTYPE

pytestmark = pytest.mark.anyio

SECRET = b"s" * 32
SCHEDULER = "http://127.0.0.1:15400"
DATASERVER = "http://127.0.0.1:15440"


class FakeCluster:
    """A scheduler and a data server of few lines, behind the real gate."""

    def __init__(self, tasks: list[Lease], spec: JobSpec) -> None:
        self.cluster_id = "c1"
        self.tasks = list(tasks)
        self.spec = spec.model_copy(update={"dataservers": [_info()]})
        self.committed: list[TaskResult] = []
        self.registered: list[WorkerRegistration] = []
        self.join_replies: list[JoinReply] = []
        self.joins: list[JoinRequest] = []
        self.left: list[str] = []
        self.version_mismatch: str | None = None
        self.gate = http.Gate(trust.verifiers(SECRET), hosts=frozenset(), public=frozenset({"/api/v1/join"}))
        self.apps = {15400: self._scheduler(), 15440: self._dataserver()}
        self.unreachable: set[int] = set()

    @property
    def token(self) -> str:
        return trust.token(SECRET, "worker")

    def identity(self, role: Any = "scheduler") -> Identity:
        return Identity(
            role=role, cluster_id=self.cluster_id, name="lab", machine="m-other", version="1", join="approve"
        )

    def network(self, found: list[Found] | None = None) -> Network:
        async def browse() -> list[Found]:
            return found or []

        async def identify(url: str) -> Identity:
            link = self.connect(url, None)
            try:
                return await link.get("/api/v1/identity", Identity)
            finally:
                await link.aclose()

        return Network(connect=self.connect, identify=identify, browse=browse)

    def connect(self, url: str, token: str | None) -> Link:
        return Link(url, token, transport=_Wire(self))

    def _scheduler(self) -> FastAPI:  # noqa: C901 -- a list of routes
        app = FastAPI()
        http.install(app, self.gate, role="scheduler")
        worker = [Depends(http.require("worker"))]

        @app.get("/api/v1/identity")
        async def identity() -> Identity:
            return self.identity()

        @app.post("/api/v1/join")
        async def join(request: JoinRequest, response: Response) -> JoinReply:
            self.joins.append(request)
            reply = self.join_replies.pop(0)
            response.status_code = {"waiting": 202, "approved": 200, "refused": 403}[reply.state]
            return reply

        @app.post("/api/v1/workers", dependencies=worker)
        async def register(registration: WorkerRegistration) -> WorkerRegistered:
            if self.version_mismatch is not None:
                raise VersionMismatch(self.version_mismatch)
            self.registered.append(registration)
            return WorkerRegistered(
                worker_id="w1", cluster_id=self.cluster_id, epoch=1, lease_s=30, keep_alive_s=5
            )

        @app.post("/api/v1/workers/{worker_id}/tasks", dependencies=worker)
        async def lease(worker_id: str, asked: LeaseRequest) -> Leases:
            return Leases(leases=self._grant(asked.count))

        @app.post("/api/v1/workers/{worker_id}/keepalive", dependencies=worker)
        async def keepalive(worker_id: str, held: KeepAlive) -> KeptAlive:
            return KeptAlive()

        @app.get("/api/v1/jobs/{job_id}/spec", dependencies=worker)
        async def spec(job_id: str) -> JobSpec:
            return self.spec

        @app.post("/api/v1/workers/{worker_id}/tasks/{job_id}/{task_id}/result", dependencies=worker)
        async def result(job_id: str, task_id: int, attempt: int, next: int, request: Request) -> Committed:  # noqa: A002
            body = await request.body()
            if hashlib.sha256(body).hexdigest() != request.headers["x-content-sha256"]:
                raise Invalid("the checksum does not match")
            self.committed.append(decode_result(body))
            return Committed(outcome="committed", next=self._grant(next))

        @app.delete("/api/v1/workers/{worker_id}", dependencies=worker, status_code=204)
        async def goodbye(worker_id: str) -> None:
            self.left.append(worker_id)

        return app

    def _dataserver(self) -> FastAPI:
        app = FastAPI()
        http.install(app, self.gate, role="dataserver")

        @app.get("/api/v1/identity")
        async def identity() -> Identity:
            return self.identity("dataserver")

        @app.get("/api/v1/series/{path:path}/frames", dependencies=[Depends(http.require("worker"))])
        async def frames(path: str, start: int, stop: int, codec: str, fingerprint: str) -> Response:
            if path != self.spec.series:
                raise NotFound(f"no series {path}")
            if fingerprint != self.spec.fingerprint:
                raise Conflict("the file changed")
            numbers = np.arange(start, stop, dtype=np.uint16)[:, None, None]
            body = encode_frames(FrameRange(start, np.broadcast_to(numbers, (stop - start, 4, 5))), codec)
            return Response(b"".join(bytes(part) for part in body))

        return app

    def _grant(self, count: int) -> list[Lease]:
        granted, self.tasks = self.tasks[:count], self.tasks[count:]
        return granted


class _Wire(httpx.AsyncBaseTransport):
    """Carries requests to the app that has the port; a port without one is not there."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        port = urlsplit(str(request.url)).port or 0
        if port in self._cluster.unreachable or port not in self._cluster.apps:
            raise httpx.ConnectError("connection refused")
        return await httpx.ASGITransport(self._cluster.apps[port]).handle_async_request(request)


def _info() -> DataServerInfo:
    return DataServerInfo(id="d1", machine="m-other", host="lab", port=15440, addresses=["127.0.0.1"])


def _localise(frames: np.ndarray[Any, Any], *_: Any, first_frame: int, **__: Any) -> Any:
    class Analysed:
        rows = np.zeros(len(frames), LAT_GAUSS_DTYPE)
        fiducials = None
        candidates = np.zeros(0)
        frame_status = np.ones(len(frames), np.uint8)

    Analysed.rows["tIndex"] = frames[:, 0, 0]
    return Analysed()


class _Engine(Engine):
    """Has nothing to compile."""

    def warm_up(self, cache: Path) -> None:
        pass


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(state=tmp_path / "state", cache=tmp_path / "cache")


@pytest.fixture
def quick() -> Pace:
    """Back-off that is over at once."""

    async def sleep(_: float) -> None:
        await asyncio.sleep(0)

    return Pace(sleep=sleep, rng=random.Random(1))


@pytest.fixture
def cluster(make_lease: Callable[..., Lease], make_spec: Callable[..., JobSpec]) -> FakeCluster:
    return FakeCluster([make_lease(n) for n in range(6)], make_spec())


class Worker:
    """A running worker, and what it said."""

    def __init__(self, settings: WorkerSettings, cluster: FakeCluster, pace: Pace, **options: Any) -> None:
        self.stop = asyncio.Event()
        self.ready: list[str] = []
        self.said: list[str] = []
        network = options.pop("network", None) or cluster.network()
        self.task = asyncio.create_task(
            run(
                settings,
                stop=self.stop,
                ready=self.ready.append,
                say=self.said.append,
                engine=_Engine(_localise),
                pace=pace,
                network=network,
                **options,
            )
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.001)


@pytest.fixture
async def start(cluster: FakeCluster, quick: Pace) -> AsyncIterator[Callable[..., Worker]]:
    started: list[Worker] = []

    def starting(settings: WorkerSettings, **options: Any) -> Worker:
        started.append(Worker(settings, cluster, quick, **options))
        return started[-1]

    yield starting
    for worker in started:
        worker.stop.set()
    await asyncio.gather(*(worker.task for worker in started), return_exceptions=True)


async def test_a_worker_with_a_token_registers_works_and_leaves(
    settings: WorkerSettings, cluster: FakeCluster, start: Callable[..., Worker]
) -> None:
    worker = start(settings.model_copy(update={"scheduler": SCHEDULER, "token": cluster.token}))

    await worker.until(lambda: len(cluster.committed) == 6)
    worker.stop.set()
    await worker.task

    assert worker.ready == [SCHEDULER]
    rows = np.concatenate([result.rows for result in cluster.committed])
    assert rows["tIndex"].tolist() == list(range(60))
    assert cluster.left == ["w1"]


async def test_a_worker_that_is_not_known_asks_once_waits_and_is_remembered(
    settings: WorkerSettings, cluster: FakeCluster, start: Callable[..., Worker]
) -> None:
    waiting = JoinReply(state="waiting", cluster_id="c1", name="lab")
    approved = JoinReply(state="approved", token=cluster.token, cluster_id="c1", name="lab")
    cluster.join_replies = [waiting, waiting, approved]
    found = Found("c1", "lab", (SCHEDULER,), 1)

    worker = start(settings, network=cluster.network([found]))
    await worker.until(lambda: len(cluster.committed) == 6)

    assert len({request.secret for request in cluster.joins}) == 1
    assert sum("clusterofone approve" in line for line in worker.said) == 1
    known = KnownClusters(settings.state / "known_clusters.json").all()
    assert known["c1"].token == cluster.token
    again = start(settings, network=cluster.network([found]))
    await again.until(lambda: len(cluster.registered) == 2)
    assert len(cluster.joins) == 3


async def test_a_worker_that_is_refused_ends_and_says_so(
    settings: WorkerSettings, cluster: FakeCluster, start: Callable[..., Worker]
) -> None:
    cluster.join_replies = [JoinReply(state="refused", cluster_id="c1", name="lab")]

    worker = start(settings.model_copy(update={"scheduler": SCHEDULER}))

    with pytest.raises(Forbidden, match="lab refused this machine"):
        await worker.task


async def test_a_remembered_token_that_is_not_honoured_any_more_is_forgotten_and_asked_for_anew(
    settings: WorkerSettings, cluster: FakeCluster, start: Callable[..., Worker]
) -> None:
    known = KnownClusters(settings.state / "known_clusters.json")
    old = trust.token(b"o" * 32, "worker")
    known.remember("c1", KnownCluster(name="lab", token=old, url=SCHEDULER))
    cluster.join_replies = [JoinReply(state="approved", token=cluster.token, cluster_id="c1", name="lab")]

    worker = start(settings)
    await worker.until(lambda: len(cluster.committed) == 6)

    assert known.all()["c1"].token == cluster.token


async def test_a_wrong_token_that_was_given_ends_the_worker(
    settings: WorkerSettings, start: Callable[..., Worker]
) -> None:
    worker = start(settings.model_copy(update={"scheduler": SCHEDULER, "token": "c1.worker.wrong"}))

    with pytest.raises(Exception, match="not one of this cluster's"):
        await worker.task


async def test_other_versions_end_the_worker_with_the_command_that_mends_it(
    settings: WorkerSettings, cluster: FakeCluster, start: Callable[..., Worker]
) -> None:
    cluster.version_mismatch = "versions differ; pip install clusterofone==0.1.0 numpy==2.4 numba==0.68"

    worker = start(settings.model_copy(update={"scheduler": SCHEDULER, "token": cluster.token}))

    with pytest.raises(VersionMismatch, match=r"pip install clusterofone==0\.1\.0"):
        await worker.task


async def test_a_worker_started_first_waits_for_its_scheduler(
    settings: WorkerSettings, cluster: FakeCluster, start: Callable[..., Worker]
) -> None:
    cluster.unreachable = {15400, 15440}

    worker = start(settings.model_copy(update={"scheduler": SCHEDULER, "token": cluster.token}))
    await worker.until(lambda: worker.said != [])
    cluster.unreachable = set()
    await worker.until(lambda: len(cluster.committed) == 6)

    assert len(worker.said) == 1
    assert "cannot be reached" in worker.said[0]


async def test_a_worker_stops_while_it_still_looks_for_a_scheduler(
    settings: WorkerSettings, cluster: FakeCluster, start: Callable[..., Worker]
) -> None:
    worker = start(settings)
    await worker.until(lambda: worker.said != [])

    worker.stop.set()
    await asyncio.wait_for(worker.task, 5)

    assert worker.ready == []


async def test_looking_ends_when_it_was_given_a_time(
    settings: WorkerSettings, cluster: FakeCluster, pace: Pace
) -> None:
    with pytest.raises(Unavailable, match="tried: an address"):
        await find_cluster(settings, pace=pace, give_up_s=-1.0, network=cluster.network())


async def test_another_cluster_at_the_old_address_gets_no_token(
    settings: WorkerSettings, cluster: FakeCluster, quick: Pace
) -> None:
    presented: list[str] = []

    class Listening(_Wire):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            presented.append(request.headers.get("authorization", ""))
            return await super().handle_async_request(request)

    stop = asyncio.Event()
    network = cluster.network()
    heard = Network(
        connect=lambda url, token: Link(url, token, transport=Listening(cluster)),
        identify=network.identify,
        browse=network.browse,
    )

    async def stranger(url: str) -> Identity:
        identity = cluster.identity()
        cluster.cluster_id = "c2"  # by the time the worker registers, another cluster has the port
        return identity

    given = settings.model_copy(update={"scheduler": SCHEDULER, "token": cluster.token})
    worker = asyncio.create_task(
        run(
            given,
            stop=stop,
            ready=lambda _: None,
            engine=_Engine(_localise),
            pace=quick,
            network=Network(connect=heard.connect, identify=stranger, browse=heard.browse),
        )
    )
    async with asyncio.timeout(10):
        while len(presented) < 3:  # noqa: ASYNC110 -- the worker appends to it
            await asyncio.sleep(0.001)
    stop.set()
    await worker

    assert set(presented) == {""}
    assert cluster.registered == []
