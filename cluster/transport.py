"""Talking HTTP to one role of the cluster: errors of our own tree, bounded replies, back-off with jitter.

httpx's errors become ours in one function (`translated`), problem bodies in another (`checked`). A token goes to the
host it was given for and nowhere else: no redirect is followed, no proxy or netrc of the environment is used.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import ValidationError

from cluster.errors import (
    ClusterError,
    Internal,
    Invalid,
    TooLarge,
    Unavailable,
    from_problem,
)
from cluster.pinning import bare, explained, split_address, verification
from cluster.protocol import DEFAULT_PORTS, Message

MAX_REPLY_BYTES: Final = 64 << 20
_MAX_PROBLEM_BYTES: Final = 1 << 20

M = TypeVar("M", bound=Message)
T = TypeVar("T")


def normalised_url(text: str, *, role: str = "scheduler") -> str:
    """Return the base URL a person meant: `lab-pc-3` is `http://lab-pc-3:15400`.

    Raises
    ------
    Invalid
        If it is not the http or https address of a server.
    """
    given = text.strip()
    parts = urlsplit(given if "://" in given else f"http://{given}")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or port == 0
        or parts.query
        or parts.fragment
    ):
        raise Invalid(f"{text!r} is not the address of a {role}; write http://HOST:PORT", field="url")
    if parts.username is not None:
        raise Invalid(f"a {role}'s address must not hold a user name or password", field="url")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if port is None and parts.scheme == "http":
        port = DEFAULT_PORTS[role]
    netloc = host if port is None else f"{host}:{port}"
    return f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}"


CALIBRATION_BYTES = 16 << 20
PLACE_BYTES = 32 << 20
"""Of a reply with a calibration, which is larger than its file by how numbers are written."""


def calibration_route(path: str) -> str:
    """Return the route of a calibration on a data server; raises as `series_route`."""
    return f"/api/v1/calibrations/{_quoted(path)}"


def run_route(run_id: str = "", tail: str = "") -> str:
    """Return the route of the calibrations that a data server makes, or of one."""
    one = f"/{quote(run_id, safe='')}" if run_id else ""
    return f"/api/v1/calibration-runs{one}{tail}"


def series_route(path: str, tail: str = "") -> str:
    """Return the route of a series of the data server, its name quoted.

    Raises
    ------
    Invalid
        If a part of the path is '.' or '..': whoever sends the request would resolve it, and ask for another route.
    """
    return f"/api/v1/series/{_quoted(path)}{tail}"


def _quoted(path: str) -> str:
    if not {".", ".."}.isdisjoint(path.split("/")):
        raise Invalid(f"{path[:200]!r} is no path of a series: it holds '.' or '..'", field="path")
    return quote(path, safe="/")


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn what httpx raises into errors of our tree."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise Unavailable(f"{url} did not answer in time") from error
    except httpx.TransportError as error:
        if (untrusted := explained(error, url)) is not None:
            raise untrusted from error
        said = (str(error) or type(error).__name__).rstrip(".")
        if isinstance(error, httpx.RemoteProtocolError) and url.startswith("http:"):
            said += " (does the cluster encrypt? Then its address begins with https://)"
        raise Unavailable(f"{url} cannot be reached: {said}") from error
    except httpx.InvalidURL as error:
        raise Invalid(f"{url} is not an address: {error}", field="url") from error


def problem_of(response: httpx.Response, content: bytes) -> ClusterError:
    """Return the error that a reply of status 300 and above stands for."""
    if response.is_redirect:
        return Internal(f"{response.request.url} redirects elsewhere; a token is not sent to other hosts")
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    problem = body if isinstance(body, dict) else {}
    error = from_problem(response.status_code, problem)
    retry_after = response.headers.get("retry-after", "")
    if retry_after.isdigit():
        error.facts.setdefault("retry_after_s", int(retry_after))
    return error


@dataclass(frozen=True)
class Reply:
    """A reply that was read whole."""

    url: str
    status: int
    headers: Mapping[str, str]
    content: bytes

    def message(self, kind: type[M]) -> M:
        """Return the message in the reply.

        Raises
        ------
        Internal
            If it is not one that this version understands.
        """
        try:
            return kind.model_validate_json(self.content)
        except ValidationError as error:
            raise Internal(
                f"{self.url} answered in a way that this version does not understand "
                f"({error.error_count()} faults in {kind.__name__}); are both sides of the same version?"
            ) from error


def request_arguments(
    body: Message | bytes | Iterator[bytes] | None, headers: Mapping[str, str]
) -> dict[str, Any]:
    """Return httpx's arguments for a body: a message as JSON, or bytes as they are, at once or piece by piece."""
    if body is None:
        return {"headers": dict(headers)}
    if not isinstance(body, Message):
        return {"headers": {"content-type": "application/octet-stream", **headers}, "content": body}
    content = body.model_dump_json().encode()
    return {"headers": {"content-type": "application/json", **headers}, "content": content}


def authorised(token: str | None) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"authorization": f"Bearer {bare(token)}"} if token else {}


def client_arguments(url: str, pin: str | None, token: str | None, timeout_s: float) -> dict[str, Any]:
    """Return what every httpx client of ours is made with."""
    return {
        "base_url": url,
        "verify": verification(url, pin, token),
        "headers": {"accept-encoding": "identity"},
        "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, 5.0)),
        "follow_redirects": False,
        "trust_env": False,
    }


class Link:
    """One server, spoken to asynchronously; `pinning` says what an address is. Nothing here tries twice; see `persist`."""

    def __init__(
        self,
        address: str,
        token: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        self.url, pin = split_address(address)
        self.token = token
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            transport=transport, **client_arguments(self.url, pin, token, timeout_s)
        )

    async def get(self, path: str, kind: type[M], **options: Any) -> M:
        """Return the message at a path; `options` are those of `request`."""
        return (await self.request("GET", path, **options)).message(kind)

    async def send(self, path: str, body: Message | bytes | None, kind: type[M], **options: Any) -> M:
        """Post a body and return the message that answers it."""
        return (await self.request("POST", path, body, **options)).message(kind)

    async def request(
        self,
        method: str,
        path: str,
        body: Message | bytes | None = None,
        *,
        params: Mapping[str, str | int | float] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        limit_bytes: int = MAX_REPLY_BYTES,
        anonymous: bool = False,
    ) -> Reply:
        """Make one request and read its reply whole; an anonymous one carries no token.

        Raises
        ------
        Unavailable
            If nobody answers.
        TooLarge
            If the reply is over `limit_bytes`.
        ClusterError
            What the server's problem body says.
        """
        arguments = request_arguments(
            body, authorised(None if anonymous else self.token) | dict(headers or {})
        )
        wait = httpx.Timeout(timeout_s or self._timeout_s, connect=5.0)
        url = f"{self.url}{path}"
        with translated(url):
            async with self._client.stream(
                method, path, params=params, timeout=wait, **arguments
            ) as response:
                limit = limit_bytes if response.is_success else _MAX_PROBLEM_BYTES
                content = await _bounded(response, url, limit)
        if not response.is_success:
            raise problem_of(response, content)
        return Reply(url=url, status=response.status_code, headers=response.headers, content=content)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class BlockingLink:
    """One server, spoken to by a program that waits. Nothing here tries twice."""

    def __init__(
        self,
        address: str,
        token: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        self.url, pin = split_address(address)
        self.token = token
        self._timeout_s = timeout_s
        self._client = httpx.Client(transport=transport, **client_arguments(self.url, pin, token, timeout_s))

    def request(
        self,
        method: str,
        path: str,
        body: Message | bytes | Iterator[bytes] | None = None,
        *,
        limit_bytes: int = MAX_REPLY_BYTES,
        **options: Any,
    ) -> Reply:
        """Make one request and read its reply whole; raises as `Link.request` does."""
        with self.stream(method, path, body, **options) as response:
            content = _bounded_now(response, f"{self.url}{path}", limit_bytes)
            return Reply(f"{self.url}{path}", response.status_code, response.headers, content)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        body: Message | bytes | Iterator[bytes] | None = None,
        *,
        params: Mapping[str, str | int | float] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        anonymous: bool = False,
    ) -> Iterator[httpx.Response]:
        """Make one request and give its response to be read piece by piece; an anonymous one carries no token."""
        arguments = request_arguments(
            body, authorised(None if anonymous else self.token) | dict(headers or {})
        )
        wait = httpx.Timeout(timeout_s or self._timeout_s, connect=5.0)
        url = f"{self.url}{path}"
        with (
            translated(url),
            self._client.stream(method, path, params=params, timeout=wait, **arguments) as response,
        ):
            if not response.is_success:
                raise problem_of(response, _bounded_now(response, url, _MAX_PROBLEM_BYTES))
            yield response

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _bounded_now(response: httpx.Response, url: str, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for part in response.iter_bytes():
        size += len(part)
        if size > limit_bytes:
            raise TooLarge(f"{url} sent more than {limit_bytes} bytes")
        parts.append(part)
    return b"".join(parts)


async def _bounded(response: httpx.Response, url: str, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > limit_bytes:
            raise TooLarge(f"{url} sent more than {limit_bytes} bytes")
        parts.append(part)
    return b"".join(parts)


@asynccontextmanager
async def linked(address: str, token: str | None = None, *, timeout_s: float = 30.0) -> AsyncIterator[Link]:
    """Give a link for the length of a block."""
    link = Link(address, token, timeout_s=timeout_s)
    try:
        yield link
    finally:
        await link.aclose()
