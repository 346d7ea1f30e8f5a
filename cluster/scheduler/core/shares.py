"""Who is next: by priority, then by owner, then by job, whoever has had least so far.

Each owner, and each job of an owner, carries a mark that grows with what it is given. Whoever begins late starts at the
lowest mark of those present, so that waiting is no credit and being first is no debt.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.scheduler.core.jobs import Job

_Rank = tuple[bool, int, float, float, int]


class Shares:
    """The marks of owners and jobs. Forgotten at a restart, when everyone starts level."""

    def __init__(self) -> None:
        self._owners: dict[str, float] = {}
        self._jobs: dict[str, float] = {}

    def admit(self, job: Job, others: Iterable[Job]) -> None:
        """Start a job level with those who have had least, and its owner too if it had nothing to do."""
        owner, present = job.order.owner, [other for other in others if other is not job]
        owners = {other.order.owner for other in present}
        if owner not in owners:
            floor = min((self._owners[name] for name in owners), default=0.0)
            self._owners[owner] = max(floor, self._owners.get(owner, 0.0) if owners else 0.0)
        own = [self._jobs[other.order.job_id] for other in present if other.order.owner == owner]
        self._jobs[job.order.job_id] = min(own, default=0.0)

    def charge(self, job: Job, frames: int) -> None:
        """Note what an admitted job was given, in bytes of frames, so that large frames weigh more."""
        cost = float(frames * job.order.frame_bytes)
        self._owners[job.order.owner] += cost
        self._jobs[job.order.job_id] += cost

    def forget(self, job: Job) -> None:
        """Drop a job's mark."""
        self._jobs.pop(job.order.job_id, None)

    def rank(self, job: Job) -> _Rank:
        """Return the sort key of an admitted job: the smallest is next. Previews come before everything."""
        order = job.order
        return (
            order.kind != "preview",
            -order.priority,
            self._owners[order.owner],
            self._jobs[order.job_id],
            job.sequence,
        )
