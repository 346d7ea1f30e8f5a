"""A PSF, its width curves and its report, from files of bead stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cluster.calibrating.bead_stacks import BeadStack, read_stacks, said_by
from cluster.calibrating.kinds import psf_targets
from cluster.calibrating.made import Advance, Finding, Made, nobody
from cluster.calibration_files import write_curves, write_json, write_psf
from cluster.errors import Invalid
from cluster.reports.psf import psf_report
from cluster.results.provenance import software_versions
from cluster.results.publish import writing

if TYPE_CHECKING:
    from fitting.calibration.calibrate_psf import PsfCalibration

_SIZES: Final = ("pixel_nm", "step_nm")


def make_psf(
    beads: Sequence[Path],
    given: Mapping[str, Any],
    output: Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    replace: bool = False,
    advance: Advance = nobody,
) -> Made:
    """Make a PSF from beads and write it.

    Parameters
    ----------
    beads
        Stacks of planes.
    given
        Options of `fitting.calibration.psf_options`, over what the files say.
    output
        The PSF, a .tif; the other files lie beside it (`psf_targets`).
    metadata
        PYME's keys, over the files'.

    Raises
    ------
    Invalid
        If a file is no stack of beads, or nobody says the pixel size or the step: then `missing` names them.
    FittingError
        If an option is wrong, or there are no beads to be used.
    """
    from fitting.calibration.calibrate_psf import calibrate_psf
    from fitting.calibration.psf_options import resolve_psf_options

    stacks = read_stacks(beads, lambda done, total: advance("reading", done, total))
    stacks = [changed(stack, metadata=dict(stack.metadata) | dict(metadata or {})) for stack in stacks]
    asked, remarks = _asked(stacks, given)
    made = calibrate_psf([stack.planes for stack in stacks], resolve_psf_options(asked), advance)
    files = _write(output, made, stacks, replace=replace)
    report = made.report.to_dict()
    numbers = {
        "focus_plane": made.psf.focus_plane,
        "planes": len(made.psf.volume),
        "channels": made.psf.channels,
        "quality": report["quality"],
        "dropped": [bead for bead in report["beads"] if bead["dropped"]],
    }
    found = [Finding(finding.level, finding.text) for finding in made.report.findings]
    return Made(files, (*(Finding("note", remark) for remark in remarks), *found), numbers)


def _asked(stacks: Sequence[BeadStack], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What was given over what the files say, and remarks on the files."""
    said, remarks = said_by(stacks)
    if given.get("channel0") is not None or given.get("channel1") is not None:
        said = {name: value for name, value in said.items() if not name.startswith("channel")}
    given = {name: value for name, value in given.items() if value is not None or name not in _SIZES}
    missing = [name for name in _SIZES if name not in given | said]
    if missing:
        raise Invalid(
            f"{stacks[0].file.name}: does not say {' and '.join(missing)}; give {'it' if len(missing) == 1 else 'them'} as options",
            missing=missing,
        )
    return said | given, remarks


def _write(
    output: Path, made: PsfCalibration, stacks: Sequence[BeadStack], *, replace: bool
) -> dict[str, Path]:
    files = psf_targets(output)
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
        curves = files.pop("curves")
        if replace:
            curves.unlink(missing_ok=True)  # an older PSF's, which this one's would be taken for
    with writing(files["picture"], replace=replace) as temporary:
        temporary.write_bytes(picture)
    write_json(files["report"], report | {"provenance": provenance}, replace=replace)
    return files
