"""`clusterofone drift`: the drift of the sample from fiducial markers, and results without it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.commands import console
from cluster.commands.options import Json

if TYPE_CHECKING:
    from fitting.calibration.drift import DriftCurve


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
    from cluster.reports.drift import drift_report
    from cluster.results.drift_table import write_drift
    from cluster.results.publish import writing

    table = output or results.with_name(f"{results.stem}_drift.csv")
    picture = table.with_suffix(".png")
    _check(results, table, picture, apply, overwrite=overwrite)
    curve = _curve(results, smooth_frames, largest_error_nm)
    drawn = drift_report(curve, f"{table.name}, from {results.name}")
    columns = {name: getattr(curve, name) for name in ("frame", "x_nm", "y_nm", "x_error_nm", "y_error_nm")}
    write_drift(table, columns | {"markers": curve.markers}, replace=overwrite)
    with writing(picture, replace=overwrite) as temporary:
        temporary.write_bytes(drawn)
    for note in curve.notes:
        console.say(note)
    files = {"curve": table, "picture": picture}
    if apply is not None:
        files["corrected"] = apply
        _apply(results, apply, table, overwrite=overwrite)
    for name, path in files.items():
        console.say(f"{name}: {path}")
    if json:
        paths = {name: str(path) for name, path in files.items()}
        console.print_json(curve.numbers() | {"notes": list(curve.notes), "files": paths})


def _check(results: Path, table: Path, picture: Path, apply: Path | None, *, overwrite: bool) -> None:
    if not results.exists():
        console.refuse(f"{results}: there is no such file")
    if table.suffix.lower() != ".csv":
        console.refuse(f"-o {table}: a drift curve is written as .csv", console.USAGE)
    if apply is not None and apply.suffix.lower() not in {".csv", ".h5r"}:
        console.refuse(f"--apply {apply}: must end in .h5r or .csv", console.USAGE)
    if apply is not None and apply.resolve() in (results.resolve(), table.resolve()):
        console.refuse(
            f"--apply {apply}: is another file of this command; give it a name of its own", console.USAGE
        )
    taken = [path for path in (table, picture, apply) if path is not None and path.exists()]
    if taken and not overwrite:
        console.refuse(f"{taken[0]}: exists; give --overwrite to replace it")


def _curve(results: Path, smooth_frames: float, largest_error_nm: float) -> DriftCurve:
    from cluster.results.drift_table import check_uncorrected
    from cluster.results.h5r import Reader
    from fitting.calibration.drift import drift_from_rows

    with Reader(results) as reader:
        check_uncorrected(reader)
        markers = reader.table("DriftResults")
        if markers is None or not len(markers):
            console.refuse(
                f"{results}: holds no fits of markers; localise the series with --set track_fiducials=true. "
                "If that was done, none was found: try a lower fiducial_threshold or another fiducial_diameter_nm"
            )
        provenance = reader.provenance()
        frames = 0 if provenance is None else len(provenance.ledger.status)
        last = max((int(block["tIndex"].max(initial=-1)) for block in reader.blocks()), default=-1)
    return drift_from_rows(
        markers, max(frames, last + 1), smooth_frames=smooth_frames, largest_error_nm=largest_error_nm
    )


def _apply(results: Path, out: Path, table: Path, *, overwrite: bool) -> None:
    from cluster.results.csv import write_csv
    from cluster.results.drift_table import read_drift, write_corrected

    correct = read_drift(table)
    with console.progress() as bar:
        shown = bar.add_task("writing", total=None, rates="localisations")

        def advance(done: int, total: int) -> None:
            bar.update(shown, completed=done, total=total)

        if out.suffix.lower() == ".csv":
            write_csv(results, out, replace=overwrite, advance=advance, correct=correct)
        else:
            write_corrected(results, out, correct, table, replace=overwrite, advance=advance)
