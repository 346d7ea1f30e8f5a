"""Jobs whose series are still being acquired: asking how far each has come, and telling the core.

A frame may be cut into a task once everything that it takes is there (`fits.settled_until`). A gap holds back what
comes after it until it is filled, or the series ends. A series that stops growing for `idle_limit_s` without having
been completed ends its job too, which then says what is lacking. Files that another program writes need not say when
they are complete: one of which nothing says so, and nothing is torn, is whole when it has rested for `rest_s`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

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
        if not self._wanted(job_id):  # it was cancelled before this began
            return
        sheet = self._state.job(job_id).sheet
        watch = IdleWatch(float(sheet.analysis["idle_limit_s"]), self._state.clocks.now)
        problem = ""
        pause_s = self._pauses.busy_s
        while self._wanted(job_id):
            news = False
            try:
                news = await self._look(sheet, watch)
                problem = ""
            except ClusterError as error:
                if str(error) != problem:
                    logger.warning("job %s: its series cannot be looked at: %s", job_id, error)
                problem = str(error)
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
        try:
            facts = (await self._source.locate(sheet.series, follow=True)).facts
        except ClusterError as error:
            waited_s = watch.note(None)
            if waited_s > watch.limit_s:  # nobody can say any more how it goes on
                await self._end(sheet, self._total(sheet), _silent(waited_s, error))
            raise
        waited_s = watch.note(facts)
        if facts.fingerprint != sheet.facts.fingerprint:
            return await self._end(
                sheet, self._total(sheet), f"{sheet.series} was replaced by another series meanwhile"
            )
        if facts.complete:
            return await self._end_with(sheet, watch, "")
        if facts.growing is not None and not facts.growing.marked and not facts.growing.torn:
            rest_s = float(sheet.analysis["rest_s"])
            if waited_s > rest_s:
                return await self._end_with(sheet, watch, "", note=_rested(waited_s))
        if waited_s > watch.limit_s:
            return await self._end_with(sheet, watch, _idle(facts, waited_s))
        return await self._grow(sheet, growth_of(sheet, available(facts)))

    def _total(self, sheet: Sheet) -> int:
        return self._state.core.job(sheet.job_id).total

    async def _end_with(self, sheet: Sheet, watch: IdleWatch, lacking: str, *, note: str = "") -> bool:
        """End with the series as it has become: its frames, its events and its final fingerprint."""
        try:
            located = await self._source.locate(sheet.series)
            facts = located.facts
            events = await self._source.events(located) if facts.events else []
        except ClusterError as error:
            waited_s = watch.waited_s()
            if waited_s <= watch.limit_s:
                raise
            return await self._end(sheet, self._total(sheet), lacking or _silent(waited_s, error))
        became = Became(
            facts.fingerprint, tuple((event.name, event.description, event.time) for event in events), note
        )
        return await self._end(sheet, facts.frames, lacking, became)

    async def _end(self, sheet: Sheet, frames: int, lacking: str, became: Became | None = None) -> bool:
        if lacking:
            logger.warning("job %s: %s", sheet.job_id, lacking)
        total = max(frames, self._total(sheet))
        growth = growth_of(sheet, total, ended=True, lacking=lacking)
        if became is not None:
            growth = replace(growth, fingerprint=became.fingerprint, events=became.events, note=became.note)
        return await self._grow(sheet, growth)

    async def _grow(self, sheet: Sheet, growth: Growth) -> bool:
        return await self._state.settled(self._state.core.grow(sheet.job_id, growth))


@dataclass(frozen=True)
class Became:
    """What a series was when it had ended; each event is (name, description, time [s])."""

    fingerprint: str
    events: tuple[tuple[str, str, float], ...]
    note: str


class IdleWatch:
    """How long a series has not grown. `now` is a monotonic clock [s]."""

    def __init__(self, limit_s: float, now: Callable[[], float]) -> None:
        self.limit_s = limit_s
        self._now = now
        self._seen: object = None
        self._since = now()

    def note(self, facts: SeriesFacts | None) -> float:
        """Note how a series is; return for how long it has not grown [s]."""
        seen = None if facts is None else (facts.frames, facts.missing, facts.complete, facts.bytes)
        if seen is not None and seen != self._seen:
            self._seen, self._since = seen, self._now()
        return self.waited_s()

    def waited_s(self) -> float:
        """Return for how long it has not grown [s]."""
        return self._now() - self._since


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
    frames = f"{facts.frames} frames"
    if facts.growing is not None:
        promised = facts.growing.promised
        if promised is not None and promised > facts.frames:
            frames = f"{facts.frames} of {promised} frames"
            lost = f", {promised - facts.frames} never came"
        elif facts.growing.torn:
            lost = ", its files unfinished"
    return (
        f"the series was never completed: it stopped growing at {frames}{lost}, "
        f"and {waited_s:.0f} s later this job ended"
    )


def _silent(waited_s: float, error: ClusterError) -> str:
    return f"the series was never completed: no data server could tell of it for {waited_s:.0f} s ({error.detail})"


def _rested(waited_s: float) -> str:
    return f"nothing in the series says how long it is: it was taken as whole when it had not grown for {waited_s:.0f} s"
