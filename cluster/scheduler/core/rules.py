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
    first_frames: int = 16  # of a task for a worker whose pace is not known
    task_s: float = 1.5
    least_task_s: float = 0.15
    tasks_per_worker: int = 4
    context_share: float = 0.1  # of the frames that a worker reads, those read for the background alone
    longest_run: int = 32  # tasks
    exclude_after: int = 5
    straggler_factor: float = 3.0
    straggler_least_s: float = 5.0
    straggler_check_s: float = 1.0
    refusal_pause_s: float = 2.0
    longest_pause_s: float = 60.0
    forget_worker_s: float = 600.0
    asleep_s: float = math.inf  # who did not look for so long was not there to hear anybody

    def task_size(self, job: Job, workers: int, worker_id: str = "") -> int:
        """Return how many frames the next task should have, for a worker where that is known.

        What takes the worker `task_s` seconds, as far as that is known, else a few frames that tell it; but a short
        job, and the end of a long one, is split so that every worker has something to do, the faster ones more. Nothing
        is split below `least_task_s`: what a shorter task could save at the end, its own overhead takes.
        """
        if self.task_frames is not None:
            return self.task_frames
        frame_bytes = max(1, job.order.frame_bytes)
        frame_s = job.paces.of(worker_id)
        if frame_s is None and not worker_id:
            frame_s = job.seconds_per_frame
        wanted, least = min(self.task_bytes / frame_bytes, self.first_frames), self.least_frames
        if frame_s is not None:
            wanted = min(self.task_s / frame_s, self.largest_task_bytes / frame_bytes)
            least = max(least, math.ceil(self.least_task_s / frame_s))
        part = job.paces.weight(worker_id) / max(1, workers)
        share = job.frames_in_range() * part / self.tasks_per_worker
        rest = job.frames_uncut * part / 2
        return max(least, math.floor(min(wanted, max(share, 1), max(rest, 1))))

    def run_of_tasks(self, job: Job, workers: int, worker_id: str) -> int:
        """Return how many neighbouring tasks to give to one worker, at most half of its part of what is left."""
        if job.order.context_frames == 0 or job.is_growing or job.paces.of(worker_id) is None:
            return 1
        frames = self.task_size(job, workers, worker_id)
        rest = job.frames_uncut * job.paces.weight(worker_id) / max(1, workers) / 2
        return max(1, min(self.wanted_run(job.order.context_frames, frames), int(rest / frames)))

    def wanted_run(self, context_frames: int, frames: int) -> int:
        """Return of how many neighbouring tasks the context is `context_share`: it is read once, then the task before has it."""
        return min(math.ceil(context_frames / (self.context_share * frames)), self.longest_run)

    def is_overtaken(self, job: Job, frames: int, holder: str, held_s: float, other: str) -> bool:
        """Return whether another worker, beginning now, would have a task done well before the one that holds it."""
        holder_s, other_s = job.paces.of(holder), job.paces.of(other)
        if holder_s is None or other_s is None:
            return False
        return frames * holder_s - held_s > 2 * frames * other_s + self.least_task_s

    def patience_s(self, job: Job, frames: int) -> float:
        """Return for how long a task of so many frames may be held before it looks stuck."""
        if job.seconds_per_frame is None:
            return self.lease_s
        return max(self.straggler_factor * frames * job.seconds_per_frame, self.straggler_least_s)
