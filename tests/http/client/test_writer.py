from __future__ import annotations

from typing import Any

import httpx
import numpy as np

from cluster.protocol import SeriesFacts

API = "/api/v1"


def identity(role: str, dataservers: list[dict[str, Any]]) -> dict[str, Any]:
    known = {"cluster_id": "c1", "name": "lab", "machine": "m1", "version": "0"}
    return {"role": role, **known, "dataservers": dataservers}


def test_a_writer_of_a_client_sends_to_the_data_server_of_its_cluster(server: Any, client: Any) -> None:
    info = {"id": "d", "machine": "m1", "host": "h", "port": 15440, "addresses": ["127.0.0.1"]}
    facts = SeriesFacts(
        path="a.zarr",
        height=2,
        width=3,
        dtype="uint16",
        frames=0,
        fingerprint="f",
        bytes=0,
        format="acquired zarr",
    ).model_dump(mode="json")
    server.on("GET", f"{API}/identity", identity("scheduler", [info]), identity("dataserver", []))
    server.on("POST", f"{API}/series/a.zarr", facts)
    server.on("POST", f"{API}/series/a.zarr/frames", {"start": 0, "stop": 2, "new": 2})
    server.on("POST", f"{API}/series/a.zarr/complete", facts)

    with client.series_writer("a.zarr", height=2, width=3, metadata={"voxelsize.x": 0.1}) as writer:
        writer.append(np.ones((2, 2, 3), np.uint16))

    sent: list[httpx.Request] = server.requests
    assert [request.url.path.rpartition("/")[2] for request in sent[2:]] == ["a.zarr", "frames", "complete"]
    assert {request.url.port for request in sent[1:]} == {15440}
    assert all("authorization" in request.headers for request in sent[2:])
    assert "authorization" not in sent[1].headers
