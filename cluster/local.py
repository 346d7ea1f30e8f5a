"""A whole cluster on this machine: scheduler, data server and workers, as one value that can be entered and left.

The roles are processes (see `cluster.supervisor`); they are looked after by an event loop in a thread of its own, so
that the command that runs in the main thread stays free to wait, print, and be interrupted.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from cluster import trust
from cluster.config import JoinPolicy, LabFolders, Places
from cluster.errors import Unavailable
from cluster.protocol import Role as TrustRole
from cluster.supervisor import Role, Supervisor

T = TypeVar("T")
_STOP_DEADLINE_S: Final = 30.0


@dataclass(frozen=True)
class Plan:
    """What to run."""

    name: str
    places: Places
    roots: tuple[Path, ...]
    workers: int
    host: str = "127.0.0.1"
    port: int | None = None
    lan: bool = False
    join: JoinPolicy = "approve"
    insecure: bool = False
    tls: bool = False
    task_frames: int | None = None
    results_root: Path | None = None
    lab: LabFolders | None = None  # None: as the roles find it configured
    keep_blobs: bool = False
    let_sleep: bool = False
    polite: bool = False
    page: bool = False

    def log(self, role: str) -> Path:
        """Return the file a role logs to."""
        return self.places.cluster(self.name) / "logs" / f"{role}.log"


class LocalCluster:
    """`with LocalCluster(plan, environ) as cluster:` runs every role until the block is left.

    Raises
    ------
    Unavailable
        On entering, if a role cannot start; says why.
    """

    def __init__(self, plan: Plan, environ: Mapping[str, str], *, on_event: Callable[[str], None]) -> None:
        self.plan = plan
        self.url = ""
        self.dataserver_url = ""
        self.page_url: str | None = None
        self._environ = environ
        self._on_event = on_event
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="supervisor", daemon=True)
        self._supervisor: Supervisor | None = None
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        """Start the roles, one after the other, each when the one before serves."""
        self._thread.start()
        try:
            self._call(self._start())
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop every role; a second Ctrl-C meanwhile kills them."""
        self._leave()

    @property
    def token(self) -> str:
        """Return the owner's token of this cluster."""
        return trust.own_token(self.plan.places.cluster(self.plan.name), "owner")

    def wait(self, timeout_s: float) -> str | None:
        """Wait a while; return why a role died, if one did."""
        assert self._supervisor is not None

        async def waiting() -> str | None:
            assert self._supervisor is not None
            try:
                return await asyncio.wait_for(self._supervisor.wait(self._stop), timeout_s)
            except TimeoutError:
                return None

        return self._call(waiting())

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _start(self) -> None:
        self._supervisor = Supervisor(self._environ, on_event=self._on_event)
        plan = self.plan
        said = await self._supervisor.start(
            self._scheduler(plan.port), lambda said: self._scheduler(_port_of(said))
        )
        self.url = str(said["url"])
        for number in range(1, plan.workers + 1):  # they load while the data server does
            self._supervisor.keep(self._role(f"worker-{number}", self._worker_arguments(), token="worker"))  # noqa: S106 -- a role, not a secret
        await asyncio.gather(self._start_dataserver(), self._start_page())

    async def _start_dataserver(self) -> None:
        assert self._supervisor is not None
        said = await self._supervisor.start(
            self._dataserver(None), lambda said: self._dataserver(_port_of(said))
        )
        self.dataserver_url = str(said["url"])

    async def _start_page(self) -> None:
        """Start the page, if it is wanted; a cluster without one is a cluster still."""
        assert self._supervisor is not None
        if not self.plan.page:
            return
        try:
            said = await self._supervisor.start(
                self._page(None), lambda said: self._page(_port_of(said)), dispensable=True
            )
        except Unavailable as error:
            self._on_event(f"there is no page: {error.detail}")
        else:
            self.page_url = str(said["url"])

    def _scheduler(self, port: int | None) -> Role:
        return self._role("scheduler", [*self._scheduler_arguments(), *_port_option(port)])

    def _dataserver(self, port: int | None) -> Role:
        arguments = ["dataserver", *self._shared_arguments(), "--scheduler", self.url]
        return self._role("dataserver", [*arguments, *_port_option(port)])

    def _page(self, port: int | None) -> Role:
        arguments = ["web", "--name", self.plan.name, "--host", self.plan.host, "--scheduler", self.url]
        for wanted, option in ((self.plan.lan, "--lan"), (self.plan.insecure, "--insecure")):
            if wanted:
                arguments.append(option)
        return self._role("web", [*arguments, *_port_option(port)], token="owner")  # noqa: S106 -- a role, not a secret

    def _role(self, name: str, arguments: list[str], *, token: TrustRole | None = None) -> Role:
        environment = {}
        if token is not None:
            environment["CLUSTEROFONE_TOKEN"] = trust.own_token(
                self.plan.places.cluster(self.plan.name), token
            )
        return Role(name, arguments, environment, self.plan.log(name))

    def _shared_arguments(self) -> list[str]:
        arguments = ["--name", self.plan.name, "--host", self.plan.host]
        for root in self.plan.roots:
            arguments += ["--root", str(root)]
        lab = self.plan.lab
        if lab is not None:
            arguments += _given(("--profiles", lab.profiles), ("--calibration", lab.calibration))
        if self.plan.lan:
            arguments.append("--lan")
        if self.plan.insecure:
            arguments.append("--insecure")
        return arguments

    def _scheduler_arguments(self) -> list[str]:
        arguments = ["scheduler", *self._shared_arguments(), "--join", self.plan.join]
        presets = self.plan.lab.presets if self.plan.lab is not None else None
        options = (
            ("--task-frames", self.plan.task_frames),
            ("--results-root", self.plan.results_root),
            ("--presets", presets),
        )
        flags = ["--tls"] * self.plan.tls + ["--keep-blobs"] * self.plan.keep_blobs
        return arguments + _given(*options) + flags + ["--let-sleep"] * self.plan.let_sleep

    def _worker_arguments(self) -> list[str]:
        flags = ["--polite"] * self.plan.polite + ["--let-sleep"] * self.plan.let_sleep
        return ["worker", "--one", "--scheduler", self.url, *flags]

    def _leave(self) -> None:
        if self._supervisor is not None:
            stopping = asyncio.run_coroutine_threadsafe(self._supervisor.stop(), self._loop)
            try:
                stopping.result(_STOP_DEADLINE_S)
            except (KeyboardInterrupt, TimeoutError):
                self._supervisor.kill()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        if not self._thread.is_alive():
            self._loop.close()


def _given(*options: tuple[str, object]) -> list[str]:
    """Return those options that have a value, as arguments."""
    return [argument for name, value in options if value is not None for argument in (name, str(value))]


def _port_of(said: dict[str, Any]) -> int:
    """Return the port a role had, which it gets again so that everyone finds it where it was."""
    return int(str(said["url"]).rpartition(":")[2])


def _port_option(port: int | None) -> list[str]:
    return [] if port is None else ["--port", str(port)]
