"""`clusterofone token | approve`: who may do what."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.commands import console, surroundings
from cluster.commands.connection import Scheduler, Token, connect
from cluster.commands.options import Json


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(token)
    app.command()(approve)


def token(
    role: Annotated[str, typer.Option(help="viewer, submitter, worker or owner.")] = "submitter",
    name: Annotated[str | None, typer.Option(help="The cluster's name.")] = None,
) -> None:
    """Print a token of this user's cluster, for curl and for other machines.

    Example: [bold]curl -H "Authorization: Bearer $(clusterofone token)" http://127.0.0.1:15400/api/v1/jobs[/]
    """
    runtime = surroundings.own_runtime(name)
    chosen = runtime.name if runtime else surroundings.cluster_name(name)
    console.out.print(surroundings.own_token(chosen, role), markup=False)


def approve(
    host: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="The waiting machine's name; none: list, or take the only one."
        ),
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Let all that wait join.")] = False,
    scheduler: Scheduler = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Let a waiting machine's workers join.

    Example: [bold]clusterofone approve lab-pc-3[/]
    """
    with connect(scheduler, token).client as client:
        waiting = client.pending_joins()
        chosen = [machine for machine in waiting if everyone or host in {machine.host, machine.id, None}]
        if host is None and not everyone and len(waiting) > 1:
            chosen = []
        for machine in chosen:
            client.decide_join(machine.id, approve=True)
    if json:
        console.print_json(
            {
                "approved": [machine.host for machine in chosen],
                "waiting": [machine.host for machine in waiting],
            }
        )
    elif chosen:
        for machine in chosen:
            console.out.print(
                f"{machine.host} ({machine.address}, {machine.cores} cores) may join.", markup=False
            )
    elif not waiting:
        console.out.print("No machine waits to join. On the other machine: clusterofone worker")
    else:
        for machine in waiting:
            console.out.print(
                f"{machine.host} ({machine.address}, {machine.cores} cores) waits.", markup=False
            )
        console.refuse(
            f"{host}: no machine of this name waits"
            if host
            else "which one? clusterofone approve NAME, or --all"
        )
    if host is not None and not chosen:
        raise typer.Exit(console.FAILED)
