"""`clusterofone shifts`: from beads seen in two channels to the field that says how far the channels lie apart."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cluster.commands import console
from cluster.commands.options import Json, Meta, MetadataFile, Set, analysis, given_metadata

if TYPE_CHECKING:
    from rich.progress import TaskID

_FIT: Final = "SplitterShiftEstFR"


class Model(StrEnum):
    """How a shift may vary over the field."""

    AFFINE = "affine"
    CUBIC = "cubic"
    SPLINE = "spline"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(shifts)


def shifts(
    beads: Annotated[
        Path,
        typer.Argument(
            metavar="BEADS.tif|BEADS.h5r",
            help=f"A series of beads in both channels, or its result by {_FIT}.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="SHIFTS.json", help="What to write.")
    ] = Path("shifts.json"),
    model: Annotated[
        Model, typer.Option(help="A plane, a cubic polynomial, or a smoothing spline.")
    ] = Model.CUBIC,
    settings: Set = None,
    meta: Meta = None,
    metadata: MetadataFile = None,
    json: Json = False,
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
) -> None:
    """Make a shift field from beads: SHIFTS.json for the setting `shifts`, and SHIFTS.png to judge it by.

    Example: [bold]clusterofone shifts beads.tif --model cubic -o shifts.json[/], then
    [bold]clusterofone localise series.tif --fit SplitterFitFNR --set shifts=shifts.json[/]
    """
    from cluster.calibrating.shifts import make_shifts

    _check(beads, output, overwrite=overwrite)
    if beads.suffix.lower() == ".h5r" and settings:
        console.refuse("--set is for localising a series; an .h5r has been localised")
    options = {"model": model.value, "analysis": analysis(None, settings, None)}
    given = given_metadata(meta, metadata)
    with console.progress() as bar:
        shown: TaskID | None = None

        def advance(doing: str, done: int, total: int | None) -> None:
            nonlocal shown
            if shown is None:
                shown = bar.add_task(doing, total=total, rates="frames")
            bar.update(shown, completed=done)

        made = make_shifts(beads, options, output, metadata=given, replace=overwrite, advance=advance)
    for finding in made.findings:
        console.say(finding.text)
    for what, path in made.files.items():
        console.say(f"{what}: {path}")
    if json:
        paths = {what: str(path) for what, path in made.files.items()}
        notes = [finding.text for finding in made.findings]
        console.print_json(dict(made.numbers) | {"notes": notes, "files": paths})


def _check(beads: Path, output: Path, *, overwrite: bool) -> None:
    from cluster.calibrating.kinds import shift_targets

    if not beads.exists():
        console.refuse(f"{beads}: there is no such file")
    if output.suffix.lower() != ".json":
        console.refuse(f"-o {output}: a shift field is written as .json")
    taken = [path for path in shift_targets(output).values() if path.exists()]
    if taken and not overwrite:
        console.refuse(f"{taken[0]}: exists; give --overwrite to replace it")
