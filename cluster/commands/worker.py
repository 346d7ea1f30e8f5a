"""`clusterofone worker`: the processes that fit, on this machine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import psutil
import typer

from cluster.commands import console, starting_by_itself, surroundings
from cluster.commands.connection import given_token
from cluster.commands.idle_turns import work_when_idle
from cluster.commands.role_process import Ready, run_role
from cluster.commands.until import moment
from cluster.config import WorkerSettings
from cluster.errors import ClusterError
from cluster.idle import idle_s
from cluster.supervisor import PARENT_PIPE, Role, Supervisor

if TYPE_CHECKING:
    from cluster.worker.run import Admission


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)


def worker(
    scheduler: Annotated[
        str | None,
        typer.Option(
            envvar="CLUSTEROFONE_SCHEDULER", help="The scheduler's URL", show_default="found by itself"
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="CLUSTEROFONE_TOKEN",
            help="The worker token; better in $CLUSTEROFONE_TOKEN or --token-file.",
        ),
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="A file that holds the token.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--workers",
            metavar="N",
            min=1,
            max=1024,
            help="Processes",
            show_default="cores, two fewer from 8 on",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Join the cluster of this name, where there are several.")
    ] = None,
    one: Annotated[bool, typer.Option("--one", hidden=True)] = False,
    polite: Annotated[bool, typer.Option("--polite", help="Run at below-normal priority.")] = False,
    let_sleep: Annotated[
        bool, typer.Option("--let-sleep", help="Let this computer fall asleep also while it works.")
    ] = False,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="Stop then, having handed in what is being fitted: 50m, 1h30m, 23:30, 2026-11-26T23:30, @UNIX_SECONDS.",
        ),
    ] = None,
    when_idle: Annotated[
        bool, typer.Option("--when-idle", help="Work only while nobody uses keyboard or mouse.")
    ] = False,
    idle_minutes: Annotated[
        float, typer.Option(min=0.1, max=1440, help="With --when-idle: for how long nobody must have [min].")
    ] = 10.0,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS|FILE|local",
            help="Fit on the cores of a Dask cluster: its scheduler's address or file, or one made here.",
        ),
    ] = None,
    install: Annotated[
        bool,
        typer.Option("--install", help="Start these workers by themselves at every logon, or boot as root."),
    ] = False,
    uninstall: Annotated[bool, typer.Option("--uninstall", help="Undo --install.")] = False,
) -> None:
    """Fit for a cluster: found on the network by itself, or named.

    Examples: [bold]clusterofone worker[/] · [bold]clusterofone worker --scheduler http://192.168.1.5:15400 -n 4[/] ·
    [bold]clusterofone worker --when-idle --install[/] · [bold]clusterofone worker --dask tcp://login1:8786[/]
    """
    given = given_token(token, token_file)
    if uninstall:
        starting_by_itself.uninstall()
        return
    deadline = None if until is None else moment(until, datetime.now().astimezone())
    if install:
        if until is not None:
            console.refuse("--install with --until: what starts at every logon ends at none", console.USAGE)
        starting_by_itself.install(
            _words(scheduler, workers, name, polite, let_sleep, when_idle, idle_minutes, dask), given
        )
        return
    if polite:
        _lower_priority()
    places = surroundings.places()
    settings = WorkerSettings(
        scheduler=scheduler,
        token=given,
        cluster_name=name,
        state=places.state,
        cache=places.cache,
        config=places.config,
        let_sleep=let_sleep,
    )
    if one:
        _run_one(settings)
    elif dask is not None:
        _run_on_dask(settings, dask, workers, deadline)
    else:
        count = surroundings.default_workers() if workers is None else workers
        _run_many(
            settings, count, deadline, polite=polite, idle_after_s=60 * idle_minutes if when_idle else None
        )


def _words(
    scheduler: str | None,
    workers: int | None,
    name: str | None,
    polite: bool,
    let_sleep: bool,
    when_idle: bool,
    idle_minutes: float,
    dask: str | None,
) -> list[str]:
    """Return the options again, as words, for the system to start."""
    valued = {"--scheduler": scheduler, "-n": workers, "--name": name, "--dask": dask}
    words = [word for option, value in valued.items() if value is not None for word in (option, str(value))]
    idle = ["--when-idle", "--idle-minutes", f"{idle_minutes:g}"] if when_idle else []
    return [*words, *["--polite"] * polite, *["--let-sleep"] * let_sleep, *idle]


def _run_one(settings: WorkerSettings) -> None:
    from cluster.worker.run import run

    async def body(stop: asyncio.Event, ready: Ready) -> None:
        await run(settings, stop=stop, ready=lambda url: ready({"scheduler": url}))

    run_role("worker", body, os.environ)


def _run_many(
    settings: WorkerSettings,
    count: int,
    deadline: datetime | None,
    *,
    polite: bool,
    idle_after_s: float | None,
) -> None:
    flags = ["--polite"] * polite + ["--let-sleep"] * settings.let_sleep

    async def body(stop: asyncio.Event, ready: Ready) -> None:
        async with _ending_at(deadline, stop):
            found = await _find(settings, stop)
            if found is None:
                return
            console.say(
                f"{count} worker{'s' * (count != 1)} for the cluster {found.name!r} at {found.url}; Ctrl-C stops them."
            )
            ready({"scheduler": found.url})
            died = await _keep_working(lambda: _crew(found, count, flags), stop, idle_after_s)
            if died is not None:
                console.refuse(died, console.FAILED)

    run_role("worker", body, os.environ)


def _crew(found: Admission, count: int, flags: list[str]) -> Supervisor:
    supervisor = Supervisor(os.environ, on_event=console.say)
    arguments = ["worker", "--one", "--scheduler", found.url, *flags]
    for number in range(1, count + 1):
        log = surroundings.places().state / "logs" / f"worker-{number}.log"
        supervisor.keep(Role(f"worker-{number}", arguments, {"CLUSTEROFONE_TOKEN": found.token}, log))
    return supervisor


async def _keep_working(
    start: Callable[[], Supervisor], stop: asyncio.Event, idle_after_s: float | None
) -> str | None:
    """Keep a crew working, all the time or while nobody is here; return why none can work, or None."""
    if idle_after_s is not None:
        return await work_when_idle(start, stop, idle=idle_s, after_s=idle_after_s, wait=_stopped_within)
    supervisor = start()
    try:
        return await supervisor.wait(stop)
    finally:
        await supervisor.stop()


def _run_on_dask(settings: WorkerSettings, address: str, most: int | None, deadline: datetime | None) -> None:
    async def body(stop: asyncio.Event, ready: Ready) -> None:
        from cluster.worker.dask_bridge import run

        async with _ending_at(deadline, stop):
            found = await _find(settings, stop)
            if found is None:
                return
            entered = settings.model_copy(update={"scheduler": found.url, "token": found.token})
            await run(entered, address, most=most, stop=stop, ready=ready, say=console.say)

    run_role("worker", body, os.environ)


@asynccontextmanager
async def _ending_at(deadline: datetime | None, stop: asyncio.Event) -> AsyncIterator[None]:
    """Set `stop` at the deadline, if there is one."""
    if deadline is None:
        yield
        return
    console.say(f"Stopping at {deadline:%Y-%m-%d %H:%M:%S}.")

    async def wait() -> None:
        left_s = (deadline - datetime.now().astimezone()).total_seconds()
        await _stopped_within(stop, max(0.0, left_s))
        stop.set()

    waiting = asyncio.create_task(wait())
    try:
        yield
    finally:
        waiting.cancel()


async def _stopped_within(stop: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True


async def _find(settings: WorkerSettings, stop: asyncio.Event) -> Admission | None:
    from cluster.worker.run import find_cluster

    attended = sys.stdin is not None and sys.stdin.isatty() and PARENT_PIPE not in os.environ
    finding = asyncio.ensure_future(
        find_cluster(settings, say=console.say, ask=_ask_which if attended else None)
    )
    stopping = asyncio.ensure_future(stop.wait())
    futures: set[asyncio.Future[Any]] = {finding, stopping}
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if finding.done():
        return finding.result()
    finding.cancel()
    return None


def _ask_which(names: list[str]) -> int:
    for number, name in enumerate(names, start=1):
        console.say(f"  {number}  {name}")
    answer = typer.prompt("Which cluster", type=int, default=1, err=True)
    return int(answer) - 1


def _lower_priority() -> None:
    process = psutil.Process()
    try:
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 5)
    except psutil.Error as error:
        raise ClusterError(f"the priority cannot be lowered: {error}") from error
