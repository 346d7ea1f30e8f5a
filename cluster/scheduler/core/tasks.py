"""Life of a task, as values. This file owns every transition of a task; no other one makes a task state.

    Ready ──grant──► Leased ──commit──► Done
      ▲ ▲              │ │ ▲
      │ └─lose, err, ──┘ │ └─grant (a second attempt of a straggler), renew
      │   hand_back      └───err, lose, reject──► Failed
      └──────────────────────retry────────────────┘
    Ready ──commit──► Done      (a result that arrives after its lease ran out, while nobody else has committed)

Rules of this package

1. No clock, socket, file, thread, randomness or logging. Time is the argument `now`, in seconds of any monotonic clock.
2. A state is a frozen value and its methods are the only transitions there are; an illegal one cannot be written.
3. Attempts count up over the whole life of a task and never repeat: the attempt is the fencing number.
4. Times are not part of what a state *is* (they do not survive a restart), so they are left out of comparisons.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Toll:
    """What a task has cost so far: attempts that failed, attempts that vanished, and who failed at it."""

    errors: int = 0
    losses: int = 0
    tried: frozenset[str] = frozenset()
    reason: str = ""

    def with_error(self, worker: str, reason: str) -> Toll:
        """Count an attempt that failed."""
        return replace(self, errors=self.errors + 1, tried=self.tried | {worker}, reason=reason)

    def with_loss(self, worker: str) -> Toll:
        """Count an attempt whose worker fell silent; the task may be what kills it, so others are preferred."""
        return replace(self, losses=self.losses + 1, tried=self.tried | {worker})

    @property
    def strikes(self) -> int:
        """Return how many attempts count against the task: every error, and every loss but the first."""
        return self.errors + max(0, self.losses - 1)

    @property
    def verdict(self) -> str:
        """Return why nobody should try again, for a person."""
        if self.reason:
            return f"failed {self.errors} times; the last time: {self.reason}"
        return f"{self.losses} workers fell silent while they worked on it"


UNTRIED = Toll()


@dataclass(frozen=True, slots=True)
class Grant:
    """One attempt, held by one worker until `until`."""

    worker: str
    attempt: int
    since: float = field(default=0.0, compare=False)
    until: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Ready:
    """Waiting for a worker, after `attempts` grants that came to nothing."""

    attempts: int = 0
    toll: Toll = UNTRIED
    since: float = field(default=0.0, compare=False)

    def grant(self, worker: str, *, now: float, until: float) -> Leased:
        """Hand it to a worker."""
        attempt = self.attempts + 1
        return Leased((Grant(worker, attempt, now, until),), attempt, self.toll)

    def commit(self, attempt: int) -> Done:
        """Accept a result that comes after its lease ran out."""
        return done(attempt)

    def reject(self, reason: str) -> Failed:
        """Fail without another try: no worker could do it."""
        return Failed(self.attempts, reason)


@dataclass(frozen=True, slots=True)
class Leased:
    """Held by one worker, or by two when the first is slow; `attempts` were granted so far."""

    grants: tuple[Grant, ...]
    attempts: int
    toll: Toll = UNTRIED

    def find(self, attempt: int) -> Grant | None:
        """Return the live grant of this number."""
        return next((grant for grant in self.grants if grant.attempt == attempt), None)

    def grant(self, worker: str, *, now: float, until: float) -> Leased:
        """Hand a second attempt of a slow task to another worker."""
        attempt = self.attempts + 1
        return Leased((*self.grants, Grant(worker, attempt, now, until)), attempt, self.toll)

    def renew(self, attempt: int, *, until: float) -> Leased:
        """Give one attempt a fresh term."""
        grants = tuple(replace(g, until=until) if g.attempt == attempt else g for g in self.grants)
        return replace(self, grants=grants)

    def resume(self, *, now: float, until: float) -> Leased:
        """Give every attempt a fresh term: the scheduler was away, and its clock is another."""
        return replace(self, grants=tuple(replace(grant, since=now, until=until) for grant in self.grants))

    def commit(self, attempt: int) -> Done:
        """Accept a result."""
        return done(attempt)

    def hand_back(self, attempt: int, *, limit: int, now: float) -> TaskState:
        """Take an attempt back; it counts against nobody."""
        return self._without(attempt, self.toll, limit, now)

    def lose(self, attempt: int, *, limit: int, now: float) -> TaskState:
        """Take an attempt back from a worker that fell silent."""
        grant = self.find(attempt)
        return (
            self if grant is None else self._without(attempt, self.toll.with_loss(grant.worker), limit, now)
        )

    def err(self, attempt: int, reason: str, *, limit: int, now: float) -> TaskState:
        """Count an attempt that failed; the last one fails the task."""
        grant = self.find(attempt)
        if grant is None:
            return self
        return self._without(attempt, self.toll.with_error(grant.worker, reason), limit, now)

    def reject(self, reason: str) -> Failed:
        """Fail at once: the input itself is wrong, nobody need try again."""
        return Failed(self.attempts, reason)

    def revoke(self, *, now: float) -> Ready:
        """Take it back from everyone: the job was cancelled."""
        return Ready(self.attempts, self.toll, now)

    def _without(self, attempt: int, toll: Toll, limit: int, now: float) -> TaskState:
        others = tuple(grant for grant in self.grants if grant.attempt != attempt)
        if others:
            return Leased(others, self.attempts, toll)
        if toll.strikes >= limit:
            return Failed(self.attempts, toll.verdict)
        return Ready(self.attempts, toll, now)


@dataclass(frozen=True, slots=True)
class Done:
    """The result of attempt number `attempt` is the accepted one."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Nobody will try again unless a person asks; `reason` is for people."""

    attempts: int
    reason: str

    def retry(self, *, now: float) -> Ready:
        """Try again from the start; attempts keep counting up."""
        return Ready(self.attempts, UNTRIED, now)


TaskState = Ready | Leased | Done | Failed


@lru_cache(maxsize=64)
def done(attempt: int) -> Done:
    """Return the state; one shared value for each attempt, because millions of tasks end in it."""
    return Done(attempt)
