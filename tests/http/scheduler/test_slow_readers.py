"""Somebody who follows a job and does not read: nobody else notices, and nothing piles up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


async def test_one_who_does_not_read_is_told_the_newest_state_and_holds_nobody_up(hands: Any) -> None:
    job = await hands.submitted()
    worker = await hands.register()
    app = hands.http._transport.app
    sent: list[bytes] = []
    began, reads = asyncio.Event(), asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        """Take the first event, and then nothing until `reads`: a connection whose buffer is full."""
        if message["type"] == "http.response.body" and message.get("body"):
            sent.append(message["body"])
            began.set()
            await reads.wait()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    headers = [(b"host", b"127.0.0.1"), (b"authorization", hands.http.headers["authorization"].encode())]
    scope = {
        "type": "http", "method": "GET", "path": f"/api/v1/jobs/{job}/events", "raw_path": b"", "query_string": b"",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http",
        "http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"},
    }  # fmt: skip
    following = asyncio.create_task(app(scope, receive, send))
    async with asyncio.timeout(20.0):
        await began.wait()
        while leases := await hands.lease(worker, 1):  # each lease and each commit changes the job
            for lease in leases:
                await hands.commit(worker, lease)
        ended = await hands.ended(job)
        unread = len(sent)
        reads.set()
        await following

    states = [
        json.loads(event.decode().partition("data: ")[2])["state"] for event in sent if b"data: " in event
    ]
    assert ended["state"] == "done"
    assert unread == 1
    assert states[0] == "queued"
    assert states[-1] == "done"
    assert len(states) <= 3  # of some ten changes
