"""`clusterofone scheduler | dataserver | web`: one role alone."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from cluster.commands import console, surroundings
from cluster.commands.options import user_name
from cluster.commands.role_process import Ready, run_role
from cluster.commands.start import Join
from cluster.config import (
    DataServerSettings,
    Runtime,
    SchedulerSettings,
    WebSettings,
    read_runtime,
    write_private,
)
from cluster.locate import read_config

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
HostName = Annotated[
    list[str] | None,
    typer.Option(
        "--host-name",
        metavar="NAME",
        envvar="CLUSTEROFONE_HOST_NAMES",
        help="Answer to this host name too, repeatable: that of a reverse proxy or of a service.",
    ),
]
Profiles = Annotated[
    Path | None,
    typer.Option(
        "--profiles",
        metavar="DIR",
        help="The folder of microscope profiles; a share is fine",
        show_default="that of config.toml, else profiles in the configuration folder",
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="DIR",
        help="A folder of camera maps as PYME keeps them, one folder a serial number",
        show_default="that of config.toml, else $PYMEDATADIR/CALIBRATION",
    ),
]
Tls = Annotated[
    bool,
    typer.Option("--tls", help="Encrypt; the tokens of the cluster then name this machine's certificate."),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Serve everyone, without tokens.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(scheduler)
    app.command()(dataserver)
    app.command()(web)


def scheduler(
    name: Name = None,
    root: Root = None,
    host: Host = "127.0.0.1",
    port: Port = None,
    lan: Lan = False,
    join: Annotated[Join, typer.Option(help="Who lets workers of other machines in.")] = Join.APPROVE,
    insecure: Insecure = False,
    tls: Tls = False,
    task_frames: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="A fixed task size, for tests.")
    ] = None,
    lease_s: Annotated[
        float, typer.Option("--lease-s", min=1.0, help="How long a silent worker keeps a task \\[s].")
    ] = 30.0,
    host_name: HostName = None,
    results_root: Annotated[
        Path | None, typer.Option(help="Where results go when a root cannot be written.")
    ] = None,
    profiles: Profiles = None,
    presets: Annotated[
        Path | None,
        typer.Option(
            "--presets",
            metavar="DIR",
            help="The folder of the lab's own presets",
            show_default="that of config.toml, else presets in the configuration folder",
        ),
    ] = None,
    calibration: Calibration = None,
    keep_blobs: Annotated[
        bool,
        typer.Option("--keep-blobs", help="Keep what workers handed in, also once the result file holds it."),
    ] = False,
    let_sleep: Annotated[
        bool, typer.Option("--let-sleep", help="Let this computer fall asleep also while jobs run.")
    ] = False,
) -> None:
    """Run the scheduler alone.

    A command to run when a job has ended is `on_done = ["…", …]` in config.toml. Where microscope profiles and presets lie stands there too,
    as `profiles = "…"`, `presets = "…"`, `calibration = "…"`.

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
        tls=tls,
        lease_s=lease_s,
        task_frames=task_frames,
        host_names=tuple(host_name or ()),
        on_done=read_config(places.config).on_done,
        results_root=results_root or surroundings.results_root(roots),
        lab=surroundings.lab_folders(profiles, presets, calibration),
        keep_blobs=keep_blobs,
        let_sleep=let_sleep,
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
    host_name: HostName = None,
    advertise: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Where workers reach this server, if not at its own addresses (behind NAT), repeatable.",
        ),
    ] = None,
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
    profiles: Profiles = None,
    calibration: Calibration = None,
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
        host_names=tuple(host_name or ()),
        advertise=tuple(advertise or ()),
        read_only=read_only,
        shelves=surroundings.lab_folders(profiles, None, calibration).shelves,
        scheduler=url,
        token=token or surroundings.own_token(runtime.name if runtime else chosen),
    )

    async def body(stop: asyncio.Event, ready: Ready) -> None:
        await run(settings, places=surroundings.places(), stop=stop, ready=lambda url: ready({"url": url}))

    run_role("dataserver", body, os.environ)


def web(
    name: Name = None,
    host: Host = "127.0.0.1",
    port: Port = None,
    lan: Lan = False,
    insecure: Insecure = False,
    host_name: HostName = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            envvar="CLUSTEROFONE_SCHEDULER", help="The scheduler to show", show_default="this user's"
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="CLUSTEROFONE_TOKEN",
            help="The cluster's owner token, to tell the scheduler where the page is.",
        ),
    ] = None,
) -> None:
    """Run the page alone: choose a series, test, go, watch.

    Who opens it logs in with a token of the cluster (clusterofone token), and may do what that token may.

    Example: [bold]clusterofone web --scheduler http://192.168.1.5:15400[/]
    """
    from cluster.web.desktop import Desktop
    from cluster.web.run import run

    runtime = None if scheduler else surroundings.own_runtime(name)
    url = scheduler or (runtime.url if runtime else None)
    if url is None:
        console.refuse(
            "which scheduler? Give --scheduler URL, or start one here first: clusterofone scheduler",
            console.USAGE,
        )
    settings = WebSettings(
        scheduler=url,
        token=token or (surroundings.own_token(runtime.name) if runtime else None),
        owner=None if lan else user_name(),
        host=_listen_on(host, lan=lan),
        port=port,
        lan=lan,
        insecure=insecure,
        host_names=tuple(host_name or ()),
    )
    desktop = None if insecure else Desktop.found(os.environ)  # there everybody is the owner

    async def body(stop: asyncio.Event, ready: Ready) -> None:
        await run(
            settings,
            places=surroundings.places(),
            desktop=desktop,
            stop=stop,
            ready=lambda url: ready({"url": url}),
        )

    run_role("web", body, os.environ)


def _listen_on(host: str, *, lan: bool) -> str:
    return "0.0.0.0" if lan and host == "127.0.0.1" else host  # noqa: S104 -- --lan asks for exactly this
