"""The types of fit, their settings, and the one way from what a person gave to a complete analysis.

Import-light on purpose (standard library and numpy): the scheduler, the command line and the page validate with it
and load neither numba nor scipy. The table of settings is in `fitting.settings`, the frames that a task needs in
`fitting.windows`, the metadata it needs in `fitting.requirements`; all of it is reachable from here.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fitting.errors import InvalidSettings
from fitting.localisations import LAT_GAUSS_DTYPE
from fitting.requirements import check_metadata, missing_metadata, required_metadata
from fitting.settings import BY_KEY, BY_NAME, SETTINGS, Setting, parse
from fitting.windows import (
    FIDUCIAL_REACH,
    analysed_range,
    background_limits,
    background_window,
    context_range,
    first_data_frame,
    laser_on,
    window_for,
    windows_for,
)

__all__ = [
    "FIDUCIAL_REACH",
    "FITS",
    "SETTINGS",
    "Fit",
    "Setting",
    "analysed_range",
    "background_limits",
    "background_window",
    "check_metadata",
    "context_range",
    "find",
    "json_schema",
    "laser_on",
    "missing_metadata",
    "required_metadata",
    "resolve",
    "window_for",
    "windows_for",
]

_WLS_ROI_HALF_SIZE = 5


@dataclass(frozen=True)
class Fit:
    """One type of fit.

    Attributes
    ----------
    name : str
        PYME's name of it, written into the results.
    aliases : tuple of str
        Other names it answers to.
    title, description : str
        For a person.
    dtype : numpy.dtype
        Layout of a result row.
    settings : tuple of Setting
        All settings of an analysis.
    unused : frozenset of str
        Settings that this fit does not read: refused in a job, passed over when a file's metadata have them.
    options : mapping of str to Setting
        The fit's own settings, inside `options`.
    """

    name: str
    aliases: tuple[str, ...]
    title: str
    description: str
    dtype: np.dtype[np.void]
    settings: tuple[Setting, ...]
    unused: frozenset[str]
    options: tuple[Setting, ...] = ()


FITS: dict[str, Fit] = {
    "LatGaussFitFR": Fit(
        name="LatGaussFitFR",
        aliases=("gaussian", "gauss", "2d", "LatGauss", "LatGaussFit"),
        title="2D Gaussian",
        description="One round Gaussian of free width for each molecule, on a background.",
        dtype=LAT_GAUSS_DTYPE,
        settings=SETTINGS,
        unused=frozenset({"psf", "interpolator", "shifts"}),
    )
}


def find(name: str) -> Fit:
    """Give the fit of a name or alias, whatever its case.

    Raises
    ------
    InvalidSettings
        If there is no such fit; the message lists those there are.
    """
    wanted = name.strip().lower()
    for fit in FITS.values():
        if wanted in {known.lower() for known in (fit.name, *fit.aliases)}:
            return fit
    known_names = ", ".join(f"{fit.name} ({', '.join(fit.aliases)})" for fit in FITS.values())
    raise InvalidSettings("fit", f"there is no fit {name!r}; there are: {known_names}")


def resolve(analysis: Mapping[str, object], metadata: Mapping[str, object]) -> dict[str, object]:
    """Complete the settings of an analysis.

    What `analysis` gives comes first, then what the metadata say under PYME's keys, then the defaults. A resolved
    analysis resolves to itself.

    Parameters
    ----------
    analysis : mapping
        Settings by name or by PYME key.
    metadata : mapping
        Metadata of the series; keys that are not settings are passed over.

    Returns
    -------
    dict
        Every setting of the table with a valid value. `roi_half_size` is None as long as the metadata give no pixel
        size to derive it from.

    Raises
    ------
    InvalidSettings
        If a name is unknown, a value is of the wrong type or out of range, or two values contradict each other.
    InvalidMetadata
        If the metadata's first data frame is not a frame number.
    """
    given = _by_name(analysis)
    fit = find(str(_value(BY_NAME["fit"], given, metadata)))
    settings = {setting.name: _value(setting, given, metadata, fit) for setting in SETTINGS}
    settings["fit"] = fit.name
    settings["options"] = _resolve_options(fit, settings["options"])
    if settings["start_at"] == "auto":
        settings["start_at"] = first_data_frame(metadata)
    if settings["roi_half_size"] is None:
        settings["roi_half_size"] = _default_roi_half_size(settings, metadata)
    _check_consistency(settings)
    return settings


def json_schema(fit: Fit) -> dict[str, object]:
    """Describe the settings of a fit as a JSON schema (draft 2020-12)."""
    properties = {setting.name: _property(setting) for setting in fit.settings}
    properties["fit"]["default"] = fit.name
    properties["options"] |= _object_schema({option.name: _property(option) for option in fit.options})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": fit.title,
        "description": fit.description,
        **_object_schema(properties),
    }


def _by_name(analysis: Mapping[str, object]) -> dict[str, object]:
    given: dict[str, object] = {}
    for key, value in analysis.items():
        setting = BY_NAME.get(key) or BY_KEY.get(key)
        if setting is None:
            raise InvalidSettings(str(key), _unknown(str(key)))
        parsed = parse(setting, value, given_as=key)
        if setting.name in given and not _same(given[setting.name], parsed):
            raise InvalidSettings(
                setting.name, f"given twice, as {setting.name} and as {setting.pyme_key}, and not the same"
            )
        given[setting.name] = parsed
    return given


def _unknown(key: str) -> str:
    known = {name.lower(): name for name in (*BY_NAME, *BY_KEY)}
    of_the_series = key.split(".", maxsplit=1)[0] in ("Camera", "voxelsize", "Protocol")
    nearest = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.85 if of_the_series else 0.5)
    if nearest:
        return f"unknown setting; did you mean {known[nearest[0]]}?"
    if of_the_series:
        return "unknown setting; it belongs in the metadata"
    return f"unknown setting; the settings are {', '.join(BY_NAME)}"


def _same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return one is other
    return one == other


def _value(
    setting: Setting, given: Mapping[str, object], metadata: Mapping[str, object], fit: Fit | None = None
) -> object:
    unused = fit is not None and setting.name in fit.unused
    if setting.name in given:
        if fit is not None and unused and given[setting.name] is not None:
            raise InvalidSettings(setting.name, f"{fit.name} does not use it")
        return given[setting.name]
    if setting.pyme_key is not None and not unused and metadata.get(setting.pyme_key) is not None:
        return parse(setting, metadata[setting.pyme_key], given_as=f"{setting.pyme_key} in the metadata")
    return copy.copy(setting.default)


def _resolve_options(fit: Fit, given: object) -> dict[str, object]:
    options = dict(given) if isinstance(given, Mapping) else {}
    known = {option.name: option for option in fit.options}
    for name in options:
        if name not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            raise InvalidSettings(f"options.{name}", f"{fit.name} has no such option; {has}")
    return {name: parse(option, options.get(name, option.default)) for name, option in known.items()}


def _default_roi_half_size(settings: Mapping[str, object], metadata: Mapping[str, object]) -> int | None:
    if settings["estimator"] == "wls":
        return _WLS_ROI_HALF_SIZE
    sigma_nm = settings["psf_sigma_nm"]
    pixel_nm = _pixel_nm(metadata)
    if pixel_nm is None or not isinstance(sigma_nm, float):
        return None
    half_size = max(3, round(2.3 * sigma_nm / pixel_nm))
    limit = BY_NAME["roi_half_size"].maximum
    if limit is not None and half_size > limit:
        raise InvalidSettings(
            "roi_half_size",
            f"would be {half_size} px for a PSF of {sigma_nm:.0f} nm and pixels of {pixel_nm:g} nm; "
            "check psf_sigma_nm and voxelsize.x (µm)",
        )
    return half_size


def _pixel_nm(metadata: Mapping[str, object]) -> float | None:
    sizes = [metadata.get("voxelsize.x"), metadata.get("voxelsize.y")]
    numbers = [float(size) for size in sizes if isinstance(size, int | float | np.integer | np.floating)]
    valid = [size for size in numbers if math.isfinite(size) and size > 0]
    return 1000 * min(valid) if valid else None


def _check_consistency(settings: Mapping[str, object]) -> None:
    low, high = settings["lowpass_sigma"], settings["highpass_sigma"]
    if isinstance(low, float) and isinstance(high, float) and high <= low:
        raise InvalidSettings("highpass_sigma", f"{high:g} px must be larger than lowpass_sigma, {low:g} px")
    start, stop = settings["start_at"], settings["stop_at"]
    if isinstance(start, int) and isinstance(stop, int) and stop <= start:
        raise InvalidSettings("stop_at", f"frame {stop} is not after start_at, frame {start}")


_JSON_TYPES: dict[str, dict[str, object]] = {
    "fit": {"type": "string"},
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "choice": {"type": "string"},
    "text": {"type": "string"},
    "start": {"anyOf": [{"type": "integer", "minimum": 0}, {"const": "auto"}]},
    "window": {
        "anyOf": [
            {"type": "string", "pattern": r"^\s*[+-]?\d+\s*:\s*[+-]?\d+\s*$"},
            {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        ]
    },
    "fraction": {"type": "number"},
    "box": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 4, "maxItems": 4},
    "map": {"type": "string"},
    "options": {"type": "object"},
}
_WITH_RANGE = ("number", "integer", "fraction")


def _property(setting: Setting) -> dict[str, object]:
    schema = copy.deepcopy(_JSON_TYPES[setting.type])
    if setting.type in _WITH_RANGE:
        limits = {"minimum": setting.minimum, "maximum": setting.maximum}
        schema |= {name: limit for name, limit in limits.items() if limit is not None}
    if setting.choices:
        schema["enum"] = list(setting.choices)
    if setting.nullable:
        schema = {"anyOf": [*_alternatives(schema), {"type": "null"}]}
    schema |= {"default": copy.copy(setting.default), "description": setting.description}
    if setting.unit:
        schema["x-unit"] = setting.unit
    if setting.pyme_key:
        schema["x-pyme-key"] = setting.pyme_key
    return schema


def _alternatives(schema: dict[str, object]) -> list[object]:
    several = schema.get("anyOf")
    return several if isinstance(several, list) else [schema]


def _object_schema(properties: Mapping[str, object]) -> dict[str, object]:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}
