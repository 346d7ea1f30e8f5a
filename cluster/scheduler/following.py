"""Jobs whose series are still being acquired: asking how far each has come, and telling the core.

A frame may be cut into a task once everything that it takes is there (`fits.settled_until`). A gap holds back what
comes after it until it is filled, or the series ends. A series that stops growing for `idle_limit_s` without having
been completed ends its job too, which then says what is lacking.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from cluster.errors import ClusterError
from cluster.protocol import SeriesFacts
from cluster.scheduler.core import Growth
from cluster.scheduler.dataservers import SeriesSource
from cluster.scheduler.sheets import Sheet
from cluster.scheduler.state import State
from fitting import fits

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pauses:
    """How long to wait between two looks at a series: after news, and at most while nothing comes."""

    busy_s: float = 0.2
    longest_s: float = 1.0


class Follower:
    """Follows each growing series until it ends or its job does."""

    def __init__(self, state: State, source: SeriesSource, pauses: Pauses) -> None:
        self._state = state
        self._source = source
        self._pauses = pauses
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, job_id: str) -> None:
        """Follow the series of a job, if it grows."""
        if job_id not in self._tasks and self._state.core.job(job_id).is_growing:
            task = asyncio.create_task(self._follow(job_id))
            self._tasks[job_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(job_id, None))

    async def close(self) -> None:
        """Stop; the series are followed again at the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, job_id: str) -> None:
        sheet = self._state.job(job_id).sheet
        watch = IdleWatch(float(sheet.analysis["idle_limit_s"]), self._state.clocks.now)
        pause_s = self._pauses.busy_s
        while self._wanted(job_id):
            news = False
            try:
                news = await self._look(sheet, watch)
            except ClusterError as error:
                logger.warning("job %s: its series cannot be looked at: %s", job_id, error)
            except Exception:  # the outermost loop: whatever went wrong, the job must go on being followed
                logger.exception("job %s: its series cannot be looked at", job_id)
            pause_s = self._pauses.busy_s if news else min(2 * pause_s, self._pauses.longest_s)
            if self._wanted(job_id):
                await asyncio.sleep(pause_s)

    def _wanted(self, job_id: str) -> bool:
        if self._state.signals.closing or job_id not in self._state.known:
            return False
        job = self._state.core.job(job_id)
        return job.is_growing and job.is_open

    async def _look(self, sheet: Sheet, watch: IdleWatch) -> bool:
        """Ask once; return whether there was news."""
        facts = None
        try:
            facts = (await self._source.locate(sheet.series)).facts
        finally:
            waited_s = watch.note(facts)
            if facts is None and waited_s is not None:  # nobody can say any more how it goes on
                await self._end(sheet, self._state.core.job(sheet.job_id).total, _silent(waited_s))
        if facts.fingerprint != sheet.facts.fingerprint:
            total = self._state.core.job(sheet.job_id).total
            return await self._end(sheet, total, f"{sheet.series} was replaced by another series meanwhile")
        if facts.complete:
            return await self._end(sheet, facts.frames, "")
        if waited_s is not None:
            return await self._end(sheet, facts.frames, _idle(facts, waited_s))
        return await self._grow(sheet, growth_of(sheet, available(facts)))

    async def _end(self, sheet: Sheet, frames: int, lacking: str) -> bool:
        if lacking:
            logger.warning("job %s: %s", sheet.job_id, lacking)
        return await self._grow(sheet, growth_of(sheet, frames, ended=True, lacking=lacking))

    async def _grow(self, sheet: Sheet, growth: Growth) -> bool:
        return await self._state.settled(self._state.core.grow(sheet.job_id, growth))


class IdleWatch:
    """How long a series has not grown. `now` is a monotonic clock [s]."""

    def __init__(self, limit_s: float, now: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._now = now
        self._seen: object = None
        self._since = now()

    def note(self, facts: SeriesFacts | None) -> float | None:
        """Note how a series is; return for how long it has not grown, once that is too long [s]."""
        seen = None if facts is None else (facts.frames, facts.missing, facts.complete)
        if seen is not None and seen != self._seen:
            self._seen, self._since = seen, self._now()
        waited_s = self._now() - self._since
        return waited_s if waited_s > self._limit_s else None


def available(facts: SeriesFacts) -> int:
    """Return how many frames there are before the first gap."""
    return min([facts.frames, *(start for start, _ in facts.missing)])


def growth_of(sheet: Sheet, frames: int, *, ended: bool = False, lacking: str = "") -> Growth:
    """Return what a job may do with the first `frames` frames of its series."""
    start, stop = sheet.analysed(frames)
    settled = frames if ended else fits.settled_until(sheet.analysis, sheet.values, frames)
    return Growth(
        stop=max(sheet.start, min(stop, settled)),
        total=frames,
        skipped=frames - (stop - start),
        ended=ended,
        lacking=lacking,
    )


def _idle(facts: SeriesFacts, waited_s: float) -> str:
    gaps = sum(stop - start for start, stop in facts.missing)
    lost = f", {gaps} of them never came" if gaps else ""
    return (
        f"the series was never completed: it stopped growing at {facts.frames} frames{lost}, "
        f"and {waited_s:.0f} s later this job ended"
    )


def _silent(waited_s: float) -> str:
    return f"the series was never completed: no data server could tell of it for {waited_s:.0f} s"
