"""A network that delays, loses, repeats, reorders and parts, between one scheduler and its callers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from cluster.errors import ClusterError, Unavailable
from tests.simulation.virtual_time import Process, running

T = TypeVar("T")


@dataclass
class Weather:
    """How the network is now. Chances are for each message, in either direction."""

    delay_s: float = 0.002
    lost: float = 0.0
    repeated: float = 0.0
    damaged: float = 0.0


FAIR = Weather()


class Network:
    """Carries requests to whatever serves now, and replies back; `serving` is None while nobody listens."""

    def __init__(self, chance: Random, count: Callable[[str], None]) -> None:
        self._chance = chance
        self._count = count
        self.weather = FAIR
        self.serving: Process | None = None
        self.cut_to: set[str] = set()  # whose requests do not arrive
        self.cut_from: set[str] = set()  # who gets no replies

    async def call(self, handler: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """Return the reply to a request, or raise what the server raised.

        Raises
        ------
        Unavailable
            If nobody listens, the server dies meanwhile, or no reply has come in time.
        """
        caller = running()
        if not caller.alive:
            raise Unavailable("the caller is dead")
        reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._send(caller, self.cut_to, lambda: self._arrive(caller, handler, reply))
        try:
            async with asyncio.timeout(timeout_s):
                return await reply
        except TimeoutError:
            raise Unavailable("no reply in time") from None

    def _send(self, caller: Process, cut: set[str], deliver: Callable[[], None]) -> None:
        weather, chance, loop = self.weather, self._chance, asyncio.get_running_loop()
        copies = 1
        if weather.repeated and chance.random() < weather.repeated:
            copies = 2
            self._count("repeated")
        for _ in range(copies):
            if caller.name in cut or (weather.lost and chance.random() < weather.lost):
                self._count("lost")
                continue
            delay_s = chance.expovariate(1.0 / weather.delay_s)
            loop.call_later(max(delay_s, caller.stopped_until - loop.time()), deliver)

    def _arrive(
        self, caller: Process, handler: Callable[[], Awaitable[Any]], reply: asyncio.Future[Any]
    ) -> None:
        server = self.serving
        if server is None:
            self._answer(caller, reply, Unavailable("connection refused"))
            return

        async def serve() -> None:
            try:
                said: Any = await handler()
            except ClusterError as error:
                said = error
            except asyncio.CancelledError:
                said = Unavailable("connection reset")
            self._answer(caller, reply, said)

        server.spawn(serve())

    def _answer(self, caller: Process, reply: asyncio.Future[Any], said: Any) -> None:
        def deliver() -> None:
            if reply.done():
                return
            if isinstance(said, ClusterError):
                reply.set_exception(said)
                reply.exception()  # whoever waits still gets it
            else:
                reply.set_result(said)

        self._send(caller, self.cut_from, deliver)
