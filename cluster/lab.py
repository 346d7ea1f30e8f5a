"""What a lab's folders add to what is said of a series: microscope profiles, and camera maps in PYME's layout.

PYME keeps maps as `CALIBRATION/<serial number>/dark_<exposure>ms.tif`, `variance_<exposure>ms.tif` and `flatfield.tif`, with the
exposure in whole milliseconds, cut off. Such a folder may lie in that of the profiles, under a root, or anywhere (`calibration`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

from cluster.config import CALIBRATION_FOLDER, CALIBRATION_SHELF, PROFILES_SHELF, LabFolders
from cluster.errors import Invalid, Unavailable
from cluster.profiles import (
    EXPOSURE,
    KEY,
    MAP_KEYS,
    NONE,
    PROFILE,
    SERIAL,
    Profile,
    chosen,
    named,
    parse_profile,
)
from cluster.protocol import MetadataValue
from cluster.toml_files import read_toml, toml_files
from fitting.settings import BY_NAME

_PYME_NAMES: Final = {"dark_map": "dark_{ms}ms.tif", "variance_map": "variance_{ms}ms.tif"}
_PYME_FLAT: Final = "flatfield.tif"
_SERIAL: Final = re.compile(r"[\w][\w .()+-]{0,99}")
_SAME_THING: Final = {"dark_map": "Camera.ADOffset", "variance_map": "Camera.ReadNoise"}
"""What a map says of each pixel, a key says of all."""
_PATH_KEYS: Final = frozenset(key for name in ("psf", "shifts") if (key := BY_NAME[name].pyme_key))
_NO_MAP: Final = ("", "none", "<none>")


@dataclass
class Completed:
    """Metadata and settings with what the lab's folders add to them: what that was, in words, and what is doubtful about it."""

    metadata: dict[str, MetadataValue]
    analysis: dict[str, Any]
    added: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Return all that a person should know of it."""
        return [*self.added, *self.doubts]


@dataclass(frozen=True)
class Lab:
    """The lab's folders, and the roots as far as this machine sees them."""

    folders: LabFolders
    roots: tuple[Path, ...] = ()

    def profiles(self) -> tuple[list[Profile], list[str]]:
        """Return the profiles, and what is wrong with files that cannot be known to be for any series.

        Raises
        ------
        Unavailable
            If the folder is there and cannot be read.
        """
        found: list[Profile] = []
        broken: list[str] = []
        folder = self.folders.profiles
        try:
            files = toml_files(folder)
            if folder is not None and self.folders.configured and not folder.is_dir():
                raise FileNotFoundError(2, "it is not there")
        except OSError as error:
            raise Unavailable(
                f"the folder of profiles, {folder}, cannot be read: {error.strerror or error}; "
                f"--set {KEY}={NONE} goes on without profiles"
            ) from error
        for path in files:
            try:
                found.append(parse_profile(path.name, read_toml(path)))
            except Invalid as error:
                broken.append(error.detail)
        return found, broken

    def completed(self, metadata: Mapping[str, MetadataValue], analysis: Mapping[str, Any]) -> Completed:
        """Fill what nobody said of a series by the profiles that are for it, and find maps of its camera.

        `microscope` in the settings names one profile to use instead, or none.

        Raises
        ------
        Invalid
            If a profile for it is broken, or two of them are equally particular and differ; names the files and the key.
        NotFound
            If there is no profile of the name that was asked for.
        """
        given = dict(analysis)
        asked = given.pop(KEY, None)
        done = Completed(dict(metadata), given)
        if asked is not None and not isinstance(asked, str):
            raise Invalid(f"{KEY}: must be the name of a profile, not {asked!r}", field=f"analysis.{KEY}")
        if wants_none(analysis):
            return done
        chosen_ones = self._chosen(done, asked)
        _fill_values(done, chosen_ones, self.served)
        self._fill_maps(done, chosen_ones)
        return done

    def served(self, path: str) -> str:
        """Return how a data server names a file that a profile names: from the profiles' folder, else from a root, or absolutely."""
        slashed = path.replace("\\", "/")
        if not (PurePosixPath(slashed).is_absolute() or PureWindowsPath(slashed).is_absolute()):
            beside = self.folders.profiles is not None and (self.folders.profiles / slashed).is_file()
            plain = PurePosixPath(slashed).as_posix()
            return f"{PROFILES_SHELF}/{plain}" if beside else plain
        for prefix, folder in self._places():
            if Path(path).is_relative_to(folder):
                return prefix + Path(path).relative_to(folder).as_posix()
        return path

    def _places(self) -> Iterable[tuple[str, Path]]:
        yield from ((f"{name}/", folder) for name, folder in self.folders.shelves.items())
        yield from (("", root) for root in self.roots)

    def _chosen(self, done: Completed, asked: str | None) -> list[Profile]:
        profiles, broken = self.profiles()
        said = _values(done.metadata)
        if asked is None:
            found = [profile for profile in profiles if profile.is_for(said)]
            done.doubts += [f"not used: profile {problem}" for problem in broken]
            faulty = (profile for profile in profiles if profile.fault and profile not in found)
            done.doubts += [f"profile {profile.fault} (it is not for this series)" for profile in faulty]
        else:
            _refuse_broken(asked, broken)
            found = [named(profiles, asked)]
            done.doubts += _taken_as(done, found[0])
        for profile in found:
            if profile.fault:
                why = "it is for this series" if asked is None else "it was asked for"
                raise Invalid(f"profile {profile.fault}; {why}", field=f"analysis.{KEY}")
        return found

    def _fill_maps(self, done: Completed, profiles: Sequence[Profile]) -> None:
        self._find_again(done)
        exposure = _value(done.metadata, EXPOSURE)
        rest = [name for name in MAP_KEYS if _is_open(done, name)]
        for name in tuple(rest):
            offers = [(one, file) for one in profiles if (file := one.map_file(name, exposure)) is not None]
            found = chosen(offers, name)
            if found is not None:
                _use_map(done, name, self.served(found[1]), found[0].source)
                rest.remove(name)
        done.doubts += _unsaid_exposure(profiles, exposure)
        self._fill_from_layout(done, rest, exposure)

    def _find_again(self, done: Completed) -> None:
        """Files say where a map was on the machine that wrote them; what was in PYME's folder there may be in ours."""
        for key in MAP_KEYS.values():
            entry = done.metadata.get(key)
            if entry is None or entry.source == "job" or not isinstance(entry.value, str):
                continue
            folder, _, rest = entry.value.replace("\\", "/").rpartition(f"/{CALIBRATION_FOLDER}/")
            parts = rest.split("/")
            if folder and len(parts) == 2 and _SERIAL.fullmatch(parts[0]):
                found = (
                    prefix for prefix, place in self._layouts() if (place / parts[0] / parts[1]).is_file()
                )
                if (prefix := next(found, None)) is not None:
                    done.metadata[key] = MetadataValue(
                        value=prefix + rest, source=f"{entry.source}: {entry.value}"
                    )

    def _fill_from_layout(self, done: Completed, names: Collection[str], exposure_s: Any) -> None:
        serial = str(_value(done.metadata, SERIAL) or "").strip()
        if not names or not _SERIAL.fullmatch(serial) or serial != serial.rstrip(" ."):
            return
        for prefix, folder in self._layouts():
            cameras = folder / serial
            if cameras.is_dir():
                found, note = maps_of_layout(cameras, exposure_s)
                done.doubts += [f"{CALIBRATION_FOLDER}/{serial}: {note}"] if note else []
                for name in sorted(set(names) & found.keys()):
                    source = f"{CALIBRATION_FOLDER}/{serial} in {folder.parent}"
                    _use_map(done, name, f"{prefix}{serial}/{found[name]}", source)
                return

    def _layouts(self) -> Iterable[tuple[str, Path]]:
        if self.folders.profiles is not None:
            yield f"{PROFILES_SHELF}/{CALIBRATION_FOLDER}/", self.folders.profiles / CALIBRATION_FOLDER
        if self.folders.calibration is not None:
            yield f"{CALIBRATION_SHELF}/", self.folders.calibration
        yield from ((f"{CALIBRATION_FOLDER}/", root / CALIBRATION_FOLDER) for root in self.roots)


def is_of_lab(source: str) -> bool:
    """Return whether a value comes from the lab's folders, by its label."""
    return source.startswith((PROFILE, f"{CALIBRATION_FOLDER}/"))


def wants_none(analysis: Mapping[str, Any]) -> bool:
    """Return whether settings ask for no profile at all."""
    asked = analysis.get(KEY)
    return isinstance(asked, str) and asked.strip().casefold() == NONE


def maps_of_layout(folder: Path, exposure_s: Any) -> tuple[dict[str, str], str | None]:
    """Return the maps in a camera's folder for an exposure [s], by the name of their setting, and what to note of it.

    A map of another exposure is not used: dark level and noise depend on it.
    """
    there = {path.name.lower(): path.name for path in folder.iterdir() if path.is_file()}
    found = {"flatfield_map": there[_PYME_FLAT]} if _PYME_FLAT in there else {}
    is_known = isinstance(exposure_s, int | float) and not isinstance(exposure_s, bool)
    wanted = (
        dict.fromkeys((int(1000 * exposure_s), round(1000 * exposure_s))) if is_known else ()
    )  # PYME cuts off
    passed_over: list[str] = []
    for setting, pattern in _PYME_NAMES.items():
        fitting = [name for ms in wanted if (name := pattern.format(ms=ms)) in there]
        if fitting:
            found[setting] = there[fitting[0]]
        else:
            begins = pattern.partition("{")[0]
            passed_over += sorted(
                name for name in there if name.startswith(begins) and name.endswith("ms.tif")
            )
    if not passed_over:
        return found, None
    why = (
        f"the exposure is {1000 * exposure_s:g} ms" if is_known else f"the series does not say {EXPOSURE} [s]"
    )
    return found, f"{', '.join(passed_over)} not used: {why}"


def _values(metadata: Mapping[str, MetadataValue]) -> dict[str, Any]:
    return {key: entry.value for key, entry in metadata.items()}


def _value(metadata: Mapping[str, MetadataValue], key: str) -> Any:
    entry = metadata.get(key)
    return None if entry is None else entry.value


def _refuse_broken(asked: str, broken: Sequence[str]) -> None:
    file = f"{asked.strip().casefold().removesuffix('.toml')}.toml"
    for problem in broken:
        if problem.casefold().startswith(file):
            raise Invalid(f"profile {problem}", field=f"analysis.{KEY}")


def _taken_as(done: Completed, profile: Profile) -> list[str]:
    """A profile that was chosen by name says which camera it was, if the series does not; return what contradicts it."""
    if profile.serial is not None and _value(done.metadata, SERIAL) is None:
        done.metadata[SERIAL] = MetadataValue(value=profile.serial, source=profile.source)
    said = _values(done.metadata)
    failed = [one for one in profile.when if said.get(one.key) is not None and not one.holds(said)]
    return [
        f"profile {profile.file} was asked for; it is for {one}, and {one.key} is {said[one.key]}"
        for one in failed
    ]


def _fill_values(done: Completed, profiles: Sequence[Profile], served: Callable[[str], str]) -> None:
    filled: dict[str, list[str]] = {}
    for key in sorted({key for profile in profiles for key in profile.values}):
        if _value(done.metadata, key) is not None:
            continue
        found = chosen([(one, one.values[key]) for one in profiles if key in one.values], key)
        if found is not None:
            profile, value = found
            value = served(value) if key in _PATH_KEYS and isinstance(value, str) else value
            done.metadata[key] = MetadataValue(value=value, source=profile.source)
            filled.setdefault(profile.file, []).append(f"{key} {value}")
    done.added += [f"profile {file}: {', '.join(said)}" for file, said in filled.items()]


def _is_open(done: Completed, setting: str) -> bool:
    """Return whether nobody has said which map to use, or that the job gives one number for all pixels."""
    key = MAP_KEYS[setting]
    entry, said = done.metadata.get(key), _value(done.metadata, key)
    if setting in done.analysis or key in done.analysis or (entry is not None and entry.source == "job"):
        return False
    if said is not None and not (isinstance(said, str) and said.strip().lower() in _NO_MAP):
        return False
    number = done.metadata.get(_SAME_THING.get(setting, ""))
    return number is None or number.source != "job"


def _use_map(done: Completed, setting: str, path: str, source: str) -> None:
    done.metadata[MAP_KEYS[setting]] = MetadataValue(value=path, source=source)
    number = _SAME_THING.get(setting)
    instead = f", instead of {number}" if number in done.metadata else ""
    done.added.append(f"{source.replace(PROFILE, 'profile ')}: {setting} {path}{instead}")


def _unsaid_exposure(profiles: Sequence[Profile], exposure_s: Any) -> list[str]:
    if exposure_s is not None:
        return []
    return [
        f"profile {profile.file}: its maps for certain exposures are not used: the series does not say {EXPOSURE} [s]"
        for profile in profiles
        if any(maps.exposure_s is not None for maps in profile.maps)
    ]
