"""Those who ask for frames and take them slowly, or not at all: over real sockets, for only these fill up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.arrays import decode_frames
from cluster.dataserver.app import create_app
from cluster.dataserver.calibrations import Calibrations
from cluster.dataserver.reading import Reading
from cluster.dataserver.store import SeriesStore
from cluster.http import Gate
from cluster.protocol import Identity
from cluster.serving import Connection, Server, bind, serve
from cluster.trust import token

pytestmark = pytest.mark.anyio
SECRET = b"s" * 32
FRAMES = 96
_NAME = "long.npy"
_CODECS = ["none", "blosc-lz4"]  # sent by the system where it can, and from memory


@dataclass
class Serving:
    """A data server on a socket, and the frames it serves."""

    server: Server
    port: int
    reading: Reading
    frames: np.ndarray[Any, Any]

    async def send(
        self, head: str, *, authorised: bool = True
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send the head of a request on a connection of its own, for which the system keeps little that is not read."""
        taker = socket.socket()
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        taker.setblocking(False)
        await asyncio.get_running_loop().sock_connect(taker, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=taker, limit=1 << 15)
        head += "Host: localhost\r\n"
        if authorised:
            head += f"Authorization: Bearer {token(SECRET, 'worker')}\r\n"
        writer.write(f"{head}\r\n".encode())
        return reader, writer

    async def ask(self, codec: str, stop: int = FRAMES) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Ask for frames."""
        return await self.send(
            f"GET /api/v1/series/{_NAME}/frames?start=0&stop={stop}&codec={codec} HTTP/1.1\r\n"
        )

    async def has_let_go(self) -> None:
        """Return once the server has no connection any more."""
        async with asyncio.timeout(20.0):
            while self.server.server_state.connections:  # noqa: ASYNC110 - the server has no event for this
                await asyncio.sleep(0.01)


async def _length_of(reader: asyncio.StreamReader) -> int:
    """Return the length of a reply's body, having read its head."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert head.startswith(b"http/1.1 200"), head
    return int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])


@pytest.fixture
async def serving(tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    monkeypatch.setattr(Connection, "longest_stall_s", 0.5)
    monkeypatch.setattr(Connection, "longest_parting_s", 0.1)
    frames = np.random.default_rng(7).integers(0, 4000, (FRAMES, 512, 256), np.uint16)
    np.save(tmp_path / _NAME, frames)
    store = SeriesStore([tmp_path])
    reading = Reading(store, bytes_in_flight=1 << 20)
    identity = Identity(role="dataserver", cluster_id="c1", name="lab", machine="m", version="0")
    app = create_app(store, Calibrations([tmp_path], store), gate, lambda: identity, reading=reading)
    ready, stop = asyncio.Event(), asyncio.Event()
    listener = bind("dataserver", host="127.0.0.1", port=0)
    server = Server(app, on_ready=ready.set)
    running = asyncio.create_task(serve(server, listener, stop))
    await ready.wait()
    async with asyncio.timeout(120.0):
        yield Serving(server, listener.getsockname()[1], reading, frames)
        stop.set()
        await running
    store.close()


async def test_one_who_does_not_read_is_let_go_and_who_waited_gets_its_frames(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    reader, idle = await serving.ask("blosc-lz4")  # it takes all memory that frames may take here
    await _length_of(reader)

    waiting, writer = await serving.ask("blosc-lz4", stop=3)
    async with asyncio.timeout(20.0):
        got = decode_frames(await waiting.readexactly(await _length_of(waiting)))

    np.testing.assert_array_equal(got.frames, serving.frames[:3])
    host, port = idle.get_extra_info("sockname")
    said = [record.getMessage() for record in caplog.records if "has taken nothing" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith(
        f"{host}:{port} has taken nothing of the reply to GET /api/v1/series/{_NAME}/frames"
    )
    for one in (writer, idle):
        one.transport.abort()
    await serving.has_let_go()
    assert serving.reading.budget.used == 0


async def test_one_who_does_not_read_what_the_system_sends_is_let_go(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await serving.ask("none")
    await _length_of(reader)

    await serving.has_let_go()

    assert caplog.text.count("has taken nothing of the reply") == 1
    writer.transport.abort()


@pytest.mark.parametrize("codec", _CODECS)
async def test_one_who_reads_slowly_and_steadily_gets_all(serving: Serving, codec: str) -> None:
    reader, writer = await serving.ask(codec)
    length = await _length_of(reader)
    body = bytearray()
    for _ in range(40):  # 2 s, several times as long as nothing may be taken: it is the time that is tested
        body += await reader.readexactly(1 << 14)
        await asyncio.sleep(0.05)

    body += await reader.readexactly(length - len(body))

    np.testing.assert_array_equal(decode_frames(bytes(body)).frames, serving.frames)
    writer.close()


@pytest.mark.parametrize(
    "asked", ["PUT /api/v1/files/x.tif", "POST /api/v1/series/x/frames", "HEAD /healthz", "GET /healthz"]
)
async def test_a_body_that_nobody_reads_holds_no_connection(serving: Serving, asked: str) -> None:
    reader, writer = await serving.send(
        f"{asked} HTTP/1.1\r\nContent-Length: 1000000000\r\n", authorised=False
    )

    async with asyncio.timeout(20.0):
        reply = await reader.read()  # to its end
    writer.write(b"x")

    assert b"\r\nconnection: close\r\n" in reply.lower()
    await serving.has_let_go()
    writer.close()
