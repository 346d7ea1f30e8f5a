"""Named settings to begin with: a job may say `preset`, and whatever it says beside that wins.

They are starting points, not truths: `clusterofone test` shows what they find. A lab adds its own, a file `NAME.toml` each, under
names that are not taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cluster.errors import Invalid
from cluster.profiles import KEY as MICROSCOPE
from cluster.toml_files import check_tables, read_toml, table_of, text_of, toml_files
from fitting import fits
from fitting.errors import FittingError
from fitting.fit_types import Fit

KEY: Final = "preset"
BUILT_IN: Final = "built-in"
_TABLES: Final = ("title", "settings")


@dataclass(frozen=True)
class Preset:
    """Settings under a name, and for whom they are. `source` is the file of a lab's own."""

    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = BUILT_IN


PRESETS: Final = {
    preset.name: preset
    for preset in (
        Preset("dstorm", "dSTORM: bright, blinking fast", {"threshold": 1.0, "background": "-30:0"}),
        Preset("palm", "PALM: dim fluorescent proteins", {"threshold": 0.8, "background": "-30:0"}),
        Preset(
            "dna-paint",
            "DNA-PAINT: bright, bound for many frames, which a background of earlier frames would subtract",
            {"threshold": 2.0, "background": "0:0"},
        ),
        Preset(
            "beads",
            "beads: there in every frame, far apart",
            {"threshold": 2.0, "background": "0:0", "debounce_radius": 8},
        ),
    )
}


@dataclass(frozen=True)
class Shelf:
    """The presets that there are, the lab's own after the built-in ones, by lower-case name; and what is wrong with files, by theirs."""

    presets: Mapping[str, Preset] = field(default_factory=lambda: PRESETS)
    faults: Mapping[str, str] = field(default_factory=dict)


def read_shelf(folder: Path | None) -> Shelf:
    """Return the built-in presets and those in a folder."""
    own: dict[str, Preset] = {}
    faults: dict[str, str] = {}
    try:
        files = toml_files(folder)
    except OSError as error:
        return Shelf(
            PRESETS, {"": f"the folder of presets, {folder}, cannot be read: {error.strerror or error}"}
        )
    for path in files:
        name = path.stem.lower()
        try:
            own[name] = _parse(path.name, name, read_toml(path))
        except Invalid as error:
            faults[name] = error.detail
    return Shelf({**PRESETS, **own}, faults)


def with_preset(
    analysis: Mapping[str, Any], shelf: Shelf | None = None, elsewhere: Mapping[str, Fit] | None = None
) -> tuple[dict[str, Any], str | None]:
    """Return the settings with those of the preset they name under them, and what to note of it.

    `elsewhere` are fits that only workers have.

    Raises
    ------
    Invalid
        If there is no such preset, or its file is broken; names those there are.
    """
    given = dict(analysis)
    name = given.pop(KEY, None)
    if name is None:
        return given, None
    preset, fault = _found(str(name), shelf or Shelf())
    if preset.source != BUILT_IN and (wrong := fault_of(preset, elsewhere or {})) is not None:
        raise Invalid(f"preset: {wrong}", field="analysis.preset")
    said = ", ".join(
        f"{key} {value}" + (f" (but {given[key]} was given)" if key in given and given[key] != value else "")
        for key, value in preset.settings.items()
    )
    source = "" if preset.source == BUILT_IN else f" ({preset.source})"
    return {
        **preset.settings,
        **given,
    }, f"preset {preset.name}{source}: {said}{f'; {fault}' if fault else ''}"


def fault_of(preset: Preset, elsewhere: Mapping[str, Fit]) -> str | None:
    """Return what is wrong with the settings of a preset, naming its file; `elsewhere` are fits that only workers have."""
    settings = {key: value for key, value in preset.settings.items() if key != MICROSCOPE}
    try:
        fit = fits.find(str(settings.get("fit", "LatGaussFitFR")), elsewhere)
        fits.resolve(dict.fromkeys(fit.needs, "…") | settings, {}, elsewhere)
    except FittingError as error:
        return f"{preset.source}: settings: {error}"
    return None


def _found(name: str, shelf: Shelf) -> tuple[Preset, str | None]:
    wanted = name.lower().removesuffix(".toml")
    fault = shelf.faults.get(wanted)
    preset = shelf.presets.get(wanted)
    if preset is not None:
        return preset, fault
    if fault is not None:
        raise Invalid(f"preset: {fault}", field="analysis.preset")
    broken = "".join(f"; {one}" for one in shelf.faults.values())
    raise Invalid(
        f"preset: there is no {name[:50]!r}; there are {', '.join(shelf.presets)}{broken}",
        field="analysis.preset",
    )


def _parse(file: str, name: str, document: Mapping[str, Any]) -> Preset:
    if name in PRESETS:
        raise Invalid(
            f"{file} is not used: {name} is the name of a built-in preset; give the file another name"
        )
    check_tables(file, document, _TABLES)
    settings = table_of(file, document, "settings")
    if not settings:
        raise Invalid(f"{file}: settings: there are none; write them under [settings]", field="settings")
    if KEY in settings:
        raise Invalid(f"{file}: settings: a preset cannot name another one", field=f"settings.{KEY}")
    return Preset(name, text_of(file, document, "title", ""), settings, file)
