"""Starting the roles of a cluster as processes, watching them, and stopping all of them.

A role is started with a pipe as its standard input. It prints one line, `{"ready": …}`, when it serves; it stops when
its standard input ends. So a stop needs no signal (Windows has none to speak of), and when this process is killed the
pipe breaks and every role stops by itself: no orphan outlives its parent. What a role logs goes to a file, never to a
console that nobody reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cluster.errors import Unavailable
from cluster.interpreter import RUN_MODULE

logger = logging.getLogger(__name__)

PARENT_PIPE: Final = "CLUSTEROFONE_PARENT_PIPE"
NOT_AGAIN: Final = 78  # the exit status of a role that would fail the same way if it were started again
_READY_DEADLINE_S: Final = 60.0
_STOP_DEADLINE_S: Final = 8.0
_RESTART_DELAY_S: Final = (0.5, 30.0)
_HEALTHY_AFTER_S: Final = 20.0


Again = Callable[[dict[str, Any]], "Role"]


@dataclass(frozen=True)
class Role:
    """A process to run: `clusterofone ARGUMENTS` with these additions to the environment."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None


class RoleProcess:
    """One started role."""

    def __init__(self, role: Role, process: asyncio.subprocess.Process) -> None:
        self.role = role
        self._process = process
        self._ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, role: Role, environ: Mapping[str, str]) -> RoleProcess:
        """Start the process; `ready` waits until it serves."""
        environment = {**environ, **role.environment, PARENT_PIPE: "1", "PYTHONUNBUFFERED": "1"}
        log = _open_log(role.log)
        try:
            process = await asyncio.create_subprocess_exec(
                *RUN_MODULE,
                "clusterofone",
                *role.arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment,
                **process_options(),
            )
        finally:
            if log is not None:
                os.close(log)
        return cls(role, process)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Return whether the process is gone."""
        return self._process.returncode is not None

    async def ready(self, deadline_s: float = _READY_DEADLINE_S) -> dict[str, Any]:
        """Return what the role said when it was ready.

        Raises
        ------
        Unavailable
            If it ended first, or said nothing in time; with the last line of its log.
        """
        try:
            return await asyncio.wait_for(asyncio.shield(self._ready), deadline_s)
        except TimeoutError:
            raise Unavailable(f"the {self.role.name} was not ready within {deadline_s:.0f} s") from None

    async def wait(self) -> int:
        """Wait until the process is gone; return its exit status."""
        return await self._process.wait()

    async def stop(self, deadline_s: float = _STOP_DEADLINE_S) -> None:
        """End its standard input, and kill it if that is not enough."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), deadline_s)
        except TimeoutError:
            logger.warning("%s (pid %d) did not stop in %.0f s: killed", self.role.name, self.pid, deadline_s)
            self.kill()
            await self._process.wait()
        await self._reader

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = _ready_line(line)
            if said is not None and not self._ready.done():
                self._ready.set_result(said)
        await self._process.wait()
        if not self._ready.done():
            self._ready.set_exception(Unavailable(self._why_it_ended()))
            self._ready.exception()  # whoever awaits `ready` still gets it; nobody need

    def _why_it_ended(self) -> str:
        last = _last_line(self.role.log)
        return (
            last or f"the {self.role.name} ended with status {self._process.returncode} before it was ready"
        )


class Supervisor:
    """Keeps roles running until told to stop: a worker that dies is started again, with back-off."""

    def __init__(self, environ: Mapping[str, str], *, on_event: Callable[[str], None] = logger.info) -> None:
        self._environ = environ
        self._on_event = on_event
        self._essential: list[RoleProcess] = []
        self._kept: list[RoleProcess] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._keeping = 0
        self._stopping = False

    async def start(
        self, role: Role, again: Again | None = None, *, dispensable: bool = False
    ) -> dict[str, Any]:
        """Start a role that must be there, and return what it said when ready; raises `Unavailable`.

        When it dies it is started anew as `again` says, given what it had said; without `again`, or when it cannot be
        started anew, `wait` tells, unless the others can go on without it.
        """
        process = await RoleProcess.start(role, self._environ)
        self._essential.append(process)
        said = await process.ready()
        self._keepers.append(
            asyncio.create_task(
                self._watch(
                    process,
                    again and (lambda: again(said)),
                    self._on_event if dispensable else self._fail,
                )
            )
        )
        return said

    def keep(self, role: Role) -> None:
        """Start a role, and start it again whenever it dies, unless it says that this would not help."""
        self._keeping += 1
        self._keepers.append(asyncio.create_task(self._keep(role)))

    async def wait(self, stop: asyncio.Event) -> str | None:
        """Wait until `stop` is set (None) or a role that must not die has died (why)."""
        stopped = asyncio.ensure_future(stop.wait())
        futures: set[asyncio.Future[Any]] = {stopped, self._failed}
        try:
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        return self._failed.result() if self._failed.done() else None

    async def stop(self) -> None:
        """Stop every role, in the opposite order of their start; those started by `keep` first, and together."""
        self._stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(process.stop() for process in self._kept))
        for process in reversed(self._essential):
            await process.stop()

    def kill(self) -> None:
        """End every role at once."""
        for process in [*self._kept, *self._essential]:
            process.kill()

    async def _watch(
        self, process: RoleProcess, again: Callable[[], Role] | None, lost: Callable[[str], None]
    ) -> None:
        while True:
            status = await process.wait()
            why = _last_line(process.role.log)
            said = f"the {process.role.name} ended with status {status}" + (f": {why}" if why else "")
            if again is None or status == NOT_AGAIN:
                lost(said)
                return
            self._on_event(f"{said}; starting it again")
            following = await RoleProcess.start(again(), self._environ)
            self._essential[self._essential.index(process)] = process = following
            try:
                await process.ready()
            except Unavailable as error:
                lost(error.detail)
                return

    def _fail(self, why: str) -> None:
        if not self._failed.done():
            self._failed.set_result(why)

    async def _keep(self, role: Role) -> None:
        delay = _RESTART_DELAY_S[0]
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            process = await RoleProcess.start(role, self._environ)
            self._kept.append(process)
            status = await process.wait()
            self._kept.remove(process)
            if loop.time() - started > _HEALTHY_AFTER_S:
                delay = _RESTART_DELAY_S[0]
            why = _last_line(role.log)
            if status == NOT_AGAIN:
                self._give_up(role, why)
                return
            self._on_event(
                f"{role.name} ended (status {status}{': ' + why if why else ''}); starting it again"
            )
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 -- jitter, not a secret
            delay = min(delay * 2, _RESTART_DELAY_S[1])

    def _give_up(self, role: Role, why: str) -> None:
        self._on_event(f"{role.name} cannot work: {why}")
        self._keeping -= 1
        if self._keeping == 0:
            self._fail(f"no {role.name.rpartition('-')[0]} can work: {why}")


def _ready_line(line: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) and "ready" in said else None


def _open_log(path: Path | None) -> int | None:
    if path is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > (4 << 20):
        path.replace(path.with_suffix(".old.log"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _last_line(path: Path | None) -> str:
    if path is None or not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def process_options() -> dict[str, Any]:
    """Return how to start a role so that Ctrl-C reaches only this process, on each platform."""
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    else:
        options = {"start_new_session": True}
    return options
