"""The page's door: who is let in, with what, and what other sites may not do."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI, WebSocket
from PIL import Image

from cluster.arrays import FrameRange
from cluster.errors import NotFound, Unauthorised, Unavailable
from cluster.http import Gate, install
from cluster.web.doorway import Doorway, cookie_name, install_login
from cluster.web.pictures import router
from cluster.web.visitors import Visitor, Visitors, role_said

pytestmark = pytest.mark.anyio

OWNER = "c1.owner.secret"
COOKIE = cookie_name(15480)
BASE = "http://127.0.0.1:15480"


class PlayedCluster:
    """What the page asks of the cluster, answered from memory."""

    def __init__(self) -> None:
        self.drawn: dict[str, Any] = {}
        self.away = False

    def frames(self, path: str, start: int, stop: int) -> FrameRange:
        if path != "c.tif":
            raise NotFound(f"there is no series {path}", field="series")
        return FrameRange(start, np.arange(64 * 32, dtype=np.uint16).reshape(1, 64, 32) + start)

    def facts(self, path: str) -> Any:
        return type("Facts", (), {"frames": 10})()

    def job(self, job_id: str) -> Any:
        return type("Job", (), {"name": "cell 1: σ"})()

    def jobs(self) -> list[Any]:
        if self.away:
            raise Unavailable("http://127.0.0.1:15400 cannot be reached")
        return []

    def identity(self) -> str:
        return "lab"

    workers = pending_joins = jobs

    def render(self, job_id: str, **look: Any) -> bytes:
        self.drawn = look
        return b"\x89PNG drawn"

    def download(self, job_id: str, kind: str, path: Path) -> Path:
        path.write_bytes(b"rows")
        return path

    def close(self) -> None:
        raise AssertionError("a visitor's pages may still be asking")


@pytest.fixture
def played() -> PlayedCluster:
    return PlayedCluster()


@pytest.fixture
def visitors(played: PlayedCluster) -> Visitors:
    def admit(token: str | None) -> Visitor:
        if token != OWNER:
            raise Unauthorised("this token is not one of this cluster's")
        return Visitor(played, role_said(token), lambda: 1000.0)  # type: ignore[arg-type]

    return Visitors(admit)


@pytest.fixture
def app(visitors: Visitors) -> FastAPI:
    app = FastAPI()
    app.add_middleware(Doorway, visitors=visitors, cookie=COOKIE)
    install(app, Gate({}), role="web")
    install_login(app, visitors, COOKIE)
    app.include_router(router)

    @app.get("/inside")
    async def inside() -> str:
        return "welcome"

    @app.websocket("/socket")
    async def socket(connection: WebSocket) -> None:
        await connection.accept()
        await connection.send_text("open")
        await connection.close()

    return app


@pytest.fixture
async def browser(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=BASE) as client:
        yield client


async def log_in(browser: httpx.AsyncClient) -> httpx.Response:
    return await browser.post("/login", json={"token": OWNER}, headers={"origin": BASE})


async def test_without_a_session_there_is_the_login_and_nothing_else(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/inside", headers={"accept": "text/html"})
    data = await browser.get("/data/frame.png?series=c.tif&number=0")

    assert (page.status_code, page.headers["location"]) == (303, "/login")
    assert data.status_code == 401
    login = await browser.get("/login")
    assert login.status_code == 200
    assert "http://" not in login.text + (await browser.get("/login.js")).text
    assert "default-src 'none'" in login.headers["content-security-policy"]


async def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_cannot_use(
    browser: httpx.AsyncClient,
) -> None:
    reply = await log_in(browser)

    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert OWNER not in reply.headers["set-cookie"]
    inside = await browser.get("/inside")
    assert inside.json() == "welcome"
    assert "default-src 'none'" in inside.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in inside.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"token": "c1.owner.guess"}', 401),
        (b"nothing", 400),
        (b'{"token": 3}', 400),
        (b'{"token": ""}', 400),
        (b"[]", 400),
    ],
)
async def test_a_wrong_token_opens_nothing(browser: httpx.AsyncClient, body: bytes, status: int) -> None:
    reply = await browser.post("/login", content=body, headers={"origin": BASE})

    assert reply.status_code == status
    assert "set-cookie" not in reply.headers
    assert (await browser.get("/inside")).status_code == 401


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
async def test_another_sites_page_changes_nothing(
    browser: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    await log_in(browser)

    assert (await browser.post("/logout", headers=headers)).status_code == 403
    assert (await browser.get("/inside")).status_code == 200


async def test_a_host_name_that_is_not_ours_is_refused(browser: httpx.AsyncClient) -> None:
    assert (await browser.get("/login", headers={"host": "evil.example"})).status_code == 421


async def test_after_the_log_out_pages_that_are_open_say_so(
    browser: httpx.AsyncClient, visitors: Visitors
) -> None:
    await log_in(browser)
    visitor = visitors.of(browser.cookies[COOKIE])
    assert visitor is not None

    assert (await browser.post("/logout", headers={"origin": BASE})).status_code == 204

    assert visitors.of(browser.cookies.get(COOKIE)) is None
    await visitor.look()
    assert "logged out" in str(visitor.trouble)


async def socket_says(app: FastAPI, **headers: str) -> list[str]:
    """What the app sends to a browser that opens the page's socket."""
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    named = {"host": BASE.removeprefix("http://"), **headers}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    scope = {
        "type": "websocket",
        "path": "/socket",
        "raw_path": b"/socket",
        "query_string": b"",
        "headers": raw,
        "subprotocols": [],
    }
    await app({**scope, "scheme": "ws", "root_path": ""}, receive, send)
    return sent


async def test_the_pages_socket_opens_with_the_cookie_and_from_this_page_alone(
    app: FastAPI, browser: httpx.AsyncClient
) -> None:
    await log_in(browser)
    cookie = f"{COOKIE}={browser.cookies[COOKIE]}"

    assert await socket_says(app, origin=BASE) == ["websocket.close"]
    assert await socket_says(app, origin="http://evil.example", cookie=cookie) == ["websocket.close"]
    assert await socket_says(app, origin=BASE, cookie=cookie) == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]


async def test_frames_are_drawn_with_the_contrast_that_is_asked_for(browser: httpx.AsyncClient) -> None:
    await log_in(browser)

    plain = await browser.get(
        "/data/frame.png", params={"series": "c.tif", "number": 0, "low": 0, "high": 2047}
    )
    coloured = await browser.get(
        "/data/frame.png", params={"series": "c.tif", "number": 0, "colours": "fire"}
    )

    picture = np.asarray(Image.open(io.BytesIO(plain.content)))
    assert picture.shape == (64, 32)
    assert (picture[0, 0], picture[-1, -1]) == (0, 255)
    assert Image.open(io.BytesIO(coloured.content)).mode == "P"
    small = await browser.get("/data/thumbnail.png", params={"series": "c.tif"})
    assert max(Image.open(io.BytesIO(small.content)).size) <= 96


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("series=c.tif&number=0&colours=rainbow", 400),
        ("series=none.tif&number=0", 404),
        ("series=c.tif&number=-1", 400),
    ],
)
async def test_a_frame_that_cannot_be_drawn_says_why(
    browser: httpx.AsyncClient, query: str, status: int
) -> None:
    await log_in(browser)

    reply = await browser.get(f"/data/frame.png?{query}")

    assert reply.status_code == status
    assert reply.json()["detail"]


async def test_pictures_pass_on_how_they_are_looked_at(
    browser: httpx.AsyncClient, played: PlayedCluster
) -> None:
    await log_in(browser)

    reply = await browser.get(
        "/data/jobs/j/render.png", params={"pixel_nm": 5, "region": "0,0,10,10", "n": 7}
    )

    assert reply.content == b"\x89PNG drawn"
    assert (played.drawn["pixel_nm"], played.drawn["region"]) == (5.0, "0,0,10,10")
    assert "n" not in played.drawn
    assert (await browser.get("/data/jobs/j/render.png?colour_by=taste")).status_code == 400


async def test_a_download_has_the_jobs_name_in_letters_that_every_file_system_takes(
    browser: httpx.AsyncClient,
) -> None:
    await log_in(browser)

    reply = await browser.get("/data/jobs/j/results.csv")

    assert reply.content == b"rows"
    assert 'filename="cell_1___.csv"' in reply.headers["content-disposition"]
    assert (await browser.get("/data/jobs/j/results.exe")).status_code == 400


async def test_while_the_cluster_is_away_the_last_look_stays_and_the_reason_is_said(
    played: PlayedCluster,
) -> None:
    now = [1000.0]
    visitor = Visitor(played, "viewer", lambda: now[0])  # type: ignore[arg-type]
    seen = await visitor.look()
    played.away, now[0] = True, 1001.0

    again = await visitor.look()

    assert again is seen
    assert "cannot be reached" in str(visitor.trouble)
    played.away, now[0] = False, 1002.0
    assert (await visitor.look()) is not seen
    assert visitor.trouble is None


@pytest.mark.parametrize(
    ("token", "role", "submits", "owns"),
    [
        (OWNER, "owner", True, True),
        ("c1.viewer.x", "viewer", False, False),
        ("c1.submitter.x", "submitter", True, False),
        (None, "owner", True, True),
    ],
)
async def test_a_visitor_may_what_the_token_says(
    token: str | None, role: str, submits: bool, owns: bool, played: PlayedCluster
) -> None:
    visitor = Visitor(played, role_said(token), lambda: 0.0)  # type: ignore[arg-type]

    assert (visitor.role, visitor.may_submit, visitor.is_owner) == (role, submits, owns)
