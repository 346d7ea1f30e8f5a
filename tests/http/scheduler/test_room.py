"""A job whose results cannot fit is refused when it is submitted; one that may not fit says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.anyio

SERIES = "day 1/cells.tif"


def plenty_but(folder: Path, free_bytes: int) -> Any:
    """Disks with a terabyte each, but for that of a folder, which the test takes for one disk with all that is below it."""
    return lambda asked: free_bytes if asked.is_relative_to(folder) else 10**12


def all_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


async def test_a_job_that_cannot_fit_is_refused_with_the_folder_and_nothing_is_left(
    make_service: Any, connect: Any, root: Path
) -> None:
    async with connect(make_service(free=plenty_but(root, 1_000_000))) as hands:
        reply = await hands.submit()

        problem = reply.json()
        assert (reply.status_code, problem["code"]) == (507, "out_of_space")
        assert problem["folder"] == str(root / "day 1" / "analysis")
        assert problem["free_bytes"] == 1_000_000 < problem["needed_bytes"]
        assert "1 MB are free" in problem["detail"]
        assert (await hands.http.get("/api/v1/jobs")).json()["jobs"] == []
        assert all_below(root) == [root / "day 1", root / "day 1" / "cells.tif"]


async def test_the_room_for_what_workers_hand_in_is_looked_at_too(
    make_service: Any, connect: Any, tmp_path: Path
) -> None:
    async with connect(make_service(free=plenty_but(tmp_path / "state", 1_000_000))) as hands:
        problem = (await hands.submit()).json()

        assert problem["code"] == "out_of_space"
        assert problem["free_bytes"] == 1_000_000


async def test_where_only_a_dense_sample_would_not_fit_the_job_runs_and_has_a_note(
    make_service: Any, connect: Any, source: Any, facts: Any
) -> None:
    source.series[SERIES] = facts(frames=100_000, height=2048, width=2048)

    async with connect(make_service(free=lambda _: 2 * 10**9)) as hands:
        job = await hands.job(await hands.submitted())
        small = await hands.job(await hands.submitted(analysis={"stop_at": 100}))
        part = await hands.job(await hands.submitted(analysis={"roi": [0, 0, 32, 32]}))

        assert any("may become full: 2.0 GB are free" in note for note in job["notes"])
        for fits in (small, part):
            assert not any("become full" in note for note in fits["notes"])


async def test_a_series_that_grows_is_forecast_by_the_frames_that_it_has(
    make_service: Any, connect: Any, source: Any, facts: Any
) -> None:
    source.series[SERIES] = facts(frames=10_000_000, complete=False)

    async with connect(make_service(free=lambda _: 10**9)) as hands:
        refused = (await hands.submit(follow=True)).json()
        source.series[SERIES] = facts(frames=10, complete=False)
        taken = await hands.submit(follow=True)

        assert refused["code"] == "out_of_space"
        assert taken.status_code == 201


async def test_a_job_that_was_refused_is_taken_once_there_is_room(make_service: Any, connect: Any) -> None:
    left = [0]

    async with connect(make_service(free=lambda _: left[0])) as hands:
        key = {"Idempotency-Key": "cells"}
        assert (await hands.submit(headers=key)).status_code == 507
        left[0] = 10**12
        assert (await hands.submit(headers=key)).status_code == 201
