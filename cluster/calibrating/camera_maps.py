"""A camera's maps and their report, from a dark series and evenly lit ones."""

from __future__ import annotations

import json as json_text
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cluster.calibrating.kinds import map_targets
from cluster.calibrating.made import Advance, Finding, Made, nobody
from cluster.errors import Invalid
from cluster.reports.camera_maps import camera_report
from cluster.results.provenance import software_versions
from cluster.results.publish import writing
from cluster.series_files import opened

if TYPE_CHECKING:
    from fitting.calibration.camera_maps import CameraMaps
    from fitting.calibration.pixel_sums import PixelStatistics

_SETTINGS: Final = {"dark": "dark_map", "variance": "variance_map", "flatfield": "flatfield_map"}
_KEY: Final = "Camera.ElectronsPerCount"


def make_camera_maps(
    dark: Path,
    flats: Sequence[Path],
    given: Mapping[str, Any],
    output: Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    replace: bool = False,
    advance: Advance = nobody,
) -> Made:
    """Make the maps of a camera and write them.

    Parameters
    ----------
    dark
        A series without light.
    flats
        Series with even light, each at a level of its own.
    given
        Options: `electrons_per_adu`, `even_light`, `saturation_adu`.
    output
        The folder for the maps (`map_targets`).
    metadata
        PYME's keys, over the files'.

    Raises
    ------
    Invalid
        If a file is no series, or was taken with EM gain that photon transfer would take for light.
    FittingError
        If the series contradict each other.
    """
    from fitting.calibration.camera_maps import camera_maps

    read = [_read(file, advance) for file in (dark, *flats)]
    said = dict(read[0].metadata) | dict(metadata or {})
    worth, note = _worth(given.get("electrons_per_adu"), said, measured=bool(flats))
    maps = camera_maps(
        read[0].statistics,
        [one.statistics for one in read[1:]],
        electrons_per_adu=worth,
        even_light=bool(given.get("even_light")),
        full_adu=given.get("saturation_adu"),
    )
    files = _write(output, maps, read, replace=replace)
    remarks = [remark for one in read for remark in one.remarks]
    notes = [*remarks, *note, *maps.notes]
    findings = [
        *(Finding("warning", text) for text in maps.warnings),
        *(Finding("note", text) for text in notes),
    ]
    return Made(files, tuple(findings), maps.numbers())


@dataclass(frozen=True)
class _Series:
    """A series summed up: what its pixels do, which file it was, its metadata, and remarks on it."""

    statistics: PixelStatistics
    facts: Mapping[str, Any]
    metadata: Mapping[str, Any]
    remarks: tuple[str, ...]


def _read(file: Path, advance: Advance) -> _Series:
    """Sum a series up; frames unlike the others are read again and taken out."""
    from fitting.calibration.pixel_sums import PixelSums

    with opened(file) as series:
        total = series.shape.frames
        sums, numbers = PixelSums(), []
        for known, frames in series.blocks():
            sums.add(frames)
            numbers += known.tolist()
            if numbers:
                advance(file.name, numbers[-1] + 1, total)
        for position in sums.unlike_the_others():
            frame, _ = series.read(numbers[position], numbers[position] + 1)
            sums.take_out(position, frame[0])
        advance(file.name, total, total)
        lost = total - len(numbers)
        remarks = (f"{file.name}: {lost} of {total} frames cannot be read and do not count",) if lost else ()
        facts = {"file": file.name, "frames": total, "fingerprint": series.fingerprint}
        return _Series(sums.statistics(), facts, series.metadata, remarks)


def _worth(
    given: float | None, metadata: Mapping[str, Any], *, measured: bool
) -> tuple[float | None, list[str]]:
    """Electrons per ADU as given, else for a dark series alone as its file says."""
    gain = metadata.get("Camera.TrueEMGain", 1.0)
    if measured and isinstance(gain, int | float) and gain > 1:
        raise Invalid(
            f"Camera.TrueEMGain is {gain:g}: an EM register adds noise of its own, which photon transfer would take for light. "
            "Take the flat series with EM gain off."
        )
    said = metadata.get(_KEY)
    if given is None and not measured and isinstance(said, int | float) and said > 0:
        return float(said), [f"{said:g} electrons per ADU, as the file says ({_KEY})."]
    return given, []


def _write(output: Path, maps: CameraMaps, read: Sequence[_Series], *, replace: bool) -> dict[str, Path]:
    files = map_targets(output)
    inputs = [one.facts for one in read]
    names = ", ".join(str(one["file"]) for one in inputs)
    picture = camera_report(maps, read[0].statistics, f"Camera maps from {names}")
    for name, values in _by_file(maps).items():
        if values is not None:
            _save(files[name], partial(_save_map, values), replace=replace)
            continue
        left = files.pop(name)
        if replace:
            left.unlink(missing_ok=True)  # an older one, which would be taken for these maps'
    facts = maps.numbers() | {
        "notes": [*maps.warnings, *maps.notes],
        "settings": {setting: f"{name}.tif" for name, setting in _SETTINGS.items() if name in files},
        "input": inputs,
        "versions": software_versions(),
    }
    text = json_text.dumps(facts, indent=1, ensure_ascii=False) + "\n"
    _save(files["numbers"], lambda path: path.write_text(text, encoding="utf-8"), replace=replace)
    _save(files["picture"], lambda path: path.write_bytes(picture), replace=replace)
    return files


def _by_file(maps: CameraMaps) -> dict[str, Any]:
    in_electrons = maps.variance_unit == "e-^2"
    return {
        "dark": maps.dark_adu,
        "variance": maps.variance if in_electrons else None,
        "variance_adu2": None if in_electrons else maps.variance,
        "flatfield": maps.flatfield,
        "gain": maps.gain_adu_per_e,
    }


def _save(target: Path, write: Callable[[Path], Any], *, replace: bool) -> None:
    with writing(target, replace=replace) as temporary:
        write(temporary)


def _save_map(values: Any, path: Path) -> None:
    import tifffile

    tifffile.imwrite(path, values, photometric="minisblack", software="clusterofone")
