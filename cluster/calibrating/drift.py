"""A drift curve and its report, from the fits of fiducial markers in a result; on request the result without the drift."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.calibrating.made import Advance, Finding, Made, nobody
from cluster.errors import Invalid
from cluster.reports.drift import drift_report
from cluster.results.csv import write_csv
from cluster.results.drift_table import check_uncorrected, read_drift, write_corrected, write_drift
from cluster.results.h5r import Reader
from cluster.results.publish import writing

if TYPE_CHECKING:
    from fitting.calibration.drift import DriftCurve


def make_drift(
    results: Path,
    given: Mapping[str, Any],
    output: Path,
    *,
    corrected: Path | None = None,
    replace: bool = False,
    advance: Advance = nobody,
) -> Made:
    """Work out the drift of a result and write it.

    Parameters
    ----------
    results
        A result (.h5r) with fits of markers.
    given
        Options: `smooth_frames`, `largest_error_nm`.
    output
        The curve, a .csv; its picture lies beside it.
    corrected
        Where the result without the drift goes, .h5r or .csv; None: it is not written.

    Raises
    ------
    Invalid
        If the file holds no fits of markers, or its drift has been taken out already.
    FittingError
        If the markers tell no drift.
    """
    curve = _curve(results, given)
    picture = output.with_suffix(".png")
    drawn = drift_report(curve, f"{output.name}, from {results.name}")
    columns = {name: getattr(curve, name) for name in ("frame", "x_nm", "y_nm", "x_error_nm", "y_error_nm")}
    write_drift(output, columns | {"markers": curve.markers}, replace=replace)
    with writing(picture, replace=replace) as temporary:
        temporary.write_bytes(drawn)
    files = {"curve": output, "picture": picture}
    if corrected is not None:
        _apply(results, corrected, output, replace=replace, advance=advance)
        files["corrected"] = corrected
    return Made(files, tuple(Finding("note", note) for note in curve.notes), curve.numbers())


def _curve(results: Path, given: Mapping[str, Any]) -> DriftCurve:
    from fitting.calibration.drift import drift_from_rows

    with Reader(results) as reader:
        check_uncorrected(reader)
        markers = reader.table("DriftResults")
        if markers is None or not len(markers):
            raise Invalid(
                f"{results}: holds no fits of markers; localise the series with --set track_fiducials=true. "
                "If that was done, none was found: try a lower fiducial_threshold or another fiducial_diameter_nm",
                field="series",
            )
        provenance = reader.provenance()
        frames = 0 if provenance is None else len(provenance.ledger.status)
        last = max((int(block["tIndex"].max(initial=-1)) for block in reader.blocks()), default=-1)
    return drift_from_rows(
        markers, max(frames, last + 1),
        smooth_frames=given.get("smooth_frames", 10.0), largest_error_nm=given.get("largest_error_nm", 10.0),
    )  # fmt: skip


def _apply(results: Path, out: Path, table: Path, *, replace: bool, advance: Advance) -> None:
    def heard(done: int, total: int) -> None:
        advance("writing", done, total)

    correct = read_drift(table)
    if out.suffix.lower() == ".csv":
        write_csv(results, out, replace=replace, advance=heard, correct=correct)
    else:
        write_corrected(results, out, correct, table, replace=replace, advance=heard)
