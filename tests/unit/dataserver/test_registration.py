from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from cluster.config import DataServerSettings, Places
from cluster.dataserver.registration import Registration
from cluster.dataserver.run import Membership, advertised_addresses, run
from cluster.errors import Invalid
from cluster.protocol import (
    PROTOCOL_VERSION,
    DataServerInfo,
    DataServerRegistered,
    DataServerRegistration,
    Identity,
)
from cluster.transport import Link
from cluster.trust import token, verifiers

pytestmark = pytest.mark.anyio

SECRET = b"k" * 32
INFO = DataServerInfo(id="d", machine="m", host="h", port=1, addresses=["127.0.0.1"])
MESSAGE = DataServerRegistration(info=INFO, protocol=PROTOCOL_VERSION, version="0")
REPLY = DataServerRegistered(cluster_id="c1", name="lab", verifiers=verifiers(SECRET), refresh_s=10.0)
Answer = Callable[[httpx.Request], httpx.Response]


class Scheduler:
    """Answers in turn what it was told to; the last answer again and again."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return answer(request)


def welcomes(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=REPLY.model_dump_json())


def is_away(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def refuses(_: httpx.Request) -> httpx.Response:
    return httpx.Response(
        401, json={"code": "unauthorised", "detail": "this token is not one of this cluster's"}
    )


async def _run(scheduler: Scheduler, rounds: int) -> tuple[list[float], list[DataServerRegistered]]:
    waits: list[float] = []
    heard: list[DataServerRegistered] = []

    async def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) >= rounds

    link = Link("http://127.0.0.1:1", "the token", transport=httpx.MockTransport(scheduler))
    registration = Registration(link, MESSAGE, on_registered=heard.append, wait=wait, rng=random.Random(1))
    await registration.run()
    await link.aclose()
    return waits, heard


async def test_it_says_where_it_is_with_its_token_and_again_before_it_is_forgotten() -> None:
    scheduler = Scheduler(welcomes)

    waits, heard = await _run(scheduler, rounds=3)

    assert [reply.cluster_id for reply in heard] == ["c1", "c1", "c1"]
    assert all(8.0 <= wait <= 10.0 for wait in waits)
    assert scheduler.asked[0].headers["authorization"] == "Bearer the token"
    assert DataServerRegistration.model_validate_json(scheduler.asked[0].content) == MESSAGE


async def test_an_absent_scheduler_is_asked_again_for_ever_with_growing_but_bounded_pauses() -> None:
    waits, heard = await _run(Scheduler(is_away), rounds=200)

    assert heard == []
    assert max(waits[:2]) <= 0.5
    assert max(waits) <= 5.0
    assert len(set(waits)) > 100


async def test_a_scheduler_that_comes_back_is_told_at_once_and_pauses_start_anew() -> None:
    waits, heard = await _run(Scheduler(welcomes, is_away, is_away, is_away, welcomes), rounds=5)

    assert len(heard) == 2
    assert max(waits[1:4]) <= 1.0
    assert 8.0 <= waits[4] <= 10.0


async def test_a_refused_token_is_said_once_and_tried_on(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        waits, _ = await _run(Scheduler(refuses), rounds=9)

    assert len(waits) == 9
    assert [record.message for record in caplog.records] == [
        "cannot register at http://127.0.0.1:1: this token is not one of this cluster's"
    ]


@pytest.mark.parametrize(
    ("host", "lan", "expected"),
    [
        ("127.0.0.1", False, ["127.0.0.1"]),
        ("0.0.0.0", False, ["127.0.0.1"]),
        ("10.1.2.3", True, ["10.1.2.3"]),
    ],
)
async def test_only_loopback_is_advertised_unless_the_network_is_asked_for(
    host: str, lan: bool, expected: list[str]
) -> None:
    assert advertised_addresses(host, lan=lan) == expected


async def test_on_the_network_loopback_is_not_advertised_where_there_is_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cluster.dataserver.run.own_addresses", lambda: ["192.168.1.7"])

    assert advertised_addresses("0.0.0.0", lan=True) == ["192.168.1.7"]


def _places(folder: Path) -> Places:
    return Places(config=folder / "config", state=folder / "state", cache=folder / "cache")


async def test_a_server_that_belongs_to_no_cluster_does_not_start(tmp_path: Path) -> None:
    settings = DataServerSettings(roots=(tmp_path,))

    with pytest.raises(Invalid, match="--scheduler"):
        await run(settings, places=_places(tmp_path), stop=asyncio.Event(), ready=print)


async def test_a_running_server_serves_until_it_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    settings = DataServerSettings(roots=(tmp_path / "root",), port=0)
    stop, url = asyncio.Event(), asyncio.get_running_loop().create_future()
    membership = Membership("c1", "lab", verifiers(SECRET))

    running = asyncio.create_task(
        run(settings, places=_places(tmp_path), stop=stop, ready=url.set_result, membership=membership)
    )
    async with httpx.AsyncClient(base_url=await url, trust_env=False) as http:
        identity = await http.get("/api/v1/identity")
        headers = {"authorization": f"Bearer {token(SECRET, 'viewer')}"}
        listing = await http.get("/api/v1/series", headers=headers)
    stop.set()
    await running

    assert Identity.model_validate_json(identity.content).name == "lab"
    assert listing.json() == {"under": "", "entries": []}
