"""Working only while nobody uses the computer: `--when-idle`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from cluster.commands import console

LOOK_EVERY_S: Final = 2.0
Idle = Callable[[], float | None]


class Crew(Protocol):
    """Workers that were started; `cluster.supervisor.Supervisor` is one."""

    async def wait(self, stop: asyncio.Event) -> str | None:
        """Wait until `stop` is set (None) or none of them can work (why)."""
        ...

    async def stop(self) -> None:
        """Stop them; what they hold goes back."""
        ...


async def work_when_idle(
    start: Callable[[], Crew],
    stop: asyncio.Event,
    *,
    idle: Idle,
    after_s: float,
    wait: Callable[[asyncio.Event, float], Awaitable[bool]],
) -> str | None:
    """Start a crew whenever nobody has touched the computer for `after_s`, and stop it when somebody does.

    `wait(stop, seconds)` returns True once it is time to stop. Returns why no worker can work, or None.
    """
    while not stop.is_set():
        console.say(f"Waiting until nobody has used this computer for {after_s / 60:g} min.")
        while await _seconds(idle) < after_s:
            if await wait(stop, LOOK_EVERY_S):
                return None
        console.say("Nobody is here: working.")
        failed = await _one_turn(start(), stop, idle, after_s, wait)
        if failed is not None:
            return failed
    return None


async def _one_turn(
    crew: Crew,
    stop: asyncio.Event,
    idle: Idle,
    after_s: float,
    wait: Callable[[asyncio.Event, float], Awaitable[bool]],
) -> str | None:
    enough = asyncio.Event()
    working = asyncio.create_task(crew.wait(enough))
    try:
        while not working.done() and await _seconds(idle) >= after_s and not await wait(stop, LOOK_EVERY_S):
            pass
        if not working.done() and not stop.is_set():
            console.say("Somebody is here: the cores are theirs; what was begun goes to other workers.")
        enough.set()
        return await working
    finally:
        enough.set()
        await crew.stop()


async def _seconds(idle: Idle) -> float:
    """Ask in a thread, for some platforms answer by a process; a computer that cannot tell is in use."""
    return await asyncio.to_thread(idle) or 0.0
