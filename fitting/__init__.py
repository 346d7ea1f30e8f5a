"""Single-molecule fitting: frames of a camera in, positions of molecules with their errors out.

Conventions, everywhere in this package:

* Images are indexed ``[frame, y, x]``. Pixel 0's **centre** is at 0; x runs with the columns, y with the rows.
* A unit is part of a name: ``_px``, ``_nm``, ``_adu``, ``_e`` (photo-electrons), ``_s``. Inside, positions are pixels and signals photo-electrons;
  nanometres and ADU appear where rows are made.
* Shapes: n frames of h × w pixels, k ROIs of side s, p parameters.
* What is unknown is NaN; a fit that fails is a row with a result code; exceptions are for wrong input.

Importing this package loads neither numba nor scipy; the first use of a kernel does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fitting.estimators import fit_rois
    from fitting.localise import Analysis, analyse, localise
    from fitting.warm import warm_up

__all__ = ["Analysis", "analyse", "fit_rois", "localise", "warm_up"]

_HOME = {
    "Analysis": "fitting.localise",
    "analyse": "fitting.localise",
    "localise": "fitting.localise",
    "fit_rois": "fitting.estimators",
    "warm_up": "fitting.warm",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fitting' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
