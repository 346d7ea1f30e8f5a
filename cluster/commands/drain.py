"""`clusterofone drain`: workers that get no more work, and again do."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.commands import console
from cluster.commands.connection import Scheduler, Token, connect
from cluster.commands.options import Json
from cluster.protocol import Worker


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(drain)


def drain(
    who: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="A worker, or a machine with all its workers; none: list them."
        ),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Give them work again.")] = False,
    scheduler: Scheduler = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Give workers no more work, before their machine is needed or stopped; they finish what they have begun.

    Examples: [bold]clusterofone drain[/] · [bold]clusterofone drain lab-pc-3[/] · [bold]clusterofone drain lab-pc-3 --undo[/]
    """
    if undo and who is None:
        console.refuse("whose drain? clusterofone drain lists the workers: clusterofone drain NAME --undo")
    with connect(scheduler, token).client as client:
        workers = client.workers()
        chosen = [worker for worker in workers if who in {worker.id, worker.host}]
        for worker in chosen:
            (client.undrain if undo else client.drain)(worker.id)
        if chosen:
            workers = client.workers()
    if who is not None and not chosen:
        console.refuse(f"{who}: there is no worker or machine of this name; clusterofone drain lists them")
    named = {worker.id for worker in chosen}
    shown = [worker for worker in workers if who is None or worker.id in named]
    if json:
        console.print_json({"workers": [worker.model_dump(mode="json") for worker in shown]})
    else:
        _tell(shown)


def _tell(workers: list[Worker]) -> None:
    if not workers:
        console.out.print("There are no workers. On this or another machine: clusterofone worker")
    for worker in workers:
        console.out.print(f"{worker.id}  {worker.host}  {worker.state}", markup=False)
