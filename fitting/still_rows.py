"""Rows at the places that their molecules would have, had the sample not moved. Import-light (numpy only)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def without_drift(
    rows: npt.NDArray[np.void], dx_nm: npt.NDArray[np.float64], dy_nm: npt.NDArray[np.float64]
) -> npt.NDArray[np.void]:
    """A copy of rows with x0 and y0 less the drift of each row [nm]; all else, errors too, stays as it was."""
    result = rows.copy()
    for name, drift in (("x0", dx_nm), ("y0", dy_nm)):
        result["fitResults"][name] = rows["fitResults"][name].astype(np.float64) - drift
    return result
