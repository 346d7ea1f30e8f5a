"""`clusterofone drift`: the drift of the sample from fiducial markers, and results without it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.commands import console
from cluster.commands.options import Json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(drift)


def drift(
    results: Annotated[
        Path, typer.Argument(metavar="IN.h5r", help="A result with fits of markers (track_fiducials).")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DRIFT.csv", help="The curve.", show_default="IN_drift.csv beside IN"
        ),
    ] = None,
    apply: Annotated[
        Path | None,
        typer.Option(
            "--apply",
            metavar="OUT.h5r|OUT.csv",
            help="Write the result without the drift; IN stays as it is.",
            show_default="not written",
        ),
    ] = None,
    smooth_frames: Annotated[
        float, typer.Option(min=0.0, max=100_000.0, help="Width of the smoothing window \\[frames].")
    ] = 10.0,
    largest_error_nm: Annotated[
        float,
        typer.Option(min=0.01, max=1000.0, help="Fits of markers with larger errors do not count \\[nm]."),
    ] = 10.0,
    json: Json = False,
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
) -> None:
    """Work out the drift from fiducial markers: DRIFT.csv, DRIFT.png, and on request the result without it.

    Example: [bold]clusterofone drift analysis/series.h5r --apply analysis/series_still.h5r[/]
    """
    from cluster.calibrating.drift import make_drift

    table = output or results.with_name(f"{results.stem}_drift.csv")
    _check(results, table, table.with_suffix(".png"), apply, overwrite=overwrite)
    given = {"smooth_frames": smooth_frames, "largest_error_nm": largest_error_nm}
    with console.progress() as bar:
        shown = bar.add_task("drift", total=None, rates="localisations")

        def advance(doing: str, done: int, total: int | None) -> None:
            bar.update(shown, description=doing, completed=done, total=total)

        made = make_drift(results, given, table, corrected=apply, replace=overwrite, advance=advance)
    for finding in made.findings:
        console.say(finding.text)
    for name, path in made.files.items():
        console.say(f"{name}: {path}")
    if json:
        paths = {name: str(path) for name, path in made.files.items()}
        notes = [finding.text for finding in made.findings]
        console.print_json(dict(made.numbers) | {"notes": notes, "files": paths})


def _check(results: Path, table: Path, picture: Path, apply: Path | None, *, overwrite: bool) -> None:
    if not results.exists():
        console.refuse(f"{results}: there is no such file")
    if table.suffix.lower() != ".csv":
        console.refuse(f"-o {table}: a drift curve is written as .csv")
    if apply is not None and apply.suffix.lower() not in {".csv", ".h5r"}:
        console.refuse(f"--apply {apply}: must end in .h5r or .csv")
    if apply is not None and apply.resolve() in (results.resolve(), table.resolve()):
        console.refuse(f"--apply {apply}: is another file of this command; give it a name of its own")
    taken = [path for path in (table, picture, apply) if path is not None and path.exists()]
    if taken and not overwrite:
        console.refuse(f"{taken[0]}: exists; give --overwrite to replace it")
