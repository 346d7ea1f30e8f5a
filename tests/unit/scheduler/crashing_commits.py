"""A program that commits one result after the other, says so, and is killed at a chosen point of a chosen commit.

Run by test_journal_crashes.py: `python crashing_commits.py FOLDER LABEL COUNT`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from cluster.scheduler.blobs import INLINE_BYTES, Blobs
from cluster.scheduler.core import Counts
from cluster.scheduler.core.records import TaskSaved
from cluster.scheduler.core.tasks import done
from cluster.scheduler.entries import ResultRow, result_statement, task_statement
from cluster.scheduler.journal import Journal

SIZES = (100, INLINE_BYTES + 1000)


def body_of(task_id: int) -> bytes:
    """Return a result that is told from every other: small ones and large ones in turn."""
    return bytes([task_id % 251]) * SIZES[task_id % 2]


async def commit(journal: Journal, blobs: Blobs, task_id: int) -> None:
    """Commit one result as the scheduler does."""
    blob = blobs.store("job", task_id, 1, body_of(task_id))
    row = ResultRow("job", task_id, 1, "sha", task_id, 1, blob, [], "cpu")
    task = TaskSaved("job", task_id, task_id, task_id + 1, done(1), Counts(localised=1, rows=1), task_id)
    await journal.write([task_statement(task), result_statement(row)])


async def main(folder: Path, label: str, count: int) -> None:
    """Commit until the chosen point is reached, then die as from kill -9."""
    seen = 0

    def at(reached: str) -> None:
        nonlocal seen
        seen += reached == label
        if seen == count:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    journal, blobs = Journal(folder, at=at), Blobs(folder / "results", at=at)
    for task_id in range(40):
        await commit(journal, blobs, task_id)
        sys.stdout.write(f"{task_id}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
