"""Where a job's result file goes. Nothing is written outside the roots, and nothing that exists is written over."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from cluster.errors import ClusterError, Conflict, Invalid
from cluster.file_names import fault_of_new_path, holds_forbidden
from cluster.results.publish import check_writable, free_name
from cluster.unseen import seen_name

SUFFIX: Final = ".h5r"
_FOLDER: Final = "analysis"


class Outputs:
    """The places results may go: the roots, and a folder for series whose own root cannot be written."""

    def __init__(self, roots: Sequence[Path], results_root: Path | None) -> None:
        self._roots = tuple(root.resolve() for root in roots)
        self._results_root = results_root.resolve() if results_root is not None else None

    def choose(self, series: str, asked: str | None, taken: Collection[str]) -> Path:
        """Return the path of a job's result file, whose folder can be made and written; it is made with the file.

        `series` is relative to a root; `taken` are the paths that other jobs will write.

        Raises
        ------
        Invalid
            If the place asked for is outside the roots, or no folder can be written; names it.
        Conflict
            If the file asked for exists, or another job will write it.
        """
        if asked is not None:
            path = self._asked(series, asked)
            if path.exists() or str(path) in taken:
                raise Conflict(
                    f"output: {path} exists already; choose another name", field="output", path=str(path)
                )
            _check_writable(path)
            return path
        return self._default(series, taken)

    def check(self, series: str, asked: str | None, taken: Collection[str]) -> None:
        """Raise as `choose` does for a place that is asked for; the usual one is left to `choose`: to try it is to write there."""
        if asked is not None:
            self.choose(series, asked, taken)

    def _asked(self, series: str, asked: str) -> Path:
        if "\0" in asked or not asked.endswith(SUFFIX):
            raise Invalid(f"output: a result file ends in {SUFFIX}, not {Path(asked).name!r}", field="output")
        path = (self._home_of(series) / asked).resolve()
        allowed = [*self._roots, *([self._results_root] if self._results_root else [])]
        root = next((root for root in allowed if path.is_relative_to(root)), None)
        if root is None:
            places = ", ".join(map(str, allowed))
            raise Invalid(f"output: {path} is outside the folders of this cluster ({places})", field="output")
        if fault := _fault(root, path.relative_to(root).parts):
            raise Invalid(f"output: {fault}", field="output")
        return path

    def _default(self, series: str, taken: Collection[str]) -> Path:
        inside = PurePosixPath(series)
        beside = seen_name(inside.parent.name) if inside.parent.name else ""
        home = self._root_of(series)
        candidates = [] if home is None else [home / inside.parent]
        if self._results_root is not None:
            candidates.append(self._results_root / beside)
        if home is None and self._results_root is None:
            candidates += [root / beside for root in self._roots]
        problem: ClusterError = Invalid("there is no root to write results to", field="output")
        for folder in candidates:
            path = free_name(folder / _FOLDER / f"{seen_name(stem_of(series))}{SUFFIX}", taken)
            try:
                _check_writable(path)
            except Invalid as error:
                problem = error
            else:
                return path
        raise problem

    def _root_of(self, series: str) -> Path | None:
        return next((root for root in self._roots if (root / series).exists()), None)

    def _home_of(self, series: str) -> Path:
        return self._results_root or self._root_of(series) or (self._roots[0] if self._roots else Path())


def stem_of(series: str) -> str:
    """Return the name of a series without its format: `cell 1.ome.tif` is `cell 1`."""
    stem = PurePosixPath(series).stem
    return stem.removesuffix(".ome") or stem


def partial(output: Path) -> Path:
    """Return where the finished frames of a cancelled job go."""
    return output.with_name(f"{output.stem}_partial{output.suffix}")


def _fault(root: Path, parts: Sequence[str]) -> str | None:
    if fault := fault_of_new_path(root, parts):
        return fault
    for part in parts:
        if holds_forbidden(part):
            return f"{part[:40]!r} holds a character that a name here cannot hold"
    return None


def _check_writable(path: Path) -> None:
    try:
        check_writable(path)
    except Invalid as error:
        raise Invalid(f"output: {error.detail}", field="output", path=str(path)) from error
