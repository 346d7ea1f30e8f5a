"""Finding the cluster that a command speaks to: named, from the environment, or this user's own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cluster.client import Client
from cluster.commands import console, surroundings
from cluster.config import Runtime
from cluster.locate import Locator, Wanted

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
    """Return the connection to the cluster that is named (option, environment, configuration) or this user's own.

    A cluster that merely announces itself is never used: a command may send it data.

    Raises
    ------
    Unavailable
        If there is none; says what was tried.
    """
    wanted = Wanted(url=scheduler, token=token, discover=False)
    located = asyncio.run(Locator(surroundings.places(), role="owner").locate(wanted))
    own = surroundings.own_runtime()
    runtime = own if own is not None and own.cluster_id == located.cluster_id else None
    return Connection(Client(located.url, located.token or _prompted_token()), runtime)


def given_token(token: str | None, token_file: Path | None) -> str | None:
    """Return the token that was given, or the one in a file."""
    if token_file is not None:
        return token_file.read_text(encoding="utf-8").strip()
    return token


def relative_to_roots(path: Path, roots: tuple[Path, ...]) -> str | None:
    """Return the name of a file, or of a series in one (cell.h5!images), under the first root that holds it; '/' between parts."""
    if not path.exists() and not is_part_of_a_file(path):
        return None
    resolved = path.resolve()
    for root in roots:
        if resolved.is_relative_to(root):
            return resolved.relative_to(root).as_posix()
    return None


def is_part_of_a_file(path: Path) -> bool:
    """Return whether a name that is no file's is that of a series within one (cell.h5!images)."""
    if "!" not in path.name:
        return False
    from cluster.dataserver.readers.registry import file_on_disk  # slow to load

    return file_on_disk(path).is_file()


def _prompted_token() -> str:
    import sys

    if sys.stdin is None or not sys.stdin.isatty():
        console.refuse(
            "a token is needed: set CLUSTEROFONE_TOKEN (on the scheduler's machine: clusterofone token)"
        )
    return str(typer.prompt("Token", hide_input=True, err=True))
