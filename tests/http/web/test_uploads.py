"""Files dropped on the page: passed on piece by piece with the visitor's own token; what the data server refuses is said."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from cluster.errors import Conflict
from cluster.http import Gate, install
from cluster.protocol import UploadedFile
from cluster.web.doorway import Doorway, install_login
from cluster.web.uploads import reads_itself, router
from cluster.web.visitors import Visitor, Visitors, role_said

pytestmark = pytest.mark.anyio

BASE = "http://127.0.0.1:15480"


class KeptFiles:
    """A data server that keeps what it is sent, piece by piece, and refuses a name that it has."""

    def __init__(self) -> None:
        self.files: dict[str, list[bytes]] = {"there.tif": []}
        self.sizes: list[int | None] = []

    def upload(self, path: str, content: Iterator[bytes], *, size: int | None = None) -> UploadedFile:
        if path in self.files:
            raise Conflict(f"{path} exists already; nothing is written over", path=path)
        self.sizes.append(size)
        self.files[path] = list(content)
        return UploadedFile(path=path, bytes=sum(map(len, self.files[path])), sha256="")


@pytest.fixture
def kept() -> KeptFiles:
    return KeptFiles()


@pytest.fixture
async def browser(kept: KeptFiles) -> AsyncIterator[httpx.AsyncClient]:
    visitors = Visitors(lambda token: Visitor(kept, role_said(token), lambda: 0.0))  # type: ignore[arg-type]
    app = FastAPI()
    app.add_middleware(Doorway, visitors=visitors, cookie="c")
    gate = Gate({}, body_limit_bytes=1000, reads_itself=reads_itself)
    install(app, gate, role="web")
    install_login(app, visitors, "c")
    app.include_router(router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=BASE) as client:
        yield client


async def log_in(browser: httpx.AsyncClient) -> None:
    await browser.post("/login", json={"token": "c1.submitter.x"}, headers={"origin": BASE})


async def pieces(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number]) * 1000


async def put(browser: httpx.AsyncClient, path: str, **others: Any) -> httpx.Response:
    return await browser.put(
        f"/data/files/{path}", headers={"origin": BASE, **others.pop("headers", {})}, **others
    )


async def test_a_file_goes_through_piece_by_piece_whatever_its_size(
    browser: httpx.AsyncClient, kept: KeptFiles
) -> None:
    await log_in(browser)

    reply = await put(browser, "day%201/cells.tif", content=pieces(50))

    assert reply.status_code == 201, reply.text
    assert reply.json()["bytes"] == 50_000
    assert len(kept.files["day 1/cells.tif"]) == 50
    assert b"".join(kept.files["day 1/cells.tif"]) == b"".join(bytes([n]) * 1000 for n in range(50))


async def test_the_size_is_passed_on_so_that_room_can_be_looked_for(
    browser: httpx.AsyncClient, kept: KeptFiles
) -> None:
    await log_in(browser)

    await put(browser, "cells.tif", content=b"x" * 5000)

    assert kept.sizes == [5000]


async def test_a_name_that_is_taken_is_said(browser: httpx.AsyncClient) -> None:
    await log_in(browser)

    reply = await put(browser, "there.tif", content=pieces(20))

    assert reply.status_code == 409
    assert "nothing is written over" in reply.json()["detail"]


async def test_without_a_session_and_from_another_site_nothing_is_taken(
    browser: httpx.AsyncClient, kept: KeptFiles
) -> None:
    outside = await put(browser, "cells.tif", content=b"x")
    await log_in(browser)
    elsewhere = await put(browser, "cells.tif", content=b"x", headers={"origin": "https://evil.example"})

    assert (outside.status_code, elsewhere.status_code) == (401, 403)
    assert "cells.tif" not in kept.files
