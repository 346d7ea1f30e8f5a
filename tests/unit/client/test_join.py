"""Asking to be let in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from cluster.backoff import Pace
from cluster.errors import ClusterError, Forbidden, Internal, Unavailable
from cluster.join import ask_to_join
from cluster.protocol import JoinReply, JoinRequest
from cluster.transport import Link

pytestmark = pytest.mark.anyio
REQUEST = JoinRequest(machine="m1", host="lab-pc-3", cores=8, version="1", secret="s" * 43)


def reply(state: str, token: str | None = None) -> httpx.Response:
    status = {"waiting": 202, "approved": 200, "refused": 403}[state]
    message = JoinReply(state=state, token=token, cluster_id="c1", name="lab")  # type: ignore[arg-type]
    return httpx.Response(status, json=message.model_dump())


class Door:
    """Answers in turn, and keeps what it was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[JoinRequest] = []
        self.slept: list[float] = []
        self.told: list[JoinReply] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(JoinRequest.model_validate_json(request.content))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ask(self) -> JoinReply:
        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            await asyncio.sleep(0)

        link = Link("http://10.0.0.1:15400", transport=httpx.MockTransport(self))
        pace = Pace(clock=lambda: 0.0, sleep=sleep, rng=random.Random(1))
        return await ask_to_join(link, REQUEST, pace=pace, waiting=self.told.append)


async def test_a_machine_waits_until_a_person_has_approved_it() -> None:
    door = Door(reply("waiting"), reply("waiting"), reply("waiting"), reply("approved", "c1.worker.x"))

    approval = await door.ask()

    assert approval.token == "c1.worker.x"
    assert door.requests == [REQUEST] * 4
    assert [told.name for told in door.told] == ["lab"]
    assert all(1.0 <= slept <= 3.0 for slept in door.slept)


async def test_an_open_cluster_lets_it_in_at_once() -> None:
    door = Door(reply("approved", "t"))

    assert (await door.ask()).token == "t"
    assert (door.told, door.slept) == ([], [])


async def test_a_scheduler_that_restarts_meanwhile_is_asked_again() -> None:
    door = Door(reply("waiting"), httpx.ConnectError("away"), Unavailable_(), reply("approved", "t"))

    assert (await door.ask()).token == "t"


async def test_a_refusal_is_final() -> None:
    door = Door(reply("waiting"), reply("refused"))

    with pytest.raises(Forbidden, match="lab refused this machine"):
        await door.ask()


@pytest.mark.parametrize("make", [lambda: Forbidden("only with a token: clusterofone worker --token …")])
async def test_a_cluster_that_admits_only_tokens_says_so_in_its_own_words(
    make: Callable[[], ClusterError],
) -> None:
    error = make()
    door = Door(httpx.Response(error.status, json=error.problem()))

    with pytest.raises(Forbidden, match="clusterofone worker --token"):
        await door.ask()


async def test_an_approval_without_a_token_is_a_fault() -> None:
    with pytest.raises(Internal, match="no token"):
        await Door(reply("approved")).ask()


def Unavailable_() -> httpx.Response:  # noqa: N802 -- reads like the answer it is
    problem: dict[str, Any] = Unavailable("starting").problem()
    return httpx.Response(503, json=problem)
