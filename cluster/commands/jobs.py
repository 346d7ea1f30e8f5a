"""`clusterofone submit | jobs | watch | cancel | retry`: jobs of a running cluster."""

from __future__ import annotations

import time
from typing import Annotated, Final

import typer
from rich.table import Table

from cluster.commands import console
from cluster.commands.connection import Scheduler, Token, connect
from cluster.commands.following import ENDED, say_if_nobody_works, summary
from cluster.commands.following import follow as followed
from cluster.commands.missing_metadata import Desk
from cluster.commands.options import Fit, Follow, Json, Like, Meta, MetadataFile, Set, job_request
from cluster.protocol import Job

_OTHER_COLUMNS: Final = 92  # characters, of usual names and numbers
_SHORTEST_RESULT: Final = 16


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (submit, jobs, watch, cancel, retry):
        app.command()(command)


def submit(
    series: Annotated[
        str, typer.Argument(help="The series, as the data server names it, or a file under one of its roots.")
    ],
    fit: Fit = None,
    settings: Set = None,
    meta: Meta = None,
    metadata: MetadataFile = None,
    like: Like = None,
    name: Annotated[str | None, typer.Option(help="A name for the job.")] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Where the result goes, under a root",
            show_default="analysis/ beside the series",
        ),
    ] = None,
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Higher goes first.")] = 0,
    follow: Follow = False,
    scheduler: Scheduler = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Submit a job and return at once.

    Example: [bold]clusterofone submit cells/series_A.tif --set threshold=1.2[/]
    """
    connection = connect(scheduler, token)
    request = job_request(
        connection.name_of(series),
        fit,
        settings,
        meta,
        metadata,
        like,
        name=name,
        output=output,
        priority=priority,
        follow=follow,
    )
    with connection.client as client:
        job = Desk("submit").sent(client.submit_request, request, series)
        say_if_nobody_works(client)
    if json:
        console.print_json(job)
    else:
        size = "followed while it grows" if follow else f"{job.frames.total} frames"
        console.out.print(f"{job.id}  {job.name}  {size}  (clusterofone watch {job.id})", markup=False)


def jobs(scheduler: Scheduler = None, token: Token = None, json: Json = False) -> None:
    """List the jobs, newest first.

    Example: [bold]clusterofone jobs --json[/]
    """
    with connect(scheduler, token).client as client:
        found = client.jobs()
    if json:
        console.print_json({"jobs": [job.model_dump(mode="json") for job in found]})
        return
    if not found:
        console.out.print("No jobs yet. Submit one: clusterofone submit SERIES")
        return
    console.out.print(_table(found, console.out.width))


def watch(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job, see clusterofone jobs.")],
    scheduler: Scheduler = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Follow a job until it ends; the exit status is 0 only if every frame was localised or skipped.

    Example: [bold]clusterofone watch 3f9a[/]
    """
    with connect(scheduler, token).client as client:
        job = followed(client, client.job(job_id))
    _report(job, json=json)
    raise typer.Exit(0 if job.state == "done" else console.FAILED)


def cancel(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    scheduler: Scheduler = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Cancel a job; the frames that are finished are kept as a partial result.

    Example: [bold]clusterofone cancel 3f9a[/]
    """
    with connect(scheduler, token).client as client:
        client.cancel(job_id)
        job: Job = client.job(job_id)
        deadline = time.monotonic() + 30.0
        while job.state not in ENDED and time.monotonic() < deadline:
            job = next(iter(client.watch(job_id)), job)
    _report(job, json=json)


def retry(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    scheduler: Scheduler = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Queue a job's failed frames again.

    Example: [bold]clusterofone retry 3f9a[/]
    """
    with connect(scheduler, token).client as client:
        job = client.retry(job_id)
    _report(job, json=json)


def _report(job: Job, *, json: bool) -> None:
    if json:
        console.print_json(job)
    else:
        console.say(summary(job))


def _table(found: list[Job], width: int) -> Table:
    """Return the jobs as lines; a narrow terminal is told less of each, and watch says the rest."""
    table = Table(box=None, pad_edge=False)
    room = width - _OTHER_COLUMNS
    is_narrow = room < _SHORTEST_RESULT
    headings = ["id", "state", "name", "frames", "localisations"]
    headings += [] if is_narrow else ["owner", "frames/s", "result"]
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading not in {"name", "owner"})
    for job in found:
        done = job.frames.localised + job.frames.skipped + job.frames.failed
        row = [job.id, job.state, job.name, f"{done}/{job.frames.total}", str(job.localisations)]
        if not is_narrow:
            rate = f"{job.rate_frames_per_s:.0f}" if job.rate_frames_per_s else ""
            row += [job.owner, rate, _end_of(job.output or job.error or "", room)]
        table.add_row(*row)
    return table


def _end_of(text: str, room: int) -> str:
    """Return the end of a path, which says more than its beginning, where all of it has no room; --json has it whole."""
    return text if len(text) <= room else f"…{text[1 - room :]}"
