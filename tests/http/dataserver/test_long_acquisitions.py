"""A long acquisition at full rate: 40,000 frames, as many as lost others theirs (PYME issue 741)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from cluster.arrays import decode_frames
from cluster.dataserver.app import create_app
from cluster.dataserver.calibrations import Calibrations
from cluster.dataserver.live.acquisitions import Acquisitions
from cluster.dataserver.reading import Reading
from cluster.http import Gate
from cluster.protocol import Identity

pytestmark = pytest.mark.anyio
FRAMES, AT_ONCE, SIDE = 40_000, 250, 8
URL = "/api/v1/series/long.zarr"


@pytest.fixture
async def owner(reading: Reading, root: Path) -> AsyncIterator[httpx.AsyncClient]:
    def identity() -> Identity:
        return Identity(role="dataserver", cluster_id="c1", name="lab", machine="m", version="0")

    acquisitions = Acquisitions([root], free=lambda _: 1 << 40)
    calibrations = Calibrations([root], reading.store)
    gate = Gate({}, insecure=True)
    app = create_app(reading.store, calibrations, gate, identity, reading=reading, acquisitions=acquisitions)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60.0) as http:
        yield http


def frames(start: int, stop: int) -> np.ndarray:
    """Frames that say in every pixel which they are."""
    numbers = np.arange(start, stop, dtype=np.uint32)
    stack = np.empty((stop - start, SIDE, SIDE), "<u2")
    stack[:, ::2] = (numbers & 0xFFFF)[:, None, None]
    stack[:, 1::2] = (numbers >> 16)[:, None, None]
    return stack


async def test_no_frame_of_forty_thousand_is_lost_and_none_is_a_file_of_its_own(
    owner: httpx.AsyncClient, root: Path
) -> None:
    wanted = {"height": SIDE, "width": SIDE, "dtype": "uint16"}
    assert (await owner.post(URL, json=wanted)).status_code == 201
    most_files = 0
    for start in range(0, FRAMES, AT_ONCE):
        body = frames(start, start + AT_ONCE).tobytes()
        reply = await owner.post(f"{URL}/frames", params={"start": start}, content=body)
        assert (reply.status_code, reply.json().get("new")) == (200, AT_ONCE), reply.text
        if start % 2000 == 0:
            most_files = max(most_files, sum(1 for _ in (root / "long.zarr").rglob("*")))
    done = await owner.post(f"{URL}/complete", json={"frames": FRAMES})

    facts = (await owner.get(URL)).json()
    assert done.status_code == 200, done.text
    assert (facts["frames"], facts["missing"], facts["complete"]) == (FRAMES, [], True)
    assert max(most_files, sum(1 for _ in (root / "long.zarr").rglob("*"))) < FRAMES / 20
    for start in range(0, FRAMES, 2000):
        reply = await owner.get(f"{URL}/frames", params={"start": start, "stop": start + 2000})
        found = decode_frames(reply.content)
        assert found.missing == ()
        np.testing.assert_array_equal(found.frames, frames(start, start + 2000))
