"""Which data server is asked, at which address, and what happens when it does not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import numpy as np
import pytest

from cluster.addresses import Place, candidates
from cluster.arrays import FrameRange, encode_frames
from cluster.backoff import Backoff, Pace
from cluster.errors import Conflict, NotFound, Unauthorised, Unavailable
from cluster.protocol import DataServerInfo, Identity, SeriesFacts
from cluster.threads import DaemonThread
from cluster.transport import Link
from cluster.worker.dataservers import DataServers

pytestmark = pytest.mark.anyio

PLACE = Place(
    machine="here", cluster_id="c1", scheduler_machine="lab", scheduler_url="http://192.168.1.5:15400"
)


def server(number: int = 1, *, machine: str = "lab", addresses: list[str] | None = None) -> DataServerInfo:
    return DataServerInfo(
        id=f"d{number}",
        machine=machine,
        host="h",
        port=15439 + number,
        addresses=addresses or ["192.168.1.5"],
    )


class FakeNet:
    """Data servers by address; each answers with its frames, or as a test says."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.cluster_of: dict[str, str] = {}
        self.answers: dict[str, list[Any]] = {}
        self.links: list[Link] = []

    def connect(self, url: str) -> Link:
        self.links.append(Link(url, "c1.worker.token", transport=httpx.MockTransport(self._answer)))
        return self.links[-1]

    def frames_requests(self) -> list[str]:
        return [f"{r.url.host}:{r.url.port}" for r in self.requests if r.url.path.endswith("/frames")]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        at = f"{request.url.host}:{request.url.port}"
        if at not in self.cluster_of:
            raise httpx.ConnectError("refused")
        if request.url.path == "/api/v1/identity":
            identity = Identity(
                role="dataserver", cluster_id=self.cluster_of[at], name="lab", machine="m", version="1"
            )
            return httpx.Response(200, json=identity.model_dump())
        queued = self.answers.get(at, [])
        answer = queued.pop(0) if queued else None
        if isinstance(answer, httpx.TransportError):
            raise answer
        if answer is not None:
            return httpx.Response(answer.status, json=answer.problem())
        if not request.url.path.endswith("/frames"):
            facts = SeriesFacts(
                path="a", height=2, width=2, dtype="uint16", frames=9, fingerprint="f", bytes=1, format="tiff"
            )
            return httpx.Response(200, json=facts.model_dump(mode="json"))
        start, stop = int(request.url.params["start"]), int(request.url.params["stop"])
        frames = FrameRange(start, np.full((stop - start, 2, 2), 7, np.uint16))
        parts = encode_frames(frames, request.url.params["codec"])
        return httpx.Response(200, content=b"".join(bytes(part) for part in parts))


@pytest.fixture
def net() -> FakeNet:
    return FakeNet()


@pytest.fixture
async def make_servers(net: FakeNet, pace: Pace) -> AsyncIterator[Callable[..., DataServers]]:
    decoder = DaemonThread("decode")
    made: list[DataServers] = []

    def make(place: Place = PLACE, *, total_s: float = 20.0) -> DataServers:
        made.append(
            DataServers(
                lambda: place, net.connect, pace=pace, backoff=Backoff(total_s=total_s), decoder=decoder
            )
        )
        return made[-1]

    yield make
    for servers in made:
        await servers.aclose()
    decoder.close()


async def fetched(servers: DataServers, infos: list[DataServerInfo], fake_time: Any) -> FrameRange:
    import asyncio

    task = asyncio.ensure_future(servers.frames(infos, "cells/a b#1.tif", 3, 5, "f1"))
    await fake_time.until(task.done)
    return task.result()


# --- which addresses ---


def urls(*servers: DataServerInfo, **place: str) -> list[str]:
    return [c.url for c in candidates(servers, Place(**{**PLACE.__dict__, **place}))]


def test_on_its_own_machine_a_worker_uses_loopback_first() -> None:
    found = candidates([server(machine="here")], PLACE)

    assert [(c.url, c.near) for c in found] == [
        ("http://127.0.0.1:15440", True),
        ("http://192.168.1.5:15440", True),
    ]


def test_beside_the_scheduler_its_host_as_we_reach_it_comes_first() -> None:
    moved = server(addresses=["10.9.9.9", "192.168.1.5", "fd00::5"])

    assert urls(moved) == [
        "http://192.168.1.5:15440",
        "http://10.9.9.9:15440",
        "http://[fd00::5]:15440",
    ]


def test_loopback_of_another_machine_is_ourselves_and_is_left_out() -> None:
    assert urls(server(machine="nas", addresses=["127.0.1.1", "192.168.1.8"])) == ["http://192.168.1.8:15440"]


def test_loopback_counts_when_the_scheduler_itself_is_reached_by_it() -> None:
    other_user = server(machine="another user's", addresses=["127.0.0.1"])

    assert urls(other_user, scheduler_url="http://127.0.0.1:15400") == ["http://127.0.0.1:15440"]


# --- which is asked ---


async def test_frames_come_compressed_over_a_network_and_raw_from_the_same_machine(
    net: FakeNet, make_servers: Callable[..., DataServers], fake_time: Any
) -> None:
    net.cluster_of = {"192.168.1.5:15440": "c1", "127.0.0.1:15441": "c1"}

    far = await fetched(make_servers(), [server(1)], fake_time)
    near = await fetched(make_servers(), [server(2, machine="here")], fake_time)

    asked = [r.url.params["codec"] for r in net.requests if r.url.path.endswith("/frames")]
    assert asked == ["blosc-lz4", "none"]
    assert np.array_equal(far.frames, near.frames)


async def test_the_name_of_a_series_is_quoted_and_the_fingerprint_sent(
    net: FakeNet, make_servers: Callable[..., DataServers], fake_time: Any
) -> None:
    net.cluster_of = {"192.168.1.5:15440": "c1"}

    await fetched(make_servers(), [server()], fake_time)

    assert net.requests[-1].url.raw_path.startswith(b"/api/v1/series/cells/a%20b%231.tif/frames?")
    assert net.requests[-1].url.params["fingerprint"] == "f1"


async def test_the_address_that_answered_is_asked_first_from_then_on(
    net: FakeNet, make_servers: Callable[..., DataServers], fake_time: Any
) -> None:
    net.cluster_of = {"10.0.0.2:15440": "c1"}
    servers = make_servers()
    info = server(addresses=["10.0.0.1", "10.0.0.2"], machine="nas")

    await fetched(servers, [info], fake_time)
    await fetched(servers, [info], fake_time)

    assert net.frames_requests() == ["10.0.0.2:15440"] * 2
    assert [r.url.host for r in net.requests].count("10.0.0.1") == 1


async def test_a_stranger_at_the_port_gets_neither_token_nor_request(
    net: FakeNet, make_servers: Callable[..., DataServers], fake_time: Any
) -> None:
    net.cluster_of = {"192.168.1.5:15440": "another", "10.0.0.2:15440": "c1"}

    await fetched(make_servers(), [server(addresses=["192.168.1.5", "10.0.0.2"])], fake_time)

    asked_stranger = [r for r in net.requests if r.url.host == "192.168.1.5"]
    assert [r.url.path for r in asked_stranger] == ["/api/v1/identity"]
    assert "authorization" not in asked_stranger[0].headers


async def test_another_server_is_asked_for_what_the_first_does_not_have(
    net: FakeNet, make_servers: Callable[..., DataServers], fake_time: Any
) -> None:
    net.cluster_of = {"192.168.1.5:15440": "c1", "192.168.1.5:15441": "c1"}
    net.answers = {"192.168.1.5:15440": [NotFound("no such series")]}

    await fetched(make_servers(), [server(1), server(2)], fake_time)

    assert net.frames_requests() == ["192.168.1.5:15440", "192.168.1.5:15441"]


async def test_a_series_that_no_server_has_is_not_found(
    net: FakeNet, make_servers: Callable[..., DataServers], fake_time: Any
) -> None:
    net.cluster_of = {"192.168.1.5:15440": "c1"}
    net.answers = {"192.168.1.5:15440": [NotFound("no series cells/a b")]}

    with pytest.raises(NotFound, match="cells/a b"):
        await fetched(make_servers(), [server()], fake_time)


async def test_a_changed_file_is_reported_at_once(
    net: FakeNet, make_servers: Callable[..., DataServers], fake_time: Any
) -> None:
    net.cluster_of = {"192.168.1.5:15440": "c1"}
    net.answers = {"192.168.1.5:15440": [Conflict("the file changed")]}

    with pytest.raises(Conflict, match="the file changed"):
        await fetched(make_servers(), [server()], fake_time)

    assert fake_time.slept == []


@pytest.mark.parametrize(
    "fault",
    [Unavailable("starting"), Unauthorised("no token known yet"), httpx.ReadError("reset")],
    ids=["unavailable", "just started", "reset"],
)
async def test_a_server_that_restarts_is_waited_for(
    net: FakeNet, make_servers: Callable[..., DataServers], fake_time: Any, fault: Any
) -> None:
    net.cluster_of = {"192.168.1.5:15440": "c1"}
    net.answers = {"192.168.1.5:15440": [fault, fault, fault]}

    got = await fetched(make_servers(), [server()], fake_time)

    assert got.frames.shape == (2, 2, 2)
    assert len(fake_time.slept) == 3


async def test_a_server_that_stays_away_is_given_up_with_the_addresses_tried(
    make_servers: Callable[..., DataServers], fake_time: Any
) -> None:
    with pytest.raises(Unavailable, match=r"192\.168\.1\.5:15440"):
        await fetched(make_servers(total_s=5.0), [server()], fake_time)

    assert sum(fake_time.slept) <= 5.0


async def test_no_data_server_at_all_is_said(
    make_servers: Callable[..., DataServers], fake_time: Any
) -> None:
    with pytest.raises(Unavailable, match="the scheduler knows of none"):
        await fetched(make_servers(total_s=1.0), [], fake_time)


async def test_facts_are_asked_for_in_the_same_way(
    net: FakeNet, make_servers: Callable[..., DataServers]
) -> None:
    net.cluster_of = {"192.168.1.5:15440": "c1"}

    facts = await make_servers().facts([server()], "a")

    assert facts.frames == 9
