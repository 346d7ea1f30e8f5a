"""What the core tells its shell: values to journal, each the newest state of one thing, and values to answer with.

A journal that keeps the last record of each `key` can rebuild the core: see `Scheduler.restore`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cluster.scheduler.core.phases import Phase
from cluster.scheduler.core.tasks import TaskState

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What the core must know of a job: the frames to cover, and what decides who gets it when.

    `frames` lists single frames instead of the range [start, stop) (a preview). `total` counts every frame of the
    series; those that no task covers are skipped. Of a series that is `growing`, `stop` and `total` are those of the
    beginning; what came since is the job's `Growth`. `context_frames` are read beside those of a task, for its background.
    """

    job_id: str
    start: int
    stop: int
    total: int
    frame_bytes: int
    fit: str
    owner: str = ""
    machine: str = ""
    priority: int = 0
    kind: str = "localise"
    frames: tuple[int, ...] | None = None
    growing: bool = False
    context_frames: int = 0


@dataclass(frozen=True, slots=True)
class Growth:
    """How far a series that is still being acquired has come.

    Frames before `stop` may be cut into tasks; of the `total` frames so far, `skipped` are covered by no task. Once
    it has `ended` nothing changes any more; `lacking` says why the series is not whole, if it is not, and `note` what
    else there is to say. `fingerprint` and `events` (name, description, time [s]) are those of the series as it then was.
    """

    stop: int
    total: int
    skipped: int = 0
    ended: bool = False
    lacking: str = ""
    note: str = ""
    fingerprint: str = ""
    events: tuple[tuple[str, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """What the core must know of a worker."""

    worker_id: str
    fits: frozenset[str]


@dataclass(frozen=True, slots=True)
class Counts:
    """Frames of a task's result by what became of them, its rows, and how long it took."""

    localised: int = 0
    skipped: int = 0
    failed: int = 0
    rows: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class JobSaved:
    """A job as it is now."""

    order: JobOrder
    phase: Phase
    growth: Growth | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Return what identifies the thing recorded."""
        return ("job", self.order.job_id)


@dataclass(frozen=True, slots=True)
class JobForgotten:
    """A job that leaves no trace."""

    job_id: str

    @property
    def key(self) -> tuple[str, ...]:
        """Return what identifies the thing recorded."""
        return ("job", self.job_id)


@dataclass(frozen=True, slots=True)
class TaskSaved:
    """A task as it is now. A `Done` task says what its result holds and where in the job's rows it begins."""

    job_id: str
    task_id: int
    start: int
    stop: int
    state: TaskState
    counts: Counts = field(default=Counts())
    first_row: int = 0

    @property
    def key(self) -> tuple[str, ...]:
        """Return what identifies the thing recorded."""
        return ("task", self.job_id, str(self.task_id))


@dataclass(frozen=True, slots=True)
class WorkerSaved:
    """A worker as it is now; `excluded` says why it gets no more work."""

    order: WorkerOrder
    excluded: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Return what identifies the thing recorded."""
        return ("worker", self.order.worker_id)


@dataclass(frozen=True, slots=True)
class WorkerForgotten:
    """A worker that said goodbye, or was silent for long."""

    worker_id: str

    @property
    def key(self) -> tuple[str, ...]:
        """Return what identifies the thing recorded."""
        return ("worker", self.worker_id)


Record = JobSaved | JobForgotten | TaskSaved | WorkerSaved | WorkerForgotten


@dataclass(frozen=True, slots=True)
class TaskLease:
    """A lease as the worker sees it; `series_frames` counts those of a series that grows, as far as the task may know."""

    job_id: str
    task_id: int
    attempt: int
    start: int
    stop: int
    series_frames: int | None = None


@dataclass(frozen=True, slots=True)
class Decided(Generic[T]):
    """The answer of a command, and what must be journaled before anyone hears it."""

    value: T
    records: tuple[Record, ...]
