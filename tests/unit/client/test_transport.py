"""Errors both ways, addresses, back-off, and where a token may go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.backoff import Attempts, Backoff, Pace, persist, persist_now
from cluster.errors import (
    CallerError,
    ChecksumMismatch,
    ClusterError,
    Internal,
    Invalid,
    NotFound,
    TooLarge,
    TransientError,
    Unavailable,
    every_error,
)
from cluster.http import problem_response
from cluster.protocol import Health, Identity
from cluster.transport import BlockingLink, Link, calibration_route, normalised_url, series_route

pytestmark = pytest.mark.anyio
PLAINEST = {
    ClusterError: Internal,
    CallerError: Invalid,
}  # a base travels under the code of its plainest child


def link(answer: Callable[[httpx.Request], httpx.Response], **options: Any) -> Link:
    return Link("http://10.0.0.1:15400", "c1.worker.x", transport=httpx.MockTransport(answer), **options)


def blocking(answer: Callable[[httpx.Request], httpx.Response], **options: Any) -> BlockingLink:
    return BlockingLink(
        "http://10.0.0.1:15400", "c1.viewer.x", transport=httpx.MockTransport(answer), **options
    )


# --- errors ---


@pytest.mark.parametrize("kind", list(every_error()), ids=lambda kind: kind.__name__)
async def test_every_error_arrives_as_the_error_that_was_raised(kind: type[ClusterError]) -> None:
    sent = problem_response(kind("the sentence", field="threshold", frames=[1, 2]))

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(sent.status_code, content=sent.body, headers=dict(sent.headers))

    with pytest.raises(ClusterError) as asynchronous:
        await link(answer).request("GET", "/x")
    with pytest.raises(ClusterError) as synchronous:
        blocking(answer).request("GET", "/x")

    for caught in (asynchronous.value, synchronous.value):
        assert caught.code == kind.code
        assert type(caught) is PLAINEST.get(kind, kind)
        assert caught.detail == "the sentence"
        assert caught.facts["field"] == "threshold"
        assert caught.facts["frames"] == [1, 2]
        assert isinstance(caught, TransientError) is issubclass(kind, TransientError)


@pytest.mark.parametrize(
    "raised",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.ReadTimeout("slow"),
        httpx.ReadError(""),
        httpx.RemoteProtocolError("half a reply"),
        httpx.PoolTimeout("busy"),
    ],
    ids=lambda raised: type(raised).__name__,
)
async def test_whatever_the_network_does_is_unavailable_and_names_the_address(raised: Exception) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise raised

    with pytest.raises(Unavailable, match=r"10\.0\.0\.1:15400/x"):
        await link(answer).request("GET", "/x")
    with pytest.raises(Unavailable, match=r"10\.0\.0\.1:15400/x"):
        blocking(answer).request("GET", "/x")


@pytest.mark.parametrize(("status", "transient"), [(502, True), (504, True), (403, False), (400, False)])
async def test_a_proxys_page_is_an_error_of_its_class(status: int, transient: bool) -> None:
    with pytest.raises(ClusterError) as caught:
        await link(lambda _: httpx.Response(status, html="<h1>no</h1>")).request("GET", "/x")

    assert isinstance(caught.value, TransientError) is transient


async def test_a_redirect_is_not_followed_and_is_an_error() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(307, headers={"location": "http://evil.example/x"})

    with pytest.raises(Internal, match="not sent to other hosts"):
        await link(answer).request("GET", "/x")

    assert asked == ["10.0.0.1"]


async def test_a_reply_of_another_version_is_an_error_that_says_so() -> None:
    reply = await link(lambda _: httpx.Response(200, json={"status": "ok", "role": "x", "new": 1})).request(
        "GET", "/x"
    )

    with pytest.raises(Internal, match="same version"):
        reply.message(Health)


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b"\xff\xfe"])
async def test_a_reply_that_is_no_message_is_an_error(content: bytes) -> None:
    reply = await link(lambda _: httpx.Response(200, content=content)).request("GET", "/x")

    with pytest.raises(Internal):
        reply.message(Identity)


@pytest.mark.parametrize("status", [200, 500])
async def test_a_reply_without_end_is_cut_off(status: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=b"x" * (2 << 20))

    with pytest.raises(TooLarge):
        await link(answer).request("GET", "/x", limit_bytes=1 << 20)
    with pytest.raises(TooLarge):
        blocking(answer).request("GET", "/x", limit_bytes=1 << 20)


async def test_an_anonymous_request_carries_no_token_and_the_others_do() -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200)

    spoken = link(answer)
    await spoken.request("GET", "/x", anonymous=True)
    await spoken.request("GET", "/x")

    assert seen == [None, "Bearer c1.worker.x"]


async def test_the_environments_proxy_never_sees_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    spoken = Link("http://127.0.0.1:1")

    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1/"):
        await spoken.request("GET", "/x", timeout_s=2.0)
    assert spoken._client._mounts == {}
    await spoken.aclose()


# --- back-off ---


@given(st.integers(0, 2**32), st.floats(0.01, 5), st.floats(1, 60), st.floats(0.1, 100))
def test_pauses_stay_under_their_ceiling_and_the_deadline(
    seed: int, first: float, longest: float, total: float
) -> None:
    now, number = 0.0, 0
    attempts = Attempts(Backoff(first, longest, total), clock=lambda: now, rng=random.Random(seed))

    while now <= total:
        try:
            pause = attempts.pause_s(Unavailable("away"))
        except Unavailable:
            break
        assert 0 <= pause <= min(first * 2.0**number, longest)
        now, number = now + pause + 0.1, number + 1

    assert now - 0.1 <= total


@pytest.mark.parametrize("error", [NotFound("no"), ChecksumMismatch("bits"), Internal("fault")])
def test_what_trying_again_cannot_mend_is_raised_at_once(error: ClusterError) -> None:
    attempts = Attempts(Backoff(), clock=lambda: 0.0, rng=random.Random(1))

    with pytest.raises(type(error)):
        attempts.pause_s(error)


def test_a_server_cannot_ask_for_an_endless_pause() -> None:
    attempts = Attempts(Backoff(total_s=float("inf")), clock=lambda: 0.0, rng=random.Random(1))

    assert attempts.pause_s(Unavailable("busy", retry_after_s=1e9)) <= 31.0
    assert attempts.pause_s(Unavailable("busy", retry_after_s="soon")) <= 1.0


async def test_a_call_is_repeated_until_it_succeeds_with_pauses_between() -> None:
    slept: list[float] = []
    replies = iter([Unavailable("a"), Unavailable("b"), None])

    def call() -> str:
        error = next(replies)
        if error is not None:
            raise error
        return "done"

    async def calling() -> str:
        return call()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    pace = Pace(clock=lambda: 0.0, sleep=sleep, rng=random.Random(3))
    assert await persist(calling, Backoff(), pace) == "done"
    replies = iter([Unavailable("a"), None])
    assert persist_now(call, Backoff(), sleep=slept.append, pace=pace) == "done"
    assert len(slept) == 3


async def test_the_last_error_is_raised_once_the_deadline_has_passed() -> None:
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        await asyncio.sleep(0)

    async def call() -> None:
        raise Unavailable(f"away at {now:.0f}")

    with pytest.raises(Unavailable, match="away at"):
        await persist(call, Backoff(total_s=30.0), Pace(lambda: now, sleep, random.Random(3)))

    assert 15.0 < now <= 30.0


# --- addresses ---


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("lab-pc-3", "http://lab-pc-3:15400"),
        ("lab-pc-3:8000", "http://lab-pc-3:8000"),
        (" http://10.0.0.1:15400/ ", "http://10.0.0.1:15400"),
        ("https://smlm.example.org", "https://smlm.example.org"),
        ("https://example.org/smlm/", "https://example.org/smlm"),
        ("http://[fd00::2]:15400", "http://[fd00::2]:15400"),
        ("[fd00::2]", "http://[fd00::2]:15400"),
    ],
)
def test_an_address_is_completed(given: str, meant: str) -> None:
    assert normalised_url(given) == meant


@pytest.mark.parametrize(
    "given",
    [
        "",
        "ftp://x",
        "http://",
        "http://h:99999",
        "http://h:0",
        "file:///etc/passwd",
        "http://user:pw@h",
        "http://h/?a=1",
    ],
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(Invalid):
        normalised_url(given)


@pytest.mark.parametrize("path", ["..", "../calibrations", "a/../b.tif", "a/.", "./b.tif", "../../metrics"])
@pytest.mark.parametrize("route", [series_route, calibration_route])
def test_a_path_that_would_lead_to_another_route_is_refused(route: Callable[[str], str], path: str) -> None:
    with pytest.raises(Invalid, match="is no path of a series"):
        route(path)


def test_names_of_series_are_quoted_but_for_their_folders() -> None:
    assert series_route("a b/ä#1?.tif", "/frames") == "/api/v1/series/a%20b/%C3%A4%231%3F.tif/frames"
