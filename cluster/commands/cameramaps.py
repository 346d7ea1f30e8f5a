"""`clusterofone cameramaps`: offset, variance, gain and flat field of every pixel, from dark and evenly lit series."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.commands import console
from cluster.commands.options import Json

if TYPE_CHECKING:
    from rich.progress import TaskID

    from cluster.calibrating.made import Made


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
    from cluster.calibrating.camera_maps import make_camera_maps

    _check([dark, *(flats or [])], output, overwrite=overwrite)
    options = {
        "electrons_per_adu": electrons_per_adu,
        "even_light": even_light,
        "saturation_adu": saturation_adu,
    }
    with console.progress() as bar:
        shown: dict[str, TaskID] = {}

        def advance(doing: str, done: int, total: int | None) -> None:
            if doing not in shown:
                shown[doing] = bar.add_task(doing, total=total, rates="frames")
            bar.update(shown[doing], completed=done)

        made = make_camera_maps(dark, flats or [], options, output, replace=overwrite, advance=advance)
    _tell(made)
    if json:
        paths = {what: str(path) for what, path in made.files.items()}
        notes = [finding.text for finding in made.findings]
        console.print_json(dict(made.numbers) | {"notes": notes, "files": paths})


def _check(series: Sequence[Path], output: Path, *, overwrite: bool) -> None:
    from cluster.calibrating.kinds import map_targets

    for path in series:
        if not path.exists():
            console.refuse(f"{path}: there is no such file")
    if output.exists() and not output.is_dir():
        console.refuse(f"-o {output}: is a file; the maps go into a folder")
    taken = [path for path in map_targets(output).values() if path.exists()]
    if any(
        path.resolve() in [target.resolve() for target in map_targets(output).values()] for path in series
    ):
        console.refuse(f"-o {output}: would replace a series that the maps are made from")
    if taken and not overwrite:
        console.refuse(f"{taken[0]}: exists; give --overwrite to replace it")


def _tell(made: Made) -> None:
    for finding in made.findings:
        console.say(f"warning: {finding.text}" if finding.level == "warning" else finding.text)
    found: Any = made.numbers
    unit = {"e-^2": "e⁻", "ADU^2": "ADU"}[found["variance_unit"]]
    console.say(
        f"offset {found['offset_adu']['median']:.2f} ADU, read noise {found['read_noise']['median']:.2f} {unit} (medians)"
    )
    if found["electrons_per_adu"] is not None:
        worth = f"{found['electrons_per_adu']:.4g}"
        console.say(f"{worth} electrons per ADU: --meta Camera.ElectronsPerCount={worth}")
    for what, path in made.files.items():
        console.say(f"{what}: {path}")
