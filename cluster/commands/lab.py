"""`clusterofone profiles | presets`: what the lab has written down of its microscopes and analyses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cluster.commands import console, surroundings
from cluster.commands.connection import (
    Connection,
    Scheduler,
    Token,
    connect,
    is_part_of_a_file,
    relative_to_roots,
)
from cluster.commands.options import Json
from cluster.lab import Lab
from cluster.lab_listing import list_presets, list_profiles
from cluster.locate import read_config
from cluster.presets import BUILT_IN
from cluster.profiles import NONE
from cluster.protocol import MetadataValue, PresetInfo, ProfileInfo, ProfileListing
from fitting import fits

_NAME: Final = re.compile(r"\w[\w .+-]{0,63}")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(profiles)
    app.command()(presets)


def profiles(
    series: Annotated[
        str | None,
        typer.Argument(metavar="SERIES", help="Say which are for this series, and what it gets of them."),
    ] = None,
    new: Annotated[
        str | None,
        typer.Option(
            "--new", metavar="NAME", help="Begin a profile, with what the series says of its camera."
        ),
    ] = None,
    scheduler: Scheduler = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """List the microscope profiles: what holds for the series of a camera where nobody says otherwise.

    They are the TOML files of one folder, `profiles = "…"` in config.toml, which may lie on a share.

    Examples: [bold]clusterofone profiles[/] · [bold]clusterofone profiles series.tif[/] · [bold]clusterofone profiles series.tif --new left[/]
    """
    if new is not None:
        path = _begun(new, series, scheduler, token)
        console.say(
            f"begun: {path}\nComplete it in any editor; clusterofone profiles SERIES says what comes of it."
        )
        if json:
            console.print_json({"file": str(path)})
        return
    connection = _cluster_of(series, scheduler, token)
    if connection is None:
        found = _listed_here(series)
    else:
        with connection.client as client:
            found = client.profiles(None if series is None else connection.name_of(series))
    if json:
        console.print_json(found)
    else:
        for line in told(found):
            console.out.print(line, markup=False)


def presets(scheduler: Scheduler = None, token: Token = None, json: Json = False) -> None:
    """List the presets: settings under a name, to begin with.

    A lab adds its own, a TOML file NAME.toml each in the folder `presets = "…"` of config.toml: its title and a table of settings.

    Examples: [bold]clusterofone presets[/] · [bold]clusterofone localise series.tif --set preset=dna-paint[/]
    """
    connection = _cluster_of(None, scheduler, token)
    if connection is None:
        found = list_presets(Lab(surroundings.lab_folders()), {})
    else:
        with connection.client as client:
            found = client.presets()
    if json:
        console.print_json({"presets": [preset.model_dump(mode="json") for preset in found]})
    else:
        for preset in found:
            console.out.print(told_of_preset(preset), markup=False)


def told(listing: ProfileListing) -> Iterator[str]:
    """Say what there is, and what a series gets, line by line."""
    if not listing.profiles:
        yield f"No profiles in {listing.folder}. Begin one: clusterofone profiles SERIES --new NAME"
    else:
        yield f"profiles in {listing.folder}:"
    for profile in listing.profiles:
        yield f"  {profile.file}{f'  {profile.title}' if profile.title else ''}"
        yield from (f"    {line}" for line in _told_of_profile(profile))
    if listing.series is None:
        return
    yield f"{listing.series} gets:" if listing.filled else f"{listing.series} gets nothing of them."
    for key, entry in listing.filled.items():
        yield f"  {key} = {entry.value}  ({entry.source})"
    yield from (f"note: {note}" for note in listing.notes)
    if listing.problem:
        yield f"problem: {listing.problem}"
    if listing.missing:
        said = ", ".join(f"{key} {fits.KEYS[key]}" for key in listing.missing)
        yield f"still missing: {said}"


def _told_of_profile(profile: ProfileInfo) -> Iterator[str]:
    if profile.when or not profile.problem:
        yield f"for {' and '.join(profile.when)}" if profile.when else "for nobody, unless a job names it"
    if profile.values:
        yield f"says {', '.join(f'{key} {value}' for key, value in profile.values.items())}"
    for maps in profile.maps:
        exposure = f", exposure {maps['exposure_s']} s" if "exposure_s" in maps else ""
        files = ", ".join(f"{name} {file}" for name, file in maps.items() if name != "exposure_s")
        yield f"maps {files}{exposure}"
    if profile.problem:
        yield f"PROBLEM {profile.problem.removeprefix(f'{profile.file}: ')}"
    if profile.matches is not None:
        yield "is for this series" if profile.matches else f"is not for this series: {profile.reason}"


def told_of_preset(preset: PresetInfo) -> str:
    """Say what a preset is."""
    settings = ", ".join(f"{key} {value}" for key, value in preset.settings.items())
    title = f"  {preset.title}" if preset.title else ""
    source = "" if preset.source == BUILT_IN else f"  ({preset.source})"
    problem = f"\n    PROBLEM {preset.problem}" if preset.problem else ""
    return f"{preset.name}{title}{source}{f'{chr(10)}    {settings}' if settings else ''}{problem}"


def _cluster_of(series: str | None, scheduler: str | None, token: str | None) -> Connection | None:
    """Return the cluster that is named, or this user's own if it has the series: the one that a job would go to."""
    if scheduler is not None or read_config(surroundings.places().config).scheduler:
        return connect(scheduler, token)
    runtime = surroundings.own_runtime()
    if runtime is None:
        return None
    if series is not None and _is_here(series) and relative_to_roots(Path(series), runtime.roots) is None:
        return None
    return connect(None, token)


def _listed_here(series: str | None) -> ProfileListing:
    """Answer without a cluster: as a private one would."""
    folders = surroundings.lab_folders()
    if series is None:
        return list_profiles(Lab(folders))
    file = _file(series)
    return list_profiles(Lab(folders, (file.resolve().parent,)), file.name, _metadata(file))


def _file(series: str) -> Path:
    file = Path(series)
    if not _is_here(series):
        console.refuse(f"{series}: there is no such file")
    return file


def _is_here(series: str) -> bool:
    """Return whether this machine has the series: a file, a part of one (cell.h5!images), or a folder."""
    return Path(series).exists() or is_part_of_a_file(Path(series))


def _metadata(file: Path) -> dict[str, MetadataValue]:
    from cluster.series_files import opened

    with opened(file) as found:
        return {key: MetadataValue(value=value, source="file") for key, value in found.metadata.items()}


def _begun(name: str, series: str | None, scheduler: str | None, token: str | None) -> Path:
    from cluster.profile_template import template

    if not _NAME.fullmatch(name) or name.casefold() == NONE:
        console.refuse(f"--new {name!r}: letters, digits, space and . _ + - only, and not {NONE!r}")
    folder = surroundings.lab_folders().profiles
    assert folder is not None
    path = folder / f"{name.removesuffix('.toml')}.toml"
    text = template(path.stem, _said(series, scheduler, token))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        console.refuse(f"{path}: exists; it stays as it is")
    return path


def _said(series: str | None, scheduler: str | None, token: str | None) -> dict[str, Any]:
    if series is None:
        return {}
    if scheduler is None and _is_here(series):
        return {key: entry.value for key, entry in _metadata(Path(series)).items()}
    connection = connect(scheduler, token)
    with connection.client as client:
        facts = client.facts(connection.name_of(series))
    return {key: entry.value for key, entry in facts.metadata.items()}
