"""The door of the page: who has no session gets the login and nothing else, and no other site may act through a visitor's browser.

The link that is printed carries the token in its fragment, which browsers send nowhere. The login page posts it once, from this
very page, and gets a cookie that scripts cannot read and other sites cannot use. The cookie is a secret of this process alone: the
token never comes back to the browser.
"""

from __future__ import annotations

import json
from http.cookies import CookieError, SimpleCookie
from importlib import resources
from typing import Final
from urllib.parse import urlsplit

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.errors import CallerError, ClusterError, Forbidden, Invalid, Unauthorised
from cluster.http import problem_response
from cluster.web.visitors import Visitors

_OPEN: Final = frozenset({"/login", "/login.js", "/login.css", "/healthz", "/favicon.ico"})
_SAFE: Final = frozenset({"GET", "HEAD"})
_LOGIN_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'none'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
# Vue compiles its templates in the browser, and NiceGUI writes scripts and styles into its page; nothing may come from, or go to, elsewhere
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' {sockets}; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def cookie_name(port: int) -> str:
    """Return the cookie's name: browsers share cookies between the ports of a host, and there may be several clusters."""
    return f"clusterofone_{port}"


class Doorway:
    """Let through who has a session, put the visitor into the scope, and refuse what another site's page sends."""

    def __init__(self, app: ASGIApp, visitors: Visitors, cookie: str) -> None:
        self._app = app
        self._visitors = visitors
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = {
            name.lower().decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if changes and not _same_origin(headers):
            error = Forbidden("this request comes from a page of another site")
            await _refuse(error, scope, receive, send)
            return
        if scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        visitor = self._visitors.of(_cookie_of(headers.get("cookie", ""), self._cookie))
        if visitor is None:
            await self._without_session(scope, headers, receive, send)
            return
        scope["visitor"] = visitor
        await self._app(scope, receive, _with_policy(send, headers.get("host", "")))

    async def _without_session(
        self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send
    ) -> None:
        if scope["type"] == "http" and "text/html" in headers.get("accept", ""):
            response = Response(status_code=303, headers={"location": "/login"})
            await response(scope, receive, send)
            return
        await _refuse(Unauthorised("open the link that clusterofone printed"), scope, receive, send)


def install_login(app: FastAPI, visitors: Visitors, cookie: str, *, insecure: bool = False) -> None:
    """Add the login, its files, and the way out."""
    for path, name, media_type in (
        ("/login", "login.html", "text/html; charset=utf-8"),
        ("/login.js", "login.js", "text/javascript; charset=utf-8"),
        ("/login.css", "login.css", "text/css; charset=utf-8"),
    ):
        _serve(app, path, resources.files("cluster.web").joinpath("static", name).read_bytes(), media_type)

    @app.post("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        token = None if insecure else _token_in(await request.body())
        try:
            key = await to_thread.run_sync(visitors.enter, token)
        except ClusterError as error:
            return problem_response(error)
        response = JSONResponse({"welcome": True})
        secure = request.url.scheme == "https"
        response.set_cookie(cookie, key, httponly=True, samesite="strict", path="/", secure=secure)
        return response

    @app.post("/logout", include_in_schema=False)
    async def logout(request: Request) -> Response:
        visitors.leave(request.cookies.get(cookie))
        response = Response(status_code=204)
        response.delete_cookie(cookie, httponly=True, samesite="strict", path="/")
        return response


def _serve(app: FastAPI, path: str, content: bytes, media_type: str) -> None:
    async def file() -> Response:
        return Response(content, media_type=media_type, headers={"content-security-policy": _LOGIN_POLICY})

    app.add_api_route(path, file, include_in_schema=False)


def _token_in(body: bytes) -> str:
    try:
        said = json.loads(body)
        token = said["token"]
    except (ValueError, KeyError, TypeError):
        raise Invalid('send {"token": "…"}', field="token") from None
    if not isinstance(token, str) or not 0 < len(token) <= 512 or not token.isascii():
        raise CallerError("this is not a token; open the link that clusterofone printed", field="token")
    return token


def _same_origin(headers: dict[str, str]) -> bool:
    """Return whether a browser sends this from our own page, or who sends it is no browser."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in {"same-origin", "none"}:
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _cookie_of(header: str, name: str) -> str | None:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return None
    return None if found is None else found.value


def _with_policy(send: Send, host: str) -> Send:
    policy = PAGE_POLICY.format(sockets=f"ws://{host} wss://{host}")

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"content-security-policy", policy.encode("latin-1"))]
        await send(message)

    return sending


async def _refuse(error: ClusterError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4401, "reason": error.detail[:100]})
        return
    await problem_response(error)(scope, receive, send)
