"""How many rows an export wrote, and how many it left out and why: nobody should find that out by counting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.results.quantities import Calibration, Quantities, converged, quantities


@dataclass
class LeftOut:
    """Counts of rows."""

    written: int = 0
    not_converged: int = 0
    not_a_number: int = 0
    outside: int = 0

    def good(self, rows: npt.NDArray[np.void], calibration: Calibration) -> Quantities:
        """Return the rows that converged and lack no number, and count them and the others."""
        chosen = converged(rows)
        some = quantities(rows[chosen], calibration)
        finite = some.finite
        self.not_converged += int((~chosen).sum())
        self.not_a_number += int((~finite).sum())
        self.written += int(finite.sum())
        return some.select(finite)

    def said(self) -> str:
        """Say it in words."""
        reasons = (
            (self.not_converged, "whose fit did not converge"),
            (self.not_a_number, "that lack a number which the format needs"),
            (self.outside, "outside the frame, which the format does not allow"),
        )
        left = [f"{count} {why}" for count, why in reasons if count]
        return f"{self.written} localisations" + (f"; left out: {', '.join(left)}" if left else "")
