"""How fast each worker is at one job, as measured: what its tasks are cut by, and what tells who is a straggler.

Not journaled: after a restart the first results tell it anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_LEAST_WEIGHT = 0.3  # of the newest result


@dataclass(slots=True)
class Paces:
    """Seconds a frame by worker, each with the frames that they were last measured on."""

    _known: dict[str, tuple[float, int]] = field(default_factory=dict)
    _frames_a_second: float = 0.0  # of all of them together

    def note(self, worker_id: str, frames: int, seconds: float) -> None:
        """Take in a result. One of more frames than the last tells more: a short task is mostly beginning and end."""
        if frames <= 0 or seconds <= 0:
            return
        measured = seconds / frames
        before = self._known.get(worker_id)
        pace = measured
        if before is not None:
            pace = before[0] + max(_LEAST_WEIGHT, frames / (frames + before[1])) * (measured - before[0])
            self._frames_a_second -= 1 / before[0]
        self._frames_a_second += 1 / pace
        self._known[worker_id] = (pace, frames)

    def of(self, worker_id: str) -> float | None:
        """Return the seconds a frame of a worker, None while it has handed in nothing."""
        known = self._known.get(worker_id)
        return None if known is None else known[0]

    def weight(self, worker_id: str) -> float:
        """Return how fast a worker is beside the mean of all, 1 for one that is not known."""
        pace = self.of(worker_id)
        return 1.0 if pace is None else len(self._known) / (pace * self._frames_a_second)

    def forget(self) -> None:
        """Drop everything: the job has ended."""
        self._known.clear()
        self._frames_a_second = 0.0
