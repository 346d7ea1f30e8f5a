"""`clusterofone psf`: a PSF, and the widths of an astigmatic one against z, from stacks of beads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.commands import console
from cluster.commands.options import Json, pair
from cluster.errors import Invalid

if TYPE_CHECKING:
    from cluster.calibrating.made import Made

_SHOWN_DROPPED = 12
_WORDS = {"warning": "warning", "note": "note", "good": "ok"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(psf)


def psf(
    beads: Annotated[
        list[Path], typer.Argument(metavar="BEADS.tif...", help="Stacks of planes through beads.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="PSF.tif", help="What to write.")],
    pixel_nm: Annotated[
        float | None, typer.Option(help="Size of a pixel in the sample \\[nm].", show_default="from the file")
    ] = None,
    step_nm: Annotated[
        float | None, typer.Option(help="Distance between planes \\[nm].", show_default="from the file")
    ] = None,
    bead_nm: Annotated[
        float | None,
        typer.Option(help="Diameter of the beads \\[nm], to take out.", show_default="left in"),
    ] = None,
    half_size: Annotated[
        int | None, typer.Option(help="The PSF has side 2h+1 \\[px].", show_default="1500 nm")
    ] = None,
    channel0: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1", help="Part of the frame with channel 0 \\[px].", show_default="whole frame"
        ),
    ] = None,
    channel1: Annotated[
        str | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="Part of the frame with channel 1.", show_default="none"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another option, repeatable: --set threshold=5 --set flip=false; all of them: docs/calibration.md.",
        ),
    ] = None,
    json: Json = False,
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
) -> None:
    """Make a PSF from beads: PSF.tif, PSF.json, PSF.sigma.json (astigmatic), PSF.report.png and PSF.report.json.

    Example: [bold]clusterofone psf beads.tif --pixel-nm 100 --step-nm 25 -o psf.tif[/]
    """
    from cluster.calibrating.psf import make_psf

    _check(beads, output, overwrite=overwrite)
    given: dict[str, Any] = dict(pair("--set", text) for text in settings or [])
    named = {"pixel_nm": pixel_nm, "step_nm": step_nm, "bead_diameter_nm": bead_nm, "half_size": half_size}
    given |= {name: value for name, value in named.items() if value is not None}
    boxes = {"channel0": channel0, "channel1": channel1}
    given |= {name: _box(name, text) for name, text in boxes.items() if text is not None}
    with console.progress() as bar:
        shown = bar.add_task("reading", total=None, rates="frames")

        def advance(doing: str, done: int, total: int | None) -> None:
            rates = "frames" if doing == "reading" else ""
            bar.update(shown, description=doing, completed=done, total=total, rates=rates)

        try:
            made = make_psf(beads, given, output, replace=overwrite, advance=advance)
        except Invalid as error:
            _say_which_options(error)
            raise
    _tell(made)
    if json:
        console.print_json(_summary(made))


def _say_which_options(error: Invalid) -> None:
    """Refuse a missing option by the name that it has on the command line."""
    missing = error.facts.get("missing", [])
    if missing:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in missing)
        console.refuse(f"{error.detail.partition(';')[0]}; give {options}")


def _check(beads: Sequence[Path], output: Path, *, overwrite: bool) -> None:
    for path in beads:
        if not path.exists():
            console.refuse(f"{path}: there is no such file")
    from cluster.calibrating.kinds import psf_targets

    if output.suffix.lower() not in (".tif", ".tiff"):
        console.refuse(f"{output}: must end in .tif")
    targets = list(psf_targets(output).values())
    if any(path.resolve() in [target.resolve() for target in targets] for path in beads):
        console.refuse(f"{output}: would replace the beads it is made from")
    taken = [path for path in targets if path.exists()]
    if taken and not overwrite:
        console.refuse(f"{taken[0]}: exists; give --overwrite to replace it")


def _box(name: str, text: str) -> list[int]:
    try:
        return [int(edge) for edge in text.split(",")]
    except ValueError:
        console.refuse(f"--{name} {text}: must be X0,Y0,X1,Y1, in pixels")


def _tell(made: Made) -> None:
    for finding in made.findings:
        console.say(f"{_WORDS[finding.level]}: {finding.text}")
    dropped = made.numbers["dropped"]
    for bead in dropped[:_SHOWN_DROPPED]:
        y, x = bead["places"][0]
        console.say(f"dropped: the bead at x {x}, y {y}, {bead['dropped']}")
    if len(dropped) > _SHOWN_DROPPED:
        console.say(f"dropped: {len(dropped) - _SHOWN_DROPPED} more, listed in {made.files['report']}")
    for what, path in made.files.items():
        console.say(f"{what}: {path}")


def _summary(made: Made) -> dict[str, Any]:
    files = {what: str(path) for what, path in made.files.items()}
    return {**files, **made.numbers, "findings": [asdict(finding) for finding in made.findings]}
