"""The store behind the app: reached from a bounded number of threads, its frames within a bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import anyio
from anyio import to_thread

from cluster.dataserver.budget import ByteBudget
from cluster.dataserver.store import SeriesStore

_READING_THREADS: Final = 16
_OF_ONE_SERIES: Final = 8
_BYTES_IN_FLIGHT: Final = 256 << 20
_T = TypeVar("_T")


class Reading:
    """The store behind the app: reached from a bounded number of threads, its frames within a bounded memory."""

    def __init__(self, store: SeriesStore, *, bytes_in_flight: int = _BYTES_IN_FLIGHT) -> None:
        self.store = store
        self.budget = ByteBudget(bytes_in_flight)
        self._threads = anyio.CapacityLimiter(_READING_THREADS)
        self._turns: dict[str, tuple[anyio.Semaphore, int]] = {}

    async def __call__(self, read: Callable[..., _T], *arguments: Any, **named: Any) -> _T:
        """Return what a method of the store returns."""
        return await to_thread.run_sync(partial(read, *arguments, **named), limiter=self._threads)

    async def of(self, path: str, read: Callable[..., _T], *arguments: Any, **named: Any) -> _T:
        """Return what a method of the store returns of a series; one that is slow leaves threads to the others."""
        turns, users = self._turns.get(path) or (anyio.Semaphore(_OF_ONE_SERIES), 0)
        self._turns[path] = turns, users + 1
        try:
            async with turns:
                return await self(read, path, *arguments, **named)
        finally:
            turns, users = self._turns.pop(path)
            if users > 1:
                self._turns[path] = turns, users - 1
