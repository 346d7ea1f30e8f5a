"""Asking data servers about a series: the one that has it answers, wherever it can be reached."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from cluster.arrays import FrameRange, encode_frames
from cluster.errors import Invalid, NotFound, Unavailable
from cluster.http import problem_response
from cluster.protocol import (
    CalibrationOrder,
    CalibrationRequest,
    CalibrationRun,
    CalibrationRuns,
    DataServerInfo,
    SeriesFacts,
)
from cluster.scheduler.dataservers import DataServers, RemoteSeries
from cluster.transport import Link

pytestmark = pytest.mark.anyio


def facts(path: str, fingerprint: str = "f") -> SeriesFacts:
    return SeriesFacts(
        path=path,
        height=4,
        width=3,
        dtype="uint16",
        frames=9,
        fingerprint=fingerprint,
        bytes=1,
        format="TIFF",
        events=1,
    )


def a_data_server(**series: Any) -> FastAPI:
    """A data server on paper: it has these series, and says of others that they are not there."""
    app = FastAPI()
    runs: dict[str, CalibrationRun] = {}

    @app.get("/api/v1/series/{path}")
    async def show(path: str) -> Response:
        known = series.get(path, NotFound(f"there is no series {path}"))
        return problem_response(known) if isinstance(known, Exception) else JSONResponse(known.model_dump())

    @app.get("/api/v1/series/{path}/frames")
    async def frames(path: str, start: int, stop: int, fingerprint: str) -> Response:
        assert fingerprint == series[path].fingerprint
        body = encode_frames(FrameRange(start, np.full((stop - start, 4, 3), start, np.uint16)))
        return Response(b"".join(bytes(part) for part in body))

    @app.get("/api/v1/series/{path}/events")
    async def events(path: str) -> list[dict[str, Any]]:
        return [{"name": "ProtocolTask", "description": "laser on", "time": 1.5}]

    @app.post("/api/v1/calibration-runs")
    async def start(order: CalibrationOrder) -> Response:
        name = order.request.series[0]
        if name not in series:
            return problem_response(NotFound(f"there is no series {name}"))
        runs[order.id] = CalibrationRun.model_validate(
            {
                **order.request.model_dump(),
                "id": order.id,
                "state": "queued",
                "output": "o",
                "created": len(runs),
            }
        )
        return JSONResponse(runs[order.id].model_dump(), 201)

    @app.get("/api/v1/calibration-runs")
    async def known() -> CalibrationRuns:
        return CalibrationRuns(calibrations=list(runs.values()))

    @app.get("/api/v1/calibration-runs/{run_id}")
    async def one(run_id: str) -> Response:
        if run_id not in runs:
            return problem_response(NotFound(f"there is no calibration {run_id}"))
        return JSONResponse(runs[run_id].model_dump())

    return app


class Network:
    """Which app answers at which address; at all others nobody does. Keeps the tokens that were sent."""

    def __init__(self, **apps: FastAPI) -> None:
        self.apps = {host.replace("_", "."): app for host, app in apps.items()}
        self.asked: list[str] = []

    def connect(self, url: str, token: str) -> AbstractAsyncContextManager[Link]:
        return self._linked(url, token)

    @asynccontextmanager
    async def _linked(self, url: str, token: str) -> Any:
        host = httpx.URL(url).host
        self.asked.append(f"{host} {token}")
        if host not in self.apps:
            raise Unavailable(f"{url} cannot be reached")
        link = Link(url, token, transport=httpx.ASGITransport(app=self.apps[host]))
        yield link
        await link.aclose()


def source(network: Network, *servers: list[str]) -> RemoteSeries:
    known = DataServers()
    for number, addresses in enumerate(servers):
        info = DataServerInfo(
            id=f"d{number}", machine="m", host=f"host{number}", port=15440, addresses=addresses
        )
        known.note(info, now=float(-number))
    return RemoteSeries(known, "owner-token", network.connect)


async def test_every_address_of_a_data_server_is_tried(  # the first one leads nowhere from here
) -> None:
    network = Network(a_b=a_data_server(cells=facts("cells")))

    located = await source(network, ["10.0.0.1", "a.b"]).locate("cells")

    assert located.facts == facts("cells")
    assert network.asked == ["10.0.0.1 owner-token", "a.b owner-token"]


async def test_the_data_servers_that_have_the_same_series_are_all_named() -> None:
    network = Network(
        a=a_data_server(cells=facts("cells")),
        b=a_data_server(cells=facts("cells", "another file of that name")),
        c=a_data_server(),
        d=a_data_server(cells=facts("cells")),
    )

    located = await source(network, ["a"], ["b"], ["c"], ["d"]).locate("cells")

    assert [server.id for server in located.servers] == ["d0", "d3"]


async def test_a_series_nobody_has_is_not_found_by_name() -> None:
    network = Network(a=a_data_server())

    with pytest.raises(NotFound, match="cells") as refused:
        await source(network, ["a"]).locate("cells")

    assert refused.value.facts["field"] == "series"


async def test_what_is_wrong_with_the_file_is_said_rather_than_that_others_do_not_have_it() -> None:
    network = Network(a=a_data_server(), b=a_data_server(cells=Invalid("cells is in colour")))

    with pytest.raises(Invalid, match="in colour"):
        await source(network, ["a"], ["b"]).locate("cells")


async def test_a_data_server_that_cannot_be_asked_is_no_proof_that_the_series_is_not_there() -> None:
    network = Network(a=a_data_server())

    with pytest.raises(Unavailable, match="cannot be reached"):
        await source(network, ["a"], ["nowhere"]).locate("cells")


async def test_without_a_data_server_the_message_says_how_to_start_one() -> None:
    with pytest.raises(Unavailable, match="clusterofone dataserver"):
        await source(Network()).locate("cells")


async def test_frames_and_events_come_from_a_server_that_answers() -> None:
    network = Network(a=a_data_server(cells=facts("cells")), b=a_data_server(cells=facts("cells")))
    asking = source(network, ["a"], ["b"])
    located = await asking.locate("cells")
    del network.apps["a"]

    frames = await asking.frames(located, 2, 5)
    events = await asking.events(located)

    assert frames.shape == (3, 4, 3)
    assert frames[0, 0, 0] == 2
    assert events[0].description == "laser on"


ORDER = CalibrationOrder(id="0" * 16, request=CalibrationRequest(kind="psf", series=["beads"]))


async def test_a_calibration_is_made_by_the_data_server_that_has_the_series_and_found_there() -> None:
    network = Network(b=a_data_server(), c=a_data_server(beads=facts("beads")))
    asking = source(network, ["nowhere"], ["b"], ["c"])

    started = await asking.calibrate(ORDER)

    assert started.state == "queued"
    assert await asking.calibration_run(ORDER.id) == started
    assert await asking.calibration_runs() == [started]


async def test_a_calibration_nobody_can_make_says_why() -> None:
    network = Network(a=a_data_server())

    with pytest.raises(NotFound, match="there is no series beads"):
        await source(network, ["a"]).calibrate(ORDER)
    with pytest.raises(Unavailable, match="cannot be reached"):  # it might have the series
        await source(network, ["a"], ["nowhere"]).calibrate(ORDER)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await source(network, ["nowhere"], ["a"]).calibration_run(ORDER.id)


def test_a_data_server_that_is_silent_for_an_hour_is_forgotten() -> None:
    servers = DataServers()
    info = DataServerInfo(id="d", machine="m", host="h", port=1, addresses=[])
    assert servers.note(info, now=0.0)
    assert not servers.note(info, now=5.0)

    servers.forget_silent(now=3604.0)
    assert servers.present() == [info]
    servers.forget_silent(now=3606.0)
    assert servers.present() == []
