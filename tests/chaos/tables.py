"""The tables of a result file, and whether they are those of an undisturbed run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import h5py
import numpy as np

Rows = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Tables:
    """The localisations of a job, and the fits of markers that its drift is known from; none where it had none fitted."""

    localisations: Rows
    markers: Rows

    @classmethod
    def of(cls, output: str) -> Self:
        """Read them from a result file."""
        with h5py.File(output) as file:
            localisations = file["FitResults"][:]
            markers = file["DriftResults"][:] if "DriftResults" in file else localisations[:0]
        return cls(localisations, markers)

    def same(self, other: Tables) -> bool:
        """Return whether another run found the same, byte for byte."""
        return (
            self.localisations.tobytes() == other.localisations.tobytes()
            and self.markers.tobytes() == other.markers.tobytes()
        )

    def holds(self, partial: Tables) -> bool:
        """Return whether each frame that a run found anything in, before it was cancelled, is as here."""
        return _holds(self.localisations, partial.localisations) and _holds(self.markers, partial.markers)


def _holds(whole: Rows, part: Rows) -> bool:
    return bool(whole[np.isin(whole["tIndex"], part["tIndex"])].tobytes() == part.tobytes())
