"""What every server of the cluster refuses, and how it says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request

from cluster.errors import Unavailable
from cluster.http import Gate, install, require
from cluster.protocol import JobRequest, Role
from cluster.trust import ROLES, token, verifiers

SECRET = b"s" * 32
pytestmark = pytest.mark.anyio


def make_app(gate: Gate) -> FastAPI:
    app = FastAPI(openapi_url=None)
    install(app, gate, role="test")

    @app.get("/read")
    async def read(_: Annotated[Role, Depends(require("viewer", "worker"))]) -> dict[str, bool]:
        return {"ok": True}

    @app.post("/submit")
    async def submit(job: JobRequest, _: Annotated[Role, Depends(require("submitter"))]) -> dict[str, str]:
        return {"series": job.series}

    @app.post("/upload/result")
    async def upload(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    @app.get("/busy")
    async def busy() -> None:
        raise Unavailable("not yet")

    @app.get("/bug")
    async def bug() -> None:
        raise KeyError("a secret detail")

    return app


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    gate = Gate(
        verifiers(SECRET),
        hosts=frozenset({"lab-pc"}),
        body_limit_bytes=2000,
        body_limits={"/result": 50_000},
        public=frozenset({"/upload/result"}),
    )
    transport = httpx.ASGITransport(app=make_app(gate), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


def bearer(role: Role) -> dict[str, str]:
    return {"authorization": f"Bearer {token(SECRET, role)}"}


async def test_health_needs_no_token(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok", "role": "test"}


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer no"}, {"authorization": "Basic abc"}, {"authorization": "Bearer"}],
)
async def test_without_a_good_token_it_is_401(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    reply = await http.get("/read", headers=headers)

    assert reply.status_code == 401
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.json()["code"] == "unauthorised"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer no"}])
async def test_nothing_is_read_of_a_strangers_body(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    read = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            read.append(b"{" * 1000)
            yield read[-1]

    reply = await http.post("/submit", content=endless(), headers=headers)

    assert (reply.status_code, reply.json()["code"]) == (401, "unauthorised")
    assert reply.headers["www-authenticate"] == "Bearer"
    assert read == []


@pytest.mark.parametrize(
    ("role", "read", "submit"),
    [("viewer", 200, 403), ("worker", 200, 403), ("submitter", 403, 200), ("owner", 200, 200)],
)
async def test_a_role_may_do_its_own(http: httpx.AsyncClient, role: Role, read: int, submit: int) -> None:
    assert (await http.get("/read", headers=bearer(role))).status_code == read
    assert (await http.post("/submit", json={"series": "a"}, headers=bearer(role))).status_code == submit


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:15400", "", "127.0.0.1.evil.example", "localhost.evil.example"]
)
async def test_a_foreign_host_name_is_refused_on_every_route(http: httpx.AsyncClient, host: str) -> None:
    for path in ("/healthz", "/read", "/none"):
        reply = await http.get(path, headers={"host": host})

        assert reply.status_code == 421
        assert reply.json()["code"] == "misdirected"


@pytest.mark.parametrize(
    "host", ["lab-pc:15400", "LAB-PC", "localhost:1", "[::1]:15400", "192.168.1.7:15400", "::1"]
)
async def test_our_names_and_any_address_are_ours(http: httpx.AsyncClient, host: str) -> None:
    assert (await http.get("/healthz", headers={"host": host})).status_code == 200


async def test_an_unknown_field_is_named(http: httpx.AsyncClient) -> None:
    reply = await http.post("/submit", json={"series": "a", "serie": "b"}, headers=bearer("owner"))

    assert reply.status_code == 400
    assert "serie" in reply.json()["detail"]
    assert reply.json()["errors"][0]["field"] == "serie"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_its_limit_is_413_with_and_without_its_length(
    http: httpx.AsyncClient, chunked: bool
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 100

    content: Any = parts() if chunked else b"x" * 3000

    assert (await http.post("/submit", content=content, headers=bearer("owner"))).status_code == 413
    assert (await http.post("/upload/result", content=b"x" * 3000)).json() == {"bytes": 3000}


async def test_a_fault_of_ours_says_nothing_of_itself(http: httpx.AsyncClient) -> None:
    reply = await http.get("/bug")

    assert reply.status_code == 500
    assert "secret detail" not in reply.text
    assert reply.json()["code"] == "internal"


async def test_a_transient_error_says_when_to_come_back(http: httpx.AsyncClient) -> None:
    reply = await http.get("/busy")

    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"


async def test_unknown_paths_and_methods_are_problems_too(http: httpx.AsyncClient) -> None:
    assert (await http.get("/none")).json()["code"] == "not_found"
    assert (await http.delete("/healthz")).json()["code"] == "not_allowed"


async def test_every_reply_carries_the_security_headers(http: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/none", "/read"):
        headers = (await http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:3000", "host": "127.0.0.1:15400"},
    {"origin": "http://[::1]:3000", "host": "[::1]:15400"},
    {"origin": "http://192.168.1.66"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]
OWN = [
    {},
    {"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"},
    {"origin": "http://127.0.0.1:80"},
    {"origin": "http://lab-pc:15400", "host": "lab-pc:15400"},
    {"origin": "https://lab-pc", "host": "LAB-PC:443"},
    {"origin": "http://lab-pc:8080", "host": "lab-pc"},
    {"origin": "http://[::1]:15400", "host": "[::1]:15400"},
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_page_of_another_site_changes_nothing(
    http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    sent = bearer("owner") | headers
    refused = [
        await http.post(path, json={"series": "a"}, headers=sent) for path in ("/submit", "/none", "/healthz")
    ]

    assert {(reply.status_code, reply.json()["code"]) for reply in refused} == {(403, "forbidden")}
    assert (await http.get("/read", headers=sent)).status_code == 200


@pytest.mark.parametrize("headers", OWN)
async def test_a_page_of_ours_and_a_program_may(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    reply = await http.post("/submit", json={"series": "a"}, headers=bearer("owner") | headers)

    assert reply.status_code == 200


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_a_body_that_a_form_can_send_is_no_message(http: httpx.AsyncClient, content_type: str) -> None:
    sent = bearer("owner") | {"content-type": content_type}

    reply = await http.post("/submit", content=b'{"series": "a"}', headers=sent)

    assert reply.status_code == 400
    assert "with the header Content-Type: application/json" in reply.json()["detail"]
    assert content_type in reply.json()["detail"]


async def test_json_that_is_not_called_json_is_told_to_be(http: httpx.AsyncClient) -> None:
    reply = await http.post("/submit", content=b'{"series": "a"}', headers=bearer("owner"))

    assert (reply.status_code, reply.json()["detail"]) == (
        400,
        "body: must be sent as JSON, with the header Content-Type: application/json, not none",
    )


async def test_a_sender_that_falls_silent_is_let_go() -> None:
    async def silent() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    app = make_app(Gate(verifiers(SECRET), silence_s=0.05))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1"
    ) as client:
        reply = await client.post("/submit", content=silent(), headers=bearer("owner"))

    assert (reply.status_code, reply.json()["code"]) == (503, "unavailable")


async def test_a_sender_of_a_byte_now_and_then_is_let_go() -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.02)  # well within what a pause may take: it is the sum that is tested

    app = make_app(Gate(verifiers(SECRET), silence_s=0.2))
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1") as client,
        asyncio.timeout(20.0),
    ):
        reply = await client.post("/submit", content=trickle(), headers=bearer("owner"))

    assert (reply.status_code, reply.json()["code"]) == (503, "unavailable")


BAD_JSON = [
    b"[" * 100_000,
    b'{"series":' * 50_000,
    b'{"series": "a", "priority": 1' + b"0" * 400 + b"}",
    b'{"series": "a", "priority": Infinity}',
    b"\xff\xfe",
    b"",
]


@pytest.mark.parametrize("body", BAD_JSON, ids=lambda body: body[:20].decode("latin-1"))
async def test_json_that_is_none_or_too_deep_is_the_senders_fault(
    body: bytes,
) -> None:
    app = make_app(Gate(verifiers(SECRET)))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1"
    ) as client:
        sent = bearer("owner") | {"content-type": "application/json"}
        reply = await client.post("/submit", content=body, headers=sent)

    assert reply.status_code == 400, reply.text


async def test_a_token_is_taken_from_no_url(http: httpx.AsyncClient) -> None:
    good = token(SECRET, "owner")

    for name in ("token", "access_token", "authorization"):
        assert (await http.get("/read", params={name: good})).status_code == 401


async def test_no_token_reaches_the_log(http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for path in ("/read", "/bug", "/busy", "/none"):
        await http.get(path, headers=bearer("viewer"))
    await http.post("/submit", json={"series": 1}, headers=bearer("owner"))
    await http.get("/read", headers={"authorization": f"Bearer {token(b'x' * 32, 'owner')}"})

    assert "KeyError" in caplog.text
    for secret in (SECRET, b"x" * 32):
        for role in ROLES:
            assert token(secret, role) not in caplog.text
