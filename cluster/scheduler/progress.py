"""How a job is getting on, as people see it: times, rate, failed frames, and its view on the wire."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, assert_never

from cluster.protocol import FailedFrames, FrameCounts, Job, JobDetail, JobState
from cluster.scheduler.core import Job as CoreJob
from cluster.scheduler.core.phases import (
    Broken,
    Cancelled,
    Cancelling,
    Finished,
    Merging,
    Queued,
    Running,
)
from cluster.scheduler.core.tasks import Failed
from cluster.scheduler.sheets import Brief, Sheet

TERMINAL: Final = frozenset({"done", "done_with_errors", "cancelled", "failed"})
_RATE_WINDOW_S: Final = 30.0
_LONGEST_LIST: Final = 1000


@dataclass(slots=True)
class Progress:
    """What the shell notes of a job while it runs. Wall-clock times are Unix seconds; `commits` are monotonic."""

    started: float | None = None
    finished: float | None = None
    output: str | None = None
    failed_frames: list[FailedFrames] = field(default_factory=list)
    commits: deque[tuple[float, int]] | None = None  # while it runs: an empty deque is not small
    cpus: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    phase: str = ""  # as it was last logged

    def note_commit(self, now: float, frames: int) -> None:
        """Count frames towards the rate."""
        if self.commits is None:
            self.commits = deque()
        self.commits.append((now, frames))
        while self.commits and now - self.commits[0][0] > _RATE_WINDOW_S:
            self.commits.popleft()

    def forget_commits(self) -> None:
        """Drop what only the rate of a running job needs: the job has ended."""
        self.commits = None

    def rate(self, now: float) -> float | None:
        """Return frames per second lately; None while two commits have not come in."""
        recent = [(at, frames) for at, frames in self.commits or () if now - at <= _RATE_WINDOW_S]
        if len(recent) < 2:
            return None
        elapsed = now - recent[0][0]
        # the first commit only marks the beginning: its frames were done before
        return sum(frames for _, frames in recent[1:]) / elapsed if elapsed > 0 else None


def state_of(job: CoreJob) -> JobState:
    """Return a job's state in the words of the public interface."""
    match job.phase:
        case Queued():
            return "waiting" if job.is_growing and not job.has_work else "queued"
        case Running() | Merging() | Cancelling():
            return "running"
        case Finished(errors=errors):
            return "done_with_errors" if errors else "done"
        case Broken():
            return "failed"
        case Cancelled():
            return "cancelled"
        case _:
            assert_never(job.phase)


def view(brief: Brief, job: CoreJob, progress: Progress, now: float) -> Job:
    """Return a job as everyone sees it."""
    tally = job.tally
    state = state_of(job)
    rate = _overall_rate(job, progress) if state in TERMINAL else progress.rate(now)
    to_do = job.total - tally.frames
    return Job(
        id=brief.job_id,
        name=brief.name,
        owner=brief.owner,
        machine=brief.machine,
        kind=brief.kind,
        state=state,
        series=brief.series,
        priority=brief.priority,
        fit=brief.fit,
        frames=FrameCounts(
            total=job.total, localised=tally.localised, skipped=tally.skipped, failed=tally.failed
        ),
        tasks_running=len(job.leased),
        retries=tally.retries,
        localisations=tally.rows,
        rate_frames_per_s=rate,
        eta_s=to_do / rate if rate and state not in TERMINAL and not job.is_growing else None,
        output=progress.output if state in TERMINAL else None,
        error=_error(job),
        failed_frames=failed_frames(job, progress)[:_LONGEST_LIST],
        notes=[*brief.notes, *progress.notes, *_mixture_notes(progress), *_present_notes(job)],
        created=brief.created,
        started=progress.started,
        finished=progress.finished,
    )


def detail(sheet: Sheet, job: CoreJob, progress: Progress, now: float) -> JobDetail:
    """Return a job with everything that decides its result."""
    seen = view(sheet.brief, job, progress, now)
    return JobDetail(**dict(seen), analysis=sheet.analysis, metadata=sheet.metadata, facts=sheet.facts)


def failed_frames(job: CoreJob, progress: Progress) -> list[FailedFrames]:
    """Return the ranges of failed frames, in order: of tasks given up, and inside committed results."""
    found = list(progress.failed_frames)
    for task_id in job.failed:
        state = job.state(task_id)
        assert isinstance(state, Failed)
        start, stop = job.bounds(task_id)
        found.append(FailedFrames(start=start, stop=stop, reason=state.reason))
    return _joined(sorted(found, key=lambda frames: frames.start))


def _joined(ranges: list[FailedFrames]) -> list[FailedFrames]:
    joined: list[FailedFrames] = []
    for frames in ranges:
        last = joined[-1] if joined else None
        if last is not None and last.stop == frames.start and last.reason == frames.reason:
            joined[-1] = last.model_copy(update={"stop": frames.stop})
        else:
            joined.append(frames)
    return joined


def _overall_rate(job: CoreJob, progress: Progress) -> float | None:
    if progress.started is None or progress.finished is None or progress.finished <= progress.started:
        return None
    return job.tally.localised / (progress.finished - progress.started)


def _error(job: CoreJob) -> str | None:
    match job.phase:
        case Broken(reason=reason):
            return reason
        case Cancelled(reason=reason):
            return reason
        case Finished(errors=True):
            failed = f"{job.tally.failed} of {job.total} frames failed; failed_frames says which and why"
            return "; ".join(filter(None, [job.lacking, failed if job.tally.failed else ""]))
        case _:
            return None


def _mixture_notes(progress: Progress) -> list[str]:
    if len(progress.cpus) < 2:
        return []
    kinds = ", ".join(sorted(progress.cpus))
    return [
        f"workers of different processors took part ({kinds}); the last digits may depend on who did what"
    ]


def _present_notes(job: CoreJob) -> list[str]:
    match job.phase:
        case Merging():
            return ["writing the result file"]
        case Cancelling():
            return ["cancelled; writing the file of the finished frames"]
        case _ if job.is_growing:
            return ["the series is still growing"]
        case _ if job.growth is not None and job.growth.note:
            return [job.growth.note]
        case _ if job.last_refusal:
            return [f"a worker could not take it: {job.last_refusal}"]
        case _:
            return []
