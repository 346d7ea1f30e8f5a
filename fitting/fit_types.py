"""What a type of fit declares: its name, its settings, the layout of its rows, and where the function is that makes them.

Import-light on purpose: a declaration names its function as text, and only whoever localises loads it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fitting.errors import InvalidSettings
from fitting.settings import SETTINGS, Setting

Settings = Mapping[str, object]
CALIBRATIONS = frozenset({"psf", "interpolator", "shifts", "sigma_curves"})
"""Settings that only some fits read."""
GEOMETRY = frozenset({"channel0_roi", "channel1_roi", "flip"})
"""Settings that say where two channels lie on the chip."""


@dataclass(frozen=True)
class Fit:
    """One type of fit.

    Attributes
    ----------
    name : str
        PYME's name of it, written into the results.
    aliases : tuple of str
        Other names it answers to.
    title, description : str
        For a person.
    layout : function
        From complete settings to the numpy type of a row. It has `tIndex` (int32) and `fitResults` with `x0` and `y0`; see `fitting.layouts`.
    run : str
        "module:function": from a `fitting.batch.Batch` to rows of that layout.
    unused : frozenset of str
        Settings that this fit does not read: refused in a job, passed over when a file's metadata have them.
    needs : tuple of str
        Settings without which it cannot run.
    options : tuple of Setting
        The fit's own settings, inside `options`.
    defaults : mapping
        Settings whose default is another than the table's.
    estimators : tuple of str
        Those it has; the first is its default.
    channels : int
        Images of a molecule in a frame; 0: as many as the settings say.
    neighbours : bool
        Whether candidates that are not fitted get ROIs too, marked in `Batch.kept`, because the fit takes them out of others.
    roi_widths : float
        Half size of a ROI over the expected width of the PSF, where `roi_half_size` is not given.
    check : str
        "module:function", import-light too, from complete settings to nothing, for what a schema cannot say; it raises `InvalidSettings`. "" for none.
    """

    name: str
    aliases: tuple[str, ...]
    title: str
    description: str
    layout: Callable[[Settings], np.dtype[np.void]]
    run: str
    unused: frozenset[str] = CALIBRATIONS | GEOMETRY
    needs: tuple[str, ...] = ()
    options: tuple[Setting, ...] = ()
    defaults: Mapping[str, object] = field(default_factory=dict, hash=False)
    estimators: tuple[str, ...] = ("mle",)
    channels: int = 1
    neighbours: bool = False
    roi_widths: float = 2.3
    check: str = ""

    @property
    def settings(self) -> tuple[Setting, ...]:
        """All settings of an analysis."""
        return SETTINGS

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Layout of a row with the default settings."""
        return self.layout({"options": {option.name: option.default for option in self.options}})

    def default_of(self, setting: Setting) -> object:
        """The default of a setting for this fit."""
        return self.defaults.get(setting.name, setting.default)

    def load(self) -> Callable[[Any], np.ndarray[Any, Any]]:
        """Import the function that makes rows.

        Raises
        ------
        InvalidSettings
            If there is none where the declaration says.
        """
        return _at(self.run, self.name)

    def check_settings(self, settings: Settings) -> None:
        """Raise what the fit's own check of complete settings raises."""
        if self.check:
            _at(self.check, self.name)(settings)


def _at(place: str, name: str) -> Callable[[Any], Any]:
    module, _, function = place.partition(":")
    try:
        found: Callable[[Any], Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidSettings("fit", f"{name} cannot be loaded from {place!r}: {error}") from error
    return found
