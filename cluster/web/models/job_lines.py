"""A job as a line, and as the facts of its own page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

from cluster.client import ENDED
from cluster.protocol import FailedFrames, Job
from cluster.web.models.wording import count, duration, plural, rate

Tone = Literal["quiet", "busy", "good", "warning", "bad"]
_TONES: Final[dict[str, Tone]] = {
    "waiting": "quiet",
    "queued": "quiet",
    "running": "busy",
    "done": "good",
    "done_with_errors": "warning",
    "cancelled": "quiet",
    "failed": "bad",
}
_SAID_TO_SCRIPTS: Final = "; failed_frames says which and why"
_WORDS: Final = {"done_with_errors": "done, with failed frames", "waiting": "waiting for frames"}


@dataclass(frozen=True)
class JobLine:
    """What of a job is shown; every text is ready to be read."""

    id: str
    name: str
    series: str
    state: str
    tone: Tone
    fraction: float
    frames: str
    localisations: str
    rate: str
    localisation_rate: str
    left: str
    note: str
    owner: str
    open: bool
    can_retry: bool
    has_result: bool


def line_of(job: Job, now: float) -> JobLine:
    """Return a job as a line; `now` in Unix seconds."""
    done = job.frames.localised + job.frames.skipped + job.frames.failed
    is_open = job.state not in ENDED
    return JobLine(
        id=job.id,
        name=job.name,
        series=job.series + (f" · priority {job.priority:+d}" if job.priority else ""),
        state=_state(job, done),
        tone=_TONES[job.state],
        fraction=done / job.frames.total if job.frames.total else float(not is_open),
        frames=f"{done:,} of {job.frames.total:,}" + _aside(job),
        localisations=count(job.localisations),
        rate=rate(job.rate_frames_per_s),
        localisation_rate=_localisation_rate(job, done),
        left=_left(job) if is_open else _took(job, now),
        note=(job.error or "").removesuffix(_SAID_TO_SCRIPTS),
        owner=job.owner,
        open=is_open,
        can_retry=bool(job.frames.failed) and job.state in {"done_with_errors", "failed"},
        has_result=job.output is not None and not is_open,
    )


def failures(failed: list[FailedFrames]) -> list[tuple[str, str]]:
    """Return (frames, why), one a reason, the reason that took most frames first."""
    counts: Counter[str] = Counter()
    ranges: dict[str, list[str]] = {}
    for run in failed:
        counts[run.reason] += run.stop - run.start
        ranges.setdefault(run.reason, []).append(_range(run))
    return [
        (f"{plural(number, 'frame')}: {_some(ranges[reason])}", reason)
        for reason, number in counts.most_common()
    ]


def nothing_happens(job: Job, working: int) -> str:
    """Return why an open job does not get on, empty if it does. `working` workers may take tasks."""
    if job.state in ENDED or job.tasks_running:
        return ""
    if working == 0:
        return "No worker is there. Start one, on this or another machine: clusterofone worker"
    if job.state == "waiting":
        return "The series grows; there are no new frames to localise yet."
    return ""


def _state(job: Job, done: int) -> str:
    if job.state == "running" and job.frames.total and done >= job.frames.total:
        return "writing the result"
    return _WORDS.get(job.state, job.state)


def _aside(job: Job) -> str:
    parts = [
        f"{number:,} {word}"
        for number, word in ((job.frames.failed, "failed"), (job.frames.skipped, "skipped"))
        if number
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _localisation_rate(job: Job, done: int) -> str:
    if job.rate_frames_per_s is None or not done:
        return "–"
    return rate(job.rate_frames_per_s * job.localisations / done)


def _left(job: Job) -> str:
    return "–" if job.eta_s is None else f"{duration(job.eta_s)} left"


def _took(job: Job, now: float) -> str:
    if job.started is None:
        return "–"
    return f"took {duration((job.finished or now) - job.started)}"


def _range(run: FailedFrames) -> str:
    last = run.stop - 1
    return str(run.start) if last == run.start else f"{run.start}–{last}"


def _some(ranges: list[str], most: int = 8) -> str:
    shown = ", ".join(ranges[:most])
    return shown if len(ranges) <= most else f"{shown} and {len(ranges) - most} more ranges"


def pyme_command(path: str) -> str:
    """Return the line that opens a result file in PYMEVisualize, where PYME's Python is the one that a terminal finds."""
    return f'python -m PYME.LMVis.PYMEVisualise "{path}"'
