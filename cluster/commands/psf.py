"""`clusterofone psf`: a PSF, and the widths of an astigmatic one against z, from stacks of beads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.commands import console
from cluster.commands.options import Json, pair

if TYPE_CHECKING:
    from cluster.commands.bead_stacks import BeadStack
    from fitting.calibration.calibrate_psf import PsfCalibration

_SHOWN_DROPPED = 12
_WORDS = {"warning": "warning", "note": "note", "good": "ok"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(psf)


def psf(
    beads: Annotated[
        list[Path], typer.Argument(metavar="BEADS.tif...", help="Stacks of planes through beads.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="PSF.tif", help="What to write.")],
    pixel_nm: Annotated[
        float | None, typer.Option(help="Size of a pixel in the sample \\[nm].", show_default="from the file")
    ] = None,
    step_nm: Annotated[
        float | None, typer.Option(help="Distance between planes \\[nm].", show_default="from the file")
    ] = None,
    bead_nm: Annotated[
        float | None,
        typer.Option(help="Diameter of the beads \\[nm], to take out.", show_default="left in"),
    ] = None,
    half_size: Annotated[
        int | None, typer.Option(help="The PSF has side 2h+1 \\[px].", show_default="1500 nm")
    ] = None,
    channel0: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1", help="Part of the frame with channel 0 \\[px].", show_default="whole frame"
        ),
    ] = None,
    channel1: Annotated[
        str | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="Part of the frame with channel 1.", show_default="none"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another option, repeatable: --set threshold=5 --set flip=false; all of them: docs/calibration.md.",
        ),
    ] = None,
    json: Json = False,
    overwrite: Annotated[bool, typer.Option("--overwrite")] = False,
) -> None:
    """Make a PSF from beads: PSF.tif, PSF.json, PSF.sigma.json (astigmatic), PSF.report.png and PSF.report.json.

    Example: [bold]clusterofone psf beads.tif --pixel-nm 100 --step-nm 25 -o psf.tif[/]
    """
    from fitting.calibration.calibrate_psf import calibrate_psf
    from fitting.calibration.psf_options import resolve_psf_options

    _check(beads, output, overwrite=overwrite)
    given: dict[str, Any] = dict(pair("--set", text) for text in settings or [])
    named = {"pixel_nm": pixel_nm, "step_nm": step_nm, "bead_diameter_nm": bead_nm, "half_size": half_size}
    given |= {name: value for name, value in named.items() if value is not None}
    boxes = {"channel0": channel0, "channel1": channel1}
    given |= {name: _box(name, text) for name, text in boxes.items() if text is not None}
    with console.progress() as bar:
        shown = bar.add_task("reading", total=None, rates="frames")
        stacks, options = _stacks(
            beads, given, lambda done, total: bar.update(shown, completed=done, total=total)
        )
        options = resolve_psf_options(options)
        made = calibrate_psf(
            [stack.planes for stack in stacks],
            options,
            lambda doing, done, total: bar.update(
                shown, description=doing, completed=done, total=total, rates=""
            ),
        )
    written = _write(output, made, stacks, replace=overwrite)
    _tell(made, written)
    if json:
        console.print_json(_summary(made, written))


def _stacks(
    beads: Sequence[Path], given: dict[str, Any], advance: Any
) -> tuple[list[BeadStack], dict[str, Any]]:
    """Read the stacks; return them and the options: what was given over what the files say."""
    from cluster.commands.bead_stacks import read_stacks, said_by

    stacks = read_stacks(beads, advance)
    said, remarks = said_by(stacks)
    for remark in remarks:
        console.say(remark)
    if given.get("channel0") is not None or given.get("channel1") is not None:
        said = {name: value for name, value in said.items() if not name.startswith("channel")}
    missing = [name for name in ("pixel_nm", "step_nm") if name not in given | said]
    if missing:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in missing)
        console.refuse(f"{beads[0]}: does not say {' and '.join(missing)}; give {options}", console.USAGE)
    return stacks, said | given


def _check(beads: Sequence[Path], output: Path, *, overwrite: bool) -> None:
    for path in beads:
        if not path.exists():
            console.refuse(f"{path}: there is no such file")
    if output.suffix.lower() not in (".tif", ".tiff"):
        console.refuse(f"{output}: must end in .tif", console.USAGE)
    targets = list(_targets(output).values())
    if any(path.resolve() in [target.resolve() for target in targets] for path in beads):
        console.refuse(f"{output}: would replace the beads it is made from", console.USAGE)
    taken = [path for path in targets if path.exists()]
    if taken and not overwrite:
        console.refuse(f"{taken[0]}: exists; give --overwrite to replace it")


def _targets(output: Path) -> dict[str, Path]:
    from cluster.calibration_files import curves_of, sidecar_of

    return {
        "psf": output,
        "sidecar": sidecar_of(output),
        "curves": curves_of(output),
        "picture": output.with_suffix(".report.png"),
        "report": output.with_suffix(".report.json"),
    }


def _box(name: str, text: str) -> list[int]:
    try:
        return [int(edge) for edge in text.split(",")]
    except ValueError:
        console.refuse(f"--{name} {text}: must be X0,Y0,X1,Y1, in pixels", console.USAGE)


def _write(
    output: Path, made: PsfCalibration, stacks: Sequence[BeadStack], *, replace: bool
) -> dict[str, Path]:
    from cluster.calibration_files import write_curves, write_json, write_psf
    from cluster.reports.psf import psf_report
    from cluster.results.provenance import software_versions
    from cluster.results.publish import writing

    files = _targets(output)
    report = made.report.to_dict()
    inputs = [{"file": stack.file.name, "fingerprint": stack.fingerprint} for stack in stacks]
    provenance = {"input": inputs, "options": report["options"], "versions": software_versions()}
    names = ", ".join(stack.file.name for stack in stacks[:3]) + (" …" if len(stacks) > 3 else "")
    picture = psf_report(made, f"{output.name}, made from {names}")
    write_psf(output, made.psf, provenance, replace=replace)
    if made.curves is not None:
        facts = {"pixel_nm": made.psf.pixel_nm, "defocus": report["defocus"]}
        facts["range_nm"] = report["quality"]["fitted_range_nm"]
        write_curves(files["curves"], made.curves, facts, replace=replace)
    else:
        files.pop("curves").unlink(missing_ok=True)  # an older PSF's, which this one's would be taken for
    with writing(files["picture"], replace=replace) as temporary:
        temporary.write_bytes(picture)
    write_json(files["report"], report | {"provenance": provenance}, replace=replace)
    return files


def _tell(made: PsfCalibration, written: dict[str, Path]) -> None:
    for finding in made.report.findings:
        console.say(f"{_WORDS[finding.level]}: {finding.text}")
    dropped = [bead for bead in made.report.beads if bead.dropped]
    for bead in dropped[:_SHOWN_DROPPED]:
        y, x = bead.places[0]
        console.say(f"dropped: the bead at x {x}, y {y}, {bead.dropped}")
    if len(dropped) > _SHOWN_DROPPED:
        console.say(f"dropped: {len(dropped) - _SHOWN_DROPPED} more, listed in {written['report']}")
    for what, path in written.items():
        console.say(f"{what}: {path}")


def _summary(made: PsfCalibration, written: dict[str, Path]) -> dict[str, Any]:
    report = made.report.to_dict()
    return {
        **{what: str(path) for what, path in written.items()},
        "focus_plane": made.psf.focus_plane,
        "planes": len(made.psf.volume),
        "channels": made.psf.channels,
        "quality": report["quality"],
        "findings": report["findings"],
        "dropped": [bead for bead in report["beads"] if bead["dropped"]],
    }
