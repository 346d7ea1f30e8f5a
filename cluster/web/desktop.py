"""Opening a result in PYMEVisualize: for who sits at the page's own machine, and with no program but that one.

A page that starts programs must not do so for somebody far away, nor for another site's page in the browser of somebody near. So the program is found once, when the page
starts, and the only thing that varies is which result file it is given: the one that the cluster names for a job.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Final, Self

from cluster.errors import Conflict, Unavailable
from cluster.interpreter import RUN_MODULE

__all__ = ["NAME", "Desktop"]

NAME: Final = "PYMEVisualize"
_NAMES: Final = ("PYMEVis", "PYMEVisualise", "VisGUI")  # as PYME calls it now, and did for long
_SCREENS: Final = ("DISPLAY", "WAYLAND_DISPLAY")
_SECRETS: Final = ("CLUSTEROFONE_TOKEN", "CLUSTEROFONE_PARENT_PIPE")
_FALLS_AT_ONCE_S: Final = 1.5  # a program that cannot start has ended by then


class Desktop:
    """The screen of the page's machine, and the one program that is opened there."""

    def __init__(self, program: Sequence[str], environ: Mapping[str, str]) -> None:
        self._program = tuple(program)
        self._environ = {name: value for name, value in environ.items() if name not in _SECRETS}
        self._open: list[subprocess.Popen[bytes]] = []

    @classmethod
    def found(cls, environ: Mapping[str, str]) -> Self | None:
        """Return this machine's, None where PYMEVisualize is not installed or there is no screen."""
        if sys.platform.startswith("linux") and not any(environ.get(name) for name in _SCREENS):
            return None
        program = _program(environ.get("PATH", ""))
        return None if program is None else cls(program, environ)

    def show(self, result: Path) -> None:
        """Start the program with a result, and leave it to itself.

        Raises
        ------
        Conflict
            If the file is not on this machine.
        Unavailable
            If the program does not start, or ends at once.
        """
        if not (result.is_absolute() and result.suffix == ".h5r" and result.is_file()):
            raise Conflict(f"{result} is not on the page's machine")
        try:
            process = subprocess.Popen(
                [*self._program, str(result)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self._environ,
                **_apart(),
            )
        except OSError as error:
            raise Unavailable(f"{NAME} does not start: {error.strerror or error}") from None
        self._open = [one for one in self._open if one.poll() is None] + [process]
        try:
            status = process.wait(_FALLS_AT_ONCE_S)
        except subprocess.TimeoutExpired:
            return
        if status != 0:
            raise Unavailable(
                f"{NAME} ended at once, with status {status}: the command in a terminal says why"
            )


def _program(path: str) -> tuple[str, ...] | None:
    """Return the command that starts PYMEVisualize, a file's name to follow: of those on the path, else in our own Python."""
    suffix = ".exe" if sys.platform == "win32" else ""  # a batch file would read the name as its own language
    for name in _NAMES:
        found = shutil.which(name + suffix, path=path)
        if found is not None and Path(found).is_absolute():  # none of the folder that happens to be current
            return (found,)
    package = PathFinder.find_spec("PYME")  # looked for, not imported: that takes seconds
    places = () if package is None else package.submodule_search_locations or ()
    modules = (name for name in _NAMES for place in places if Path(place, "LMVis", f"{name}.py").is_file())
    return next(((*RUN_MODULE, f"PYME.LMVis.{name}") for name in modules), None)


def _apart() -> dict[str, Any]:
    """Return what lets a program live on when the page stops."""
    if sys.platform == "win32":
        options = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    else:
        options = {"start_new_session": True}
    return options
