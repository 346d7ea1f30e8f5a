"""Connections on which nobody asks for anything are let go: real sockets, for nothing else has heads that arrive slowly."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import psutil
import pytest
from fastapi import FastAPI

from cluster.serving import Connection, Server, bind, serve

pytestmark = pytest.mark.anyio


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(Connection, "longest_head_s", 0.1)
    app, ready, stop = FastAPI(openapi_url=None), asyncio.Event(), asyncio.Event()

    @app.get("/slow")
    async def slow() -> dict[str, bool]:
        await asyncio.sleep(0.3)
        return {"ok": True}

    listener = bind("scheduler", host="127.0.0.1", port=0)
    serving = asyncio.create_task(serve(Server(app, on_ready=ready.set), listener, stop))
    await ready.wait()
    yield listener.getsockname()[1]
    stop.set()
    await serving


ASK = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET /slow HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_one_that_never_asks_is_closed(port: int, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)

    async with asyncio.timeout(20.0):
        assert await reader.read() == b""
    writer.close()


async def test_one_that_has_asked_waits_for_its_reply_and_may_rest_after_it(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(ASK)
        async with asyncio.timeout(20.0):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(11) == b'{"ok":true}'
        await asyncio.sleep(0.2)  # longer than a head may take: it is the time that is tested
    writer.write(ASK[:20])

    async with asyncio.timeout(20.0):
        assert await reader.read() == b""
    writer.close()


@pytest.mark.skipif(sys.platform == "win32", reason="counts POSIX descriptors")
async def test_callers_that_vanish_leave_no_descriptor_behind(port: int) -> None:
    this = psutil.Process()

    async def vanish(sent: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        async with asyncio.timeout(20.0):
            await reader.read()  # until the server lets go
        writer.transport.abort()

    await asyncio.gather(*(vanish(ASK[:10]) for _ in range(5)))
    before = this.num_fds()

    for _ in range(4):
        await asyncio.gather(*(vanish(ASK[:length]) for length in range(30)))

    async with asyncio.timeout(20.0):
        while this.num_fds() > before:  # noqa: ASYNC110 - a closed socket has no event
            await asyncio.sleep(0.01)
