"""Declares RadialSymmetryFitR; quick to import, because schedulers load it only to check settings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fitting.fit_types import Fit
from fitting.layouts import layout, slices
from fitting.settings import Setting


def row(_settings: Mapping[str, object]) -> np.dtype[np.void]:
    """The layout of a row, whatever the settings."""
    return layout(
        ("A", "x0", "y0"),
        [("fitResults", "P"), ("resultCode", "<i4"), ("slicesUsed", slices("x", "y"))],
    )


FIT = Fit(
    name="RadialSymmetryFitR",
    aliases=("radial-symmetry",),
    title="Centre of radial symmetry",
    description="The point that all gradients of a molecule's image point to; without iteration, and without errors.",
    layout=row,
    run="radial_symmetry.fit:fit",
    options=(Setting("smooth", None, "boolean", True, "", "Average the gradients over their neighbours."),),
)
