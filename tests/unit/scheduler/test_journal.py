"""The journal: what is acknowledged is there, what the disk refused is tried again, and only one may write."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import Conflict, Internal, OutOfSpace, Unavailable
from cluster.protocol import DataServerInfo
from cluster.scheduler import journal as journal_module
from cluster.scheduler.entries import (
    admitted_statement,
    dataserver_statement,
    load_admitted,
    load_dataservers,
)
from cluster.scheduler.journal import SCHEMA_VERSION, Journal, Statement

pytestmark = pytest.mark.anyio


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path)
    yield opened
    opened.close()


def server(number: int, host: str = "h") -> DataServerInfo:
    return DataServerInfo(id=f"ds{number}", machine="m", host=host, port=1, addresses=["127.0.0.1"])


async def test_what_is_written_is_read_back_after_a_restart(journal: Journal, tmp_path: Path) -> None:
    await journal.write([dataserver_statement(server(1))])
    journal.close()

    again = Journal(tmp_path)

    assert again.read_now(load_dataservers) == [server(1)]
    again.close()


async def test_the_last_state_of_a_thing_counts(journal: Journal) -> None:
    await journal.write([dataserver_statement(server(1)), dataserver_statement(server(1, "other"))])

    assert await journal.read(load_dataservers) == [server(1, "other")]


async def test_many_writers_share_few_transactions(tmp_path: Path) -> None:
    labels: list[str] = []
    journal = Journal(tmp_path, at=labels.append)

    await asyncio.gather(*(journal.write([dataserver_statement(server(n))]) for n in range(200)))

    assert len(await journal.read(load_dataservers)) == 200
    assert labels.count("committed") < 100
    journal.close()


async def test_a_read_sees_what_was_posted_before_it(journal: Journal) -> None:
    journal.post([dataserver_statement(server(1))])

    assert await journal.read(load_dataservers) == [server(1)]


async def test_a_full_disk_is_said_and_nothing_is_lost_once_there_is_room(journal: Journal) -> None:
    pages = await journal.read(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    await journal.read(lambda db: db.execute(f"PRAGMA max_page_count = {pages + 1}").fetchall())
    large = [admitted_statement(f"digest {n}", "x" * 3000) for n in range(10)]
    with pytest.raises(OutOfSpace, match="disk is full"):
        await journal.write(large)
    assert await journal.read(load_admitted) == set()

    await journal.read(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchall())
    await journal.write([])

    assert len(await journal.read(load_admitted)) == 10


@pytest.mark.parametrize("info", [None, "\ud800", 1 << 80])
async def test_a_statement_that_the_journal_cannot_take_fails_alone(journal: Journal, info: object) -> None:
    wrong = Statement(("wrong",), "INSERT INTO dataservers VALUES (?, ?)", ("x", info))

    outcomes = await asyncio.gather(
        journal.write([wrong]), journal.write([dataserver_statement(server(1))]), return_exceptions=True
    )

    assert isinstance(outcomes[0], Internal)
    assert outcomes[1] is None
    assert await journal.read(load_dataservers) == [server(1)]


async def test_a_second_scheduler_on_the_same_folder_is_refused(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match=r"another scheduler .* keeps its state in"):
        Journal(tmp_path)


async def test_a_closed_journal_says_that_the_scheduler_stops(journal: Journal) -> None:
    journal.close()

    with pytest.raises(Unavailable, match="stopping"):
        await journal.write([])


def test_a_journal_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "journal.sqlite")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()

    with pytest.raises(Conflict, match="newer clusterofone"):
        Journal(tmp_path)


def test_a_journal_of_the_first_version_is_upgraded_and_keeps_what_it_holds(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite")) as first:
        first.execute("ALTER TABLE jobs DROP COLUMN growth")
        first.execute("INSERT INTO jobs VALUES ('j', 1, '{}', '{}', 'key', NULL, 1.5, NULL, 'out.h5r')")
        first.execute("PRAGMA user_version = 1")
        first.commit()

    for _ in range(2):
        journal = Journal(tmp_path)
        rows = journal.read_now(
            lambda db: db.execute("SELECT job_id, idempotency_key, started, growth FROM jobs").fetchall()
        )
        (version,) = journal.read_now(lambda db: db.execute("PRAGMA user_version").fetchone())
        journal.close()

        assert rows == [("j", "key", 1.5, None)]
        assert version == SCHEMA_VERSION


def test_an_upgrade_that_breaks_off_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite")) as first:
        first.execute("ALTER TABLE jobs DROP COLUMN growth")
        first.execute("PRAGMA user_version = 1")
        first.commit()
    whole = journal_module._UPGRADES[1]
    monkeypatch.setitem(journal_module._UPGRADES, 1, f"{whole} INSERT INTO nowhere VALUES (1);")

    with pytest.raises(Unavailable):
        Journal(tmp_path)

    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite")) as left:
        assert left.execute("PRAGMA user_version").fetchone() == (1,)
        assert "growth" not in [column for _, column, *_ in left.execute("PRAGMA table_info(jobs)")]
    monkeypatch.setitem(journal_module._UPGRADES, 1, whole)
    Journal(tmp_path).close()


def test_a_file_that_is_no_journal_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"not a database, but long enough to be taken for one" * 100)

    with pytest.raises(Unavailable, match="journal in"):
        Journal(tmp_path)


def test_the_journal_syncs_at_every_commit_and_admits_no_second_connection(
    journal: Journal, tmp_path: Path
) -> None:
    pragmas = {
        name: journal.read_now(lambda db, name=name: db.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("synchronous", "journal_mode", "locking_mode")
    }

    assert pragmas == {"synchronous": 2, "journal_mode": "wal", "locking_mode": "exclusive"}
    assert not (tmp_path / "journal.sqlite-shm").exists()
    other = sqlite3.connect(tmp_path / "journal.sqlite", timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT * FROM jobs")
    other.close()


def test_a_journal_that_another_program_holds_is_named_and_left_alone(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")

        with pytest.raises(Unavailable, match="cannot be used: database is locked") as said:
            Journal(tmp_path)
        other.execute("ROLLBACK")

    assert str(tmp_path) in str(said.value)
    Journal(tmp_path).close()
