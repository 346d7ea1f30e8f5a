"""Fits of other packages: whoever is installed and has an entry point in the group `clusterofone.fits`.

The entry point names a `fitting.fit_types.Fit`, or a function that gives one, in a module that is quick to import: the scheduler and the
command line load it to validate settings. The function that fits is loaded by workers only.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from fitting.fit_types import Fit
from fitting.settings import SETTINGS

GROUP = "clusterofone.fits"


@dataclass(frozen=True)
class Plugins:
    """Fits of other packages by name, the package and version that each is from, and what is wrong with those that cannot be used."""

    fits: Mapping[str, Fit] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def installed(taken: frozenset[str]) -> Plugins:
    """Find the fits of other packages that can be imported now.

    Parameters
    ----------
    taken : frozenset of str
        Names and aliases, in lower case, that no plug-in may use.
    """
    return _installed(taken, tuple(sys.path))


@lru_cache(maxsize=4)
def _installed(taken: frozenset[str], _path: tuple[str, ...]) -> Plugins:
    fits: dict[str, Fit] = {}
    packages: dict[str, str] = {}
    problems: list[str] = []
    used = set(taken)
    for entry in sorted(entry_points(group=GROUP), key=lambda one: (one.name, one.value)):
        loaded = _loaded(entry)
        if isinstance(loaded, Fit) and (reason := fault(loaded, used)):
            loaded = reason
        if isinstance(loaded, str):
            problems.append(f"the plug-in {entry.name} ({entry.value}): {loaded}")
        else:
            fits[loaded.name] = loaded
            packages[loaded.name] = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            used |= {name.lower() for name in (loaded.name, *loaded.aliases)}
    return Plugins(fits, packages, tuple(problems))


def _loaded(entry: EntryPoint) -> Fit | str:
    """The fit of an entry point, or what is wrong with it: one broken package must not keep the others from working."""
    try:
        found = entry.load()
        fit = found() if callable(found) else found
    except Exception as error:  # noqa: BLE001 - whatever a stranger's module raises
        return f"cannot be loaded: {type(error).__name__}: {error}"
    return fit if isinstance(fit, Fit) else f"is a {type(fit).__name__}, not a Fit"


def fault(fit: Fit, used: set[str]) -> str | None:
    """Say what is wrong with a fit of another package, if anything is; `used` are names, in lower case, that it may not have."""
    names = {name.lower() for name in (fit.name, *fit.aliases)}
    if names & used:
        return f"the name {', '.join(sorted(names & used))} is taken"
    known = {setting.name for setting in SETTINGS}
    unknown = [*(fit.unused - known), *(set(fit.needs) - known), *(set(fit.defaults) - known)]
    if unknown:
        return f"it speaks of settings that there are not: {', '.join(sorted(unknown))}"
    if not fit.estimators or fit.channels not in (0, 1, 2):
        return "it needs an estimator, and 1 or 2 channels"
    try:
        row = fit.dtype
        columns = row["fitResults"].names or ()
        sound = row["tIndex"] == "<i4" and {"x0", "y0"} <= set(columns) and not row.hasobject
    except (KeyError, TypeError, ValueError) as error:
        return f"its rows have no layout: {error}"
    return None if sound else "its rows need tIndex (<i4), and x0 and y0 in fitResults"
