"""`clusterofone doctor`: what is wrong with this setup."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from cluster.commands import console, surroundings
from cluster.commands.checks import machine
from cluster.commands.checks.finding import Finding, problem
from cluster.commands.connection import given_token
from cluster.commands.options import Json
from cluster.errors import ClusterError

_MARKS: Final = {"ok": "[green]ok     [/]", "note": "[yellow]note   [/]", "problem": "[bold red]problem[/]"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    scheduler: Annotated[
        str | None,
        typer.Option(
            envvar="CLUSTEROFONE_SCHEDULER",
            help="The scheduler to look at",
            show_default="yours on this machine, else one that announces itself",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="CLUSTEROFONE_TOKEN",
            help="The token to try, of any role; better in $CLUSTEROFONE_TOKEN or --token-file.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="A file that holds the token.")] = None,
    json: Json = False,
    seconds: Annotated[
        float, typer.Option(min=0.0, max=30.0, help="How long to listen for clusters on the network.")
    ] = 2.0,
) -> None:
    """Look for what is wrong with this setup: versions, folders, disks, ports, the network, and the scheduler with its token and clock.

    The exit status is 1 if something must be mended; each line says how.

    Examples: [bold]clusterofone doctor[/] · [bold]clusterofone doctor --scheduler http://192.168.1.5:15400[/] ·
    [bold]clusterofone doctor --scheduler lab-pc-3 --token-file worker.token --json[/]
    """
    findings = [_found(look) for look in machine.looks()]
    findings += asyncio.run(_around(scheduler, given_token(token, token_file), seconds))
    if json:
        console.print_json({"findings": [finding.__dict__ for finding in findings]})
    else:
        for finding in findings:
            console.out.print(f"{_MARKS[finding.verdict]} {finding.what}: ", end="")
            console.out.print(console.without_orders(finding.detail), markup=False)
    if any(finding.verdict == "problem" for finding in findings):
        raise typer.Exit(console.FAILED)


def _found(look: Callable[[], Finding]) -> Finding:
    """Return what a look found; one that fails is a problem like others, and does not end the rest."""
    try:
        return look()
    except (ClusterError, OSError) as error:
        return problem("this machine", str(error))


async def _around(url: str | None, token: str | None, seconds: float) -> list[Finding]:
    from cluster.commands.checks import announced
    from cluster.commands.checks import scheduler as looks

    heard = await announced.listen(seconds)
    mdns = await announced.mdns(heard, seconds)
    try:
        return [mdns, *await looks.scheduler(looks.Asked(url, token), heard, surroundings.places())]
    except ClusterError as error:
        return [mdns, problem("scheduler", error.detail)]
