"""`clusterofone scheduler | dataserver | worker`: one role alone."""

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
from cluster.commands.start import Join
from cluster.config import (
    DataServerSettings,
    Runtime,
    SchedulerSettings,
    WorkerSettings,
    read_runtime,
    write_private,
)
from cluster.errors import ClusterError
from cluster.supervisor import PARENT_PIPE, Role, Supervisor

Name = Annotated[str | None, typer.Option("--name", help="The cluster's name.")]
Root = Annotated[
    list[Path] | None,
    typer.Option(
        "--root", help="Folder of raw data, repeatable", show_default="$PYMEDATADIR, else ~/PYMEData"
    ),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for the network.")]
Port = Annotated[
    int | None,
    typer.Option(
        "--port", min=1, max=65535, help="Port to listen on", show_default="the role's, or the next free one"
    ),
]
Lan = Annotated[bool, typer.Option("--lan", help="Listen on the network and announce by mDNS.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Serve everyone, without tokens.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(scheduler)
    app.command()(dataserver)
    app.command()(worker)


def scheduler(
    name: Name = None,
    root: Root = None,
    host: Host = "127.0.0.1",
    port: Port = None,
    lan: Lan = False,
    join: Annotated[Join, typer.Option(help="Who lets workers of other machines in.")] = Join.APPROVE,
    insecure: Insecure = False,
    task_frames: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="A fixed task size, for tests.")
    ] = None,
    lease_s: Annotated[
        float, typer.Option("--lease-s", min=1.0, help="How long a silent worker keeps a task \\[s].")
    ] = 30.0,
    results_root: Annotated[
        Path | None, typer.Option(help="Where results go when a root cannot be written.")
    ] = None,
) -> None:
    """Run the scheduler alone.

    Example: [bold]clusterofone scheduler --lan --root /data[/]
    """
    from cluster.scheduler.run import run

    chosen = surroundings.cluster_name(name)
    places = surroundings.places()
    roots = surroundings.served_roots(root)
    settings = SchedulerSettings(
        name=chosen,
        state=places.cluster(chosen),
        roots=roots,
        host=_listen_on(host, lan=lan),
        port=port,
        lan=lan,
        join=join.value,
        insecure=insecure,
        lease_s=lease_s,
        task_frames=task_frames,
        results_root=results_root or surroundings.results_root(roots),
    )
    runtime_file = places.runtime(chosen)

    async def body(stop: asyncio.Event, ready: Ready) -> None:
        def serving(url: str) -> None:
            identity = (places.cluster(chosen) / "cluster_id").read_text(encoding="utf-8").strip()
            runtime = Runtime(
                name=chosen, cluster_id=identity, url=url, dataserver=None, roots=roots, pid=os.getpid()
            )
            write_private(runtime_file, runtime.model_dump_json())
            ready({"url": url})

        try:
            await run(settings, stop=stop, ready=serving)
        finally:
            if (left := read_runtime(runtime_file)) is not None and left.pid == os.getpid():
                runtime_file.unlink(missing_ok=True)

    run_role("scheduler", body, os.environ)


def dataserver(
    name: Name = None,
    root: Root = None,
    host: Host = "127.0.0.1",
    port: Port = None,
    lan: Lan = False,
    insecure: Insecure = False,
    scheduler: Annotated[
        str | None,
        typer.Option(
            envvar="CLUSTEROFONE_SCHEDULER", help="The scheduler to serve", show_default="this user's"
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="CLUSTEROFONE_TOKEN",
            help="The cluster's owner token, on another machine than the scheduler's.",
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Take no frames and files from acquisitions.")
    ] = False,
) -> None:
    """Run a data server alone.

    Example: [bold]clusterofone dataserver --root D:/data --scheduler http://192.168.1.5:15400[/]
    """
    from cluster.dataserver.run import run

    chosen = surroundings.cluster_name(name)
    runtime = None if scheduler else surroundings.own_runtime(name)
    url = scheduler or (runtime.url if runtime else None)
    if url is None:
        console.refuse(
            "which scheduler? Give --scheduler URL, or start one here first: clusterofone scheduler",
            console.USAGE,
        )
    settings = DataServerSettings(
        roots=surroundings.served_roots(root),
        host=_listen_on(host, lan=lan),
        port=port,
        lan=lan,
        insecure=insecure,
        read_only=read_only,
        scheduler=url,
        token=token or surroundings.own_token(runtime.name if runtime else chosen),
    )

    async def body(stop: asyncio.Event, ready: Ready) -> None:
        await run(settings, places=surroundings.places(), stop=stop, ready=lambda url: ready({"url": url}))

    run_role("dataserver", body, os.environ)


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


def _listen_on(host: str, *, lan: bool) -> str:
    return "0.0.0.0" if lan and host == "127.0.0.1" else host  # noqa: S104 -- --lan asks for exactly this


def _lower_priority() -> None:
    process = psutil.Process()
    try:
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 5)
    except psutil.Error as error:
        raise ClusterError(f"the priority cannot be lowered: {error}") from error
