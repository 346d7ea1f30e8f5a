"""A shift field and its report, from a series of beads in both channels of a splitter, or from its result."""

from __future__ import annotations

import json as json_text
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cluster.calibrating.kinds import SHIFT_ANALYSIS, SHIFT_FIT, shift_targets
from cluster.calibrating.made import Advance, Finding, Made, nobody
from cluster.errors import Invalid
from cluster.reports.shifts import shifts_report
from cluster.results.provenance import software_versions
from cluster.results.publish import writing
from cluster.series_files import SeriesFile, opened
from fitting import fits
from fitting.geometry import chip_origin, rectangles

if TYPE_CHECKING:
    from fitting.calibration.shift_vectors import Box, ShiftFit

_CHANNEL: Final = "Splitter.Channel0ROI"


def make_shifts(
    beads: Path,
    given: Mapping[str, Any],
    output: Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    replace: bool = False,
    advance: Advance = nobody,
) -> Made:
    """Make a shift field from beads and write it.

    Parameters
    ----------
    beads
        A series, or a result (.h5r) by SplitterShiftEstFR.
    given
        Options: `model`, and `analysis`, the settings by which a series is localised.
    output
        The field, a .json; its report lies beside it (`shift_targets`).
    metadata
        PYME's keys, over the file's.

    Raises
    ------
    Invalid
        If the file is no series, or nobody says the size of its pixels.
    FittingError
        If a setting is wrong, or there are too few beads.
    """
    from fitting.calibration.shift_vectors import fit_shift_field, vectors_from_rows

    if beads.suffix.lower() == ".h5r":
        rows, said, facts = _read_rows(beads)
        said |= dict(metadata or {})
    else:
        rows, said, facts = _localised(beads, given.get("analysis") or {}, metadata or {}, advance)
    vectors, box = vectors_from_rows(rows), _box_nm(said)
    fit = fit_shift_field(vectors.moved(*_chip_nm(said)), given.get("model", "cubic"), box_nm=box)
    files = _write(output, fit, box, facts, replace=replace)
    return Made(files, tuple(Finding("note", note) for note in fit.notes), fit.numbers())


def _read_rows(results: Path) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    from cluster.results.h5r import Reader

    with Reader(results) as reader:
        return reader.table("FitResults"), reader.metadata(), {"file": results.name}


def _localised(
    beads: Path, asked: Mapping[str, Any], given: Mapping[str, Any], advance: Advance
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Rows of a series, made here; its metadata, the size of its frames among them; and which file it was."""
    with opened(beads) as series:
        shape = series.shape
        size = {"Camera.ROIWidth": shape.width, "Camera.ROIHeight": shape.height}
        said = size | dict(series.metadata) | dict(given)
        complete = fits.resolve({**SHIFT_ANALYSIS, **asked}, said)
        tables = []
        for start, stop in series.ranges():
            tables.append(_rows_of(series, complete, said, start, stop))
            advance("localising", stop, shape.frames)
        rectangle = complete.get("channel0_roi")
        said |= {} if rectangle is None else {_CHANNEL: rectangle}
        return np.concatenate(tables), said, {"file": beads.name, "fingerprint": series.fingerprint}


def _rows_of(
    series: SeriesFile, settings: Mapping[str, Any], metadata: Mapping[str, Any], start: int, stop: int
) -> Any:
    from fitting import analyse

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
    x, y = chip_origin(metadata)
    return x * _pixel_nm(metadata, "x"), y * _pixel_nm(metadata, "y")


def _pixel_nm(metadata: Mapping[str, Any], axis: str) -> float:
    size = metadata.get(f"voxelsize.{axis}")
    if not isinstance(size, int | float) or not size > 0:
        raise Invalid(
            f"the size of a pixel is not known; give the metadata voxelsize.{axis}, in µm",
            field=f"voxelsize.{axis}",
        )
    return 1000 * float(size)


def _box_nm(metadata: Mapping[str, Any]) -> Box | None:
    """Channel 0 on the chip [nm], as the fit takes it; None where neither it nor the size of the frames is known."""
    said: Any = metadata.get(_CHANNEL)
    said = said if isinstance(said, list | tuple | np.ndarray) and len(said) == 4 else None
    sides = [metadata.get(f"Camera.ROI{side}") for side in ("Height", "Width")]
    height, width = (int(side) if isinstance(side, int | float) else 0 for side in sides)
    if said is None and not (height and width):
        return None
    channels = {"channel0_roi": said, "channel1_roi": None, "flip": False}
    first = rectangles(fits.find(SHIFT_FIT), channels, metadata, (height, width))[0]
    x, y = _pixel_nm(metadata, "x"), _pixel_nm(metadata, "y")
    return first.x * x, first.y * y, (first.x + first.width) * x, (first.y + first.height) * y


def _write(
    output: Path, fit: ShiftFit, box: Box | None, facts: Mapping[str, Any], *, replace: bool
) -> dict[str, Path]:
    files = shift_targets(output)
    made = {"input": facts, "quality": fit.numbers(), "notes": list(fit.notes)}
    text = json_text.dumps(
        fit.field.to_dict() | {"made": made | {"versions": software_versions()}}, indent=1, ensure_ascii=False
    )
    drawn = shifts_report(fit, f"{output.name}, made from {facts['file']}", box)
    with writing(files["shifts"], replace=replace) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    with writing(files["picture"], replace=replace) as temporary:
        temporary.write_bytes(drawn)
    return files
