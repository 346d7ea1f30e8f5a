"""Trying again: exponential back-off with full jitter, a deadline, and only where it can help."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from cluster.errors import ClusterError, OutOfSpace, TransientError

T = TypeVar("T")
_RETRY_AFTER_LIMIT_S: Final = 30.0


@dataclass(frozen=True)
class Pace:
    """Where time and chance come from, so that tests may bring their own."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    rng: random.Random = field(default_factory=random.Random)


@dataclass(frozen=True)
class Backoff:
    """Exponential back-off with full jitter, within an overall deadline."""

    first_s: float = 0.25
    longest_s: float = 10.0
    total_s: float = 60.0


class Attempts:
    """The pauses of one call that is tried until it succeeds or its deadline passes."""

    def __init__(self, backoff: Backoff, *, clock: Callable[[], float], rng: random.Random) -> None:
        self._backoff = backoff
        self._clock = clock
        self._rng = rng
        self._began = clock()
        self._failed = 0

    @property
    def elapsed_s(self) -> float:
        """How long the call has been tried."""
        return self._clock() - self._began

    def pause_s(self, error: ClusterError) -> float:
        """Return how long to wait before the next attempt.

        Raises
        ------
        ClusterError
            The error itself, if trying again cannot help or the deadline would pass meanwhile.
        """
        if not isinstance(error, TransientError) or _needs_room(error):
            raise error
        ceiling = min(self._backoff.first_s * 2.0 ** min(self._failed, 30), self._backoff.longest_s)
        asked = error.facts.get("retry_after_s")
        least = min(float(asked), _RETRY_AFTER_LIMIT_S) if isinstance(asked, int | float) else 0.0
        pause = max(least, 0.0) + self._rng.uniform(0.0, ceiling)
        self._failed += 1
        if self.elapsed_s + pause > self._backoff.total_s:
            raise error
        return pause


def _needs_room(error: ClusterError) -> bool:
    """Return whether somebody must make room first: a disk was found too small for what was forecast."""
    return isinstance(error, OutOfSpace) and "needed_bytes" in error.facts


async def persist(call: Callable[[], Awaitable[T]], backoff: Backoff, pace: Pace) -> T:
    """Try an idempotent call until it succeeds; only transient errors are tried again.

    Raises
    ------
    ClusterError
        The last error, once it is not transient or the deadline has passed.
    """
    attempts = Attempts(backoff, clock=pace.clock, rng=pace.rng)
    while True:
        try:
            return await call()
        except TransientError as error:
            pause = attempts.pause_s(error)
        await pace.sleep(pause)


def persist_now(call: Callable[[], T], backoff: Backoff, *, sleep: Callable[[float], None], pace: Pace) -> T:
    """Do as `persist`, for a program that waits."""
    attempts = Attempts(backoff, clock=pace.clock, rng=pace.rng)
    while True:
        try:
            return call()
        except TransientError as error:
            pause = attempts.pause_s(error)
        sleep(pause)
