"""Binding a port before anything else, and running an app on it until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from cluster.errors import Conflict
from cluster.protocol import DEFAULT_PORTS

__all__ = ["DEFAULT_PORTS", "Server", "bind", "serve"]

_PORTS_TO_TRY = 40


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


class Server(uvicorn.Server):
    """A uvicorn server that says when it is ready, and leaves signals to the entry point."""

    def __init__(self, app: FastAPI, *, on_ready: Callable[[], None] | None = None) -> None:
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="on",
            http="h11",  # the same parser, and its limit below, whatever else is installed
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=64 << 10,
            server_header=False,
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
