"""`/metrics` of a data server."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.dataserver.app import create_app
from cluster.dataserver.calibrations import Calibrations
from cluster.dataserver.live.acquisitions import Acquisitions
from cluster.dataserver.metrics import Room
from cluster.dataserver.reading import Reading
from cluster.http import Gate
from cluster.protocol import Identity, Role

pytestmark = pytest.mark.anyio


async def figures(http: httpx.AsyncClient) -> dict[str, float]:
    reply = await http.get("/metrics")
    assert reply.status_code == 200, reply.text
    samples = (sample for family in text_string_to_metric_families(reply.text) for sample in family.samples)
    return {sample.name: sample.value for sample in samples if sample.labels.keys() <= {"root"}}


async def test_frames_served_and_series_held_open_are_counted(
    client_as: Callable[[Role | None], httpx.AsyncClient],
) -> None:
    viewer = client_as("viewer")
    reply = await viewer.get("/api/v1/series/a.h5/frames", params={"start": 2, "stop": 7})

    found = await figures(viewer)

    assert found["clusterofone_served_frames_total"] == 5
    assert found["clusterofone_served_bytes_total"] == len(reply.content)
    assert found["clusterofone_open_series"] == 1
    assert found["process_threads"] >= 1


@pytest.fixture
async def owner(reading: Reading, gate: Gate, root: Path) -> AsyncIterator[httpx.AsyncClient]:
    def identity() -> Identity:
        return Identity(role="dataserver", cluster_id="c1", name="lab", machine="m", version="0")

    acquisitions = Acquisitions([root], free=lambda _: 1 << 40)
    calibrations = Calibrations([root], reading.store)
    app = create_app(reading.store, calibrations, gate, identity, reading=reading, acquisitions=acquisitions)
    gate.insecure = True
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        yield http


async def test_appends_count_what_was_new(owner: httpx.AsyncClient) -> None:
    made = await owner.post("/api/v1/series/live.zarr", json={"height": 4, "width": 4, "dtype": "uint16"})
    assert made.status_code == 201, made.text
    pixels = np.arange(3 * 16, dtype="<u2").tobytes()
    for _ in range(2):
        reply = await owner.post("/api/v1/series/live.zarr/frames", params={"start": 0}, content=pixels)
        assert reply.status_code == 200, reply.text

    found = await figures(owner)

    assert found["clusterofone_appends_total"] == 2
    assert found["clusterofone_appended_frames_total"] == 3


def test_a_share_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go, asked = threading.Event(), []

    def hangs(root: Path) -> None:
        asked.append(root)
        let_go.wait(60)
        raise OSError

    monkeypatch.setattr("shutil.disk_usage", hangs)
    room = Room([tmp_path])
    try:
        assert [room.look() for _ in range(50)] == [{}] * 50
        assert len(asked) <= 1
    finally:
        let_go.set()
