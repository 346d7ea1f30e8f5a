"""A journal of each older version is taken over by this one, with what was done and what was under way."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cluster.scheduler.journal import SCHEMA_VERSION

pytestmark = pytest.mark.anyio

JOURNALS = {
    int(path.stem.removeprefix("version_")): path for path in (Path(__file__).parent / "journals").iterdir()
}


def lay_down(version: int, state: Path, root: Path) -> None:
    """Leave a state folder as a scheduler of that version left it."""
    state.mkdir()
    text = JOURNALS[version].read_text(encoding="utf-8").replace("{root}", root.as_posix())
    with contextlib.closing(sqlite3.connect(state / "journal.sqlite")) as journal:
        journal.executescript(text)
        journal.execute(f"PRAGMA user_version = {version}")
        journal.commit()


def schema_of(state: Path) -> dict[str, str]:
    """Tables and indices, without the layout of their definitions."""
    with contextlib.closing(sqlite3.connect(state / "journal.sqlite")) as journal:
        found = journal.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: re.sub(r"\s+", "", sql) for name, sql in found}


def test_there_is_a_journal_of_each_older_version() -> None:
    assert sorted(JOURNALS) == list(range(1, SCHEMA_VERSION))


@pytest.mark.parametrize("version", sorted(JOURNALS))
async def test_what_was_done_is_there_and_what_was_under_way_goes_on(
    make_service: Any, connect: Any, tmp_path: Path, root: Path, version: int
) -> None:
    lay_down(version, tmp_path / "state", root)

    async with connect(make_service()) as hands:
        under_way, done = (await hands.http.get("/api/v1/jobs")).json()["jobs"]
        again = await hands.submit(owner="ann", headers={"Idempotency-Key": "monday"})
        rows = await hands.http.get(f"/api/v1/jobs/{done['id']}/localisations", params={"from_row": 0})
        worker = await hands.register("another")
        (rest,) = [lease for lease in await hands.lease(worker, 4) if lease["start"] == 60]
        left = await hands.job(under_way["id"])

    assert (done["state"], done["frames"]["localised"], done["localisations"]) == ("done", 100, 200)
    assert (again.status_code, again.json()["id"]) == (200, done["id"])
    assert rows.status_code == 200
    assert (under_way["state"], under_way["frames"]["localised"]) == ("running", 30)
    assert rest["attempt"] == 1
    assert left["analysis"]["threshold"] == 1.5


@pytest.mark.parametrize("version", sorted(JOURNALS))
async def test_it_has_the_same_tables_afterwards_as_one_that_was_made_now(
    make_service: Any, connect: Any, tmp_path: Path, root: Path, version: int
) -> None:
    lay_down(version, tmp_path / "state", root)
    async with connect(make_service()):
        pass
    upgraded = schema_of(tmp_path / "state")
    (tmp_path / "state").rename(tmp_path / "upgraded")
    async with connect(make_service()):
        pass

    assert upgraded.keys() == schema_of(tmp_path / "state").keys()
    for name, sql in schema_of(tmp_path / "state").items():
        columns = sorted(re.split("[(),]", sql))
        assert sorted(re.split("[(),]", upgraded[name])) == columns, name
