"""The numbers by which the scheduler decides, and how large it cuts a task."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cluster.scheduler.core.jobs import Job


@dataclass(frozen=True, slots=True)
class Rules:
    """What can be tuned. Times are seconds, sizes are bytes of raw frames."""

    lease_s: float = 30.0
    max_attempts: int = 3
    task_frames: int | None = None  # a fixed task size
    task_bytes: int = 16 << 20
    largest_task_bytes: int = 128 << 20
    least_frames: int = 10
    task_s: float = 1.5
    least_task_s: float = 0.15
    tasks_per_worker: int = 4
    exclude_after: int = 5
    straggler_factor: float = 3.0
    straggler_least_s: float = 5.0
    straggler_check_s: float = 1.0
    refusal_pause_s: float = 2.0
    longest_pause_s: float = 60.0
    forget_worker_s: float = 600.0
    asleep_s: float = math.inf  # who did not look for so long was not there to hear anybody

    def task_size(self, job: Job, workers: int) -> int:
        """Return how many frames the next task should have.

        What takes `task_s` seconds, as far as that is known, else `task_bytes`; but a short job, and the end of a long
        one, is split so that every worker has something to do. Nothing is split below `least_task_s`: what a shorter
        task could save at the end, its own overhead takes.
        """
        if self.task_frames is not None:
            return self.task_frames
        frame_bytes = max(1, job.order.frame_bytes)
        wanted = self.task_bytes / frame_bytes
        if job.seconds_per_frame is not None:
            wanted = min(self.task_s / job.seconds_per_frame, self.largest_task_bytes / frame_bytes)
        workers = max(1, workers)
        least = self.least_frames
        if job.seconds_per_frame is not None:
            least = max(least, math.ceil(self.least_task_s / job.seconds_per_frame))
        share = job.frames_in_range() / (self.tasks_per_worker * workers)
        rest = job.frames_uncut / (2 * workers)
        return max(least, math.floor(min(wanted, max(share, 1), max(rest, 1))))

    def patience_s(self, job: Job, frames: int) -> float:
        """Return for how long a task of so many frames may be held before it looks stuck."""
        if job.seconds_per_frame is None:
            return self.lease_s
        return max(self.straggler_factor * frames * job.seconds_per_frame, self.straggler_least_s)
