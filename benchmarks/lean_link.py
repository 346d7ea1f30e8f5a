"""HTTP with as little work as it takes, so that one process can play thousands of workers and leave the server the machine.

`LeanLink` does what `cluster.transport.Link` does, on one connection and with one request at a time. httpx takes some 2 ms of
processor for a request and looks through its pool of connections at each; this takes a tenth. It understands the replies of
our own servers, nothing else: a status, and a body of a length that is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx

from cluster.errors import Internal, Unavailable
from cluster.protocol import Message
from cluster.transport import Link, Reply, authorised, problem_of, request_arguments


class LeanLink(Link):
    """One server, spoken to over one connection. It is opened when it is needed, and again when the server has closed it."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._connection: _Connection | None = None

    async def request(  # type: ignore[override]
        self,
        method: str,
        path: str,
        body: Message | bytes | None = None,
        *,
        params: Mapping[str, str | int | float] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        anonymous: bool = False,
    ) -> Reply:
        """Make one request and read its reply whole; raises as `Link.request` does."""
        arguments = request_arguments(
            body, authorised(None if anonymous else self.token) | dict(headers or {})
        )
        target = path if params is None else f"{path}?{urlencode(params)}"
        sent = _head(method, target, f"{self._host}:{self._port}", arguments) + arguments.get("content", b"")
        try:
            async with asyncio.timeout(timeout_s or 30.0):
                status, content = await (await self._connected()).ask(sent)
        except (TimeoutError, OSError) as error:
            await self.aclose()  # what may still come belongs to no other request
            raise Unavailable(f"{self.url}{path} did not answer: {error!r}") from error
        if not 200 <= status < 300:
            request = httpx.Request(method, f"{self.url}{path}")
            raise problem_of(httpx.Response(status, content=content, request=request), content)
        return Reply(url=f"{self.url}{path}", status=status, headers={}, content=content)

    async def aclose(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _connected(self) -> _Connection:
        if self._connection is None or self._connection.is_closed:
            loop = asyncio.get_running_loop()
            _, self._connection = await loop.create_connection(_Connection, self._host, self._port)
        return self._connection


def _head(method: str, target: str, host: str, arguments: Mapping[str, Any]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}", "accept-encoding: identity"]
    lines += [f"{name}: {value}" for name, value in arguments["headers"].items()]
    if "content" in arguments:
        lines.append(f"content-length: {len(arguments['content'])}")
    return "\r\n".join([*lines, "", ""]).encode()


class _Connection(asyncio.Protocol):
    """Sends bytes and gathers the reply: a head, and a body as long as the head says."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._came = bytearray()
        self._answered: asyncio.Future[tuple[int, bytes]] | None = None
        self.is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def ask(self, sent: bytes) -> tuple[int, bytes]:
        """Return status and body of the reply."""
        assert self._transport is not None
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(sent)
        return await self._answered

    def data_received(self, data: bytes) -> None:
        self._came += data
        head_ends = self._came.find(b"\r\n\r\n")
        if head_ends < 0:
            return
        head = bytes(self._came[:head_ends]).lower()
        begins, length = head_ends + 4, _body_length(head)
        if length is None:
            self._fail(Internal(f"a reply without a length: {head!r}"))
        elif len(self._came) >= begins + length:
            body = bytes(self._came[begins : begins + length])
            del self._came[: begins + length]
            if self._answered is not None and not self._answered.done():
                self._answered.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._fail(exc or ConnectionResetError("the server closed the connection"))

    def close(self) -> None:
        self.is_closed = True
        if self._transport is not None:
            self._transport.close()

    def _fail(self, error: Exception) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)


def _body_length(head: bytes) -> int | None:
    _, found, rest = head.partition(b"content-length:")
    if found:
        return int(rest.partition(b"\r\n")[0])
    return 0 if head[9:12] == b"204" else None
