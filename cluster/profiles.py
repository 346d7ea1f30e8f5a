"""Microscope profiles: for which series each is, and what it says of their camera and optics. No files are touched here.

A profile is for the series for which every line of its `when` holds; the more lines, the more particular it is. Without any it
is for nobody, unless a job names it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cluster.errors import Invalid, NotFound
from cluster.metadata_keys import check_known
from cluster.toml_files import check_tables, table_of, text_of
from fitting import fits
from fitting.errors import InvalidMetadata

KEY: Final = "microscope"
NONE: Final = "none"
PROFILE: Final = "profile: "
"""What the label of a value from a profile begins with; its file follows."""
SERIAL: Final = "Camera.SerialNumber"
EXPOSURE: Final = "Camera.IntegrationTime"
MAP_KEYS: Final = {
    setting.name: setting.pyme_key for setting in fits.SETTINGS if setting.type == "map" and setting.pyme_key
}
"""The metadata key of each camera map, by the name of its setting."""
_TABLES: Final = ("title", "when", "values", "maps")
_BOUNDS: Final = ("from", "to")
_CLOSE: Final = 1e-6


@dataclass(frozen=True)
class Range:
    """From a number to a number, both included."""

    low: float = -math.inf
    high: float = math.inf

    def holds(self, value: Any) -> bool:
        """Return whether a number lies in it."""
        if not _is_number(value):
            return False
        slack = _CLOSE * abs(value)
        return bool(self.low - slack <= value <= self.high + slack)

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"from {self.low:g}"
        return f"up to {self.high:g}" if math.isinf(self.low) else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Condition:
    """What the metadata must say: one of several values, or a number in a range."""

    key: str
    wanted: Range | tuple[Any, ...]

    def holds(self, said: Mapping[str, Any]) -> bool:
        """Return whether metadata say so; what they do not say does not hold."""
        value = said.get(self.key)
        if value is None:
            return False
        if isinstance(self.wanted, Range):
            return self.wanted.holds(value)
        return any(_same(value, wanted) for wanted in self.wanted)

    def __str__(self) -> str:
        wanted = str(self.wanted) if isinstance(self.wanted, Range) else " or ".join(map(str, self.wanted))
        return f"{self.key} {wanted}"


@dataclass(frozen=True)
class Maps:
    """Camera maps by the name of their setting, for exposures in a range, or for all."""

    files: Mapping[str, str]
    exposure_s: Range | None = None


@dataclass(frozen=True)
class Profile:
    """A microscope. `fault` is what is wrong in the file beside `when`: it matters to the series that the profile is for."""

    file: str
    title: str = ""
    when: tuple[Condition, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    maps: tuple[Maps, ...] = ()
    fault: str | None = None

    @property
    def name(self) -> str:
        """Return the name by which a job may ask for it."""
        return self.file.rpartition(".")[0]

    @property
    def source(self) -> str:
        """Return how a value from it is labelled."""
        return f"{PROFILE}{self.file}"

    @property
    def serial(self) -> Any:
        """Return the serial number of its camera, if it is for exactly one."""
        wanted = next((condition.wanted for condition in self.when if condition.key == SERIAL), ())
        return wanted[0] if isinstance(wanted, tuple) and len(wanted) == 1 else None

    def is_for(self, said: Mapping[str, Any]) -> bool:
        """Return whether it is for the series of these metadata."""
        return bool(self.when) and all(condition.holds(said) for condition in self.when)

    def why_not(self, said: Mapping[str, Any]) -> str:
        """Say why it is not for a series."""
        if not self.when:
            return f"only where a job names it: {KEY}={self.name}"
        failed = next(condition for condition in self.when if not condition.holds(said))
        value = said.get(failed.key)
        found = f"the series does not say {failed.key}" if value is None else f"{failed.key} is {value}"
        return f"{found}, not {str(failed).removeprefix(failed.key).strip()}"

    def map_file(self, setting: str, exposure_s: Any) -> str | None:
        """Return its map for an exposure; maps of a range come before those of any exposure.

        Raises
        ------
        Invalid
            If several ranges hold the exposure and name different files.
        """
        offered = [maps for maps in self.maps if setting in maps.files]
        fitting = [
            maps for maps in offered if maps.exposure_s is not None and maps.exposure_s.holds(exposure_s)
        ]
        fitting = fitting or [maps for maps in offered if maps.exposure_s is None]
        files = list(dict.fromkeys(maps.files[setting] for maps in fitting))
        if len(files) > 1:
            raise Invalid(
                f"{self.file}: maps: {setting}: both {files[0]} and {files[1]} are for this exposure "
                f"({EXPOSURE} {exposure_s})",
                field=f"maps.{setting}",
            )
        return files[0] if files else None


def parse_profile(file: str, document: Mapping[str, Any]) -> Profile:
    """Make a profile of what its file holds.

    Raises
    ------
    Invalid
        If it cannot be known for whom it is; names the file and the key. Anything else that is wrong is its `fault`.
    """
    if file.rpartition(".")[0].strip().casefold() == NONE:
        raise Invalid(f"{file}: {KEY}={NONE} means no profile at all; give the file another name")
    when = tuple(
        _condition(file, key, wanted) for key, wanted in _flat(table_of(file, document, "when")).items()
    )
    try:
        check_tables(file, document, _TABLES)
        return Profile(
            file,
            text_of(file, document, "title", ""),
            when,
            _values(file, table_of(file, document, "values")),
            tuple(_maps(file, number, maps) for number, maps in enumerate(_list_of_maps(file, document), 1)),
        )
    except Invalid as error:
        return Profile(file, when=when, fault=error.detail)


def named(profiles: Iterable[Profile], name: str) -> Profile:
    """Return the profile of a name, with or without `.toml`; raises `NotFound` naming those there are."""
    there = {profile.name: profile for profile in profiles}
    wanted = name.strip().casefold().removesuffix(".toml")
    for known, profile in there.items():
        if known.casefold() == wanted:
            return profile
    said = ", ".join(there) or "no profiles"
    raise NotFound(
        f"{KEY}: there is no profile {name[:50]!r}; there are {said} ({NONE}: use none at all)",
        field=f"analysis.{KEY}",
    )


def chosen(offers: Sequence[tuple[Profile, Any]], key: str) -> tuple[Profile, Any] | None:
    """Return the most particular profile's value of a key, among (profile, value).

    Raises
    ------
    Invalid
        If profiles that are equally particular say different things; names both.
    """
    if not offers:
        return None
    most = max(len(profile.when) for profile, _ in offers)
    first, *others = [offer for offer in offers if len(offer[0].when) == most]
    for profile, value in others:
        if not _same(value, first[1]):
            raise Invalid(
                f"{key}: the profiles {first[0].file} ({first[1]}) and {profile.file} ({value}) are both for this series, "
                f"with as many conditions, and differ; give one a further line under [when], or choose: "
                f"--set {KEY}={first[0].name}",
                field=f"analysis.{KEY}",
            )
    return first


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys, which TOML takes for tables in tables unless they are quoted; a table of bounds is a value."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value and not set(value) & set(_BOUNDS):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _condition(file: str, key: str, wanted: Any) -> Condition:
    if isinstance(wanted, dict):
        if not wanted or not set(wanted) <= set(_BOUNDS):
            raise Invalid(
                f"{file}: when: {key} must be {{ from = …, to = … }}, or one of the two, not {wanted!r}",
                field=f"when.{key}",
            )
        return Condition(key, _range(file, f"when: {key}", wanted.get("from"), wanted.get("to")))
    values = tuple(wanted) if isinstance(wanted, list) else (wanted,)
    if not values or not all(isinstance(value, str | int | float | bool) for value in values):
        raise Invalid(
            f"{file}: when: {key} must be a text, a number, a list of these, or {{ from = …, to = … }}, not {wanted!r}",
            field=f"when.{key}",
        )
    return Condition(key, values)


def _range(file: str, where: str, low: Any, high: Any) -> Range:
    for bound in (low, high):
        if bound is not None and not _is_number(bound):
            raise Invalid(f"{file}: {where} must be numbers from … to …, not {bound!r}", field=where)
    found = Range(-math.inf if low is None else low, math.inf if high is None else high)
    if not found.low <= found.high:
        raise Invalid(f"{file}: {where}: from {low} is above to {high}", field=where)
    return found


def _values(file: str, table: Mapping[str, Any]) -> dict[str, Any]:
    values = _flat(table)
    for key, value in values.items():
        if not isinstance(value, str | int | float | bool | list):
            raise Invalid(
                f"{file}: values: {key} must be a number, a text or a list, not {value}",
                field=f"values.{key}",
            )
    try:
        check_known(values)
        fits.check_given(values)
    except Invalid as error:
        raise Invalid(f"{file}: values: {error.detail.removeprefix('metadata: ')}") from error
    except InvalidMetadata as error:
        raise Invalid(f"{file}: values: {error}") from error
    for setting, key in MAP_KEYS.items():
        if key in values:
            raise Invalid(
                f'{file}: values: {key} is a camera map; write it under [[maps]] as {setting} = "FILE"',
                field=f"values.{key}",
            )
    return values


def _list_of_maps(file: str, document: Mapping[str, Any]) -> list[Any]:
    found = document.get("maps", [])
    if isinstance(found, dict):
        return [found]
    if not isinstance(found, list) or not all(isinstance(maps, dict) for maps in found):
        raise Invalid(f"{file}: maps must be tables, [[maps]]", field="maps")
    return found


def _maps(file: str, number: int, table: Mapping[str, Any]) -> Maps:
    where = f"maps {number}"
    for key in table:
        if key not in (*MAP_KEYS, "exposure_s"):
            raise Invalid(
                f"{file}: {where}: {key} is unknown; there are {', '.join(MAP_KEYS)}, exposure_s",
                field=f"maps.{key}",
            )
    files = {key: path for key, path in table.items() if key in MAP_KEYS}
    for key, path in files.items():
        if not isinstance(path, str) or not path:
            raise Invalid(
                f"{file}: {where}: {key} must be the path of a file, in quotes", field=f"maps.{key}"
            )
    if not files:
        raise Invalid(f"{file}: {where}: names no map; there are {', '.join(MAP_KEYS)}", field="maps")
    return Maps(files, _exposures(file, f"{where}: exposure_s", table.get("exposure_s")))


def _exposures(file: str, where: str, said: Any) -> Range | None:
    match said:
        case None:
            return None
        case [low, high]:
            return _range(file, where, low, high)
        case {**bounds} if bounds and set(bounds) <= set(_BOUNDS):
            return _range(file, where, bounds.get("from"), bounds.get("to"))
        case value if _is_number(value):
            return Range(value, value)
        case _:
            raise Invalid(
                f"{file}: {where} must be seconds, [from, to], not {said!r}", field="maps.exposure_s"
            )


def _same(one: Any, other: Any) -> bool:
    """Whether two values mean the same: a serial number is one also where one side took it for a number."""
    if _is_number(one) and _is_number(other):
        return math.isclose(one, other, rel_tol=_CLOSE)
    if isinstance(one, list | dict) or isinstance(other, list | dict):
        return bool(one == other)
    return str(one).strip().casefold() == str(other).strip().casefold()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
