"""A scheduler in process: real core, journal and disk; a series that is only described; workers played by hand."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cluster.arrays import TaskResult, encode_result
from cluster.errors import NotFound
from cluster.http import Gate
from cluster.job_calibrations import digest
from cluster.protocol import (
    CalibrationFile,
    CalibrationOrder,
    CalibrationRun,
    DataServerInfo,
    MetadataValue,
    SeriesEvent,
    SeriesFacts,
    Versions,
)
from cluster.results.publish import free_bytes
from cluster.scheduler.app import create_app
from cluster.scheduler.blobs import Blobs
from cluster.scheduler.core import Rules
from cluster.scheduler.dataservers import Located
from cluster.scheduler.journal import Journal
from cluster.scheduler.on_done import Command
from cluster.scheduler.service import Cluster, Service
from cluster.scheduler.state import Clocks
from cluster.trust import token, verifiers
from fitting.localisations import CANDIDATE_DTYPE, LAT_GAUSS_DTYPE, FrameStatus

SECRET = bytes(32)
VERSIONS = Versions(clusterofone="0.1.0", numpy="2.0.0", numba="0.61.0", python="3.11.4")
SERVER = DataServerInfo(id="ds", machine="m", host="h", port=15440, addresses=["127.0.0.1"])
METADATA: dict[str, Any] = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ADOffset": 100.0,
    "Camera.ReadNoise": 1.2,
    "Camera.Name": "simulated",
}


def series_facts(path: str = "day 1/cells.tif", frames: int = 100, **changes: Any) -> SeriesFacts:
    metadata = {key: MetadataValue(value=value, source="file") for key, value in METADATA.items()}
    facts = {
        "path": path,
        "height": 64,
        "width": 48,
        "dtype": "uint16",
        "frames": frames,
        "fingerprint": f"print of {path}",
        "bytes": frames * 64 * 48 * 2,
        "format": "TIFF",
        "metadata": metadata,
    }
    return SeriesFacts.model_validate({**facts, **changes})


@dataclass
class DescribedSeries:
    """A data server that knows what its series are, and whose frames are all alike."""

    series: dict[str, SeriesFacts] = field(default_factory=lambda: {"day 1/cells.tif": series_facts()})
    level_adu: int = 97
    calibrations: dict[str, Any] = field(default_factory=dict)
    final: SeriesFacts | None = None  # what a series that grows is when it is not asked for as one

    async def locate(self, series: str, *, follow: bool = False) -> Located:
        if not follow and self.final is not None:
            return Located(self.final, [SERVER])
        if series not in self.series:
            raise NotFound(f"there is no series {series}", field="series")
        return Located(self.series[series], [SERVER])

    async def frames(self, located: Located, start: int, stop: int) -> np.ndarray[Any, Any]:
        return np.full((stop - start, 4, 4), self.level_adu, np.uint16)

    async def calibration(self, path: str) -> CalibrationFile:
        if path not in self.calibrations:
            raise NotFound(f"there is no calibration {path}", path=path)
        value = self.calibrations[path]
        return CalibrationFile(path=path, value=value, digest=digest(value))

    async def calibrate(self, order: CalibrationOrder) -> CalibrationRun:
        raise NotFound(f"there is no series {order.request.series[0]}", field="series")

    async def calibration_runs(self) -> list[CalibrationRun]:
        return []

    async def calibration_run(self, run_id: str) -> CalibrationRun:
        raise NotFound(f"there is no calibration {run_id}")

    async def cancel_calibration(self, run_id: str) -> CalibrationRun:
        raise NotFound(f"there is no calibration {run_id}")

    async def calibration_report(self, run_id: str) -> bytes:
        raise NotFound(f"there is no calibration {run_id}")

    async def events(self, located: Located) -> list[SeriesEvent]:
        return [SeriesEvent(name="ProtocolTask", description="laser on", time=12.5)] * located.facts.events


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def result_of(lease: dict[str, Any], rows_per_frame: int = 2, **changes: Any) -> bytes:
    """The body a worker would send: rows that say which frame they are of."""
    start, stop = lease["start"], lease["stop"]
    rows = np.zeros((stop - start) * rows_per_frame, LAT_GAUSS_DTYPE)
    rows["tIndex"] = np.repeat(np.arange(start, stop), rows_per_frame)
    rows["fitResults"]["A"] = 10
    rows["fitResults"]["sigma"] = 130
    rows["fitResults"]["x0"] = 100 + rows["tIndex"]
    rows["fitResults"]["y0"] = 200
    rows["fitError"]["x0"] = rows["fitError"]["y0"] = 10
    rows["resultCode"] = 1
    parts = {
        "start": start,
        "stop": stop,
        "rows": rows,
        "frame_status": np.full(stop - start, FrameStatus.LOCALISED, np.uint8),
        "candidates": np.array([(start, 1.0, 2.0, 5.0, 1)], CANDIDATE_DTYPE),
        "seconds": 0.1,
    }
    return encode_result(TaskResult(**{**parts, **changes}))


class Hands:
    """A person and workers, played by the test over HTTP."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def submit(self, **request: Any) -> httpx.Response:
        headers = request.pop("headers", {})
        return await self.http.post(
            "/api/v1/jobs", json={"series": "day 1/cells.tif", **request}, headers=headers
        )

    async def submitted(self, **request: Any) -> str:
        reply = await self.submit(**request)
        assert reply.status_code == 201, reply.text
        return str(reply.json()["id"])

    async def register(self, host: str = "lab-pc", **changes: Any) -> str:
        reply = await self.http.post("/api/v1/workers", json=worker_card(host, **changes))
        assert reply.status_code == 200, reply.text
        return str(reply.json()["worker_id"])

    async def lease(self, worker: str, count: int = 1, wait_s: float = 0.0) -> list[dict[str, Any]]:
        ask = {"count": count, "wait_s": wait_s}
        reply = await self.http.post(f"/api/v1/workers/{worker}/tasks", json=ask)
        assert reply.status_code == 200, reply.text
        return list(reply.json()["leases"])

    async def commit(
        self, worker: str, lease: dict[str, Any], body: bytes | None = None, *, sha: str = "", wanted: int = 0
    ) -> httpx.Response:
        body = result_of(lease) if body is None else body
        return await self.http.post(
            f"/api/v1/workers/{worker}/tasks/{lease['job_id']}/{lease['task_id']}/result",
            params={"attempt": lease["attempt"], "next": wanted},
            content=body,
            headers={"x-content-sha256": sha or hashlib.sha256(body).hexdigest()},
        )

    async def fail(self, worker: str, lease: dict[str, Any], kind: str = "invalid") -> httpx.Response:
        failure = {"kind": kind, "attempt": lease["attempt"], "message": "the frames are upside down"}
        route = f"/api/v1/workers/{worker}/tasks/{lease['job_id']}/{lease['task_id']}/failure"
        return await self.http.post(route, json=failure)

    async def work_off(self, worker: str) -> None:
        while leases := await self.lease(worker, 4):
            for lease in leases:
                assert (await self.commit(worker, lease)).status_code == 200

    async def job(self, job_id: str) -> dict[str, Any]:
        reply = await self.http.get(f"/api/v1/jobs/{job_id}")
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def ended(self, job_id: str) -> dict[str, Any]:
        """The job once it has ended, as its event stream says."""
        async with self.http.stream("GET", f"/api/v1/jobs/{job_id}/events") as reply:
            async for _ in reply.aiter_lines():
                pass
        return await self.job(job_id)


def worker_card(host: str = "lab-pc", **changes: Any) -> dict[str, Any]:
    card = {
        "machine": "m",
        "host": host,
        "pid": 7,
        "cores": 8,
        "protocol": 1,
        "versions": VERSIONS.model_dump(),
        "cpu": "skylake",
        "fits": ["LatGaussFitFR"],
    }
    return {**card, **changes}


@pytest.fixture
def source() -> DescribedSeries:
    return DescribedSeries()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "day 1"
    folder.mkdir(parents=True)
    (folder / "cells.tif").touch()
    return tmp_path / "data"


MakeService = Callable[..., Service]
Free = Callable[[Path], int]


@pytest.fixture
def make_service(tmp_path: Path, root: Path, source: DescribedSeries, clock: HandClock) -> MakeService:
    def make(
        rules: Rules | None = None,
        on_done: Command | None = None,
        free: Free = free_bytes,
        wall: Callable[[], float] = lambda: 1.8e9 + clock(),
        **changes: Any,
    ) -> Service:
        settings: dict[str, Any] = {
            "cluster_id": "c1",
            "name": "lab",
            "machine": "m",
            "versions": VERSIONS,
            "worker_token": token(SECRET, "worker"),
            "verifiers": verifiers(SECRET),
            "roots": (root,),
            "tick_s": 0.02,
            "event_gap_s": 0.0,
        }
        return Service(
            Cluster(**{**settings, **changes}),
            rules or Rules(task_frames=30),
            Journal(tmp_path / "state"),
            Blobs(tmp_path / "state" / "results"),
            lambda _: source,
            Clocks(now=clock, wall=wall),
            on_done=on_done,
            free=free,
        )

    return make


Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Let everything else run until a condition holds."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20.0):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0)

    return wait


Connect = Callable[[Service], Any]


@pytest.fixture
def connect() -> Connect:
    """Serve a service to `Hands`, as the owner, for the length of a block."""

    class Serving:
        def __init__(self, service: Service) -> None:
            self.service = service

        async def __aenter__(self) -> Hands:
            app = create_app(self.service, Gate(verifiers(SECRET)))
            await self.service.start()
            headers = {"authorization": f"Bearer {token(SECRET, 'owner')}"}
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)
            return Hands(self.http)

        async def __aexit__(self, *_: object) -> None:
            await self.http.aclose()
            await self.service.close()

    return Serving


@pytest.fixture
def service(make_service: MakeService) -> Service:
    return make_service()


@pytest.fixture
async def hands(service: Service, connect: Connect) -> AsyncIterator[Hands]:
    async with connect(service) as connected:
        yield connected


@pytest.fixture
def result_body() -> Callable[..., bytes]:
    return result_of


@pytest.fixture
def facts() -> Callable[..., SeriesFacts]:
    return series_facts


@pytest.fixture
def card() -> Callable[..., dict[str, Any]]:
    return worker_card
