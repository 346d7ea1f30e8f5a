"""Finding the cluster that a command speaks to: named, from the environment, or this user's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cluster.client import Client
from cluster.commands import console, surroundings
from cluster.config import Runtime

Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        envvar="CLUSTEROFONE_SCHEDULER",
        help="The scheduler's URL",
        show_default="this user's cluster on this machine",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="CLUSTEROFONE_TOKEN",
        help="The token; better in $CLUSTEROFONE_TOKEN.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Connection:
    """A client, and what this machine knows of the cluster it speaks to."""

    client: Client
    runtime: Runtime | None

    def name_of(self, series: str) -> str:
        """Return how the data server names a series given by its file."""
        if self.runtime is None:
            return series
        return relative_to_roots(Path(series), self.runtime.roots) or series


def connect(scheduler: str | None, token: str | None) -> Connection:
    """Return the connection to the cluster that is named, or to this user's own.

    Raises
    ------
    Refused
        If there is none; says what was tried.
    """
    if scheduler:
        runtime = next(
            (r for r in [surroundings.own_runtime()] if r is not None and r.url == scheduler.rstrip("/")),
            None,
        )
        if token is None and runtime is not None:
            token = surroundings.own_token(runtime.name)
        return Connection(Client(scheduler, token or _prompted_token()), runtime)
    runtime = surroundings.own_runtime()
    if runtime is None:
        console.refuse(
            "no cluster: tried --scheduler, $CLUSTEROFONE_SCHEDULER, and this user's own on this machine. Start one: clusterofone"
        )
    return Connection(Client(runtime.url, token or surroundings.own_token(runtime.name)), runtime)


def relative_to_roots(path: Path, roots: tuple[Path, ...]) -> str | None:
    """Return a file's name under the first root that holds it, with '/' between its parts."""
    if not path.exists():
        return None
    resolved = path.resolve()
    for root in roots:
        if resolved.is_relative_to(root):
            return resolved.relative_to(root).as_posix()
    return None


def _prompted_token() -> str:
    import sys

    if sys.stdin is None or not sys.stdin.isatty():
        console.refuse(
            "a token is needed: set CLUSTEROFONE_TOKEN (on the scheduler's machine: clusterofone token)"
        )
    return str(typer.prompt("Token", hide_input=True, err=True))
