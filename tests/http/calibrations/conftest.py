"""A scheduler and a data server in process, both real, over a folder of small series."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile

from cluster.dataserver.app import create_app as dataserver_app
from cluster.dataserver.calibrations import Calibrations
from cluster.dataserver.store import SeriesStore
from cluster.http import Gate
from cluster.protocol import DataServerInfo, Identity, Role, Versions
from cluster.scheduler.app import create_app as scheduler_app
from cluster.scheduler.blobs import Blobs
from cluster.scheduler.core import Rules
from cluster.scheduler.dataservers import DataServers, RemoteSeries
from cluster.scheduler.journal import Journal
from cluster.scheduler.service import Cluster, Service
from cluster.scheduler.state import Clocks
from cluster.transport import Link
from cluster.trust import token, verifiers

SECRET = b"s" * 32
URL = "http://127.0.0.1:15440"
CLOCKS = Clocks(now=time.monotonic, wall=time.time)
CLUSTER = Cluster(
    cluster_id="c1",
    name="lab",
    machine="m",
    versions=Versions(clusterofone="0", numpy="2", numba="0.6", python="3.11"),
    worker_token=token(SECRET, "worker"),
    verifiers=verifiers(SECRET),
)
INFO = DataServerInfo(id="d1", machine="m", host="h", port=15440, addresses=["127.0.0.1"])


def lit(path: Path, photons: float, *, frames: int = 40, seed: int = 0) -> None:
    """A series of evenly lit frames: 2 ADU an electron over an offset of 100 ADU."""
    rng = np.random.default_rng(seed)
    electrons = rng.poisson(photons, (frames, 20, 24)) + rng.normal(0, 1.6, (frames, 20, 24))
    tifffile.imwrite(path, np.rint(100 + 2 * electrons).astype(np.uint16), photometric="minisblack")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "day 1").mkdir(parents=True)
    lit(root / "day 1" / "dark.tif", 0)
    lit(root / "day 1" / "flat.tif", 500, seed=1)
    lit(root / "day 1" / "flat 2.tif", 900, seed=2)
    (root / "day 1" / "notes.txt").write_text("a day")
    (root / "day 1" / "broken.tif").write_bytes(b"not a TIFF")
    lit(tmp_path / "secret.tif", 0)
    (root / "link.tif").symlink_to(tmp_path / "secret.tif")
    (root / "way out").symlink_to(tmp_path, target_is_directory=True)
    return root


@dataclass
class Lab:
    """What a test does: ask the scheduler as the owner, or with another role; know the data server behind it."""

    http: httpx.AsyncClient
    calibrations: Calibrations
    dataserver: httpx.AsyncClient

    async def start(self, **request: Any) -> httpx.Response:
        return await self.http.post("/api/v1/calibrations", json=request)

    async def started(self, **request: Any) -> dict[str, Any]:
        reply = await self.start(**request)
        assert reply.status_code == 201, reply.text
        return dict(reply.json())

    async def run(self, run_id: str) -> dict[str, Any]:
        reply = await self.http.get(f"/api/v1/calibrations/{run_id}")
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def ended(self, run_id: str) -> dict[str, Any]:
        for task in asyncio.all_tasks():
            if task.get_name() == f"calibration {run_id}":
                await task
        return await self.run(run_id)


def headers(role: Role = "owner") -> dict[str, str]:
    return {"authorization": f"Bearer {token(SECRET, role)}"}


@pytest.fixture
def authorisation() -> Callable[[Role], dict[str, str]]:
    return headers


@dataclass
class DataServer:
    """A data server, and the way to it."""

    calibrations: Calibrations
    transport: httpx.ASGITransport

    @asynccontextmanager
    async def connect(self, url: str, presented: str) -> AsyncIterator[Link]:
        link = Link(url, presented, transport=self.transport)
        yield link
        await link.aclose()


MakeDataServer = Callable[..., AbstractAsyncContextManager[DataServer]]
MakeLab = Callable[..., AbstractAsyncContextManager[Lab]]


@pytest.fixture
def make_dataserver(root: Path, tmp_path: Path) -> MakeDataServer:
    @asynccontextmanager
    async def make(
        *, program: Sequence[str] | None = None, longest_s: float = 120.0
    ) -> AsyncIterator[DataServer]:
        store = SeriesStore([root])
        others: dict[str, Any] = {} if program is None else {"program": program}
        calibrations = Calibrations(
            [root], store, longest_s=longest_s, records=tmp_path / "state" / "calibrations", **others
        )
        identity = Identity(role="dataserver", cluster_id="c1", name="lab", machine="m", version="0")
        app = dataserver_app(store, calibrations, Gate(verifiers(SECRET)), lambda: identity)
        yield DataServer(calibrations, httpx.ASGITransport(app=app))
        await calibrations.close()
        store.close()

    return make


@pytest.fixture
def make_lab(tmp_path: Path, make_dataserver: MakeDataServer) -> MakeLab:
    """A scheduler before a data server: one that there is already, or one of its own."""

    @asynccontextmanager
    async def make(
        behind: DataServer | None = None, *, registered: bool = True, **others: Any
    ) -> AsyncIterator[Lab]:
        async with AsyncExitStack() as stack:
            dataserver = behind or await stack.enter_async_context(make_dataserver(**others))

            def source(servers: DataServers) -> RemoteSeries:
                return RemoteSeries(servers, token(SECRET, "owner"), connect=dataserver.connect)

            journal = Journal(tmp_path / "state")
            stack.callback(journal.close)
            service = Service(
                CLUSTER, Rules(), journal, Blobs(tmp_path / "state" / "results"), source, CLOCKS
            )
            if registered:
                service.dataservers.note(INFO, now=time.monotonic())
            app = scheduler_app(service, Gate(verifiers(SECRET)))
            await service.start()
            stack.push_async_callback(service.close)
            front = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with (
                httpx.AsyncClient(transport=front, base_url="http://127.0.0.1", headers=headers()) as http,
                httpx.AsyncClient(transport=dataserver.transport, base_url=URL, headers=headers()) as direct,
            ):
                yield Lab(http, dataserver.calibrations, direct)

    return make


@pytest.fixture
async def lab(make_lab: MakeLab) -> AsyncIterator[Lab]:
    async with make_lab() as made:
        yield made


@pytest.fixture
def sidecar(root: Path) -> Callable[..., None]:
    """Write metadata beside a series."""

    def write(series: str, **values: Any) -> None:
        (root / series).with_suffix(".json").write_text(json.dumps(values))

    return write
