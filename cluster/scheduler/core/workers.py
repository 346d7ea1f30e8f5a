"""What the scheduler knows of a worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cluster.scheduler.core.records import WorkerOrder, WorkerSaved

WorkerState = Literal["idle", "working", "lost", "excluded", "draining"]
TaskName = tuple[str, int]  # job, task


@dataclass
class Worker:
    """A worker: when it was last heard of, what it holds, how it has done."""

    order: WorkerOrder
    last_seen: float
    lost: bool = False
    draining: bool = False
    excluded: str | None = None
    held: dict[TaskName, int] = field(default_factory=dict)  # task → attempt
    frames: int = 0
    seconds: float = 0.0
    streak: set[TaskName] = field(default_factory=set)  # tasks it failed at since its last success
    errors_in_a_row: int = 0
    redone: int = 0  # of these, how many another worker then did
    last_error: str = ""
    refused: dict[str, tuple[float, float]] = field(default_factory=dict)  # job → (until, pause)

    @property
    def worker_id(self) -> str:
        """Return its name."""
        return self.order.worker_id

    @property
    def state(self) -> WorkerState:
        """Return what it is doing, in a word."""
        if self.excluded is not None:
            return "excluded"
        if self.lost:
            return "lost"
        if self.draining:
            return "draining"
        return "working" if self.held else "idle"

    @property
    def may_work(self) -> bool:
        """Return whether it may be given tasks."""
        return not (self.lost or self.draining) and self.excluded is None

    def saved(self) -> WorkerSaved:
        """Return its record."""
        return WorkerSaved(self.order, self.excluded)

    def refuses(self, job_id: str, now: float) -> bool:
        """Return whether it has said lately that it cannot do this job."""
        until, _ = self.refused.get(job_id, (0.0, 0.0))
        return now < until

    def note_refusal(self, job_id: str, *, now: float, first_s: float, longest_s: float) -> None:
        """Leave this job to others for a while; twice as long each time."""
        _, pause = self.refused.get(job_id, (0.0, first_s / 2))
        pause = min(2 * pause, longest_s)
        self.refused[job_id] = (now + pause, pause)

    def note_success(self, frames: int, seconds: float, job_id: str) -> None:
        """Count a committed result; whatever went wrong before was not this worker's fault."""
        self.frames += frames
        self.seconds += seconds
        self.streak.clear()
        self.errors_in_a_row = self.redone = 0
        self.refused.pop(job_id, None)

    def note_error(self, task: TaskName, message: str) -> None:
        """Count a task it failed at."""
        self.streak.add(task)
        self.errors_in_a_row += 1
        self.last_error = message

    def note_redone(self, task: TaskName) -> None:
        """Note that another worker did what this one failed at: so it was not the task."""
        if task in self.streak:
            self.streak.discard(task)
            self.redone += 1

    def exclude_if_a_black_hole(self, limit: int) -> bool:
        """Exclude a worker that fails task after task which others can do; return whether that is new."""
        if self.excluded is not None or self.errors_in_a_row < limit or self.redone == 0:
            return False
        self.excluded = (
            f"{self.errors_in_a_row} tasks in a row failed here that others could do; "
            f"the last error: {self.last_error}. Restart this worker when it is mended."
        )
        return True
