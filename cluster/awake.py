"""Keeping this computer from falling asleep while it works. The screen may turn dark and lock; a lid that is closed still counts.

Nothing here can fail a job: a computer that cannot be kept awake is said once, in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Final

from cluster.threads import DaemonThread

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 10.0  # no system sleeps sooner than after a minute
LINGER_S: Final = 60.0  # between two tasks there is a moment without any
_RELEASE_S: Final = 2.0
_LOGIND: Final = (
    "systemd-inhibit",
    "--what=idle:sleep",
    "--mode=block",
    "--who=clusterofone",
    "--why=localising",
    "cat",
)

_WHY_NOT: Final = (
    "neither a desktop session nor logind takes the wish"
    if sys.platform == "linux"
    else "the system refused it"
)

Hold = Callable[[], AbstractContextManager[str | None]]
"""Keeps the computer awake inside the block; gives by which means, or None if there is none."""


async def stay_awake_while(
    busy: Callable[[], bool],
    *,
    hold: Hold | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Keep this computer awake whenever `busy`, until cancelled."""
    watch = _Watch(hold or held_awake)
    try:
        while True:
            await watch.look(busy())
            await sleep(LOOK_EVERY_S)
    finally:
        await watch.close()


@contextlib.asynccontextmanager
async def awake_while(busy: Callable[[], bool] | None) -> AsyncIterator[None]:
    """Inside the block, keep this computer awake whenever `busy`; None lets it sleep when it likes."""
    if busy is None:
        yield
        return
    watching = asyncio.create_task(stay_awake_while(busy))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait({watching})


class _Watch:
    """What is held now. The means are asked in a thread of their own: one is the thread's, and one may hang."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._thread = DaemonThread("awake")
        self._held: ExitStack | None = None
        self._quiet_s = 0.0
        self._said = False

    async def look(self, busy: bool) -> None:
        self._quiet_s = 0.0 if busy else self._quiet_s + LOOK_EVERY_S
        if busy and self._held is None:
            self._held = ExitStack()
            self._say(await self._thread.call(lambda: _entered(self._held, self._hold)))
        elif self._held is not None and self._quiet_s >= LINGER_S:
            await self._let_go()

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError):  # the end of the process lets go too
            async with asyncio.timeout(_RELEASE_S):
                await self._let_go()
        self._thread.close()

    async def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            await self._thread.call(lambda: _left(held))

    def _say(self, means: str | None) -> None:
        if self._said:
            return
        self._said = True
        if means is None:
            logger.warning(
                "this computer cannot be kept awake by a program (%s): let it not suspend by itself while it works",
                _WHY_NOT,
            )
        else:
            logger.info("this computer is kept awake while it works (%s)", means)


def _entered(held: ExitStack | None, hold: Hold) -> str | None:
    try:
        return None if held is None else held.enter_context(hold())
    except Exception:  # whatever a desktop's service answers, a job must not fail of it
        logger.debug("keeping awake failed", exc_info=True)
        return None


def _left(held: ExitStack) -> None:
    try:
        held.close()
    except Exception:  # as above
        logger.debug("letting sleep again failed", exc_info=True)


@contextlib.contextmanager
def held_awake() -> Iterator[str | None]:
    """Keep awake by what the desktop offers; on Linux without one, by logind."""
    from wakepy import keep

    with keep.running(on_fail="pass") as mode:
        if mode.active:
            yield mode.active_method.name if mode.active_method is not None else "wakepy"
            return
    with held_by(_LOGIND) if sys.platform == "linux" else contextlib.nullcontext(None) as means:
        yield means


@contextlib.contextmanager
def held_by(command: tuple[str, ...]) -> Iterator[str | None]:
    """Keep awake as long as a command runs that repeats what it is told; it ends with this process, whose pipe it reads."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        yield None
        return
    with process:
        yield command[0] if _repeats(process) else None


def _repeats(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a command got as far as to repeat a line: then its inhibitor is in place."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):
        process.stdin.write(b"awake\n")
        process.stdin.flush()
        return process.stdout.readline() == b"awake\n"
    return False
