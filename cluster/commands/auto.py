"""`clusterofone auto`: each new series under a folder becomes a job."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cluster.auto import Event, Memory, Watcher, memory_file
from cluster.client import Client
from cluster.commands import console, surroundings
from cluster.commands.connection import Connection, Scheduler, Token, connect
from cluster.commands.following import ENDED, summary
from cluster.commands.options import Fit, Json, Like, Meta, MetadataFile, Set, job_request
from cluster.errors import CallerError, ClusterError
from cluster.protocol import Job
from cluster.unseen import seen_name

_LOOK_EVERY_S: Final = 2.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(auto)


def auto(
    folder: Annotated[
        str, typer.Argument(help="The folder: under a root of the cluster; '.' in quotes for the whole root.")
    ],
    fit: Fit = None,
    settings: Set = None,
    meta: Meta = None,
    metadata: MetadataFile = None,
    like: Like = None,
    rest_s: Annotated[
        float,
        typer.Option(
            "--rest-s",
            min=0.0,
            help="How long a file must not have changed before it is taken as whole \\[s].",
        ),
    ] = 30.0,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Begin while a file is still written; --rest-s then says when one whose end nothing marks is whole.",
        ),
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="Take what is there, wait for its jobs, and end.")
    ] = False,
    scheduler: Scheduler = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Make a job of each series that comes to lie in a folder, once, also across restarts.

    A series that is still being acquired through the data server is followed while it grows. What a microscope program
    writes by itself becomes a job when it has come to rest, or with --follow at once. With --once the exit status is 0 only if every series could become a job and every job is done.

    Examples: [bold]clusterofone auto D:/data/today --like yesterday.h5r[/] · [bold]clusterofone auto today --once[/]
    """
    connection = connect(scheduler, token)
    name = _name_of(connection, folder)

    def asked_of(series: str) -> Any:
        name = seen_name(series.rpartition("/")[2])
        return job_request(series, fit, settings, meta, metadata, like, name=name)

    def make(series: str) -> Any:
        request = asked_of(series)
        if follow:
            request.analysis.setdefault("rest_s", max(1.0, rest_s))
        return request

    asked = asked_of("any").model_dump(mode="json", include={"analysis", "metadata"})
    with connection.client as client:
        file = memory_file(surroundings.places().state, client.identity().cluster_id, name, asked)
        watcher = Watcher(client, name, make, Memory(file), now=time.time, rest_s=rest_s, follow=follow)
        console.say(f"Looking into {name or 'the root'} for series; Ctrl-C stops.")
        jobs, refused = _watch(client, watcher, once=once)
    if json:
        console.print_json({"jobs": [job.model_dump(mode="json") for job in jobs]})
    if once:
        done = not refused and all(job.state == "done" for job in jobs)
        raise typer.Exit(0 if done else console.FAILED)


def _watch(client: Client, watcher: Watcher, *, once: bool) -> tuple[list[Job], bool]:
    """Return the jobs that were made, and whether a series could not become one."""
    jobs: list[Job] = []
    open_ids: set[str] = set()
    refused = False
    away = ""
    while True:
        try:
            for event in watcher.look():
                _say(event)
                jobs += [event.job] if event.job is not None else []
                open_ids |= {event.job.id} if event.job is not None else set()
                refused |= event.job is None
            if not once:
                open_ids -= _say_what_has_ended(client, open_ids)
            away = ""
        except CallerError:
            raise
        except ClusterError as error:
            if str(error) != away:
                console.say(f"the cluster does not answer: {error}; trying again")
                away = str(error)
        if once and not away and not watcher.waiting:
            return [_ended(client, job) for job in jobs], refused
        time.sleep(_LOOK_EVERY_S)


def _say(event: Event) -> None:
    if event.job is None:
        console.say(
            f"{event.series}: {event.problem}" + (" (it may still be written)" if event.later else "")
        )
    else:
        following = (
            ", still growing" if event.job.state == "waiting" else f", {event.job.frames.total} frames"
        )
        console.say(f"{event.series}: job {event.job.id}{following}")


def _say_what_has_ended(client: Client, open_ids: set[str]) -> set[str]:
    ended = (
        {job.id for job in client.jobs() if job.id in open_ids and job.state in ENDED} if open_ids else set()
    )
    for job_id in ended:
        console.say(summary(client.job(job_id)))
    return ended


def _ended(client: Client, job: Job) -> Job:
    for seen in client.watch(job.id):
        if seen.state in ENDED:
            break
    ended = client.job(job.id)
    console.say(summary(ended))
    return ended


def _name_of(connection: Connection, folder: str) -> str:
    """Return how the data server names the folder; the root itself is an empty name."""
    name = connection.name_of(folder)
    if Path(folder).is_absolute() and name == folder:
        roots = ", ".join(map(str, connection.runtime.roots)) if connection.runtime else "that cluster's"
        console.refuse(f"{folder}: not under a root of that cluster ({roots})", console.USAGE)
    return "" if name in {".", ""} else name.rstrip("/")
