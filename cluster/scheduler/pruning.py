"""Letting go of the results of jobs whose file holds every row of them.

Kept are those that somebody may still need: of a job that can be retried, or whose file could not be written, was moved
away, or differs. What is let go is first no longer referred to, then removed: a crash in between leaves files that the
next start sweeps.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from cluster.errors import ClusterError
from cluster.scheduler.blobs import Blobs
from cluster.scheduler.core.phases import Cancelled, Finished
from cluster.scheduler.entries import load_kept_results, prune_statement
from cluster.scheduler.results import Results
from cluster.scheduler.state import State

logger = logging.getLogger(__name__)


class Pruner:
    """Prunes the jobs it is told of, one at a time; with `keep` none."""

    def __init__(self, state: State, results: Results, blobs: Blobs, *, keep: bool) -> None:
        self._state = state
        self._results = results
        self._blobs = blobs
        self._keep = keep
        self._one_at_a_time = asyncio.Semaphore(1)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start_all(self) -> None:
        """Prune what ended before the last stop, or before there was pruning."""
        for job_id in await self._state.journal.read(load_kept_results):
            self.start(job_id)

    def start(self, job_id: str) -> None:
        """Prune a job that has ended, when its turn comes."""
        if self._keep or job_id not in self._state.known or not self._may_go(job_id):
            return
        task = asyncio.create_task(self._prune(job_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Finish the one that is under way; the others are pruned at the next start."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _may_go(self, job_id: str) -> bool:
        job = self._state.core.job(job_id)
        return (
            isinstance(job.phase, Finished | Cancelled)
            and not job.failed
            and self._output(job_id) is not None
        )

    def _output(self, job_id: str) -> Path | None:
        output = self._state.job(job_id).progress.output
        return None if output is None else Path(output)

    async def _prune(self, job_id: str) -> None:
        async with self._one_at_a_time:
            output = self._output(job_id)
            if self._state.signals.closing or output is None:
                return
            try:
                sheet = await self._state.sheet(job_id)
                why_not = await asyncio.to_thread(self._results.difference, sheet, output)
                if why_not is not None:
                    logger.warning("the results of job %s are kept: %s", job_id, why_not)
                    return
                await self._state.journal.write([prune_statement(job_id)])
                await asyncio.to_thread(self._blobs.drop_job, job_id)
            except (ClusterError, OSError) as error:
                logger.warning("the results of job %s are kept: %s", job_id, error)
