"""`clusterofone shifts`: from beads seen in two channels to the field that says how far the channels lie apart."""

from __future__ import annotations

import json as json_text
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import typer

from cluster.commands import console
from cluster.commands.options import Json, Meta, MetadataFile, Set, analysis, given_metadata

if TYPE_CHECKING:
    from cluster.commands.series_files import SeriesFile
    from fitting.calibration.shift_vectors import Box, ShiftFit

_FIT: Final = "SplitterShiftEstFR"
_USUAL: Final[Mapping[str, Any]] = {"fit": _FIT, "background": None, "threshold": 2.0}
_CHANNEL: Final = "Splitter.Channel0ROI"


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
    from fitting.calibration.shift_vectors import fit_shift_field, vectors_from_rows

    picture = output.with_suffix(".png")
    _check(beads, output, picture, overwrite=overwrite)
    if beads.suffix.lower() == ".h5r":
        if settings:
            console.refuse("--set is for localising a series; an .h5r has been localised", console.USAGE)
        rows, said, facts = _read_rows(beads)
        said |= given_metadata(meta, metadata)
    else:
        rows, said, facts = _localised(beads, analysis(None, settings, None), given_metadata(meta, metadata))
    vectors, box = vectors_from_rows(rows), _box_nm(said)
    fit = fit_shift_field(vectors.moved(*_chip_nm(said)), model.value, box_nm=box)
    _write(output, picture, fit, box, facts, replace=overwrite)
    for note in fit.notes:
        console.say(note)
    console.say(f"shifts: {output}\npicture: {picture}")
    if json:
        paths = {"shifts": str(output), "picture": str(picture)}
        console.print_json(fit.numbers() | {"notes": list(fit.notes), "files": paths})


def _check(beads: Path, output: Path, picture: Path, *, overwrite: bool) -> None:
    if not beads.exists():
        console.refuse(f"{beads}: there is no such file")
    if output.suffix.lower() != ".json":
        console.refuse(f"-o {output}: a shift field is written as .json", console.USAGE)
    taken = [path for path in (output, picture) if path.exists()]
    if taken and not overwrite:
        console.refuse(f"{taken[0]}: exists; give --overwrite to replace it")


def _read_rows(results: Path) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    from cluster.results.h5r import Reader

    with Reader(results) as reader:
        return reader.table("FitResults"), reader.metadata(), {"file": results.name}


def _localised(
    beads: Path, asked: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Rows of a series, made here; its metadata, the size of its frames among them; and which file it was."""
    from cluster.commands.series_files import opened
    from fitting import fits

    with opened(beads) as series, console.progress() as bar:
        shape = series.shape
        size = {"Camera.ROIWidth": shape.width, "Camera.ROIHeight": shape.height}
        said = size | dict(series.metadata) | dict(given)
        complete = fits.resolve({**_USUAL, **asked}, said)
        shown = bar.add_task("localising", total=shape.frames, rates="frames")
        tables = []
        for start, stop in series.ranges():
            tables.append(_rows_of(series, complete, said, start, stop))
            bar.update(shown, completed=stop)
        rectangle = complete.get("channel0_roi")
        said |= {} if rectangle is None else {_CHANNEL: rectangle}
        return np.concatenate(tables), said, {"file": beads.name, "fingerprint": series.fingerprint}


def _rows_of(
    series: SeriesFile, settings: Mapping[str, Any], metadata: Mapping[str, Any], start: int, stop: int
) -> Any:
    from fitting import analyse, fits

    whole = (0, series.shape.frames)
    first, last = fits.context_range(settings, metadata, whole, start, stop)
    first, last = min(first, start), max(last, stop)
    frames, missing = series.read(first, last)
    return analyse(
        frames[start - first : stop - first],
        settings,
        metadata,
        first_frame=start,
        series=whole,
        context=(first, frames),
        missing=missing,
    ).rows


def _chip_nm(metadata: Mapping[str, Any]) -> tuple[float, float]:
    """Where the frame's first pixel lies on the chip [nm]: shift fields count from the chip's."""
    x, y = (_origin_px(metadata, axis) * _pixel_nm(metadata, axis.lower()) for axis in "XY")
    return x, y


def _origin_px(metadata: Mapping[str, Any], axis: str) -> float:
    for key, offset in ((f"Camera.ROIOrigin{axis}", 0), (f"Camera.ROIPos{axis}", 1)):
        value = metadata.get(key)
        if isinstance(value, int | float):
            return float(value) - offset
    return 0.0


def _pixel_nm(metadata: Mapping[str, Any], axis: str) -> float:
    size = metadata.get(f"voxelsize.{axis}")
    if not isinstance(size, int | float) or not size > 0:
        console.refuse(f"the size of a pixel is not known; give --meta voxelsize.{axis}=MICROMETRES")
    return 1000 * float(size)


def _box_nm(metadata: Mapping[str, Any]) -> Box | None:
    """Channel 0 on the chip [nm]: as the splitter's metadata say, else the upper half of the frame."""
    rectangle = metadata.get(_CHANNEL)
    if not isinstance(rectangle, list | tuple | np.ndarray) or len(rectangle) != 4:
        width, height = (metadata.get(f"Camera.ROI{side}") for side in ("Width", "Height"))
        if not isinstance(width, int | float) or not isinstance(height, int | float):
            return None
        rectangle = [_origin_px(metadata, "X"), _origin_px(metadata, "Y"), width, height // 2]
    x, y, width, height = (float(edge) for edge in rectangle)
    pitch_x, pitch_y = _pixel_nm(metadata, "x"), _pixel_nm(metadata, "y")
    return x * pitch_x, y * pitch_y, (x + width) * pitch_x, (y + height) * pitch_y


def _write(
    output: Path,
    picture: Path,
    fit: ShiftFit,
    box: Box | None,
    facts: Mapping[str, Any],
    *,
    replace: bool,
) -> None:
    from cluster.reports.shifts import shifts_report
    from cluster.results.provenance import software_versions
    from cluster.results.publish import writing

    made = {"input": facts, "quality": fit.numbers(), "notes": list(fit.notes)}
    text = json_text.dumps(
        fit.field.to_dict() | {"made": made | {"versions": software_versions()}}, indent=1, ensure_ascii=False
    )
    drawn = shifts_report(fit, f"{output.name}, made from {facts['file']}", box)
    with writing(output, replace=replace) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    with writing(picture, replace=replace) as temporary:
        temporary.write_bytes(drawn)
