"""The processes of a cluster: started, killed, stopped, started again, and how long until they serve again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO

from cluster.supervisor import PARENT_PIPE

DEADLINE_S = 90.0


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def until(look: Callable[[], Awaitable[bool]], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll until something is so; raises `TimeoutError` that says what was not."""
    end = time.monotonic() + deadline_s
    while not await look():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {deadline_s:.0f} s")
        await asyncio.sleep(0.05)


class RoleProcess:
    """One role. `serves` says whether it does its work now."""

    def __init__(
        self,
        kind: str,
        words: list[str],
        environ: dict[str, str],
        log: Path,
        serves: Callable[[int], Awaitable[bool]],
    ) -> None:
        self.kind = kind
        self.busy = False  # something is being done to it
        self.recoveries_s: list[float] = []
        self._words = words
        self._environ = environ
        self._log: IO[bytes] = log.open("ab")
        self._serves = serves
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the id of the present process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, and return when it serves."""
        self._process = process = subprocess.Popen(  # noqa: ASYNC220 - starting does not block
            [sys.executable, "-m", "clusterofone", *self._words],
            env={**self._environ, PARENT_PIPE: "1"}, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log,
        )  # fmt: skip  # whose standard input ends when this program does, however it ends

        async def served() -> bool:
            if process.poll() is not None:
                raise ChildProcessError(
                    f"the {self.kind} ended with status {process.returncode}; see {self._log.name}"
                )
            return await self._serves(process.pid)

        await until(served, f"a {self.kind} that serves")

    async def kill_and_start(self) -> None:
        """Kill -9, start again at once, and note after how long it served."""
        assert self._process is not None
        began = time.monotonic()
        self._process.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        await self.start()
        self.recoveries_s.append(time.monotonic() - began)

    async def suspend(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it for good."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGCONT)
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()
