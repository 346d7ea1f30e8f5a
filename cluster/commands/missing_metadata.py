"""Metadata that a series lacks: a person at a terminal is asked for them by name, anyone else is told the options to give."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import typer

from cluster.commands import console
from cluster.commands.connection import is_part_of_a_file
from cluster.errors import CallerError, ClusterError
from cluster.protocol import JobRequest
from fitting import fits

T = TypeVar("T")
_PLACEHOLDERS: Final = {
    "voxelsize.x": "MICROMETRES",
    "voxelsize.y": "MICROMETRES",
    "Camera.ADOffset": "ADU",
    "Camera.ElectronsPerCount": "ELECTRONS_PER_ADU",
    "Camera.ReadNoise": "ELECTRONS",
    "Camera.TrueEMGain": "GAIN",
    "Camera.NoiseFactor": "FACTOR",
}
_COMMA: Final = re.compile(r"-?\d+,\d+")


@dataclass
class Desk:
    """Sends requests of one command and completes them; what was answered for one series is proposed for the next.

    `command` is what was typed, for the line that non-interactive callers are shown.
    """

    command: str
    answered: dict[str, Any] = field(default_factory=dict)

    def sent(self, send: Callable[[JobRequest], T], request: JobRequest, series: str) -> T:
        """Send a request; where metadata are missing ask for them and send it again, and offer to write them down.

        Raises
        ------
        Refused
            If nobody can be asked; shows the command line that gives them.
        """
        asked: dict[str, Any] = {}
        while True:
            try:
                reply = send(request)
            except CallerError as error:
                missing = error.facts.get("keys") or []
                if not missing:
                    raise
                if not can_ask():
                    line = completed(self.command, series, request, missing)
                    console.refuse(f"{error.detail}\nFill in the capitals and run it again:\n  {line}")
                console.say(f"{series}: {error.detail}")
                asked |= self._ask(missing)
                request = request.model_copy(update={"metadata": {**request.metadata, **asked}})
            else:
                if asked:
                    _offer_to_keep(Path(series), asked)
                return reply

    def _ask(self, keys: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in keys:
            default = self.answered.get(key, found.get("voxelsize.x") if key == "voxelsize.y" else None)
            with _on_standard_error():
                found[key] = typer.prompt(question(key), default=default, value_proc=_parser(key))
        self.answered |= found
        return found


def _on_standard_error() -> contextlib.AbstractContextManager[object]:
    """Have questions asked there: standard output is for programs."""
    return contextlib.redirect_stdout(sys.stderr)


def can_ask() -> bool:
    """Return whether a person sits at standard input."""
    return sys.stdin is not None and sys.stdin.isatty()


def question(key: str) -> str:
    """Return what a person is asked: the key, what it means, its unit, an example."""
    wanted = fits.KEYS.get(key)
    if wanted is None:
        return key
    unit = f" [{wanted.unit}]" if wanted.unit else ""
    return f"{key}{unit} ({wanted.meaning}; such as {wanted.example:g})"


def completed(command: str, series: str, request: JobRequest, missing: list[str]) -> str:
    """Return the command line that would give what is missing, to be filled in."""
    given = [f"--meta {key}={_word(value)}" for key, value in request.metadata.items() if key not in missing]
    asked = [f"--meta {key}={_PLACEHOLDERS.get(key, 'VALUE')}" for key in missing]
    chosen = [f"--set {key}={_word(value)}" for key, value in request.analysis.items()]
    return " ".join([f"clusterofone {command}", shlex.quote(series), *chosen, *given, *asked])


def _parser(key: str) -> Callable[[str], Any]:
    wanted = fits.KEYS.get(key)

    def parsed(text: str) -> Any:
        if _COMMA.fullmatch(str(text).strip()):
            raise typer.BadParameter("write the decimals after a point")
        try:
            value = json.loads(str(text))
        except ValueError:
            value = text
        complaint = None if wanted is None else wanted.complaint(value)
        if complaint is not None:
            raise typer.BadParameter(f"{key} {complaint}")
        return value

    return parsed


def _offer_to_keep(series: Path, values: Mapping[str, Any]) -> None:
    from cluster.sidecar_writing import sidecar_to_write, write_sidecar

    if series.exists() or is_part_of_a_file(series):
        target = sidecar_to_write(series)
        with _on_standard_error():
            wanted = typer.confirm(
                f"Write them to {target}, so that the series says so itself?", default=False
            )
        if wanted:
            try:
                console.say(f"written: {write_sidecar(series, values)}")
            except (ClusterError, OSError) as error:
                console.say(f"not written: {error}")
    console.say(
        "For every series of this camera they can stand in a profile: "
        f"clusterofone profiles {shlex.quote(str(series))} --new NAME"
    )


def _word(value: Any) -> str:
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))
