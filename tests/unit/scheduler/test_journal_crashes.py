"""kill -9 at labelled points: every commit that was acknowledged is there, whole; no other leaves a trace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.scheduler.blobs import INLINE_BYTES, Blobs
from cluster.scheduler.entries import load_result_files, load_tasks, results_by_task
from cluster.scheduler.journal import Journal

PROGRAM = Path(__file__).with_name("crashing_commits.py")
LABELS = ("begin", "before commit", "committed", "blob written", "blob in place")


def run_until_killed(folder: Path, label: str, count: int) -> list[int]:
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), label, str(count)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode != 0, "the program was not killed"
    assert ran.stderr == ""
    return [int(line) for line in ran.stdout.split()]


def body_of(task_id: int) -> bytes:
    return bytes([task_id % 251]) * (100, INLINE_BYTES + 1000)[task_id % 2]


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("count", [3])
def test_every_acknowledged_commit_survives_a_kill(tmp_path: Path, label: str, count: int) -> None:
    acknowledged = run_until_killed(tmp_path, label, count)

    journal, blobs = Journal(tmp_path), Blobs(tmp_path / "results")
    rows = journal.read_now(lambda db: results_by_task(db, "job", -1, 100))
    tasks = [record.task_id for record in journal.read_now(load_tasks)]

    kept = [row.task_id for row in rows]
    assert kept[: len(acknowledged)] == acknowledged
    assert len(kept) <= len(acknowledged) + 1
    assert tasks == kept
    assert all(blobs.load(row.blob) == body_of(row.task_id) for row in rows)
    journal.close()


def test_a_result_that_was_stored_but_not_committed_is_swept_away(tmp_path: Path) -> None:
    acknowledged = run_until_killed(tmp_path, "blob in place", 2)
    journal, blobs = Journal(tmp_path), Blobs(tmp_path / "results")

    swept = blobs.sweep(journal.read_now(load_result_files))

    assert acknowledged == [0, 1, 2]
    assert swept == 1
    assert [path.name for path in (tmp_path / "results").rglob("*.result")] == ["1.1.result"]
    journal.close()


@pytest.mark.parametrize("keep", [0.0, 0.7])
def test_a_torn_tail_loses_only_what_comes_after_the_tear(tmp_path: Path, keep: float) -> None:
    acknowledged = run_until_killed(tmp_path, "committed", 20)
    wal = tmp_path / "journal.sqlite-wal"
    whole = wal.stat().st_size
    with wal.open("r+b") as file:
        file.truncate(int(whole * keep))

    journal = Journal(tmp_path)
    kept = [
        record.task_id for record in journal.read_now(lambda db: load_tasks(db) if has_tables(db) else [])
    ]

    assert kept == list(range(len(kept)))
    assert len(kept) <= len(acknowledged) + 1
    journal.close()


def has_tables(connection: object) -> bool:
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'tasks'").fetchone()  # type: ignore[attr-defined]
    return bool(found[0])
