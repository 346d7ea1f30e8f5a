"""Every request that the client and the worker make has a route at the real servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Match

from cluster.client import Client
from cluster.dataserver.app import create_app as dataserver_app
from cluster.errors import ClusterError
from cluster.http import Gate
from cluster.protocol import Lease, TaskFailure, Versions, WorkerRegistration
from cluster.scheduler.app import create_app as scheduler_app
from cluster.scheduler.metrics import SchedulerMetrics
from cluster.transport import Link, run_route, series_route
from cluster.worker.scheduler import SchedulerRoutes

pytestmark = pytest.mark.anyio

LEASE = Lease(job_id="j1", task_id=0, attempt=1, start=0, stop=10, lease_s=30.0)
VERSIONS = Versions(clusterofone="1", numpy="2", numba="0.6", python="3.11")
REGISTRATION = WorkerRegistration(
    machine="m1234567", host="pc", pid=1, cores=1, protocol=1, versions=VERSIONS, cpu="zen", fits=["f"]
)

CLIENT_CALLS: dict[str, Callable[[Client], Any]] = {
    "submit": lambda c: c.submit("a.tif"),
    "jobs": lambda c: c.jobs(),
    "job": lambda c: c.job("j1"),
    "watch": lambda c: next(c.watch("j1")),
    "cancel": lambda c: c.cancel("j1"),
    "retry": lambda c: c.retry("j1"),
    "preview": lambda c: c.preview("a.tif"),
    "localisations": lambda c: c.localisations("j1"),
    "render": lambda c: c.render("j1"),
    "render as TIFF": lambda c: c.render("j1", kind="tif"),
    "histograms": lambda c: c.histograms("j1", "photons=300.."),
    "drift": lambda c: c.drift("j1", "markers"),
    "drain": lambda c: c.drain("w1"),
    "undrain": lambda c: c.undrain("w1"),
    "log": lambda c: c.log(),
    "calibrate": lambda c: c.calibrate("psf", "beads.tif"),
    "calibrations": lambda c: c.calibrations(),
    "calibration": lambda c: c.calibration("b1"),
    "watch_calibration": lambda c: list(c.watch_calibration("b1")),
    "cancel_calibration": lambda c: c.cancel_calibration("b1"),
    "calibration_report": lambda c: c.calibration_report("b1"),
    "calibration_kinds": lambda c: c.calibration_kinds(),
    "identity": lambda c: c.identity(),
    "fits": lambda c: c.fits(),
    "presets": lambda c: c.presets(),
    "profiles": lambda c: c.profiles("day 1/cells #2.tif"),
    "workers": lambda c: c.workers(),
    "pending_joins": lambda c: c.pending_joins(),
    "approve": lambda c: c.approve("p1"),
}
WORKER_CALLS: dict[str, Callable[[SchedulerRoutes], Awaitable[Any]]] = {
    "register": lambda s: s.register(REGISTRATION),
    "lease": lambda s: s.lease("w1", 2, 20.0),
    "spec": lambda s: s.spec("j1"),
    "keep_alive": lambda s: s.keep_alive("w1", []),
    "commit": lambda s: s.commit("w1", LEASE, b"body", 1),
    "fail": lambda s: s.fail("w1", LEASE, TaskFailure(kind="error", attempt=1, message="m")),
    "goodbye": lambda s: s.goodbye("w1"),
}


@pytest.fixture(scope="module")
def scheduler() -> FastAPI:
    service: Any = SimpleNamespace(cluster=SimpleNamespace(versions=VERSIONS), metrics=SchedulerMetrics())
    return scheduler_app(service, Gate({}))


@pytest.fixture(scope="module")
def dataserver() -> FastAPI:
    nothing: Any = SimpleNamespace(roots=())
    return dataserver_app(nothing, nothing, Gate({}), nothing)


class Recorder:
    """Refuses every request, and remembers it."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path == "/api/v1/identity":
            identity = {"role": "scheduler", "cluster_id": "c1", "name": "x", "machine": "m", "version": "1"}
            return httpx.Response(200, json=identity)
        return httpx.Response(400, json={"code": "invalid", "detail": "not now"})


def has_route(app: FastAPI, request: httpx.Request) -> bool:
    scope = {"type": "http", "method": request.method, "path": request.url.path, "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in app.routes)


@pytest.mark.parametrize("call", CLIENT_CALLS.values(), ids=CLIENT_CALLS)
def test_the_scheduler_has_a_route_for_every_call_of_the_client(
    scheduler: FastAPI, call: Callable[[Client], Any]
) -> None:
    recorder = Recorder()

    with Client("http://127.0.0.1:15400", "t", transport=httpx.MockTransport(recorder)) as client:
        try:
            call(client)
        except ClusterError as error:
            assert error.detail == "not now"  # noqa: PT017 -- some calls are answered, most are refused

    assert has_route(scheduler, recorder.requests[-1]), recorder.requests[-1]


@pytest.mark.parametrize("kind", ["h5r", "csv"])
def test_the_scheduler_has_a_route_for_every_result(scheduler: FastAPI, kind: str, tmp_path: Any) -> None:
    recorder = Recorder()

    with (
        Client("http://127.0.0.1:15400", "t", transport=httpx.MockTransport(recorder)) as client,
        pytest.raises(ClusterError),
    ):
        client.download("j1", kind, tmp_path / "out")

    assert has_route(scheduler, recorder.requests[-1])


@pytest.mark.parametrize("call", WORKER_CALLS.values(), ids=WORKER_CALLS)
async def test_the_scheduler_has_a_route_for_every_call_of_a_worker(
    scheduler: FastAPI, call: Callable[[SchedulerRoutes], Awaitable[Any]]
) -> None:
    recorder = Recorder()

    def connect(url: str) -> Link:
        return Link(url, "t", transport=httpx.MockTransport(recorder))

    routes = SchedulerRoutes(connect("http://127.0.0.1:15400"), connect, cluster_id="c1")
    with pytest.raises(ClusterError, match="not now"):
        await call(routes)
    await routes.aclose()

    assert has_route(scheduler, recorder.requests[-1]), recorder.requests[-1]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/series",
        "/api/v1/roots",
        series_route("a b/c.tif"),
        series_route("a b/c.tif", "/frames"),
        run_route(),
        run_route("0123456789abcdef"),
        run_route("0123456789abcdef", "/report.png"),
    ],
)
def test_the_data_server_has_a_route_for_every_call(dataserver: FastAPI, path: str) -> None:
    assert has_route(dataserver, httpx.Request("GET", f"http://127.0.0.1:15440{path}"))


def test_the_check_can_fail(scheduler: FastAPI) -> None:
    assert not has_route(scheduler, httpx.Request("GET", "http://127.0.0.1:15400/api/v1/nothing"))
    assert not has_route(scheduler, httpx.Request("PUT", "http://127.0.0.1:15400/api/v1/jobs"))
