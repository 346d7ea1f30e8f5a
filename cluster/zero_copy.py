"""Bytes of a file sent by the system itself: ASGI's extension `http.response.zerocopysend`, which uvicorn leaves to others.

A start of a reply that says `FILE_FOLLOWS` goes in one piece with all that comes before the file.

Only where the connection is not encrypted, and the event loop hands files to the system.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)
EXTENSION: Final = "http.response.zerocopysend"
FILE_FOLLOWS: Final = "clusterofone.file_follows"
"""A key of `http.response.start`: a file will be sent, and what comes before it may wait for it."""
_SENDS_FILES: Final = hasattr(os, "sendfile")
_MORE_FOLLOWS: Final = getattr(socket, "MSG_MORE", 0)


@dataclass(frozen=True)
class _Unread:
    """As many bytes of a body as h11 must count, which somebody else sends."""

    count: int

    def __len__(self) -> int:
        return self.count


class Held(Protocol):
    """A connection's framing that can keep what it frames until it is asked for it."""

    def hold(self) -> None:
        """Keep what is framed from now on."""
        ...

    def let_go(self) -> bytes:
        """Return what was kept, and keep nothing more."""
        ...


class ZeroCopy:
    """An app that may send `{"type": EXTENSION, "file": ..., "offset": ..., "count": ...}` after the start of a reply."""

    def __init__(self, app: ASGIApp, connection: H11Protocol, framing: Held) -> None:
        self._app = app
        self._connection = connection
        self._framing = framing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["scheme"] != "http" or not _SENDS_FILES:
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == EXTENSION:
                await self._send_file(message["file"], message["offset"], message["count"])
                return
            if FILE_FOLLOWS in message:
                self._framing.hold()
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
        before = self._framing.let_go()
        taker = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        try:
            sent = await _sent(taker, transport, before, _FilePart(file.fileno(), offset, count))
        except OSError as error:
            if not isinstance(error, ConnectionError):
                logger.warning("a file could not be sent: %s", error)
            transport.abort()
            return
        finally:
            taker.close()
        if sent < count:
            if not transport.is_closing():
                logger.warning("a file ended after %d of the %d bytes that were promised of it", sent, count)
            transport.abort()


@dataclass
class _FilePart:
    """Bytes [offset, offset + count) of an open file, of which `sent` have gone."""

    file: int
    offset: int
    count: int
    sent: int = 0


async def _sent(taker: socket.socket, transport: asyncio.Transport, before: bytes, part: _FilePart) -> int:
    """Send `before` and the part of a file as fast as the other side takes them; return how much of the file went.

    That is all of it, unless the file or the connection ends. asyncio's own `sendfile` asks for the socket anew after
    every step, which takes as long as the sending does.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[int] = loop.create_future()

    def step() -> None:
        nonlocal before
        if done.done():
            return
        try:
            while before:  # in one segment with the beginning of the file
                before = before[taker.send(before, _MORE_FOLLOWS) :]
            step = 0 if transport.is_closing() else _send_some(taker.fileno(), part)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            done.set_exception(error)
            return
        part.sent += step
        if step == 0 or part.sent == part.count:
            done.set_result(part.sent)

    step()
    if not done.done():
        loop.add_writer(taker.fileno(), step)
        try:
            await done
        finally:
            loop.remove_writer(taker.fileno())
    return done.result()


if sys.platform == "win32":

    def _send_some(taker: int, part: _FilePart) -> int:
        raise NotImplementedError

else:

    def _send_some(taker: int, part: _FilePart) -> int:
        return os.sendfile(taker, part.file, part.offset + part.sent, part.count - part.sent)


def has_zero_copy(scope: Mapping[str, Any]) -> bool:
    """Return whether the server of this request sends files itself."""
    return EXTENSION in (scope.get("extensions") or {})
