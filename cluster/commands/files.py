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


class ColourBy(StrEnum):
    """What colours say."""

    FRAME = "frame"
    Z = "z"


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
    region: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1", help="Only this part of the field \\[nm].", show_default="all of it"
        ),
    ] = None,
    colour_by: Annotated[
        ColourBy | None,
        typer.Option(
            "--colour-by",
            "--color-by",
            help="Colour by when it shone or how deep it lies.",
            show_default="none",
        ),
    ] = None,
    colour_range: Annotated[
        str | None,
        typer.Option(
            "--colour-range",
            "--color-range",
            metavar="LOW:HIGH",
            help="What the first and last colour mean: frames, or nm of z.",
            show_default="what there is",
        ),
    ] = None,
    gamma: Annotated[
        float, typer.Option(min=0.05, max=10.0, help="Below 1: dim structures become visible.")
    ] = 0.5,
    brightest: Annotated[
        float,
        typer.Option(min=1.0, max=100.0, help="Contrast: this share of the pixels is not saturated \\[%]."),
    ] = 99.0,
    white: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            help="Contrast: so many localisations in a pixel are white.",
            show_default="by --brightest",
        ),
    ] = None,
    drift: Drift = None,
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
) -> None:
    """Draw a result as a picture: PNG to look at, 16-bit TIFF to measure in.

    Examples: [bold]clusterofone render analysis/series.h5r series.png --pixel-nm 5[/]
    · [bold]clusterofone render analysis/series.h5r depth.png --colour-by z --colour-range=-400:400[/]
    · [bold]clusterofone render analysis/series.h5r detail.png --pixel-nm 2 --region 4000,6000,5500,7500[/]
    """
    from cluster.results.picture_files import Look, Tones, render_file
    from cluster.results.render import Field

    _check(results, picture, {".png", ".tif", ".tiff"}, overwrite=overwrite)
    look = Look(
        pixel_nm=pixel_nm,
        mode=style.value,
        region=None if region is None else Field.parse(region),
        colour_by=None if colour_by is None else colour_by.value,
        colour_range=None if colour_range is None else _limits(colour_range),
        tones=Tones(gamma, brightest / 100, white),
    )
    with _rows("drawing") as advance:
        render_file(
            results, picture, look=look, replace=overwrite, advance=advance, correct=_correction(drift)
        )
    console.say(f"picture: {picture}")


def _limits(text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    try:
        return float(low), float(high if colon else "")
    except ValueError:
        console.refuse(
            f"--colour-range {text}: two numbers with a colon between, such as -400:400", console.USAGE
        )


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
