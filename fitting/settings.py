"""The settings of an analysis: names, units, ranges, and how a given value becomes a valid one.

`SETTINGS` is the one table; the command line, the REST schema and the fits read it. Values come from a person, from
JSON, from Python or from a file's metadata (numpy scalars, 0/1 for booleans, lists for slices), so each type has one
function that either returns the canonical value or says in a sentence what is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fitting.errors import InvalidSettings

SettingType = Literal[
    "fit",
    "number",
    "integer",
    "boolean",
    "choice",
    "text",
    "start",
    "window",
    "fraction",
    "box",
    "map",
    "options",
]

_LONGEST_WINDOW = 10_000
_NONE_WORDS = ("", "<none>", "none")


@dataclass(frozen=True)
class Setting:
    """One setting of an analysis.

    Attributes
    ----------
    name : str
        Its name in `analysis`.
    pyme_key : str or None
        The metadata key by which PYME knows it.
    type : SettingType
        What a value looks like.
    default : object
        Value when nothing is given; None may also mean "derived from others".
    unit : str
        Unit of the value, "1" for a plain number, "" where there is none.
    minimum, maximum : float or None
        Inclusive limits of a number.
    choices : tuple of str
        The allowed words, empty when anything goes.
    description : str
        One sentence for a person.
    nullable : bool
        Whether null is a value.
    """

    name: str
    pyme_key: str | None
    type: SettingType
    default: object
    unit: str
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    nullable: bool = False


SETTINGS: tuple[Setting, ...] = (
    Setting("fit", "Analysis.FitModule", "fit", "LatGaussFitFR", "", "Type of fit; PYME's names and aliases."),
    Setting(
        "threshold", "Analysis.DetectionThreshold", "number", 1.0, "1",
        "Factor on the local signal-to-noise threshold of detection; 1.0 means what it means in PYME.",
        minimum=0.01, maximum=1000.0,
    ),
    Setting(
        "start_at", "Analysis.StartAt", "start", "auto", "frames",
        'First frame to localise; "auto": where the metadata say that data start, else 0.',
        minimum=0, maximum=2**31 - 1,
    ),
    Setting(
        "stop_at", None, "integer", None, "frames", "Frame after the last one to localise; null: the end.",
        minimum=1, maximum=2**31 - 1, nullable=True,
    ),
    Setting(
        "roi", None, "box", None, "px",
        "[x0, y0, x1, y1]: localise this part of the frame only; coordinates stay those of the full frame.",
        minimum=0, maximum=2**20, nullable=True,
    ),
    Setting(
        "background", "Analysis.BGRange", "window", "-30:0", "frames",
        'Frames that make the background, as a slice relative to the frame; "0:0" or null: none.',
        minimum=-_LONGEST_WINDOW, maximum=_LONGEST_WINDOW, nullable=True,
    ),
    Setting(
        "background_percentile", "Analysis.PCTBackground", "fraction", None, "1",
        "Percentile of the background frames instead of their mean, as a fraction (0.25: the lower quartile), "
        "renewed every tenth frame; null: mean.",
        minimum=0.0, maximum=1.0, nullable=True,
    ),
    Setting(
        "subtract_background", "Analysis.subtractBackground", "boolean", True, "",
        "Use the background in the fit too, not only in detection.",
    ),
    Setting(
        "debounce_radius", "Analysis.DebounceRadius", "number", 4.0, "px",
        "Of candidates closer than this only the brightest is fitted.", minimum=0.0, maximum=1000.0,
    ),
    Setting(
        "roi_half_size", "Analysis.ROISize", "integer", None, "px",
        "The region of a fit has side 2h+1; null: from the expected width of the PSF.",
        minimum=1, maximum=50, nullable=True,
    ),
    Setting(
        "psf_sigma_nm", "Analysis.PSFSigmaGuess", "number", 250 / 2.35, "nm",
        "Expected standard deviation of the PSF: start value, detection and size of the region.",
        minimum=1.0, maximum=10_000.0,
    ),
    Setting(
        "lowpass_sigma", "Analysis.DetectionRadiusLowpass", "number", 1.0, "px",
        "Width of the smoothing filter of detection.", minimum=0.1, maximum=50.0,
    ),
    Setting(
        "highpass_sigma", "Analysis.DetectionRadiusHighpass", "number", 3.0, "px",
        "Width of the filter that removes what is wider than a molecule.", minimum=0.2, maximum=200.0,
    ),
    Setting(
        "estimator", None, "choice", "mle", "",
        '"mle": maximum likelihood (Poisson, sCMOS, EMCCD); "wls": weighted least squares as PYME\'s.',
        choices=("mle", "wls"),
    ),
    Setting("variance_map", "Camera.VarianceMapID", "map", None, "e⁻²", "Read-noise variance of each pixel.", nullable=True),
    Setting("dark_map", "Camera.DarkMapID", "map", None, "ADU", "Offset of each pixel in the dark.", nullable=True),
    Setting(
        "flatfield_map", "Camera.FlatfieldMapID", "map", None, "1",
        "Factor that evens out the pixels' gain, mean 1.", nullable=True,
    ),
    Setting("psf", "PSFFile", "map", None, "", "Measured PSF for the interpolating fits.", nullable=True),
    Setting("interpolator", "Analysis.InterpModule", "text", None, "", "How the measured PSF is interpolated.", nullable=True),
    Setting("shifts", "chroma.ShiftFilename", "map", None, "", "Shift field for the two-channel fits.", nullable=True),
    Setting(
        "track_fiducials", "Analysis.TrackFiducials", "boolean", False, "",
        "Fit fiducial markers too, into DriftResults.",
    ),
    Setting(
        "fiducial_threshold", "Analysis.FiducialThreshold", "number", 1.8, "1",
        "Detection threshold of fiducials.", minimum=0.01, maximum=1000.0,
    ),
    Setting(
        "fiducial_diameter_nm", "Analysis.FiducialSize", "number", 1000.0, "nm",
        "Diameter of the fiducials.", minimum=1.0, maximum=100_000.0,
    ),
    Setting(
        "fiducial_roi_half_size", "Analysis.FiducialROISize", "integer", 11, "px",
        "The region of a fiducial's fit has side 2h+1.", minimum=1, maximum=50,
    ),
    Setting(
        "idle_limit_s", None, "number", 600.0, "s",
        "A followed series that stops growing for this long ends the job as incomplete.",
        minimum=1.0, maximum=2_592_000.0,
    ),
    Setting("options", None, "options", {}, "", "The fit type's own settings."),
)  # fmt: skip

BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}
BY_KEY: dict[str, Setting] = {setting.pyme_key: setting for setting in SETTINGS if setting.pyme_key}


class _Refused(Exception):
    """What is wrong with a value; `parse` adds whose value it was."""


def parse(setting: Setting, value: object, given_as: str | None = None) -> object:
    """Give the canonical form of a value of a setting.

    Parameters
    ----------
    setting : Setting
        The setting.
    value : object
        What was given: from JSON, Python or a metadata file.
    given_as : str, optional
        The metadata key it was given under, for the message.

    Raises
    ------
    InvalidSettings
        If the value has the wrong type or is out of range.
    """
    try:
        plain = _plain(value)
        if plain is None and setting.nullable:
            return None
        return _PARSERS[setting.type](setting, plain)
    except _Refused as error:
        where = f" (given as {given_as})" if given_as not in (None, setting.name) else ""
        raise InvalidSettings(setting.name, f"{error}{where}") from None


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    return value


def _shown(value: object) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _parse_number(setting: Setting, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Refused(f"must be a number, not {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        raise _Refused(f"{_shown(value)} is out of range") from None
    if not math.isfinite(number):
        raise _Refused(f"must be a finite number, not {number}")
    _check_range(setting, number)
    return number


def _parse_integer(setting: Setting, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_whole(value):
        raise _Refused(f"must be a whole number, not {_shown(value)}")
    _check_range(setting, value)
    return int(value)


def _is_whole(value: float) -> bool:
    return isinstance(value, int) or (math.isfinite(value) and value == int(value))


def _check_range(setting: Setting, number: float) -> None:
    low, high = setting.minimum, setting.maximum
    if (low is not None and number < low) or (high is not None and number > high):
        unit = f" {setting.unit}" if setting.unit not in ("", "1") else ""
        raise _Refused(f"{_shown(number)} is out of range: it must be from {low:g} to {high:g}{unit}")


def _parse_boolean(_setting: Setting, value: object) -> bool:
    if isinstance(value, bool | int) and value in (0, 1):
        return bool(value)
    raise _Refused(f"must be true or false, not {_shown(value)}")


def _parse_choice(setting: Setting, value: object) -> str:
    if isinstance(value, str) and value.lower() in setting.choices:
        return value.lower()
    raise _Refused(f"must be one of {', '.join(setting.choices)}, not {_shown(value)}")


def _parse_text(setting: Setting, value: object) -> str | None:
    if not isinstance(value, str):
        raise _Refused(f"must be text, not {_shown(value)}")
    return None if setting.nullable and value.lower() in _NONE_WORDS else value


def _parse_start(setting: Setting, value: object) -> int | str:
    if isinstance(value, str):
        if value.lower() == "auto":
            return "auto"
        raise _Refused(f'must be a frame number or "auto", not {_shown(value)}')
    return _parse_integer(setting, value)


def _parse_fraction(setting: Setting, value: object) -> float | None:
    try:
        fraction = _parse_number(setting, value)
    except _Refused as error:
        raise _Refused(f"{error} (0.25 is the 25th percentile)") from None
    return fraction or None  # PYME writes 0 for "off"


def _parse_window(setting: Setting, value: object) -> str | None:
    a, b = _window_bounds(setting, value)
    if a > b:
        raise _Refused(f"the window {a}:{b} ends before it starts")
    return f"{a}:{b}" if a < b else None


def _window_bounds(setting: Setting, value: object) -> tuple[int, int]:
    if isinstance(value, str):
        matched = re.fullmatch(r"\s*([+-]?\d{1,9})\s*:\s*([+-]?\d{1,9})\s*", value, re.ASCII)
        value = [int(bound) for bound in matched.groups()] if matched else value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _Refused(f'must be a slice of frames such as "-30:0", not {_shown(value)}')
    return _parse_integer(setting, _plain(value[0])), _parse_integer(setting, _plain(value[1]))


def _parse_box(setting: Setting, value: object) -> list[int]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) != 4:
        raise _Refused(f"must be [x0, y0, x1, y1] in pixels, not {_shown(value)}")
    x0, y0, x1, y1 = (_parse_integer(setting, _plain(edge)) for edge in value)
    if x1 <= x0 or y1 <= y0:
        raise _Refused(f"[{x0}, {y0}, {x1}, {y1}] is empty: x1 and y1 must be larger than x0 and y0")
    return [x0, y0, x1, y1]


def _parse_map(_setting: Setting, value: object) -> object:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, str):
        return None if value.lower() in _NONE_WORDS else value
    raise _Refused(f"must be the path of a file, not {_shown(value)}")


def _parse_options(_setting: Setting, value: object) -> dict[str, object]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _Refused(f"must be an object of the fit's own settings, not {_shown(value)}")
    return dict(value)


_PARSERS: dict[SettingType, Callable[[Setting, Any], object]] = {
    "fit": _parse_text,
    "number": _parse_number,
    "integer": _parse_integer,
    "boolean": _parse_boolean,
    "choice": _parse_choice,
    "text": _parse_text,
    "start": _parse_start,
    "window": _parse_window,
    "fraction": _parse_fraction,
    "box": _parse_box,
    "map": _parse_map,
    "options": _parse_options,
}
