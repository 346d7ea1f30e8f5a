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

import numpy as np

from fitting import foreign, plugins
from fitting.catalogue import FITS as BUILT_IN
from fitting.errors import InvalidMetadata, InvalidSettings
from fitting.fit_types import Fit
from fitting.parsing import parse
from fitting.requirements import (
    KEYS,
    check_metadata,
    complaints,
    meaning,
    missing_metadata,
    required_metadata,
)
from fitting.schema import json_schema
from fitting.settings import BY_KEY, BY_NAME, SETTINGS, Setting
from fitting.windows import (
    FIDUCIAL_REACH,
    analysed_range,
    background_limits,
    background_window,
    context_range,
    first_data_frame,
    laser_on,
    settled_until,
    window_for,
    windows_for,
)

__all__ = [
    "FIDUCIAL_REACH",
    "FITS",
    "KEYS",
    "OPTION_KEYS",
    "SETTINGS",
    "Fit",
    "Setting",
    "analysed_range",
    "background_limits",
    "background_window",
    "check_given",
    "check_metadata",
    "context_range",
    "declarations",
    "find",
    "identity",
    "json_schema",
    "known_fits",
    "laser_on",
    "meaning",
    "missing_metadata",
    "required_metadata",
    "resolve",
    "row_dtype",
    "settled_until",
    "taken",
    "window_for",
    "windows_for",
]

_WLS_ROI_HALF_SIZE = 5
_NONE: Mapping[str, Fit] = {}

FITS: dict[str, Fit] = {fit.name: fit for fit in BUILT_IN}
"""The fits of the package by name; `known_fits` has those of other packages too."""
OPTION_KEYS: dict[str, str] = {
    option.pyme_key: option.name for fit in BUILT_IN for option in fit.options if option.pyme_key
}
"""Fits' own settings by the metadata key by which PYME knows them."""
_TAKEN = frozenset(name.lower() for fit in BUILT_IN for name in (fit.name, *fit.aliases))


def taken() -> frozenset[str]:
    """Names and aliases, in lower case, of the fits that are here, which those declared by others may not use."""
    return frozenset(name.lower() for fit in known_fits().values() for name in (fit.name, *fit.aliases))


def declarations() -> dict[str, dict[str, object]]:
    """The fits of other packages that are installed here, by identity, as those who lack them can check settings by (`fitting.foreign`)."""
    plugged = plugins.installed(_TAKEN).fits.values()
    told = {identity(fit.name): foreign.declaration(fit) for fit in plugged}
    return {name: facts for name, facts in told.items() if facts is not None}


def find(name: str, elsewhere: Mapping[str, Fit] = _NONE) -> Fit:
    """Give the fit of a name or alias, whatever its case; `elsewhere` are fits that are declared by others.

    Raises
    ------
    InvalidSettings
        If there is no such fit; the message lists those there are.
    """
    found = _named(name, FITS) or _named(name, plugins.installed(_TAKEN).fits) or _named(name, elsewhere)
    if found is not None:
        return found
    names = {known.lower(): known for fit in known_fits().values() for known in (fit.name, *fit.aliases)}
    nearest = difflib.get_close_matches(name.strip().lower(), names, n=1, cutoff=0.7)
    meant = f"; did you mean {names[nearest[0]]}?" if nearest else ""
    known_names = ", ".join(f"{fit.name} ({', '.join(fit.aliases)})" for fit in known_fits().values())
    broken = "".join(f"; {problem}" for problem in plugins.installed(_TAKEN).problems)
    raise InvalidSettings(
        "fit",
        f"there is no fit {name!r}{meant or '.'} There are: {known_names}{broken}. A fit of another package must be installed here, or on a worker that is there",
    )


def known_fits() -> dict[str, Fit]:
    """All fits by name: those of the package, then those of other packages that are installed here."""
    return {**FITS, **plugins.installed(_TAKEN).fits}


def identity(name: str) -> str:
    """What must be the same on two machines for a fit to give the same rows: its name, and the version of its package if that is not this one."""
    package = plugins.installed(_TAKEN).packages.get(name) if name not in FITS else None
    return name if package is None else f"{name} ({package})"


def row_dtype(settings: Mapping[str, object]) -> np.dtype[np.void]:
    """Layout of the rows of an analysis with complete settings."""
    return find(str(settings["fit"])).layout(settings)


def _named(name: str, among: Mapping[str, Fit]) -> Fit | None:
    wanted = name.strip().lower()
    for fit in among.values():
        if wanted in {known.lower() for known in (fit.name, *fit.aliases)}:
            return fit
    return None


def resolve(
    analysis: Mapping[str, object], metadata: Mapping[str, object], elsewhere: Mapping[str, Fit] = _NONE
) -> dict[str, object]:
    """Complete the settings of an analysis.

    What `analysis` gives comes first, then what the metadata say under PYME's keys, then the defaults. A resolved
    analysis resolves to itself.

    Parameters
    ----------
    analysis : mapping
        Settings by name or by PYME key.
    metadata : mapping
        Metadata of the series; keys that are not settings are passed over.
    elsewhere : mapping
        Fits that are declared by others.

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
    given = _by_name(_with_options(analysis))
    fit = find(str(_value(BY_NAME["fit"], given, metadata)), elsewhere)
    settings = {setting.name: _value(setting, given, metadata, fit) for setting in SETTINGS}
    settings["fit"] = fit.name
    settings["options"] = _resolve_options(fit, settings["options"], metadata)
    if settings["start_at"] == "auto":
        settings["start_at"] = first_data_frame(metadata)
    if settings["roi_half_size"] is None:
        settings["roi_half_size"] = _default_roi_half_size(fit, settings, metadata)
    _check_consistency(settings)
    _check_fit(fit, settings)
    return settings


def check_given(metadata: Mapping[str, object]) -> None:
    """Refuse values that make no sense, in metadata that need not be complete.

    Raises
    ------
    InvalidMetadata
        If one is out of range, or of the wrong kind; names its key.
    """
    for key, complaint in complaints(metadata).items():
        raise InvalidMetadata((key,), f"{key} {complaint}")
    for key, value in metadata.items():
        if key in BY_KEY:
            try:
                parse(BY_KEY[key], value, given_as=key)
            except InvalidSettings as error:
                raise InvalidMetadata((key,), str(error)) from error


def _with_options(analysis: Mapping[str, object]) -> dict[str, object]:
    """Move what is given by the PYME key of a fit's own setting into `options`."""
    options = analysis.get("options")
    by_key = {OPTION_KEYS[key]: value for key, value in analysis.items() if key in OPTION_KEYS}
    rest = {key: value for key, value in analysis.items() if key not in OPTION_KEYS}
    if not by_key:
        return rest
    if options is not None and not isinstance(options, Mapping):
        return rest  # refused where all values are
    twice = by_key.keys() & (options or {}).keys()
    if twice:
        raise InvalidSettings(f"options.{min(twice)}", "given twice, as an option and by its PYME key")
    return rest | {"options": {**(options or {}), **by_key}}


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
    own = key.removeprefix("options.")
    owners = [fit.name for fit in known_fits().values() if own in {option.name for option in fit.options}]
    if owners:
        return f'is an option of {", ".join(owners)}: give it inside options, {{"{own}": …}}'
    known = {name.lower(): name for name in (*BY_NAME, *BY_KEY)}
    of_the_series = key.split(".", maxsplit=1)[0] in ("Camera", "voxelsize", "Protocol")
    nearest = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.85 if of_the_series else 0.5)
    if nearest:
        return f"unknown setting; did you mean {known[nearest[0]]}?"
    if of_the_series:
        return "unknown setting; it belongs in the metadata"
    return f"unknown setting; the settings are {', '.join(BY_NAME)}"


def _same(one: object, other: object) -> bool:
    plain = (type(None), bool, int, float, str, list, dict)
    if isinstance(one, plain) and isinstance(other, plain):
        return one == other
    return one is other


def _value(
    setting: Setting, given: Mapping[str, object], metadata: Mapping[str, object], fit: Fit | None = None
) -> object:
    unused = fit is not None and setting.name in fit.unused
    if setting.name in given:
        if fit is not None and unused and not _same(given[setting.name], setting.default):
            raise InvalidSettings(setting.name, f"{fit.name} does not use it")
        return given[setting.name]
    if setting.pyme_key is not None and not unused and metadata.get(setting.pyme_key) is not None:
        return parse(setting, metadata[setting.pyme_key], given_as=f"{setting.pyme_key} in the metadata")
    return copy.copy(setting.default if fit is None else fit.default_of(setting))


def _resolve_options(fit: Fit, given: object, metadata: Mapping[str, object]) -> dict[str, object]:
    options = dict(given) if isinstance(given, Mapping) else {}
    known = {option.name: option for option in fit.options}
    for name in options:
        if name not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            raise InvalidSettings(f"options.{name}", f"{fit.name} has no such option; {has}")
    return {name: _option(option, options, metadata) for name, option in known.items()}


def _option(option: Setting, given: Mapping[str, object], metadata: Mapping[str, object]) -> object:
    if option.name not in given:
        if option.pyme_key is None or metadata.get(option.pyme_key) is None:
            return copy.copy(option.default)
        return parse(option, metadata[option.pyme_key], given_as=f"{option.pyme_key} in the metadata")
    try:
        return parse(option, given[option.name])
    except InvalidSettings as error:
        raise InvalidSettings(f"options.{option.name}", error.reason) from None


def _default_roi_half_size(
    fit: Fit, settings: Mapping[str, object], metadata: Mapping[str, object]
) -> int | None:
    if settings["estimator"] == "wls":
        return _WLS_ROI_HALF_SIZE
    sigma_nm = settings["psf_sigma_nm"]
    pixel_nm = _pixel_nm(metadata)
    if pixel_nm is None or not isinstance(sigma_nm, float):
        return None
    half_size = max(3, round(fit.roi_widths * sigma_nm / pixel_nm))
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


def _check_fit(fit: Fit, settings: Mapping[str, object]) -> None:
    for name in fit.needs:
        if settings[name] is None:
            raise InvalidSettings(name, f"{fit.name} needs it")
    if settings["estimator"] not in fit.estimators:
        has = " and ".join(fit.estimators)
        raise InvalidSettings("estimator", f"{fit.name} cannot use {settings['estimator']}; it has {has}")
    fit.check_settings(settings)
