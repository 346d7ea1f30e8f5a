"""What a lab's folders hold, for people and programs to see, and what a series would get of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.errors import CallerError
from cluster.lab import Lab
from cluster.presets import fault_of, read_shelf
from cluster.profiles import KEY, NONE, Profile
from cluster.protocol import MetadataValue, PresetInfo, ProfileInfo, ProfileListing
from fitting import fits
from fitting.errors import FittingError
from fitting.fit_types import Fit


def list_presets(lab: Lab, elsewhere: Mapping[str, Fit]) -> list[PresetInfo]:
    """Return the presets, built-in ones first, then the lab's own, then files that cannot be used.

    `elsewhere` are fits that only workers have.
    """
    shelf = read_shelf(lab.folders.presets)
    found = [
        PresetInfo(
            name=preset.name,
            title=preset.title,
            settings=dict(preset.settings),
            source=preset.source,
            problem=fault_of(preset, elsewhere),
        )
        for preset in shelf.presets.values()
    ]
    broken = [
        PresetInfo(name=name or "?", title="", settings={}, source=f"{name}.toml", problem=fault)
        for name, fault in shelf.faults.items()
    ]
    return found + broken


def list_profiles(
    lab: Lab, series: str | None = None, metadata: Mapping[str, MetadataValue] | None = None
) -> ProfileListing:
    """Return the profiles, and what a series of these metadata would get; raises `Unavailable` if the folder cannot be read."""
    profiles, broken = lab.profiles()
    said = None if metadata is None else {key: entry.value for key, entry in metadata.items()}
    infos = [_info(profile, said) for profile in profiles]
    infos += [ProfileInfo(name=_file(fault), file=_file(fault), problem=fault) for fault in broken]
    listing = ProfileListing(folder=_folder(lab), profiles=infos, series=series)
    return listing if metadata is None else listing.model_copy(update=_got(lab, metadata))


def _got(lab: Lab, metadata: Mapping[str, MetadataValue]) -> dict[str, Any]:
    try:
        done = lab.completed(metadata, {})
        problem, doubts = None, done.doubts
    except CallerError as error:
        done = lab.completed(metadata, {KEY: NONE})
        problem, doubts = error.detail, []
    filled = {key: entry for key, entry in done.metadata.items() if entry != metadata.get(key)}
    values = {key: entry.value for key, entry in done.metadata.items()}
    try:
        missing = fits.missing_metadata(fits.resolve({}, values), values)
    except FittingError as error:
        missing, problem = (), problem or str(error)
    return {"filled": filled, "missing": list(missing), "notes": doubts, "problem": problem}


def _info(profile: Profile, said: Mapping[str, Any] | None) -> ProfileInfo:
    matches = None if said is None else profile.is_for(said)
    return ProfileInfo(
        name=profile.name,
        file=profile.file,
        title=profile.title,
        when=[str(condition) for condition in profile.when],
        values=dict(profile.values),
        maps=[{**maps.files, **_exposures(maps.exposure_s)} for maps in profile.maps],
        matches=matches,
        reason=None if said is None or matches else profile.why_not(said),
        problem=profile.fault,
    )


def _exposures(wanted: object) -> dict[str, str]:
    return {} if wanted is None else {"exposure_s": str(wanted)}


def _folder(lab: Lab) -> str | None:
    return None if lab.folders.profiles is None else str(lab.folders.profiles)


def _file(fault: str) -> str:
    """Return the file that a fault begins with."""
    return fault.partition(".toml")[0] + ".toml"
