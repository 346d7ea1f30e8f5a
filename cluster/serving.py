"""Binding a port before anything else, and running an app on it until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Final, cast

import h11
import uvicorn
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from cluster.certificates import Certificate
from cluster.descriptors import allow_many
from cluster.errors import Conflict
from cluster.progress import Watch, unacknowledged_bytes
from cluster.protocol import DEFAULT_PORTS
from cluster.zero_copy import ZeroCopy

logger = logging.getLogger(__name__)
_PORTS_TO_TRY: Final = 40
_MOST_HEAD_BYTES: Final = 64 << 10
_MOST_SAID_OF_PATH: Final = 200  # characters, in the log
_SHARE_OF_CONNECTIONS: Final = 0.75  # of the descriptors; the rest is for files, pipes and our own requests


def bind(role: str, *, host: str, port: int | None) -> socket.socket:
    """Return a listening socket: the port asked for, or the role's default or the next free one after it.

    Raises
    ------
    Conflict
        If the port asked for is taken, or none of the defaults is free; says which.
    """
    first = DEFAULT_PORTS[role]
    reason = ""
    wanted = [port] if port is not None else [*range(first, first + _PORTS_TO_TRY), 0]
    for candidate in wanted:
        try:
            return _listen(host, candidate)
        except OSError as error:
            reason = error.strerror or str(error)
    raise Conflict(
        f"the {role} cannot listen on {host}:{port}: {reason}. Give another --port, or none.", port=port
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only on connections that are said to be TCP; with it, the other side's delayed
    # acknowledgement holds back the body of every reply for 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform == "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


class _Framing(h11.Connection):
    """Frames a reply, and hands a piece of a body on as it is: h11 joins it with nothing, which copies it."""

    _held: list[bytes] | None = None

    def send(self, event: h11.Event) -> Any:
        """Return the bytes to send now, or None for an event that sends none."""
        parts = self.send_with_data_passthrough(event)
        if parts is None:
            return None
        if self._held is not None:
            self._held += parts
            return b""
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def hold(self) -> None:
        """Keep what is to be sent: it goes with the file that follows it."""
        self._held = []

    def let_go(self) -> bytes:
        """Return what was kept, and keep nothing more."""
        held, self._held = self._held or [], None
        return b"".join(held)


class Crowd:
    """How many connections a server may have, and those of them that it can spare: nothing is under way on them.

    Each of the two is in the order in which its connections came to it.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._not_asked: dict[Connection, None] = {}
        self._resting: dict[Connection, None] = {}

    def expect_head(self, connection: Connection) -> None:
        """Note one on which a request is to come, or the rest of its head, or nothing more."""
        self._resting.pop(connection, None)
        self._not_asked.setdefault(connection)

    def rest(self, connection: Connection) -> None:
        """Note one that rests after a reply."""
        self.forget(connection)
        self._resting[connection] = None

    def forget(self, connection: Connection) -> None:
        """Note that one is busy, or gone."""
        self._not_asked.pop(connection, None)
        self._resting.pop(connection, None)

    def one_to_spare(self) -> Connection | None:
        """Return the one that is missed least: who has not asked for the longest time, else who has rested for the longest."""
        return next(iter(self._not_asked), None) or next(iter(self._resting), None)


class _Parting(asyncio.Transport):
    """The transport of a reply to a request whose body nobody will read: closing it gives the other side time to read the reply."""

    def __init__(self, transport: asyncio.Transport, part: Callable[[], None]) -> None:
        super().__init__()
        self._transport = transport
        self._part = part

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        self._transport.write(data)

    def is_closing(self) -> bool:
        """Return whether the connection ends."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Part from the other side."""
        self._part()


class Connection(H11Protocol):
    """One connection, which must not be held open by someone who says nothing, half a request's head, or a body that nobody reads.

    uvicorn times out what is idle after a reply, and a sender's body is timed by who reads it; what comes before, and
    who does not take a reply, is timed here. A reply before the end of the request's body ends the connection. Where
    there are as many as there may be, a new one takes the place of one that can be spared.
    """

    longest_head_s: ClassVar[float] = 30.0
    longest_stall_s: ClassVar[float] = 60.0  # a reply of which nothing is taken
    longest_parting_s: ClassVar[float] = 5.0  # for the rest of a body that nobody reads
    _head_due: asyncio.TimerHandle | None = None
    _parting_due: asyncio.TimerHandle | None = None

    def __init__(self, config: uvicorn.Config, *arguments: Any, crowd: Crowd, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        self._crowd = crowd
        self.conn = framing = _Framing(h11.SERVER, config.h11_max_incomplete_event_size or _MOST_HEAD_BYTES)
        self._watch = Watch(self.longest_stall_s, left=self._left, stalled=self._give_up)
        self._serve = ZeroCopy(
            self.app, self, framing, longest_stall_s=self.longest_stall_s, stalled=self._give_up
        )
        self.app = self._serve_and_part

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request."""
        super().connection_made(transport)
        # paused until all is with the system: then a reply that is said to have gone is held nowhere, and a file may follow
        encrypted = transport.get_extra_info("sslcontext") is not None
        transport.set_write_buffer_limits(high=1 if encrypted else 0)  # at 0 asyncio's TLS never goes on
        if len(self.connections) > self._crowd.most:
            (self._crowd.one_to_spare() or self).let_go()
        self._look()

    def data_received(self, data: bytes) -> None:
        """Take what came; whatever is left over is part of a head."""
        if self._parting_due is not None:
            return
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Rest, or go on with a request that has come meanwhile."""
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._crowd.forget(self)
        self._forget_head()
        self._watch.stop()
        if self._parting_due is not None:
            self._parting_due.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """See that the other side takes what is sent; this ends with all of it, also of a connection that is being closed."""
        super().pause_writing()
        self._watch.start()

    def resume_writing(self) -> None:
        """Go on sending."""
        self._watch.stop()
        super().resume_writing()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Leave the transport to another protocol."""
        self._watch.stop()
        super().handle_websocket_upgrade(event)

    def _look(self) -> None:
        """See whether a head is awaited, a request is under way, or neither."""
        if self._parting_due is not None:
            self._crowd.expect_head(self)
        elif self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._crowd.forget(self)
            self._forget_head()
        elif self.cycle is None or self.conn.trailing_data[0]:
            self._crowd.expect_head(self)
            if self._head_due is None:
                self._head_due = self.loop.call_later(self.longest_head_s, self.let_go)
        else:
            self._crowd.rest(self)
            self._forget_head()

    def _forget_head(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    async def _serve_and_part(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; a reply before the end of its body is the last one, as nobody reads the rest."""
        if self.conn.their_state is not h11.SEND_BODY:
            await self._serve(scope, receive, send)
            return
        cycle = self.cycle

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and self.conn.their_state is h11.SEND_BODY:
                cycle.transport = _Parting(self.transport, self._part)
                kept = [pair for pair in message.get("headers", []) if pair[0].lower() != b"connection"]
                message["headers"] = [*kept, (b"connection", b"close")]
            await send(message)

        await self._serve(scope, receive, sending)

    def _part(self) -> None:
        """Say that nothing more comes, and drop what does for a moment.

        One that is closed on bytes that nobody has read is reset, and a reset takes back the reply that the other side has
        not read yet.
        """
        if self.transport.is_closing():
            return
        self._parting_due = self.loop.call_later(self.longest_parting_s, self.let_go)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _left(self) -> object:
        """Return what the other side has not taken yet."""
        descriptor = self.transport.get_extra_info("socket").fileno()
        return self.transport.get_write_buffer_size(), unacknowledged_bytes(descriptor)

    def _give_up(self) -> None:
        """End it: the other side does not take its reply."""
        who = "{}:{}".format(*self.client) if self.client else "somebody"
        asked = ""
        if self.scope is not None:  # the path as it was sent, percent-encoded: nothing in it breaks the line
            path = self.scope["raw_path"].decode("ascii")[:_MOST_SAID_OF_PATH]
            asked = f" to {self.scope['method']} {path}"
        logger.warning(
            "%s has taken nothing of the reply%s for %g s: its connection is ended",
            who,
            asked,
            self.longest_stall_s,
        )
        self.transport.abort()

    def let_go(self) -> None:
        """Close it, once what was said has gone out."""
        self._crowd.forget(self)
        if not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """A uvicorn server that says when it is ready, and leaves signals to the entry point; with a certificate it speaks TLS."""

    def __init__(
        self,
        app: FastAPI,
        *,
        on_ready: Callable[[], None] | None = None,
        certificate: Certificate | None = None,
        most_connections: int | None = None,
    ) -> None:
        crowd = Crowd(most_connections or int(allow_many() * _SHARE_OF_CONNECTIONS))
        config = uvicorn.Config(
            app,
            http=cast(
                "type[asyncio.Protocol]", partial(Connection, crowd=crowd)
            ),  # on h11: the same parser, and its limit below, whatever else is installed
            log_level="warning",
            access_log=False,
            lifespan="on",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
            server_header=False,
            ssl_certfile=None if certificate is None else certificate.file,
            ssl_keyfile=None if certificate is None else certificate.key_file,
            ssl_ciphers="DEFAULT",
        )
        super().__init__(config)
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: the entry point stops the server by `stop`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving, then say so."""
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            self._on_ready()

    def stop(self) -> None:
        """Ask the server to finish its requests and return."""
        self.should_exit = True


async def serve(server: Server, listener: socket.socket, stop: asyncio.Event) -> None:
    """Serve on a bound socket until `stop` is set.

    Raises
    ------
    RuntimeError
        If the app could not start (its lifespan failed); the log says why.
    """
    stopper = asyncio.create_task(_stop_when(server, stop))
    try:
        await server.serve(sockets=[listener])
    finally:
        stopper.cancel()
    if not server.started:
        raise RuntimeError("the server could not start")


async def _stop_when(server: Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.stop()
