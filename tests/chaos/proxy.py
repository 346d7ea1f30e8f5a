"""A TCP proxy that holds connections up, cuts them in the middle, or lets them go dead without a word."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from random import Random

LONGEST_SILENCE_S = 8.0


class Proxy:
    """Stands before one port of this machine; `calm` lets everything through."""

    def __init__(self, port: int, chance: Random, counts: Counter[str]) -> None:
        self.calm = True
        self.port = 0
        self._behind = port
        self._chance = chance
        self._counts = counts
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut everything."""
        assert self._server is not None
        self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    @property
    def url(self) -> str:
        """Where to reach what is behind it."""
        return f"http://127.0.0.1:{self.port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._carry(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._behind)
        ways = [
            asyncio.create_task(self._one_way(reader, back)),
            asyncio.create_task(self._one_way(there, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            back.transport.abort()

    async def _one_way(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            fault = "" if self.calm else self._fault()
            if fault:
                self._counts[fault] += 1
            if fault == "connection delayed":
                await asyncio.sleep(self._chance.uniform(0.05, 1.0))
            elif fault == "connection half-open":
                await asyncio.sleep(self._chance.uniform(1.0, LONGEST_SILENCE_S))
                return
            elif fault == "connection cut":
                with contextlib.suppress(OSError):
                    sink.write(data[: len(data) // 2])
                    await sink.drain()
                return
            sink.write(data)
            await sink.drain()

    def _fault(self) -> str:
        kind = self._chance.random()
        if kind < 0.05:
            return "connection delayed"
        if kind < 0.07:
            return "connection cut"
        return "connection half-open" if kind < 0.08 else ""
