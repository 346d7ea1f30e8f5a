"""Telling the scheduler where this data server is, over and over, and learning from it which tokens to recognise.

A scheduler that restarts hears of us within `refresh_s` of its last reply; one that cannot be reached is asked again
with jittered back-off, for ever.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from cluster.errors import ClusterError
from cluster.protocol import DataServerRegistered, DataServerRegistration
from cluster.transport import Link

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 5.0
_REFRESH_BOUNDS_S: Final = (0.5, 60.0)
Wait = Callable[[float], Awaitable[bool]]


class Registration:
    """Keeps this data server known at the scheduler. `wait(seconds)` returns True once it is time to stop."""

    def __init__(
        self,
        link: Link,
        message: DataServerRegistration,
        *,
        on_registered: Callable[[DataServerRegistered], None],
        wait: Wait,
        rng: random.Random,
    ) -> None:
        self._link = link
        self._message = message
        self._on_registered = on_registered
        self._wait = wait
        self._rng = rng
        self._failed = 0
        self._said: str | None = None

    async def run(self) -> None:
        """Register until told to stop."""
        while not await self._wait(await self._register()):
            pass

    async def _register(self) -> float:
        """Register once; return how long to wait before the next time."""
        try:
            reply = await self._link.send("/api/v1/dataservers", self._message, DataServerRegistered)
        except ClusterError as error:
            return self._pause_after(error)
        self._failed = 0
        self._say(logging.INFO, f"registered at {self._link.url} for the cluster {reply.name!r}")
        self._on_registered(reply)
        shortest, longest = _REFRESH_BOUNDS_S
        return min(max(reply.refresh_s, shortest), longest) * self._rng.uniform(0.8, 1.0)

    def _pause_after(self, error: ClusterError) -> float:
        self._say(logging.WARNING, f"cannot register at {self._link.url}: {error.detail}")
        ceiling = min(_FIRST_PAUSE_S * 2.0 ** min(self._failed, 16), _LONGEST_PAUSE_S)
        self._failed += 1
        return self._rng.uniform(_FIRST_PAUSE_S / 4, ceiling)

    def _say(self, level: int, text: str) -> None:
        """Log what changed, not every attempt."""
        if text != self._said:
            self._said = text
            logger.log(level, "%s", text)


async def wait_or_stop(stop: asyncio.Event, seconds: float) -> bool:
    """Wait, but no longer than until `stop`; return whether that came."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True
