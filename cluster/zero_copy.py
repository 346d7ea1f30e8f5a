"""Bytes of a file sent by the system itself: ASGI's extension `http.response.zerocopysend`, which uvicorn leaves to others.

Only where the connection is not encrypted, and the event loop hands files to the system.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)
EXTENSION: Final = "http.response.zerocopysend"
_SENDS_FILES: Final = hasattr(os, "sendfile")


@dataclass(frozen=True)
class _Unread:
    """As many bytes of a body as h11 must count, which somebody else sends."""

    count: int

    def __len__(self) -> int:
        return self.count


class ZeroCopy:
    """An app that may send `{"type": EXTENSION, "file": ..., "offset": ..., "count": ...}` after the start of a reply."""

    def __init__(self, app: ASGIApp, connection: H11Protocol) -> None:
        self._app = app
        self._connection = connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["scheme"] != "http" or not _SENDS_FILES:
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == EXTENSION:
                await self._send_file(message["file"], message["offset"], message["count"])
            else:
                await send(message)

        scope = {**scope, "extensions": {**scope.get("extensions", {}), EXTENSION: {}}}
        await self._app(scope, receive, sending)

    async def _send_file(self, file: io.FileIO, offset: int, count: int) -> None:
        """Send bytes of a file; a file that has become shorter ends the connection, since the reply's length is said."""
        connection, transport = self._connection, self._connection.transport
        while connection.flow.write_paused:
            await connection.flow.drain()
        if transport.is_closing():
            return
        unread: Any = _Unread(count)
        connection.conn.send_with_data_passthrough(h11.Data(data=unread))
        socket = os.dup(transport.get_extra_info("socket").fileno())
        try:
            sent = await _sent(socket, transport, file.fileno(), offset, count)
        except OSError as error:
            if not isinstance(error, ConnectionError):
                logger.warning("a file could not be sent: %s", error)
            transport.abort()
            return
        finally:
            os.close(socket)
        if sent < count:
            if not transport.is_closing():
                logger.warning("a file ended after %d of the %d bytes that were promised of it", sent, count)
            transport.abort()


async def _sent(socket: int, transport: asyncio.Transport, file: int, offset: int, count: int) -> int:
    """Send as fast as the other side takes it; return how many bytes went, all unless the file or the connection ends.

    asyncio's own `sendfile` asks for the socket anew after every step, which takes as long as the sending does.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[int] = loop.create_future()
    sent = 0

    def step() -> None:
        nonlocal sent
        if done.done():
            return
        try:
            step = 0 if transport.is_closing() else _send_some(socket, file, offset + sent, count - sent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            done.set_exception(error)
            return
        sent += step
        if step == 0 or sent == count:
            done.set_result(sent)

    step()
    if not done.done():
        loop.add_writer(socket, step)
        try:
            await done
        finally:
            loop.remove_writer(socket)
    return done.result()


if sys.platform == "win32":

    def _send_some(socket: int, file: int, offset: int, count: int) -> int:
        raise NotImplementedError

else:

    def _send_some(socket: int, file: int, offset: int, count: int) -> int:
        return os.sendfile(socket, file, offset, count)


def has_zero_copy(scope: Mapping[str, Any]) -> bool:
    """Return whether the server of this request sends files itself."""
    return EXTENSION in (scope.get("extensions") or {})
