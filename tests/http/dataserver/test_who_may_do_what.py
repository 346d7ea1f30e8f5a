"""Tokens: every route of the data server's OpenAPI document, with every role, without any, and for any host name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from cluster.dataserver.app import create_app
from cluster.dataserver.calibrations import Calibrations
from cluster.dataserver.live.acquisitions import Acquisitions
from cluster.dataserver.store import SeriesStore
from cluster.http import Gate
from cluster.protocol import Identity, Role
from cluster.trust import ROLES, token, verifiers

pytestmark = pytest.mark.anyio

SECRET = b"s" * 32
STRANGE = ("Bearer c1.owner.AAAA", "Basic b3duZXI6", "Bearer ", f"Bearer {token(b'x' * 32, 'owner')}")
PUBLIC = {("get", "/healthz"), ("get", "/api/v1/identity")}
READERS, WRITERS, LOOKERS = {"viewer", "worker"}, {"submitter"}, {"viewer", "submitter"}
ALLOWED: dict[tuple[str, str], set[str]] = {
    ("get", "/api/v1/series"): READERS,
    ("get", "/api/v1/series/{path}"): READERS,
    ("get", "/api/v1/series/{path}/frames"): READERS,
    ("get", "/api/v1/series/{path}/frames/{number}.png"): READERS,
    ("get", "/api/v1/series/{path}/events"): READERS,
    ("get", "/api/v1/series/{path}/place"): {"worker"},
    ("get", "/api/v1/calibrations/{path}"): READERS,
    ("post", "/api/v1/series/{path}"): WRITERS,
    ("post", "/api/v1/series/{path}/frames"): WRITERS,
    ("post", "/api/v1/series/{path}/events"): WRITERS,
    ("post", "/api/v1/series/{path}/complete"): WRITERS,
    ("post", "/api/v1/series/{path}/archive"): WRITERS,
    ("put", "/api/v1/files/{path}"): WRITERS,
    ("get", "/api/v1/roots"): LOOKERS,
    ("get", "/api/v1/calibration-runs"): LOOKERS,
    ("get", "/metrics"): LOOKERS,
    ("post", "/api/v1/calibration-runs"): WRITERS,
    ("get", "/api/v1/calibration-runs/{run_id}"): LOOKERS,
    ("delete", "/api/v1/calibration-runs/{run_id}"): WRITERS,
    ("get", "/api/v1/calibration-runs/{run_id}/report.png"): LOOKERS,
}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    def identity() -> Identity:
        return Identity(role="dataserver", cluster_id="c1", name="lab", machine="m", version="0")

    store = SeriesStore([tmp_path])
    gate = Gate(verifiers(SECRET))
    yield create_app(
        store, Calibrations([tmp_path], store), gate, identity, acquisitions=Acquisitions([tmp_path])
    )
    store.close()


@pytest.fixture
def ask(app: FastAPI) -> Callable[..., httpx.Response]:
    async def request(method: str, path: str, **headers: str) -> httpx.Response:
        route = path.replace("{path}", "a.tif").replace("{number}", "0").replace("{run_id}", "r")
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            return await http.request(method, route, headers=headers)

    return request  # type: ignore[return-value]


def test_every_route_is_in_this_table(app: FastAPI) -> None:
    document = app.openapi()
    found = {(method, path) for path, operations in document["paths"].items() for method in operations}

    assert found == PUBLIC | ALLOWED.keys()


@pytest.mark.parametrize(("method", "path"), sorted(ALLOWED))
async def test_a_route_lets_its_roles_through_and_no_other(
    ask: Callable[..., httpx.Response], method: str, path: str
) -> None:
    async def status(role: Role) -> int:
        return (await ask(method, path, authorization=f"Bearer {token(SECRET, role)}")).status_code  # type: ignore[misc]

    let_through = {role for role in ROLES if await status(role) not in {401, 403}}

    assert let_through == ALLOWED[method, path] | {"owner"}


@pytest.mark.parametrize(("method", "path"), sorted(ALLOWED))
async def test_a_route_is_closed_without_a_token_of_ours(
    ask: Callable[..., httpx.Response], method: str, path: str
) -> None:
    presented = [{}, *({"authorization": header} for header in STRANGE)]

    replies = [await ask(method, path, **headers) for headers in presented]  # type: ignore[misc]

    assert {(reply.status_code, reply.json()["code"]) for reply in replies} == {(401, "unauthorised")}


@pytest.mark.parametrize(("method", "path"), sorted(ALLOWED.keys() | PUBLIC))
async def test_no_route_answers_to_another_hosts_name(
    ask: Callable[..., httpx.Response], method: str, path: str
) -> None:
    owner = f"Bearer {token(SECRET, 'owner')}"

    assert (await ask(method, path, authorization=owner, host="evil.example")).status_code == 421  # type: ignore[misc]


@pytest.mark.parametrize(("method", "path"), sorted(key for key in ALLOWED if key[0] != "get"))
async def test_a_page_of_another_site_writes_nothing(
    ask: Callable[..., httpx.Response], method: str, path: str
) -> None:
    owner = f"Bearer {token(SECRET, 'owner')}"

    reply = await ask(method, path, authorization=owner, origin="https://evil.example")  # type: ignore[misc]

    assert reply.status_code == 403
