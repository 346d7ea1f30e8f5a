"""The main path over HTTP: a job is submitted, worked off by hand, and becomes a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.results import h5r

pytestmark = pytest.mark.anyio


async def test_a_job_becomes_a_file_beside_its_series(hands: Any, root: Path) -> None:
    worker = await hands.register()
    reply = await hands.submit()

    assert reply.headers["location"] == f"/api/v1/jobs/{reply.json()['id']}"
    assert reply.json()["state"] == "queued"
    await hands.work_off(worker)
    job = await hands.ended(reply.json()["id"])

    assert job["state"] == "done"
    assert job["output"] == str(root / "day 1" / "analysis" / "cells.h5r")
    assert job["frames"] == {"total": 100, "localised": 100, "skipped": 0, "failed": 0}
    assert job["localisations"] == 200
    results = h5r.read(Path(job["output"]))
    assert results.rows["tIndex"].tolist() == sorted(results.rows["tIndex"].tolist())
    assert len(results.rows) == 200
