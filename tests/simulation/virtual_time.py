"""An event loop whose time is virtual: it never waits, it moves its clock to whatever comes next.

Everything that runs on it belongs to a `Process` of the simulation, so that `kill` ends what a kill -9 would end:
every task of that process, wherever it stands.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from cluster.errors import ClusterError

T = TypeVar("T")


class Crashed(BaseException):
    """The process that ran this is no more. Not an `Exception`: nobody may catch it and go on."""


class Stuck(Exception):
    """Nothing is left to happen, yet somebody still waits."""


@dataclass(eq=False)
class Process:
    """What lives and dies together."""

    name: str
    alive: bool = True
    stopped_until: float = 0.0  # SIGSTOP: nothing goes in or out before
    tasks: dict[asyncio.Task[Any], None] = field(default_factory=dict)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine as this process."""
        context = contextvars.copy_context()
        context.run(_running.set, self)
        task = asyncio.get_running_loop().create_task(work, context=context)
        task.add_done_callback(self._look_at)
        return task

    def kill(self) -> None:
        """End it at once. Its tasks are cancelled; what they still try to do, nobody sees."""
        self.alive = False
        for task in list(self.tasks):
            task.cancel()

    def _look_at(self, task: asyncio.Task[Any]) -> None:
        """Remember what the process died of, unless it was killed: what it then still trips over, nobody sees either."""
        error = None if task.cancelled() else task.exception()
        if self.alive and error is not None and not isinstance(error, Crashed):
            uncaught.append(error)


_outside = Process("outside")
_running: contextvars.ContextVar[Process] = contextvars.ContextVar("process", default=_outside)


def running() -> Process:
    """Return the process that runs now."""
    return _running.get()


class _Leap(selectors.SelectSelector):
    """Waits for no file; lets the clock leap instead."""

    def __init__(self, leap: Callable[[float], None]) -> None:
        super().__init__()
        self._leap = leap

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck
        if timeout > 0:
            self._leap(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Deterministic: the same calls in the same order, from the same `chance`."""

    def __init__(self, chance: Random) -> None:
        self._now = 0.0
        self._chance = chance
        super().__init__(_Leap(self._leap))
        self.set_task_factory(_of_its_process)
        self.set_exception_handler(_no_news)

    def time(self) -> float:
        return self._now

    def _leap(self, seconds: float) -> None:
        self._now += seconds

    def _write_to_self(self) -> None:
        """Nobody sleeps, so nobody need be woken."""

    def run_in_executor(self, _executor: Any, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """What a thread would do happens a little later, all at once: others come in between before and after."""
        future: asyncio.Future[T] = self.create_future()

        def run() -> None:
            if future.done():
                return
            result, failure = None, None
            try:
                result = function(*args)
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
                failure = error
            if future.done():  # the process died in the middle of it
                return
            if failure is None:
                future.set_result(result)  # type: ignore[arg-type]
            else:
                future.set_exception(failure)

        self.call_later(self._chance.uniform(0.0, 0.01), run)
        return future


def _of_its_process(
    loop: asyncio.AbstractEventLoop, work: Any, context: contextvars.Context | None = None
) -> asyncio.Task[Any]:
    owner = running() if context is None else context.get(_running, _outside)
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    owner.tasks[task] = None
    task.add_done_callback(lambda done: owner.tasks.pop(done, None))
    if not owner.alive:
        task.cancel()
    return task


def _no_news(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A crash is told to nobody; anything else that nobody caught is a fault of the program."""
    error = context.get("exception")
    if isinstance(error, ClusterError) and "never retrieved" in str(context.get("message")):
        return  # an answer whose asker was killed meanwhile; when it is noticed is up to the garbage collector
    if error is not None and not isinstance(error, Crashed | asyncio.CancelledError):
        uncaught.append(error)


uncaught: list[BaseException] = []
