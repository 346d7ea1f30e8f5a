"""Options that several commands share, and the job request that they add up to."""

from __future__ import annotations

import getpass
import json
import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.commands import console
from cluster.protocol import JobRequest
from cluster.unseen import seen_name

Fit = Annotated[
    str | None,
    typer.Option(
        "--fit",
        help="Type of fit: PYME's names, or gaussian, astigmatic, spline, two-colour, biplane, …",
        show_default="LatGaussFitFR",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help='A setting (JSON, else text), repeatable: --set preset=dna-paint (clusterofone presets lists them), --set microscope=NAME (clusterofone profiles), --set threshold=1.2 --set background=-10:0. A fit\'s own: --set \'options={"z": "lookup"}\'. All are in docs/fits.md.',
    ),
]
Meta = Annotated[
    list[str] | None,
    typer.Option(
        "--meta",
        metavar="KEY=VALUE",
        help="A metadata value, repeatable: --meta voxelsize.x=0.1 --meta Camera.ADOffset=100",
    ),
]
MetadataFile = Annotated[
    Path | None, typer.Option("--metadata", help="A JSON file of metadata (PYME's keys).")
]
Like = Annotated[Path | None, typer.Option("--like", help="Use the settings of this .h5r.")]
Follow = Annotated[
    bool,
    typer.Option(
        "--follow",
        help="Go on with a series that is still being acquired, or written by another program, until it is complete.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, last, on standard output.")]


def job_request(
    series: str,
    fit: str | None,
    settings: list[str] | None,
    meta: list[str] | None,
    metadata: Path | None,
    like: Path | None,
    *,
    name: str | None = None,
    output: str | None = None,
    priority: int = 0,
    follow: bool = False,
) -> JobRequest:
    """Return the request that the options ask for: --set over --fit over --like, --meta over --metadata."""
    return JobRequest(
        series=series,
        analysis=analysis(fit, settings, like),
        metadata=given_metadata(meta, metadata),
        output=output,
        name=name,
        owner=user_name(),
        machine=seen_name(socket.gethostname()),
        priority=priority,
        follow=follow,
    )


def analysis(fit: str | None, settings: list[str] | None, like: Path | None) -> dict[str, Any]:
    """Return the analysis settings that the options ask for; a preset is one of them."""
    chosen: dict[str, Any] = {}
    if like is not None:
        chosen.update(_settings_of(like))
    given = dict(pair("--set", text) for text in settings or [])
    if fit is not None:
        if given.get("fit", fit) != fit:
            console.refuse(f"--fit {fit} and --set fit={given['fit']}: which of the two?", console.USAGE)
        chosen["fit"] = fit
    return chosen | given


def given_metadata(meta: list[str] | None, metadata: Path | None) -> dict[str, Any]:
    """Return the metadata that the options give."""
    given: dict[str, Any] = {}
    if metadata is not None:
        try:
            loaded = json.loads(metadata.read_text(encoding="utf-8"))
        except ValueError as error:
            console.refuse(f"--metadata {metadata}: not JSON: {error}", console.USAGE)
        if not isinstance(loaded, dict):
            console.refuse(f"--metadata {metadata}: must hold one JSON object", console.USAGE)
        given.update(loaded)
    return given | dict(pair("--meta", text) for text in meta or [])


def pair(option: str, text: str) -> tuple[str, Any]:
    """Split KEY=VALUE; the value is JSON, else text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        console.refuse(f"{option} {text}: must be KEY=VALUE", console.USAGE)
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value


def user_name() -> str:
    """Return the user's name, for the job's owner."""
    try:
        return seen_name(getpass.getuser())
    except (OSError, KeyError):
        return "unknown"


def _settings_of(results: Path) -> dict[str, Any]:
    from cluster.results.h5r import read

    provenance = read(results).provenance
    if provenance is None:
        console.refuse(
            f"--like {results}: it does not say which settings made it (clusterofone did not write it)"
        )
    settings = provenance.settings
    return {key: value for key, value in settings.items() if value is not None}
