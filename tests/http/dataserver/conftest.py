"""A data server in process, over a folder of small series."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest
import tifffile

from cluster.dataserver.app import create_app
from cluster.dataserver.calibrations import Calibrations
from cluster.dataserver.reading import Reading
from cluster.dataserver.store import SeriesStore
from cluster.http import Gate
from cluster.protocol import Identity, Role
from cluster.trust import token, verifiers

SECRET = b"s" * 32
STACK = np.random.default_rng(3).poisson(120, (9, 16, 20)).astype(np.uint16)


@pytest.fixture
def stack() -> np.ndarray[Any, Any]:
    return STACK


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "day 1").mkdir()
    tifffile.imwrite(tmp_path / "day 1" / "cell #2 ü.tif", STACK)
    (tmp_path / "day 1" / "cell #2 ü.json").write_text('{"voxelsize.x": 0.1}', encoding="utf-8")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ImageData"] = STACK.transpose(0, 2, 1)
        table = np.zeros(1, [("EventDescr", "S256"), ("EventName", "S32"), ("Time", "<f8")])
        table[0] = (b"0", b"StartAq", 1.7e9)
        file["Events"] = table
    (tmp_path / "empty.tif").write_bytes(b"")
    return tmp_path


@pytest.fixture
def gate() -> Gate:
    return Gate(verifiers=verifiers(SECRET))


@pytest.fixture
async def reading(root: Path) -> AsyncIterator[Reading]:
    store = SeriesStore([root])
    yield Reading(store, bytes_in_flight=1 << 20)
    store.close()


@pytest.fixture
async def client_as(
    reading: Reading, gate: Gate, root: Path
) -> AsyncIterator[Callable[[Role | None], httpx.AsyncClient]]:
    def identity() -> Identity:
        return Identity(role="dataserver", cluster_id="c1", name="lab", machine="m", version="0")

    calibrations = Calibrations([root], reading.store)
    app = create_app(reading.store, calibrations, gate, identity, reading=reading)
    transport = httpx.ASGITransport(app=app)
    clients: list[httpx.AsyncClient] = []

    def client(role: Role | None) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {token(SECRET, role)}"} if role else {}
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers))
        return clients[-1]

    yield client
    for made in clients:
        await made.aclose()


@pytest.fixture
def http(client_as: Callable[[Role | None], httpx.AsyncClient]) -> httpx.AsyncClient:
    return client_as("worker")
