"""A scheduler, a data server and workers, the workers and the acquisitions behind proxies."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Self

import httpx

from cluster import trust
from cluster.config import Places
from tests.chaos.proxy import Proxy
from tests.chaos.roles import RoleProcess, free_port

NAME = "chaos"
LEASE_S = 3.0
TASK_FRAMES = 20
TERMINAL = {"done", "done_with_errors", "cancelled", "failed"}


class ChaosCluster:
    """Everything under one folder; `async with` starts and stops it."""

    def __init__(self, folder: Path, workers: int, chance: Random, counts: Counter[str]) -> None:
        self.root = folder / "data"
        self.root.mkdir(parents=True)
        self._logs = folder / "logs"
        self._logs.mkdir()
        self._environ = {
            **{
                key: value
                for key, value in os.environ.items()
                if not key.startswith(("CLUSTEROFONE", "PYMEDATADIR"))
            },
            "CLUSTEROFONE_HOME": str(folder / "home"),
            "CLUSTEROFONE_CACHE": str(Places.of_user(os.environ).cache),  # compiled kernels are worth keeping
            "PYTHONUTF8": "1",
        }
        ports = free_port(), free_port()
        self.proxies = [Proxy(port, chance, counts) for port in ports]
        self.url, self.data_url = (f"http://127.0.0.1:{port}" for port in ports)
        places = Places.of_user(self._environ)
        self._token = trust.token(trust.load_or_create_secret(places.secret(NAME)), "owner")
        headers = {"authorization": f"Bearer {self._token}"}
        self.http = httpx.AsyncClient(headers=headers, trust_env=False, timeout=10.0)
        self._ports = ports
        self.roles = [
            self._role(
                "scheduler",
                ["--port", str(ports[0]), "--lease-s", str(LEASE_S), "--task-frames", str(TASK_FRAMES)],
            ),
            self._role("dataserver", ["--port", str(ports[1]), "--scheduler", self.url]),
        ]
        self._workers = workers

    @property
    def token(self) -> str:
        """Return the owner's token."""
        return self._token

    async def __aenter__(self) -> Self:
        """Start everything, in order."""
        for proxy in self.proxies:
            await proxy.start()
        try:
            for role in self.roles:
                await role.start()
            for number in range(self._workers):
                self.roles.append(self._worker(number))
                await self.roles[-1].start()
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything."""
        await self.http.aclose()
        for proxy in self.proxies:
            await proxy.stop()
        await asyncio.to_thread(self._stop)

    def calm(self, calm: bool) -> None:
        """Let connections be, or not."""
        for proxy in self.proxies:
            proxy.calm = calm

    async def simulate(self, path: str, frames: int, seed: int) -> None:
        """Make a series."""
        words = [
            "simulate",
            self.root / path,
            "--frames",
            frames,
            "--size",
            64,
            "--emitters",
            5,
            "--seed",
            seed,
        ]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "clusterofone", *map(str, words), env=self._environ,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await process.communicate()
        if process.returncode != 0:
            raise ChildProcessError(said.decode())

    async def ask(self, method: str, url: str, **more: Any) -> httpx.Response | None:
        """Return a reply that says something, or None: nobody answers, or asks to come back later."""
        try:
            reply = await self.http.request(method, url, **more)
        except httpx.HTTPError:
            return None
        return None if reply.status_code >= 500 or reply.status_code == 429 else reply

    async def answered(self, method: str, url: str, **more: Any) -> httpx.Response:
        """Ask until there is a reply."""
        while (reply := await self.ask(method, url, **more)) is None:
            await asyncio.sleep(0.2)
        return reply

    async def job(self, job_id: str) -> dict[str, Any]:
        """Return a job as the scheduler sees it."""
        return dict((await self.answered("GET", f"{self.url}/api/v1/jobs/{job_id}")).json())

    async def ended(self, job_id: str) -> dict[str, Any]:
        """Return a job once it has ended."""
        while (job := await self.job(job_id))["state"] not in TERMINAL:
            await asyncio.sleep(0.2)
        return job

    def _role(self, kind: str, words: list[str]) -> RoleProcess:
        url = f"{self.url}/api/v1/jobs" if kind == "scheduler" else f"{self.data_url}/api/v1/series"

        async def serves(_pid: int) -> bool:
            return await self.ask("GET", url) is not None

        root = ["--name", NAME, "--root", str(self.root)]
        return RoleProcess(kind, [kind, *root, *words], self._environ, self._logs / f"{kind}.log", serves)

    def _worker(self, number: int) -> RoleProcess:
        async def serves(pid: int) -> bool:
            reply = await self.ask("GET", f"{self.url}/api/v1/workers")
            return reply is not None and any(worker["pid"] == pid for worker in reply.json())

        words = ["worker", "--one", "--scheduler", self.proxies[0].url]
        home = str(self._logs.parent / "elsewhere")  # where nothing tells of a way past the proxy
        environ = {**self._environ, "CLUSTEROFONE_TOKEN": self._token, "CLUSTEROFONE_HOME": home}
        return RoleProcess("worker", words, environ, self._logs / f"worker-{number}.log", serves)

    def _stop(self) -> None:
        for role in reversed(self.roles):
            role.stop()
