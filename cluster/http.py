"""What every server of the cluster shares: tokens, host names, body limits, problem bodies, `/healthz`."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.errors import (
    CallerError,
    ClusterError,
    Forbidden,
    Internal,
    Misdirected,
    NotAllowed,
    NotFound,
    TooLarge,
    TransientError,
    Unauthorised,
    Unavailable,
)
from cluster.faults import invalid
from cluster.openapi import PROBLEM_MEDIA_TYPE, document_errors
from cluster.protocol import Health, Role
from cluster.trust import role_of

logger = logging.getLogger(__name__)

_BEARER: Final = HTTPBearer(
    auto_error=False, scheme_name="bearer"
)  # for the document; the gate looks at the token
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SLOWEST_BYTES_PER_S: Final = 1024.0  # who sends less holds a connection for its own sake
_SECURITY_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


@dataclass
class Gate:
    """Who is let through: the verifiers of the cluster's tokens, and the host names that are ours.

    `verifiers` may be replaced while serving (a data server learns them when it registers); empty means that nobody
    is let in yet. `insecure` lets everyone in as owner, and is said out loud at start.
    """

    verifiers: Mapping[Role, str]
    hosts: frozenset[str] = frozenset()
    insecure: bool = False
    body_limit_bytes: int = 1 << 20
    silence_s: float = 30.0  # how long a sender may pause in the middle of a body
    body_limits: Mapping[str, int] = field(default_factory=dict)  # by path suffix
    public: frozenset[str] = frozenset()  # paths that take bodies from anyone
    reads_itself: Callable[[str, str], bool] = lambda _method, _path: (
        False
    )  # a route that reads, and limits, its body

    def __post_init__(self) -> None:
        """Say it if everyone is let in."""
        if self.insecure:
            logger.warning(
                "INSECURE: no token is asked for: whoever reaches this port may do everything (--insecure)"
            )

    def role(self, request: Request) -> Role:
        """Return the role of the request's bearer token; raises `Unauthorised`."""
        if self.insecure:
            return "owner"
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not presented:
            raise Unauthorised(
                "a token is needed: send the header 'Authorization: Bearer TOKEN' (see clusterofone token)"
            )
        return role_of(presented.strip(), self.verifiers)

    def admit(self, request: Request, roles: tuple[Role, ...]) -> Role:
        """Return the request's role if it is one of these, or the owner's; raises `Unauthorised` or `Forbidden`."""
        role = self.role(request)
        if role != "owner" and role not in roles:
            raise Forbidden(f"a {role} token may not do this; it needs {' or '.join(roles) or 'owner'}")
        return role

    def check_sender(self, scope: Scope) -> None:
        """Raise `Unauthorised` for a body from somebody without a token: nothing of it is read.

        Whether the role is one that may is the route's to say; while no token is known yet, that too.
        """
        request = Request(scope)
        has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
        if has_body and self.verifiers and scope["path"] not in self.public:
            self.role(request)

    def limit_bytes(self, path: str) -> int:
        """Return how large a body sent to this path may be."""
        for suffix, limit in self.body_limits.items():
            if path.endswith(suffix):
                return limit
        return self.body_limit_bytes


def require(*roles: Role) -> Callable[..., Awaitable[Role]]:
    """Return a dependency that lets these roles, and the owner, through."""

    # async: what is not, FastAPI calls in a thread, 0.3 ms a request
    async def check(request: Request, _: Annotated[object, Depends(_BEARER)]) -> Role:
        gate: Gate = request.app.state.gate
        return gate.admit(request, roles)

    return check


def install(app: FastAPI, gate: Gate, *, role: str) -> None:
    """Give an app the shared behaviour: gate, problem bodies, limits, `/healthz`."""
    app.state.gate = gate
    app.add_exception_handler(ClusterError, _problem)
    app.add_exception_handler(RequestValidationError, _validation_problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Exception, _crash)
    app.add_middleware(BodyLimit, gate=gate)
    app.add_middleware(HostGuard, gate=gate)
    document_errors(app)

    @app.get("/healthz")
    async def healthz() -> Health:
        """Say that this process serves requests; no token needed."""
        return Health(role=role)


def problem_response(error: ClusterError) -> JSONResponse:
    """Return the RFC 9457 response of an error."""
    headers = {"www-authenticate": "Bearer"} if isinstance(error, Unauthorised) else {}
    if isinstance(error, TransientError):
        headers["retry-after"] = "1"
    return JSONResponse(
        error.problem(), status_code=error.status, headers=headers, media_type=PROBLEM_MEDIA_TYPE
    )


async def _problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ClusterError)
    return problem_response(error)


async def _validation_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = [{**fault, "loc": fault["loc"][1:]} for fault in error.errors()]
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not media_type.endswith(("/json", "+json")):
        for fault in found:
            if not fault["loc"] and fault["type"] != "missing":
                fault["msg"] = (
                    f"must be sent as JSON, with the header Content-Type: application/json, not {media_type[:100] or 'none'}"
                )
    return problem_response(invalid(found))


async def _http_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kinds: dict[int, type[ClusterError]] = {404: NotFound, 405: NotAllowed, 413: TooLarge}
    return problem_response(kinds.get(error.status_code, CallerError)(str(error.detail)))


async def _crash(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem_response(Internal("the server met a fault of its own; its log says more"))


class HostGuard:
    """Refuse requests for host names that are not ours, on every route (DNS rebinding); add security headers.

    IP addresses and localhost are always ours: a page of another site cannot be at them. What changes something is also
    refused if a browser says that a page of another site sent it: tokens stop such a request anyway, but where a route
    is public, or the cluster runs without tokens, nothing else would.
    """

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        host = _host_name(headers.get(b"host", b"").decode("latin-1"))
        if not _is_ours(host, self._gate.hosts):
            await _send_problem(Misdirected(f"{host!r} is not a name of this server"), send)
            return
        if scope["method"] not in _SAFE_METHODS and _is_from_another_site(headers):
            await _send_problem(Forbidden("a page of another site may not ask for this"), send)
            return
        await self._app(scope, receive, _with_headers(send))


class BodyLimit:
    """Read each body whole, up to its path's limit, with or without Content-Length; else 413. A stranger's is not read."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if (
            scope["type"] != "http"
            or scope["method"] in {"GET", "HEAD"}
            or self._gate.reads_itself(scope["method"], scope["path"])
        ):
            await self._app(scope, receive, send)
            return
        try:
            self._gate.check_sender(scope)
        except ClusterError as error:
            await _send_problem(error, send)
            return
        limit = self._gate.limit_bytes(scope["path"])
        too_large = TooLarge(f"the body is over the limit of {limit} bytes")
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            await _send_problem(too_large, send)
            return
        body = bytearray()
        now = asyncio.get_running_loop().time
        began = now()
        while True:
            patience_s = self._gate.silence_s + len(body) / _SLOWEST_BYTES_PER_S
            try:
                async with asyncio.timeout_at(min(now() + self._gate.silence_s, began + patience_s)):
                    message = await receive()
            except TimeoutError:
                said = f"{len(body)} bytes of a body came in {now() - began:.0f} s, and then none in time; send it again"
                await _send_problem(Unavailable(said), send)
                return
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            if len(body) > limit:
                await _send_problem(too_large, send)
                return
            if not message.get("more_body", False):
                break
        await self._app(scope, replayed(bytes(body), receive), send)


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body which has been read, and then what else comes."""
    sent = False

    async def receiving() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            extra = [
                (k.encode(), v.encode()) for k, v in _SECURITY_HEADERS.items() if k.encode() not in present
            ]
            message["headers"] = [*message["headers"], *extra]
        await send(message)

    return sending


async def _send_problem(error: ClusterError, send: Send) -> None:
    reply = problem_response(error)
    headers = [*reply.raw_headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": reply.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def _is_from_another_site(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a browser says so. A program sends neither header; a page of ours has the address it asks."""
    if headers.get(b"sec-fetch-site", b"none") not in {b"none", b"same-origin"}:
        return True
    origin = headers.get(b"origin")
    if origin is None:
        return False
    scheme, _, authority = origin.lower().partition(b"://")
    host = headers.get(b"host", b"").lower()
    if _host_name(host.decode("latin-1")).encode("latin-1") == host.strip(b"[]"):  # a proxy may drop the port
        authority = _host_name(authority.decode("latin-1")).encode("latin-1")
        host = host.strip(b"[]")
    port = {b"http": b":80", b"https": b":443"}.get(scheme, b"")
    return authority.removesuffix(port) != host.removesuffix(port)


def _host_name(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if header.count(":") == 1 else header


def _is_ours(host: str, hosts: frozenset[str]) -> bool:
    if host.lower() in hosts or host.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
