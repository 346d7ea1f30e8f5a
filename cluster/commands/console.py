"""What the commands print: people read standard error, programs read the last line of standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn, Protocol, cast

from pydantic import BaseModel
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from cluster.commands.plain_progress import PlainProgress
from cluster.unseen import escaped

out: Final = Console(highlight=False, soft_wrap=True)
err: Final = Console(stderr=True, highlight=False, soft_wrap=True)

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


class Refused(Exception):
    """A command that cannot do what was asked; the message is for the person who typed it."""

    def __init__(self, message: str, status: int = USAGE) -> None:
        super().__init__(message)
        self.status = status


def refuse(message: str, status: int = USAGE) -> NoReturn:
    """End the command with a message on standard error.

    `USAGE` says that what was given cannot be used, and nothing was done; `FAILED` that something was tried and came to nothing.
    """
    raise Refused(message, status)


def say(message: str) -> None:
    """Tell the person something; never part of what a program reads. Names in it come from anywhere."""
    err.print(without_orders(message), markup=False)


def without_orders(text: str) -> str:
    """Return text with its lines, and with nothing else in it that a terminal obeys."""
    return "\n".join(map(escaped, text.split("\n")))


def print_json(value: Any) -> None:
    """Print one object on one line of standard output."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    sys.stdout.write(json.dumps(plain) + "\n")
    sys.stdout.flush()


class Bar(Protocol):
    """What commands need of a progress bar."""

    def add_task(self, description: str, *, total: float | None, rates: str) -> TaskID:
        """Show one more thing that is done."""
        ...

    def update(
        self,
        task_id: TaskID,
        *,
        total: float | None = None,
        completed: float | None = None,
        description: str | None = None,
        **fields: Any,
    ) -> None:
        """Say how far it is; `rates` is free text."""
        ...

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Say that it is further."""
        ...


@contextmanager
def progress() -> Iterator[Bar]:
    """Return a progress bar on standard error: counts, free text (rates), time left; a line now and then without a terminal."""
    if not err.is_terminal:
        yield PlainProgress(say)
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rates]}"),
        TimeRemainingColumn(),
        console=err,
        transient=False,
    ) as bar:
        yield cast("Bar", bar)


def megabytes(count: float) -> str:
    """Return a size for people."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
