"""Connections whose other side sends what nobody reads, or reads nothing of what is sent: over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from cluster.http import Gate, install
from cluster.serving import Connection, Server, bind, serve
from cluster.trust import verifiers

pytestmark = pytest.mark.anyio
LARGE = 1 << 18


@dataclass
class Serving:
    """A server on a socket."""

    server: Server
    port: int

    async def connect(
        self, *, takes_bytes: int = 1 << 16
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection, of which the system takes no more than this for somebody who does not read."""
        taker = socket.socket()
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes_bytes)
        taker.setblocking(False)
        await asyncio.get_running_loop().sock_connect(taker, ("127.0.0.1", self.port))
        return await asyncio.open_connection(sock=taker)

    async def has_let_go(self) -> None:
        """Return once the server has no connection any more."""
        async with asyncio.timeout(20.0):
            while self.server.server_state.connections:  # noqa: ASYNC110 - the server has no event for this
                await asyncio.sleep(0.01)


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    app, ready, stop = FastAPI(openapi_url=None), asyncio.Event(), asyncio.Event()
    install(app, Gate(verifiers=verifiers(b"s" * 32)), role="scheduler")

    @app.get("/large")
    async def large() -> PlainTextResponse:
        return PlainTextResponse(b"x" * LARGE)

    listener = bind("scheduler", host="127.0.0.1", port=0)
    server = Server(app, on_ready=ready.set)
    running = asyncio.create_task(serve(server, listener, stop))
    await ready.wait()
    yield Serving(server, listener.getsockname()[1])
    stop.set()
    await running


def _asks(method: str, path: str, body_bytes: int = 0) -> bytes:
    length = f"Content-Length: {body_bytes}\r\n" if body_bytes else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n".encode()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", b"200"),
        ("GET", "/absent", b"404"),
        ("HEAD", "/healthz", b"405"),
        ("POST", "/healthz", b"401"),
    ],
)
async def test_a_reply_before_the_end_of_the_body_is_the_last_on_its_connection(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, method: str, path: str, status: bytes
) -> None:
    monkeypatch.setattr(Connection, "longest_parting_s", 0.1)
    reader, writer = await serving.connect()
    writer.write(_asks(method, path, 10**9))

    async with asyncio.timeout(20.0):
        reply = await reader.read()  # to its end
    writer.write(b"x")

    assert reply.split()[1] == status
    assert reply.lower().count(b"\r\nconnection: close\r\n") == 1
    await serving.has_let_go()
    writer.close()


async def test_one_who_sends_its_body_before_it_reads_can_still_read_why_it_was_refused(
    serving: Serving,
) -> None:
    reader, writer = await serving.connect()
    writer.write(_asks("POST", "/healthz", 8 << 20))
    async with asyncio.timeout(20.0):
        for _ in range(8):
            writer.write(bytes(1 << 20))
            await writer.drain()
        reply = await reader.read()
    writer.close()

    assert reply.split()[1] == b"401"
    await serving.has_let_go()


async def test_a_small_body_of_a_request_that_needs_none_costs_no_reply(serving: Serving) -> None:
    reader, writer = await serving.connect()
    writer.write(_asks("GET", "/healthz", 3) + b"abc" + _asks("GET", "/healthz"))

    async with asyncio.timeout(20.0):
        for _ in range(2):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert b"scheduler" in await reader.readuntil(b"}")
    writer.close()


async def test_one_who_asks_and_never_reads_is_let_go(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Connection, "longest_stall_s", 0.2)
    _, writer = await serving.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(_asks("GET", "/large") * 100)
    async with asyncio.timeout(20.0):
        while not serving.server.server_state.connections:  # noqa: ASYNC110 - the server has no event for this
            await asyncio.sleep(0.01)

    await serving.has_let_go()

    host, port = writer.get_extra_info("sockname")
    assert f"{host}:{port} has taken nothing of the reply to GET /large" in caplog.text
    writer.transport.abort()


async def test_one_who_ends_with_a_reply_unread_is_let_go(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "longest_stall_s", 0.2)
    _, writer = await serving.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(
        _asks("GET", "/large") * 100
        + _asks("GET", "/large").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    )
    writer.write_eof()
    async with asyncio.timeout(20.0):
        while not serving.server.server_state.connections:  # noqa: ASYNC110 - the server has no event for this
            await asyncio.sleep(0.01)

    await serving.has_let_go()
    writer.transport.abort()
