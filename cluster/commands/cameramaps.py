"""`clusterofone cameramaps`: offset, variance, gain and flat field of every pixel, from dark and evenly lit series."""

from __future__ import annotations

import json as json_text
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cluster.commands import console
from cluster.commands.options import Json

if TYPE_CHECKING:
    from fitting.calibration.camera_maps import CameraMaps
    from fitting.calibration.pixel_sums import PixelStatistics

_MAPS: Final = {
    "dark": "dark_adu",
    "variance": "variance",
    "flatfield": "flatfield",
    "gain": "gain_adu_per_e",
}
_SETTINGS: Final = {"dark": "dark_map", "variance": "variance_map", "flatfield": "flatfield_map"}
_KEY: Final = "Camera.ElectronsPerCount"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(cameramaps)


def cameramaps(
    dark: Annotated[
        Path, typer.Argument(metavar="DARK.tif", help="A series without light, hundreds of frames or more.")
    ],
    flats: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FLAT.tif...]", help="Series with even light, each at another level."),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where to write the maps.")
    ] = Path("camera"),
    electrons_per_adu: Annotated[
        float | None,
        typer.Option(
            help="What an ADU is worth \\[e⁻].", show_default="from the flat series, else as the file says"
        ),
    ] = None,
    even_light: Annotated[
        bool,
        typer.Option("--even-light", help="The light was even (a sphere): keep also what varies slowly."),
    ] = False,
    saturation_adu: Annotated[
        float | None,
        typer.Option(help="Reading of a full pixel \\[ADU].", show_default="largest of the file's type"),
    ] = None,
    json: Json = False,
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
) -> None:
    """Make a camera's maps: dark.tif, variance.tif and, with flat series, flatfield.tif and gain.tif; maps.json, maps.png.

    Example: [bold]clusterofone cameramaps dark.tif dim.tif bright.tif -o camera[/], then
    [bold]clusterofone localise series.tif --set dark_map=camera/dark.tif --set variance_map=camera/variance.tif --set flatfield_map=camera/flatfield.tif[/]
    """
    from fitting.calibration.camera_maps import camera_maps

    series = [dark, *(flats or [])]
    _check(series, output, overwrite=overwrite)
    with console.progress() as bar:
        read = [_statistics(file, bar) for file in series]
    statistics, inputs, said = zip(*read, strict=True)
    worth, note = _worth(electrons_per_adu, said[0], measured=len(series) > 1)
    maps = camera_maps(
        statistics[0],
        statistics[1:],
        electrons_per_adu=worth,
        even_light=even_light,
        full_adu=saturation_adu,
    )
    files = _write(output, maps, statistics[0], inputs)
    for line in (*note, *maps.notes):
        console.say(line)
    _tell(maps, files)
    if json:
        paths = {name: str(path) for name, path in files.items()}
        console.print_json(maps.numbers() | {"notes": [*note, *maps.notes], "files": paths})


def _check(series: Sequence[Path], output: Path, *, overwrite: bool) -> None:
    for path in series:
        if not path.exists():
            console.refuse(f"{path}: there is no such file")
    if output.exists() and not output.is_dir():
        console.refuse(f"-o {output}: is a file; the maps go into a folder", console.USAGE)
    taken = [path for path in _targets(output).values() if path.exists()]
    if any(path.resolve() in [target.resolve() for target in _targets(output).values()] for path in series):
        console.refuse(f"-o {output}: would replace a series that the maps are made from", console.USAGE)
    if taken and not overwrite:
        console.refuse(f"{taken[0]}: exists; give --overwrite to replace it")


def _targets(output: Path) -> dict[str, Path]:
    maps = {name: output / f"{name}.tif" for name in _MAPS}
    return maps | {"numbers": output / "maps.json", "picture": output / "maps.png"}


def _statistics(file: Path, bar: Any) -> tuple[PixelStatistics, dict[str, Any], Mapping[str, Any]]:
    """Sum a series up; frames unlike the others are read again and taken out."""
    from cluster.commands.series_files import opened
    from fitting.calibration.pixel_sums import PixelSums

    with opened(file) as series:
        total = series.shape.frames
        shown = bar.add_task(file.name, total=total, rates="frames")
        sums, numbers = PixelSums(), []
        for known, frames in series.blocks():
            sums.add(frames)
            numbers += known.tolist()
            bar.update(shown, completed=int(known[-1]) + 1 if len(known) else None)
        for position in sums.unlike_the_others():
            frame, _ = series.read(numbers[position], numbers[position] + 1)
            sums.take_out(position, frame[0])
        bar.update(shown, completed=total)
        if len(numbers) < total:
            console.say(
                f"{file.name}: {total - len(numbers)} of {total} frames cannot be read and do not count"
            )
        facts = {"file": file.name, "frames": total, "fingerprint": series.fingerprint}
        return sums.statistics(), facts, series.metadata


def _worth(
    given: float | None, metadata: Mapping[str, Any], *, measured: bool
) -> tuple[float | None, list[str]]:
    """Electrons per ADU as given, else for a dark series alone as its file says."""
    gain = metadata.get("Camera.TrueEMGain", 1.0)
    if measured and isinstance(gain, int | float) and gain > 1:
        console.refuse(
            f"Camera.TrueEMGain is {gain:g}: an EM register adds noise of its own, which photon transfer would take for light. "
            "Take the flat series with EM gain off."
        )
    said = metadata.get(_KEY)
    if given is None and not measured and isinstance(said, int | float) and said > 0:
        return float(said), [f"{said:g} electrons per ADU, as the file says ({_KEY})."]
    return given, []


def _write(
    output: Path, maps: CameraMaps, dark: PixelStatistics, inputs: Sequence[Mapping[str, Any]]
) -> dict[str, Path]:
    from cluster.reports.camera_maps import camera_report
    from cluster.results.provenance import software_versions

    files = _targets(output)
    names = ", ".join(str(one["file"]) for one in inputs)
    picture = camera_report(maps, dark, f"Camera maps from {names}")
    for name, attribute in _MAPS.items():
        values = getattr(maps, attribute)
        if values is None:
            files.pop(name).unlink(missing_ok=True)  # an older one, which would be taken for these maps'
        else:
            _save(files[name], partial(_save_map, values))
    facts = maps.numbers() | {
        "notes": list(maps.notes),
        "settings": {setting: f"{name}.tif" for name, setting in _SETTINGS.items() if name in files},
        "input": list(inputs),
        "versions": software_versions(),
    }
    text = json_text.dumps(facts, indent=1, ensure_ascii=False) + "\n"
    _save(files["numbers"], lambda path: path.write_text(text, encoding="utf-8"))
    _save(files["picture"], lambda path: path.write_bytes(picture))
    return files


def _save(target: Path, write: Callable[[Path], Any]) -> None:
    from cluster.results.publish import writing

    with writing(target, replace=True) as temporary:  # checked before the work
        write(temporary)


def _save_map(values: Any, path: Path) -> None:
    import tifffile

    tifffile.imwrite(path, values, photometric="minisblack", software="clusterofone")


def _tell(maps: CameraMaps, files: Mapping[str, Path]) -> None:
    found: Any = maps.numbers()
    unit = {"e-^2": "e⁻", "ADU^2": "ADU"}[maps.variance_unit]
    console.say(
        f"offset {found['offset_adu']['median']:.2f} ADU, read noise {found['read_noise']['median']:.2f} {unit} (medians)"
    )
    if maps.electrons_per_adu is not None:
        console.say(
            f"{maps.electrons_per_adu:.4g} electrons per ADU: --meta {_KEY}={maps.electrons_per_adu:.4g}"
        )
    for name, path in files.items():
        console.say(f"{name}: {path}")
