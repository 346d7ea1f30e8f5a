"""Files that settings name on the command line, a PSF or a camera map say, and how the data server is to name them.

A cluster knows files from its roots. Here a person may name one as in a job (from beside the series, or from a root), as in a shell (from the
folder they are in, or absolutely), or by what the provenance of a result says.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Final

from cluster.commands import console
from cluster.commands.connection import relative_to_roots
from cluster.config import CALIBRATION_SHELF, PROFILES_SHELF
from cluster.job_calibrations import check_suffix

_SHELVES: Final = (f"{PROFILES_SHELF}/", f"{CALIBRATION_SHELF}/")
"""Names of files in the lab's folders, which every cluster of the lab serves under them."""
SETTINGS: Final = ("psf", "sigma_curves", "shifts", "variance_map", "dark_map", "flatfield_map")


def files_of(analysis: Mapping[str, Any], series: Sequence[Path], roots: Sequence[Path]) -> set[Path]:
    """Return the files that the settings name, as each of the series sees them.

    Raises
    ------
    Refused
        If one is not there; says where it was looked for.
    """
    return {
        _found(name, path, one, roots)
        for name, path in _named(analysis)
        for one in series
    }  # fmt: skip


def renamed(
    analysis: Mapping[str, Any], series: Path, roots: Sequence[Path], copied: Mapping[Path, str]
) -> dict[str, Any]:
    """Return the settings with the names by which the data server has the files.

    Parameters
    ----------
    copied : mapping
        Names of the files that were copied under a root of their own, which is the last.

    Raises
    ------
    Refused
        If a file is not there, or is not served.
    """
    changed: dict[str, Any] = {}
    for name, path in _named(analysis):
        found = _found(name, path, series, roots)
        served = relative_to_roots(found, tuple(roots))
        if served is None and found in copied:
            served = copied[found]
            found = roots[-1] / served
        if served is None:
            said = ", ".join(map(str, roots))
            console.refuse(
                f"{name}: {found} does not lie under a root of that cluster ({said}): copy it under one, "
                f"or start the cluster with --root {found.parent} too"
            )
        _check_unmistakable(name, served, found, series, roots)
        changed[name] = served
    return {**analysis, **changed}


def portable_name(path: PurePath) -> str:
    """Return an absolute path as a name under a root that stands for the whole machine: that of drive C begins with C/."""
    drive = path.drive.replace("\\", "/").replace(":", "").strip("/")
    return "/".join([*([drive] if drive else []), *path.parts[1:]])


def places_meant(name: str, *, windows: bool) -> list[str]:
    """Return the absolute paths of which this may be the `portable_name`."""
    if not windows:
        return [f"/{name}"]
    drive, _, rest = name.partition("/")
    return [f"{drive}:/{rest}"] if len(drive) == 1 else [f"//{name}"]


def copy_to(folder: Path, files: Sequence[Path]) -> dict[Path, str]:
    """Copy files, with what lies beside a PSF, into a folder that is to be a root; return their names there."""
    from cluster.dataserver.sidecars import sidecar_paths

    names = {}
    for file in files:
        names[file] = portable_name(file)
        target = folder / names[file]
        target.parent.mkdir(parents=True, exist_ok=True)
        for one in [file, *sidecar_paths(file)]:
            if one.is_file():
                shutil.copy2(one, target.with_name(one.name))
    return names


def _named(analysis: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in SETTINGS:
        path = analysis.get(name)
        if isinstance(path, str) and path and not path.startswith(_SHELVES):
            if name in {"psf", "shifts", "sigma_curves"}:
                check_suffix(name, path)
            yield name, path


def _found(name: str, path: str, series: Path, roots: Sequence[Path]) -> Path:
    """Return the file that is meant: of those that are there, the first in the order in which a job looks for it, then a shell."""
    beside = series.absolute().parent
    candidates = _candidates(Path(path).expanduser(), beside, roots)
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        console.refuse(
            f"{name}: there is no file {path}: neither in {beside}, beside the series, nor in {Path.cwd()}"
        )
    return found.resolve()


def _candidates(path: Path, beside: Path, roots: Sequence[Path]) -> Iterator[Path]:
    yield beside / path  # an absolute path stays what it is
    yield from (root / path for root in roots)
    yield Path.cwd() / path
    yield from (folder / path for folder in beside.parents)  # from the root of another cluster
    yield from map(Path, places_meant(path.as_posix(), windows=bool(beside.drive)))


def _check_unmistakable(name: str, served: str, found: Path, series: Path, roots: Sequence[Path]) -> None:
    """The first that has a name wins, and beside the series comes first; refuse if that is another file."""
    folder = (relative_to_roots(series, tuple(roots)) or "").rpartition("/")[0]
    places = (root / part / served for part in (folder, "") for root in roots)
    first = next((place for place in places if place.is_file()), found)
    if first.resolve() != found.resolve():
        console.refuse(
            f"{name}: {found} would be taken for {first}, which has the same name there; rename one"
        )
