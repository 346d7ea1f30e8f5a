"""One series that is slow leaves threads to the others."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from cluster.dataserver.reading import Reading
from cluster.dataserver.store import SeriesStore

pytestmark = pytest.mark.anyio


async def test_requests_for_one_series_never_take_every_thread(root: Path) -> None:
    reading = Reading(SeriesStore([root]))
    go_on = threading.Event()

    def hangs(path: str) -> str:
        assert go_on.wait(60)
        return path

    waiting = [asyncio.create_task(reading.of("slow.tif", hangs)) for _ in range(40)]
    await asyncio.sleep(0)
    facts = await asyncio.wait_for(reading.of("a.h5", reading.store.facts), 30)
    go_on.set()

    assert facts.frames == 9
    assert await asyncio.gather(*waiting) == ["slow.tif"] * 40
    reading.store.close()
