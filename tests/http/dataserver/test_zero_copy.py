"""Frames that the system sends from their file: over real sockets, for only a real server does it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
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
from cluster.protocol import Identity, Role
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
    gate: Gate
    file: Path
    frames: np.ndarray[Any, Any]
    sent: list[int] = field(default_factory=list)

    async def get(
        self,
        query: str,
        role: Role | None = "worker",
        route: str = f"/api/v1/series/{_NAME}/frames",
        **headers: str,
    ) -> httpx.Response:
        """Return the reply to a client that takes it whole."""
        if role is not None:
            headers = {"authorization": f"Bearer {token(SECRET, role)}"} | headers
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(f"http://127.0.0.1:{self.port}{route}?{query}", headers=headers)

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
    found = Serving(listener.getsockname()[1], gate, tmp_path / _NAME, frames)
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


async def test_a_file_changed_since_it_was_summed_is_summed_anew_and_one_damaged_unseen_is_noticed(
    serving: Serving,
) -> None:
    first = await serving.get(f"start=0&stop={FRAMES}")
    before = serving.file.stat()
    changed = serving.frames[::-1].copy()
    np.save(serving.file, changed)
    os.utime(serving.file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    second = await serving.get(f"start=0&stop={FRAMES}")
    with serving.file.open("r+b") as file:
        file.seek(3 << 20)
        file.write(bytes(8))
    os.utime(serving.file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    third = await serving.get(f"start=0&stop={FRAMES}")

    np.testing.assert_array_equal(decode_frames(first.content).frames, serving.frames)
    np.testing.assert_array_equal(decode_frames(second.content).frames, changed)
    with pytest.raises(ChecksumMismatch):
        decode_frames(third.content)


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


async def test_the_short_way_and_the_long_way_give_the_same_bytes(serving: Serving) -> None:
    usual = await serving.get("start=3&stop=80")
    other = await serving.get("start=%2B3&stop=80")

    assert (usual.status_code, other.status_code) == (200, 200)
    assert usual.content == other.content
    assert set(usual.headers.items()) - {("date", usual.headers["date"])} == set(other.headers.items()) - {
        ("date", other.headers["date"])
    }
    assert sum(serving.sent) == 2 * 77 * serving.frames[0].nbytes


@pytest.mark.parametrize(
    ("role", "status"),
    [("worker", 200), ("viewer", 200), ("owner", 200), ("submitter", 403), (None, 401)],
)
async def test_frames_in_files_are_sent_to_who_may_read_them_and_to_nobody_else(
    serving: Serving, role: Role | None, status: int
) -> None:
    assert (await serving.get("start=3&stop=80", role)).status_code == status
    assert bool(serving.sent) == (status == 200)


@pytest.mark.parametrize("strange", ["Bearer c1.owner.AAAA", "Basic b3duZXI6", "Bearer x"])
async def test_a_token_that_is_not_ours_gets_nothing_of_a_file(serving: Serving, strange: str) -> None:
    assert (await serving.get("start=3&stop=80", None, authorization=strange)).status_code == 401
    assert not serving.sent


async def test_another_hosts_name_gets_nothing_of_a_file(serving: Serving) -> None:
    assert (await serving.get("start=3&stop=80", host="lab.example")).status_code == 421
    assert not serving.sent


async def test_a_server_that_has_not_joined_yet_says_so_to_who_asks_for_a_file(serving: Serving) -> None:
    serving.gate.verifiers = {}

    assert (await serving.get("start=3&stop=80")).status_code == 503
    assert not serving.sent


async def test_a_range_that_is_none_and_a_series_that_is_none_are_refused_on_the_short_way(
    serving: Serving,
) -> None:
    beyond = await serving.get(f"start=3&stop={FRAMES + 1}")
    absent = await serving.get("start=3&stop=80", route="/api/v1/series/absent.npy/frames")
    other = await serving.get("start=3&stop=80&fingerprint=another")

    assert [reply.json()["code"] for reply in (beyond, absent, other)] == ["invalid", "not_found", "conflict"]
    assert str(FRAMES - 1) in beyond.json()["detail"]


async def test_requests_on_the_short_way_are_counted_by_the_same_route(serving: Serving) -> None:
    for query in ("start=3&stop=80", "start=%2B3&stop=80"):
        await serving.get(query)

    figures = (await serving.get("", "viewer", route="/metrics")).text

    counted = 'http_requests_total{method="GET",route="/api/v1/series/{path}/frames",status="200"} 2.0'
    assert f"clusterofone_{counted}" in figures
    assert f"clusterofone_served_frames_total {2 * 77}.0" in figures


async def test_nothing_is_closed_under_a_thread_that_still_sends_when_its_request_is_given_up() -> None:
    go_on = threading.Event()
    running = asyncio.get_running_loop().run_in_executor(None, go_on.wait)
    waiting = asyncio.create_task(zero_copy._to_its_end(running))
    await asyncio.sleep(0)
    for _ in range(2):  # a server that is to end at once gives up what has been given up already
        waiting.cancel()
        for _ in range(5):
            await asyncio.sleep(0)

    assert not waiting.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert running.done()
