"""Frames that the system sends from their file: over real sockets, for only a real server does it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cluster import zero_copy
from cluster.arrays import decode_frames
from cluster.dataserver.app import create_app
from cluster.dataserver.calibrations import Calibrations
from cluster.dataserver.lying import CAN_SEND_FILES
from cluster.dataserver.reading import Reading
from cluster.dataserver.store import SeriesStore
from cluster.errors import ChecksumMismatch
from cluster.http import Gate
from cluster.protocol import Identity
from cluster.serving import Server, bind, serve
from cluster.trust import token

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not CAN_SEND_FILES, reason="this system hands no files to sockets"),
]
SECRET = b"s" * 32
FRAMES = 96
_NAME = "long.npy"


@dataclass
class Serving:
    """A data server on a socket, the frames it serves, and how often the system sent a piece of a file."""

    port: int
    file: Path
    frames: np.ndarray[Any, Any]
    sent: list[int] = field(default_factory=list)

    async def ask(
        self, query: str = f"start=0&stop={FRAMES}"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Ask for frames on a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 16)
        await self.ask_on(writer, query)
        return reader, writer

    async def ask_on(self, writer: asyncio.StreamWriter, query: str) -> None:
        asked = f"GET /api/v1/series/{_NAME}/frames?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        writer.write(f"{asked}Authorization: Bearer {token(SECRET, 'worker')}\r\n\r\n".encode())
        await writer.drain()


async def length_of(reader: asyncio.StreamReader) -> int:
    """Return the length of a reply's body, having read its head."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert head.startswith(b"http/1.1 200"), head
    return int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])


@pytest.fixture
async def serving(tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    frames = np.random.default_rng(7).integers(0, 4000, (FRAMES, 512, 256), np.uint16)
    np.save(tmp_path / _NAME, frames)
    store = SeriesStore([tmp_path])
    reading = Reading(store, bytes_in_flight=1 << 20)
    identity = Identity(role="dataserver", cluster_id="c1", name="lab", machine="m", version="0")
    app = create_app(store, Calibrations([tmp_path], store), gate, lambda: identity, reading=reading)
    ready, stop = asyncio.Event(), asyncio.Event()
    listener = bind("dataserver", host="127.0.0.1", port=0)
    serving = asyncio.create_task(serve(Server(app, on_ready=ready.set), listener, stop))
    await ready.wait()
    found = Serving(listener.getsockname()[1], tmp_path / _NAME, frames)
    really = os.sendfile

    def counted(socket: int, file: int, offset: int, count: int) -> int:
        gone = really(socket, file, offset, count)
        found.sent.append(gone)
        return gone

    monkeypatch.setattr(zero_copy.os, "sendfile", counted)
    async with asyncio.timeout(120.0):
        yield found
        stop.set()
        await serving
    store.close()


async def test_the_frames_are_those_of_the_file_and_the_next_reply_follows_on_the_same_connection(
    serving: Serving,
) -> None:
    reader, writer = await serving.ask()
    for query, start, stop in [("start=7&stop=80", 0, FRAMES), ("start=3&stop=4", 7, 80), ("", 3, 4)]:
        got = decode_frames(await reader.readexactly(await length_of(reader)))

        assert (got.start, got.missing) == (start, ())
        np.testing.assert_array_equal(got.frames, serving.frames[start:stop])
        if query:
            await serving.ask_on(writer, query)
    writer.close()

    frame = serving.frames[0].nbytes
    assert sum(serving.sent) == (FRAMES + 73) * frame  # the single frame is less than is worth it


async def test_one_that_takes_its_time_keeps_nobody_waiting_and_gets_all(serving: Serving) -> None:
    slow = [await serving.ask() for _ in range(20)]  # each more than all memory that frames may take here
    lengths = [await length_of(reader) for reader, _ in slow]
    quick, writer = await serving.ask("start=0&stop=20")
    assert len(decode_frames(await quick.readexactly(await length_of(quick))).frames) == 20
    writer.close()

    for (reader, writer), length in zip(slow, lengths, strict=True):
        np.testing.assert_array_equal(decode_frames(await reader.readexactly(length)).frames, serving.frames)
        writer.close()


async def test_a_file_cut_short_while_it_is_sent_ends_the_connection_and_not_the_server(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await serving.ask()
    length = await length_of(reader)
    os.truncate(serving.file, 1 << 20)

    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await reader.readexactly(length)
    writer.close()

    assert "ended after" in caplog.text
    np.save(serving.file, serving.frames)
    again, writer = await serving.ask("start=0&stop=30")
    assert len(decode_frames(await again.readexactly(await length_of(again))).frames) == 30
    writer.close()


async def test_bytes_that_change_while_they_are_sent_are_noticed(serving: Serving) -> None:
    reader, writer = await serving.ask()
    length = await length_of(reader)
    with serving.file.open("r+b") as file:
        file.seek(-(1 << 20), os.SEEK_END)
        file.write(bytes(1 << 20))

    with pytest.raises(ChecksumMismatch):
        decode_frames(await reader.readexactly(length))
    writer.close()


async def test_those_who_vanish_leave_no_descriptor_behind(serving: Serving) -> None:
    this = psutil.Process()

    async def vanish() -> None:
        reader, writer = await serving.ask()
        await length_of(reader)
        writer.transport.abort()

    await vanish()
    async with asyncio.timeout(20.0):
        while not serving.sent:  # noqa: ASYNC110 - the server has no event for this
            await asyncio.sleep(0.01)
    before = this.num_fds()

    await asyncio.gather(*(vanish() for _ in range(20)))

    async with asyncio.timeout(20.0):
        while this.num_fds() > before:  # noqa: ASYNC110 - a closed socket has no event
            await asyncio.sleep(0.01)
