"""`clusterofone render | export`: pictures and tables from a result file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.commands import console

if TYPE_CHECKING:
    from cluster.results.drift_table import Correct


class Style(StrEnum):
    """How localisations become a picture."""

    GAUSSIAN = "gaussian"
    HISTOGRAM = "histogram"


class Form(StrEnum):
    """Whose table."""

    THUNDERSTORM = "thunderstorm"
    SMAP = "smap"
    PICASSO = "picasso"
    PARQUET = "parquet"
    PARQUET_ALL = "parquet-all"
    SMLM = "smlm"


Drift = Annotated[
    Path | None,
    typer.Option(
        "--drift", metavar="DRIFT.csv", help="Take this drift off (clusterofone drift).", show_default="none"
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(render)
    app.command()(export)


def render(
    results: Annotated[Path, typer.Argument(metavar="IN.h5r")],
    picture: Annotated[Path, typer.Argument(metavar="OUT.png|OUT.tif")],
    pixel_nm: Annotated[
        float, typer.Option(min=0.5, max=1000.0, help="Size of a pixel of the picture \\[nm].")
    ] = 10.0,
    style: Annotated[
        Style, typer.Option(help="gaussian: as wide as each localisation's error; histogram: counts.")
    ] = Style.GAUSSIAN,
    drift: Drift = None,
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
) -> None:
    """Draw a result as a picture: PNG to look at, 16-bit TIFF to measure in.

    Example: [bold]clusterofone render analysis/series.h5r series.png --pixel-nm 5[/]
    """
    from cluster.results.picture_files import render_file

    _check(results, picture, {".png", ".tif", ".tiff"}, overwrite=overwrite)
    with _rows("drawing") as advance:
        render_file(
            results,
            picture,
            pixel_nm=pixel_nm,
            mode=style.value,
            replace=overwrite,
            advance=advance,
            correct=_correction(drift),
        )
    console.say(f"picture: {picture}")


def export(
    results: Annotated[Path, typer.Argument(metavar="IN.h5r")],
    table: Annotated[Path, typer.Argument(metavar="OUT.{csv,hdf5,parquet,smlm}")],
    form: Annotated[
        Form | None,
        typer.Option(
            "--format", help="For whom, where the ending does not say", show_default="by the ending"
        ),
    ] = None,
    drift: Drift = None,
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
) -> None:
    """Write a result as a table that other programs read.

    .csv: ThunderSTORM's, where frames count from 1 and the origin is the corner of the first pixel; with --format smap, SMAP's column
    names. .hdf5: Picasso's, with its .yaml. .parquet: for data science. .smlm: for ANNA-PALM and ShareLoc.
    What is left out (fits that did not converge) is counted; --format parquet-all keeps it.

    Examples: [bold]clusterofone export analysis/series.h5r series.csv[/] · [bold]clusterofone export analysis/series.h5r series_locs.hdf5[/]
    """
    from cluster.results.exports import SUFFIXES, export_for

    _check(results, table, set(SUFFIXES), overwrite=overwrite)
    chosen = export_for(table, None if form is None else form.value)
    with _rows("writing") as advance:
        left_out = chosen.write(results, table, overwrite, advance, _correction(drift))
    console.say(f"table: {table} ({left_out.said()})")


def _correction(drift: Path | None) -> Correct | None:
    from cluster.results.drift_table import read_drift

    return None if drift is None else read_drift(drift)


@contextmanager
def _rows(doing: str) -> Iterator[Callable[[int, int], None]]:
    with console.progress() as bar:
        shown = bar.add_task(doing, total=None, rates="localisations")
        yield lambda done, total: bar.update(shown, completed=done, total=total)


def _check(results: Path, target: Path, endings: set[str], *, overwrite: bool) -> None:
    if not results.exists():
        console.refuse(f"{results}: there is no such file")
    if target.suffix.lower() not in endings:
        console.refuse(f"{target}: must end in {' or '.join(sorted(endings))}", console.USAGE)
    if target.exists() and not overwrite:
        console.refuse(f"{target}: exists; give --overwrite to replace it")
