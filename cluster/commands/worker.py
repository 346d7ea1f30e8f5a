"""`clusterofone worker`: the processes that fit, on this machine."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from cluster.commands import console, surroundings
from cluster.commands.role_process import Ready, run_role
from cluster.config import WorkerSettings
from cluster.errors import ClusterError
from cluster.supervisor import PARENT_PIPE, Role, Supervisor


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
) -> None:
    """Fit for a cluster: found on the network by itself, or named.

    Examples: [bold]clusterofone worker[/] · [bold]clusterofone worker --scheduler http://192.168.1.5:15400 -n 4[/]
    """
    if polite:
        _lower_priority()
    settings = WorkerSettings(
        scheduler=scheduler,
        token=_given_token(token, token_file),
        cluster_name=name,
        state=surroundings.places().state,
        cache=surroundings.places().cache,
        config=surroundings.places().config,
    )
    if one:
        _run_one(settings)
    else:
        _run_many(settings, surroundings.default_workers() if workers is None else workers, polite=polite)


def _run_one(settings: WorkerSettings) -> None:
    from cluster.worker.run import run

    async def body(stop: asyncio.Event, ready: Ready) -> None:
        await run(settings, stop=stop, ready=lambda url: ready({"scheduler": url}))

    run_role("worker", body, os.environ)


def _run_many(settings: WorkerSettings, count: int, *, polite: bool) -> None:
    async def body(stop: asyncio.Event, ready: Ready) -> None:
        found = await _find(settings, stop)
        if found is None:
            return
        supervisor = Supervisor(os.environ, on_event=console.say)
        arguments = ["worker", "--one", "--scheduler", found.url, *(["--polite"] if polite else [])]
        for number in range(1, count + 1):
            log = surroundings.places().state / "logs" / f"worker-{number}.log"
            supervisor.keep(Role(f"worker-{number}", arguments, {"CLUSTEROFONE_TOKEN": found.token}, log))
        console.say(
            f"{count} worker{'s' * (count != 1)} for the cluster {found.name!r} at {found.url}; Ctrl-C stops them."
        )
        ready({"scheduler": found.url})
        try:
            died = await supervisor.wait(stop)
        finally:
            await supervisor.stop()
        if died is not None:
            console.refuse(died)

    run_role("worker", body, os.environ)


async def _find(settings: WorkerSettings, stop: asyncio.Event) -> Any:
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


def _given_token(token: str | None, token_file: Path | None) -> str | None:
    if token_file is not None:
        return token_file.read_text(encoding="utf-8").strip()
    return token


def _lower_priority() -> None:
    process = psutil.Process()
    try:
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 5)
    except psutil.Error as error:
        raise ClusterError(f"the priority cannot be lowered: {error}") from error
