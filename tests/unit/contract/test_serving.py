"""The socket that a role listens on."""

from __future__ import annotations

import asyncio
import socket

import pytest

from cluster.serving import bind


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_replies_are_not_held_back_until_the_other_side_acknowledges(host: str) -> None:
    """With Nagle's algorithm every reply of two segments waits 40 ms for a delayed acknowledgement."""
    try:
        listener = bind("scheduler", host=host, port=0)
    except OSError as error:
        pytest.skip(f"{host} cannot be listened on here: {error}")
    set_on = asyncio.get_running_loop().create_future()

    async def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        set_on.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    server = await asyncio.start_server(accepted, sock=listener)
    async with server:
        _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
        assert await asyncio.wait_for(set_on, 10) != 0
        writer.close()
        await writer.wait_closed()


pytestmark = pytest.mark.anyio
