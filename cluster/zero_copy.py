"""Bytes of a file sent by the system itself: ASGI's extension `http.response.zerocopysend`, which uvicorn leaves to others.

A start of a reply that says `FILE_FOLLOWS` goes in one piece with all that comes before the file.

Only where the connection is not encrypted, and the event loop hands files to the system.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import select
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from cluster.progress import Watch, unacknowledged_bytes

logger = logging.getLogger(__name__)
EXTENSION: Final = "http.response.zerocopysend"
FILE_FOLLOWS: Final = "clusterofone.file_follows"
"""A key of `http.response.start`: a file will be sent, and what comes before it may wait for it."""
_SENDS_FILES: Final = hasattr(os, "sendfile")
_PATIENCE_MS: Final = 5  # with those who take it as fast as it can be sent
_MOST_STEPS: Final = 100  # then others have the thread
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
    """An app that may send `{"type": EXTENSION, "file": ..., "offset": ..., "count": ...}` after the start of a reply.

    `stalled` ends the connection of one who takes nothing for `longest_stall_s`.
    """

    def __init__(
        self,
        app: ASGIApp,
        connection: H11Protocol,
        framing: Held,
        *,
        longest_stall_s: float,
        stalled: Callable[[], None],
    ) -> None:
        self._app = app
        self._connection = connection
        self._framing = framing
        self._longest_stall_s = longest_stall_s
        self._stalled = stalled

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
            await asyncio.sleep(0)  # the connection hears of its end, and expects no more of the reply
            return
        unread: Any = _Unread(count)
        connection.conn.send_with_data_passthrough(h11.Data(data=unread))
        before = self._framing.let_go()
        taker = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        try:
            part = _FilePart(file.fileno(), offset, count)
            sent = await _sent(taker, transport, before, part, self._longest_stall_s)
        except _StalledError:
            self._stalled()
            return
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


class _StalledError(Exception):
    """The other side has taken nothing for too long."""


@dataclass
class _FilePart:
    """Bytes [offset, offset + count) of an open file, of which `sent` have gone."""

    file: int
    offset: int
    count: int
    sent: int = 0


async def _sent(
    taker: socket.socket,
    transport: asyncio.Transport,
    before: bytes,
    part: _FilePart,
    longest_stall_s: float,
) -> int:
    """Send `before` and the part of a file; return how much of the file went.

    That is all of it, unless the file or the connection ends. A thread sends as long as the other side takes it at once;
    the loop, which others need too, goes on with those that take their time.
    """
    sending = _Sending(taker, transport, before, part)
    await _to_its_end(asyncio.get_running_loop().run_in_executor(None, sending.hurry))
    if not sending.ended:
        await sending.go_on(longest_stall_s)
    return part.sent


async def _to_its_end(running: asyncio.Future[None]) -> None:
    """Wait for a thread that uses descriptors which its caller is going to close, however often cancelled: it takes milliseconds."""
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        running.exception()  # it has been seen, and is of no use any more
        raise cancelled
    running.result()


class _Sending:
    """What is being sent to one taker.

    asyncio's own `sendfile` asks for the socket anew after every step, which takes as long as the sending does.
    """

    def __init__(
        self, taker: socket.socket, transport: asyncio.Transport, before: bytes, part: _FilePart
    ) -> None:
        self._taker = taker
        self._transport = transport
        self._before = before
        self._part = part
        self.ended = False

    def hurry(self) -> None:
        """Send until the other side has not taken anything for a moment; for a thread."""
        for _ in range(_MOST_STEPS):
            if self.ended or not (self._step() or _takes_more(self._taker.fileno())):
                return

    async def go_on(self, longest_stall_s: float) -> None:
        """Send the rest whenever the other side takes some; raises `_StalledError` if it takes none for too long."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def step() -> None:
            if done.done():
                return
            try:
                self._step()
            except OSError as error:
                done.set_exception(error)
            else:
                if self.ended:
                    done.set_result(None)

        def stalled() -> None:
            if not done.done():
                done.set_exception(_StalledError())

        watch = Watch(longest_stall_s, left=self._left, stalled=stalled)
        watch.start()
        loop.add_writer(self._taker.fileno(), step)
        try:
            await done
        finally:
            watch.stop()
            loop.remove_writer(self._taker.fileno())

    def _left(self) -> object:
        """Return what the other side has not taken yet."""
        left = len(self._before) + self._part.count - self._part.sent
        return left, unacknowledged_bytes(self._taker.fileno())

    def _step(self) -> bool:
        """Send what the system takes now; return whether it took anything, or nothing is left to send."""
        part = self._part
        try:
            while self._before:  # in one segment with the beginning of the file
                self._before = self._before[self._taker.send(self._before, _MORE_FOLLOWS) :]
            step = 0 if self._transport.is_closing() else _send_some(self._taker.fileno(), part)
        except (BlockingIOError, InterruptedError):
            return False
        part.sent += step
        self.ended = step == 0 or part.sent == part.count
        return True


if sys.platform == "win32":

    def _send_some(taker: int, part: _FilePart) -> int:
        raise NotImplementedError

    def _takes_more(taker: int) -> bool:
        raise NotImplementedError

else:

    def _send_some(taker: int, part: _FilePart) -> int:
        return os.sendfile(taker, part.file, part.offset + part.sent, part.count - part.sent)

    def _takes_more(taker: int) -> bool:
        """Return whether the other side makes room within a moment."""
        waiting = select.poll()
        waiting.register(taker, select.POLLOUT)
        return bool(waiting.poll(_PATIENCE_MS))


def has_zero_copy(scope: Mapping[str, Any]) -> bool:
    """Return whether the server of this request sends files itself."""
    return EXTENSION in (scope.get("extensions") or {})
