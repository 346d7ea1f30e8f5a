"""The kinds of calibration: their options, the series they want, the files they write. Import-light: also the scheduler asks."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster.errors import Invalid
from cluster.job_calibrations import curves_of, sidecar_of
from cluster.metadata_keys import check_known
from cluster.protocol import CalibrationKind, CalibrationKindInfo, CalibrationRequest
from fitting import fits
from fitting.calibration.psf_options import PSF_SETTINGS
from fitting.errors import InvalidMetadata, InvalidSettings
from fitting.parsing import parse
from fitting.schema import options_schema
from fitting.settings import Setting

SHIFT_FIT: Final = "SplitterShiftEstFR"
SHIFT_ANALYSIS: Final[Mapping[str, Any]] = {"fit": SHIFT_FIT, "background": None, "threshold": 2.0}
"""How beads are localised, unless `analysis` says otherwise."""
MAPS: Final = ("dark", "variance", "variance_adu2", "flatfield", "gain")
"""A camera has one of the two variances: that in ADU² is no map of a job, and must not be taken for one."""

_SHIFT_SETTINGS: Final = (
    Setting(
        "model", None, "choice", "cubic", "", "How the shift varies over the field: a plane, a cubic polynomial, or a smoothing spline.",
        choices=("affine", "cubic", "spline"),
    ),
    Setting(
        "analysis", None, "options", {}, "", f"Settings of the localisation of a series by {SHIFT_FIT}, as of a job.",
    ),
)  # fmt: skip
_MAP_SETTINGS: Final = (
    Setting(
        "electrons_per_adu", None, "number", None, "e⁻/ADU", "What an ADU is worth; null: from the flat series, else as the file says.",
        minimum=1e-6, maximum=1e6, nullable=True,
    ),
    Setting(
        "even_light", None, "boolean", False, "", "The light was even (a sphere): keep also what varies slowly.",
    ),
    Setting(
        "saturation_adu", None, "number", None, "ADU", "Reading of a full pixel; null: the largest of the file's type.",
        minimum=1.0, maximum=1e9, nullable=True,
    ),
)  # fmt: skip

_DRIFT_SETTINGS: Final = (
    Setting(
        "smooth_frames", None, "number", 10.0, "frames", "Width of the smoothing window.", minimum=0.0, maximum=100_000.0,
    ),
    Setting(
        "largest_error_nm", None, "number", 10.0, "nm", "Fits of markers with larger errors do not count.",
        minimum=0.01, maximum=1000.0,
    ),
    Setting("apply", None, "boolean", False, "", "Write the result without the drift, too."),
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of calibration.

    Attributes
    ----------
    name, title, description : str
    settings : tuple of Setting
        Its options.
    most_series : int
        How many series it is made of, at most.
    results : bool
        Whether a result file (.h5r) does as well as a series.
    results_only : bool
        Whether nothing else does.
    suffix : str
        What the name of its output ends in; empty for a folder.
    ending : str
        What the stem of the first series gets for the output's name, where none is asked for.
    targets : callable
        From the output to the files that may be written, by what they are; `picture` is the report.
    """

    name: CalibrationKind
    title: str
    description: str
    settings: tuple[Setting, ...]
    most_series: int
    results: bool
    suffix: str
    ending: str
    targets: Callable[[Path], dict[str, Path]]
    results_only: bool = False


def psf_targets(output: Path) -> dict[str, Path]:
    """Return the files of a PSF."""
    return {
        "psf": output,
        "sidecar": sidecar_of(output),
        "curves": curves_of(output),
        "picture": output.with_suffix(".report.png"),
        "report": output.with_suffix(".report.json"),
    }


def shift_targets(output: Path) -> dict[str, Path]:
    """Return the files of a shift field."""
    return {"shifts": output, "picture": output.with_suffix(".png")}


def map_targets(output: Path) -> dict[str, Path]:
    """Return the files of a camera's maps; the output is their folder."""
    maps = {name: output / f"{name}.tif" for name in MAPS}
    return maps | {"numbers": output / "maps.json", "picture": output / "maps.png"}


def drift_targets(output: Path) -> dict[str, Path]:
    """Return the files of a drift curve."""
    corrected = output.with_name(f"{output.stem}_corrected.h5r")
    return {"curve": output, "picture": output.with_suffix(".png"), "corrected": corrected}


KINDS: Final[Mapping[CalibrationKind, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(
            name="psf",
            title="PSF from beads",
            description="From stacks of planes through beads: a measured PSF, and width curves where it is astigmatic.",
            settings=PSF_SETTINGS,
            most_series=64,
            results=False,
            suffix=".tif",
            ending="_psf",
            targets=psf_targets,
        ),
        Kind(
            name="shifts",
            title="Shift field",
            description=f"From a series of beads in both channels of a splitter, or its result by {SHIFT_FIT}: how far the channels lie apart.",
            settings=_SHIFT_SETTINGS,
            most_series=1,
            results=True,
            suffix=".json",
            ending="_shifts",
            targets=shift_targets,
        ),
        Kind(
            name="camera_maps",
            title="Camera maps",
            description="From a dark series, and evenly lit ones: offset, read-noise variance, gain and flat field of every pixel.",
            settings=_MAP_SETTINGS,
            most_series=64,
            results=False,
            suffix="",
            ending="_camera",
            targets=map_targets,
        ),
        Kind(
            name="drift",
            title="Drift",
            description="From a result with fits of fiducial markers: how the sample moved, and the result without it.",
            settings=_DRIFT_SETTINGS,
            most_series=1,
            results=True,
            suffix=".csv",
            ending="_drift",
            targets=drift_targets,
            results_only=True,
        ),
    )
}


def kind_infos() -> list[CalibrationKindInfo]:
    """Return the kinds with the JSON schemas of their options."""
    return [
        CalibrationKindInfo(
            name=kind.name,
            title=kind.title,
            description=kind.description,
            most_series=kind.most_series,
            options=options_schema(kind.title, kind.description, kind.settings),
        )
        for kind in KINDS.values()
    ]


def check(request: CalibrationRequest) -> None:
    """Refuse what can be seen to be wrong without the series.

    Raises
    ------
    Invalid
        Names the field.
    """
    kind = KINDS[request.kind]
    if len(request.series) > kind.most_series:
        raise Invalid(
            f"series: {kind.name} takes {kind.most_series} at most, not {len(request.series)}", field="series"
        )
    if len(set(request.series)) < len(request.series):
        raise Invalid("series: one is given twice", field="series")
    wrong = [path for path in request.series if not path.lower().endswith(".h5r")]
    if kind.results_only and wrong:
        raise Invalid(f"series: {kind.name} is made of a result, an .h5r, not of {wrong[0]}", field="series")
    if kind.results_only and request.metadata:
        raise Invalid(f"metadata: {kind.name} takes those of the result", field="metadata")
    check_known(request.metadata)
    try:
        options = parsed(kind, request.options)
    except InvalidSettings as error:
        raise Invalid(f"options.{error.field}: {error.reason}", field=f"options.{error.field}") from error
    if kind.name == "shifts":
        _check_analysis(options["analysis"], request)


def parsed(kind: Kind, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a kind: the given ones checked one by one, the others' defaults.

    Raises
    ------
    InvalidSettings
        If a name is unknown, or a value is of the wrong type or out of range.
    """
    known = {setting.name: setting for setting in kind.settings}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the options are {', '.join(known)}"
            raise InvalidSettings(name, f"unknown option; {hint}")
    return {name: parse(setting, given.get(name, setting.default)) for name, setting in known.items()}


def _check_analysis(analysis: Mapping[str, Any], request: CalibrationRequest) -> None:
    if analysis and request.series[0].lower().endswith(".h5r"):
        raise Invalid(
            "options.analysis: is for localising a series; an .h5r has been localised",
            field="options.analysis",
        )
    try:
        fits.resolve({**SHIFT_ANALYSIS, **analysis}, request.metadata)
    except InvalidSettings as error:
        raise Invalid(
            f"options.analysis.{error.field}: {error.reason}", field=f"options.analysis.{error.field}"
        ) from error
    except InvalidMetadata as error:
        raise Invalid(f"metadata: {error.reason}", field="metadata", keys=list(error.keys)) from error
