"""Where a calibration's files are and go: under the root of its first series, over nothing that exists."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.calibrating.kinds import KINDS, Kind
from cluster.dataserver.paths import Roots, checked_segments
from cluster.dataserver.readers.registry import is_series_name
from cluster.dataserver.sidecars import sidecar_paths
from cluster.dataserver.store import SeriesStore
from cluster.errors import CallerError, Conflict, Invalid
from cluster.file_names import fault_of_new_path
from cluster.protocol import CalibrationRequest
from cluster.results.publish import temporary_for
from cluster.unseen import seen_name

_FOLDER: Final = "analysis"
_RESULT: Final = ".h5r"


@dataclass(frozen=True)
class Placed:
    """The files of a calibration: the series, its output, and all that may be written, by what it is."""

    root: Path
    series: tuple[Path, ...]
    output: Path
    targets: Mapping[str, Path]

    def named(self, path: Path) -> str:
        """Return a path as it is written in messages: relative to the root, with '/'."""
        return path.relative_to(self.root).as_posix()


class Placing:
    """Finds series under the roots, and names for what is made of them."""

    def __init__(self, roots: Sequence[Path], store: SeriesStore) -> None:
        self._roots = Roots(roots)
        self._store = store

    def place(self, request: CalibrationRequest, taken: Collection[Path]) -> Placed:
        """Return where everything is and goes; `taken` are files that other calibrations will write.

        Raises
        ------
        Invalid, NotFound
            If a series is not there or cannot be read, or the output is no place under the root; names the field.
        Conflict
            If the output asked for exists.
        """
        kind = KINDS[request.kind]
        found = [self._series(kind, path) for path in request.series]
        root, first = found[0]
        if request.output is None:
            output = _free(kind, _default(kind, first), taken)
        else:
            output = _asked(kind, root, request.output, taken)
        _check_within(root, output)
        _check_writable(output)
        return Placed(root, tuple(file for _, file in found), output, kind.targets(output))

    def _series(self, kind: Kind, path: str) -> tuple[Path, Path]:
        try:
            found = self._roots.located(path)
            if not (kind.results and path.lower().endswith(_RESULT)):
                self._store.facts(path)
        except CallerError as error:
            error.facts["field"] = "series"
            raise
        return found


def _default(kind: Kind, series: Path) -> Path:
    folder = series.parent if series.parent.name == _FOLDER else series.parent / _FOLDER
    stem = series.stem.removesuffix(".ome") or series.stem
    return folder / f"{seen_name(stem)}{kind.ending}{kind.suffix}"


def _free(kind: Kind, output: Path, taken: Collection[Path]) -> Path:
    """Return the name, or with _1, _2, …: the first none of whose files is there."""
    free, number = output, 1
    while _conflict(kind, free, taken) is not None:
        free = output.with_name(f"{output.name.removesuffix(kind.suffix)}_{number}{kind.suffix}")
        number += 1
    return free


def _conflict(kind: Kind, output: Path, taken: Collection[Path]) -> Path | None:
    if not kind.suffix and os.path.lexists(output) and not output.is_dir():
        return output
    targets = kind.targets(output).values()
    there = (path for path in targets if os.path.lexists(path) or path in taken)
    return next(there, None) or _described(output, targets)


def _described(output: Path, targets: Collection[Path]) -> Path | None:
    """Return a series beside the output that a file would be taken for a sidecar of: its metadata are not ours to write."""
    beside = output.parent.iterdir() if output.parent.is_dir() else ()
    series = (path for path in beside if is_series_name(path.name))
    return next((one for one in series if not set(targets).isdisjoint(sidecar_paths(one))), None)


def _asked(kind: Kind, root: Path, asked: str, taken: Collection[Path]) -> Path:
    try:
        segments = checked_segments(asked)
    except Invalid as error:
        raise Invalid(
            f"output: {error.detail.replace('path of a series', 'place')}", field="output"
        ) from error
    if not asked.lower().endswith(kind.suffix):
        raise Invalid(f"output: must end in {kind.suffix}, not {segments[-1]!r}", field="output")
    if fault := fault_of_new_path(root, segments):
        raise Invalid(f"output: {fault}", field="output")
    output = root.joinpath(*segments)
    there = _conflict(kind, output, taken)
    if there is not None:
        raise Conflict(f"output: {there.name} is there already; choose another name", field="output")
    return output


def _check_within(root: Path, output: Path) -> None:
    """Links may lead anywhere; nothing is written outside the root."""
    if not output.resolve().is_relative_to(root):
        raise Invalid(f"output: {output} leads outside the root {root}", field="output")


def _check_writable(output: Path) -> None:
    try:
        temporary_for(output, if_exists="replace").unlink()
    except Invalid as error:
        raise Invalid(f"output: {error.detail}", field="output") from error
