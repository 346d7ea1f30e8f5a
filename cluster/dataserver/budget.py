"""How many bytes of frames may be in memory at once, over all requests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ByteBudget:
    """Lets requests in, first come first served, while their bytes together stay under the limit.

    One that is larger than the whole limit is let in alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """Return the bytes that are taken."""
        return self._used

    @asynccontextmanager
    async def taken(self, amount: int) -> AsyncIterator[None]:
        """Take an amount for the length of a block, waiting until it is free."""
        await self.take(amount)
        try:
            yield
        finally:
            self.give_back(amount)

    async def take(self, amount: int) -> None:
        """Take an amount, waiting until it is free."""
        if not self._waiting and self._fits(amount):
            self._used += amount
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        try:
            await turn
        except asyncio.CancelledError:
            self._forget(amount, turn)
            raise

    def give_back(self, amount: int) -> None:
        """Give an amount back, and let in whoever waits for it."""
        self._used -= amount
        self._admit()

    def _fits(self, amount: int) -> bool:
        return self._used == 0 or self._used + amount <= self._limit

    def _admit(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            amount, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._used += amount
                turn.set_result(None)

    def _forget(self, amount: int, turn: asyncio.Future[None]) -> None:
        """A waiter gave up: leave the queue, or give back what came in the same moment."""
        if turn.done() and not turn.cancelled():
            self.give_back(amount)
        elif (amount, turn) in self._waiting:
            self._waiting.remove((amount, turn))
            self._admit()
