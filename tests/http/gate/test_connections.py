"""Connections on which nobody asks for anything are let go: real sockets, for nothing else has heads that arrive slowly."""

from __future__ import annotations

import asyncio
import subprocess
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


MOST = 8


@pytest.fixture
async def crowded() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A server of eight connections; what asks for /held waits for the event."""
    app, ready, stop, go_on = FastAPI(openapi_url=None), asyncio.Event(), asyncio.Event(), asyncio.Event()

    @app.get("/held")
    async def held() -> dict[str, bool]:
        await go_on.wait()
        return {"ok": True}

    @app.get("/quick")
    async def quick() -> dict[str, bool]:
        return {"ok": True}

    listener = bind("scheduler", host="127.0.0.1", port=0)
    server = Server(app, on_ready=ready.set, most_connections=MOST)
    serving = asyncio.create_task(serve(server, listener, stop))
    await ready.wait()
    yield listener.getsockname()[1], go_on
    go_on.set()
    stop.set()
    await serving


class Caller:
    """Somebody with a connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def connect(self) -> Caller:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    def say(self, path: str, length: int | None = None) -> None:
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()[:length])

    async def hears(self) -> bytes:
        """Return the body of a reply, or nothing if the connection has ended."""
        async with asyncio.timeout(20.0):
            try:
                await self._reader.readuntil(b"\r\n\r\n")
                return await self._reader.readexactly(11)
            except (asyncio.IncompleteReadError, ConnectionError):
                return b""

    def leave(self) -> None:
        self._writer.close()


async def test_a_crowd_of_callers_that_ask_nothing_keeps_nobody_out(
    crowded: tuple[int, asyncio.Event],
) -> None:
    port, go_on = crowded
    working = [await Caller(port).connect() for _ in range(2)]
    for one in working:
        one.say("/held")
    resting = await Caller(port).connect()
    resting.say("/quick")
    assert await resting.hears()
    silent = [await Caller(port).connect() for _ in range(5 * MOST)]
    for number, one in enumerate(silent):
        one.say("/quick", number % 20)

    newcomer = await Caller(port).connect()
    newcomer.say("/quick")
    heard = await newcomer.hears()
    still_there = [one for one in silent[-MOST:] if not one._reader.at_eof()]
    go_on.set()

    assert heard == b'{"ok":true}'
    assert [await one.hears() for one in working] == [b'{"ok":true}'] * 2
    resting.say("/quick")
    assert await resting.hears() == b'{"ok":true}'
    assert len(still_there) < MOST
    for one in [*working, resting, newcomer, *silent]:
        one.leave()


async def test_who_rests_makes_room_when_all_others_are_busy_and_then_a_newcomer_is_turned_away(
    crowded: tuple[int, asyncio.Event],
) -> None:
    port, go_on = crowded
    resting = await Caller(port).connect()
    resting.say("/quick")
    assert await resting.hears()
    working = []
    for _ in range(MOST):  # the last of them takes the place of the one that rests
        working.append(await Caller(port).connect())
        working[-1].say("/held")
    assert await resting.hears() == b""

    newcomer = await Caller(port).connect()
    turned_away = await newcomer.hears()
    go_on.set()

    assert turned_away == b""
    assert [await one.hears() for one in working] == [b'{"ok":true}'] * MOST
    for one in [*working, resting, newcomer]:
        one.leave()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_server_asks_the_system_for_the_descriptors_that_it_needs() -> None:
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (256, r.getrlimit(r.RLIMIT_NOFILE)[1]));"
        "from cluster.descriptors import allow_many; print(allow_many(), r.getrlimit(r.RLIMIT_NOFILE)[0])"
    )

    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert out.stdout == "8192 8192\n"


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
