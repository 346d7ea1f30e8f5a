"""Whatever is asked of a data server, by whom ever: no fault of ours, and the reply is one that its document names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI

from cluster.dataserver.app import create_app
from cluster.dataserver.calibrations import Calibrations
from cluster.dataserver.live.acquisitions import Acquisitions
from cluster.dataserver.store import SeriesStore
from cluster.http import Gate
from cluster.protocol import Identity, Role
from cluster.trust import ROLES, verifiers
from tests.openapi.fuzz import Served, served

REQUESTS = 10  # to each operation, and as many that its document forbids
SECRET = b"s" * 32
PUBLIC = {"/healthz", "/api/v1/identity"}
LIVE = {"height": 16, "width": 20, "dtype": "uint16"}


@pytest.fixture
def dataserver(root: Path) -> Iterator[Served]:
    def identity() -> Identity:
        return Identity(role="dataserver", cluster_id="c1", name="lab", machine="m", version="0")

    @asynccontextmanager
    async def app() -> AsyncIterator[FastAPI]:
        store = SeriesStore([root])
        calibrations = Calibrations([root], store)
        acquisitions = Acquisitions([root], free=lambda _: 1 << 40)
        gate = Gate(verifiers(SECRET))
        yield create_app(store, calibrations, gate, identity, acquisitions=acquisitions)
        await calibrations.close()
        store.close()

    with served(app, SECRET) as made:
        yield made


@pytest.fixture(params=["a.h5", "live.zarr"])
def known(dataserver: Served, stack: Any, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A series that is there: a file, or one that is being acquired."""
    made = dataserver.ask("owner", "POST", "/api/v1/series/live.zarr", json=LIVE)
    assert made.status_code == 201, made.text
    pixels = stack[:4].astype("<u2").tobytes()
    reply = dataserver.ask("owner", "POST", "/api/v1/series/live.zarr/frames?start=0", content=pixels)
    assert reply.status_code == 200, reply.text
    return {"path": request.param, "number": 0}


def prepare(_: schemathesis.Case) -> None:
    """Send everything as it is."""


def test_whatever_the_owner_asks_is_answered_as_documented(dataserver: Served, known: dict[str, Any]) -> None:
    checked = dataserver.check("owner", known, REQUESTS, prepare)

    assert not checked.broken, "\n\n".join(checked.broken)
    assert 401 not in set().union(*checked.statuses.values())
    assert dataserver.ask("owner", "GET", "/healthz").status_code == 200


@pytest.mark.parametrize("role", [None, *(role for role in ROLES if role != "owner")])
def test_whatever_anyone_else_asks_is_answered_as_documented(
    dataserver: Served, known: dict[str, Any], role: Role | None
) -> None:
    checked = dataserver.check(role, known, 3, prepare)

    assert not checked.broken, "\n\n".join(checked.broken)
    if role is None:
        closed = {
            label: set(counts) for label, counts in checked.statuses.items() if label.split()[1] not in PUBLIC
        }
        assert set().union(*closed.values()) == {401}
