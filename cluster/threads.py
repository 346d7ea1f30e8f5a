"""Work that blocks, in daemon threads of our own: none of them keeps a process alive that should stop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
_Call = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class DaemonThread:
    """One thread that runs calls one after the other; there is none before the first.

    The standard executors' threads are waited for at exit; a fit that takes minutes would hold up a planned stop.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    async def call(self, function: Callable[[], T]) -> T:
        """Run a function in the thread and return what it returns, or raise what it raises."""
        if self._closed:
            raise RuntimeError(f"the thread {self._thread.name} has been closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._calls.put((loop, future, function))
        if self._thread.ident is None:
            self._thread.start()
        return await future

    def close(self) -> None:
        """Let the thread end once it is idle; does not wait for it."""
        self._closed = True
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            loop, future, function = call
            result: Any = None
            failure: BaseException | None = None
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 -- it is raised again, in the caller
                failure = error
            _deliver(loop, future, result, failure)
            del call, loop, future, function, result, failure


def _deliver(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    result: object,
    failure: BaseException | None,
) -> None:
    def settle() -> None:
        if future.done():
            return
        if failure is None:
            future.set_result(result)
        else:
            future.set_exception(failure)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop has been closed: nobody waits any more
        return
