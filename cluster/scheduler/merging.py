"""Making the file of each job that has settled, one at a time, and telling the core how that went."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from cluster.errors import ClusterError
from cluster.scheduler.core.phases import Cancelling, Merging
from cluster.scheduler.outputs import partial
from cluster.scheduler.progress import failed_frames
from cluster.scheduler.results import Plan, Results
from cluster.scheduler.state import State

logger = logging.getLogger(__name__)


class Merger:
    """Runs `Results.make` in a thread for the jobs it is told of; `done` hears of each whose end is on the disk."""

    def __init__(self, state: State, results: Results, done: Callable[[str], None]) -> None:
        self._state = state
        self._done = done
        self._results = results
        self._one_at_a_time = asyncio.Semaphore(1)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, job_id: str) -> None:
        """Make the file of a job, when its turn comes."""
        task = asyncio.create_task(self._merge(job_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for the file that is being made; the others are made at the next start."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _merge(self, job_id: str) -> None:
        async with self._one_at_a_time:
            if self._state.signals.closing or job_id not in self._state.known:
                return
            phase = self._state.core.job(job_id).phase
            if not isinstance(phase, Merging | Cancelling):
                return
            failed = None
            if self._state.job(job_id).brief.kind == "localise":
                failed = await self._made(job_id, is_partial=isinstance(phase, Cancelling))
            try:
                await self._state.settled(self._state.core.merged(job_id, failed=failed))
            except ClusterError as error:
                logger.warning("the end of job %s is not on the disk yet: %s", job_id, error)
                return
            if failed is None:
                self._done(job_id)

    async def _made(self, job_id: str, *, is_partial: bool) -> str | None:
        """Return why the file could not be made, None if it is in place."""
        known, job = self._state.job(job_id), self._state.core.job(job_id)
        output = Path(str(known.sheet.output))
        given_up = failed_frames(job, known.progress)
        start, stop = known.sheet.analysed(job.total)
        path = partial(output) if is_partial else output
        sheet = known.sheet.as_ended(job.growth)
        plan = Plan(sheet, path, given_up, job.total, start, stop, is_partial)
        try:
            path = await asyncio.to_thread(self._results.make, plan)
        except (
            Exception
        ) as error:  # the outermost loop of a job's end: whatever went wrong, the job must say so
            expected = isinstance(error, ClusterError | OSError)
            logger.warning(
                "job %s: its results could not be written: %s", job_id, error, exc_info=not expected
            )
            return f"the results could not be written to {plan.path}: {error}"
        known.progress.output = str(path)
        return None
