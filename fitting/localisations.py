"""What comes out: the layout of a result row and of a candidate, and what became of each frame and fit.

Import-light on purpose (standard library and numpy): whoever merges, stores or shows results needs no numba.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class FrameStatus(IntEnum):
    """What became of a frame; every frame of a series is in exactly one of these states."""

    NOT_ANALYSED = 0
    LOCALISED = 1
    SKIPPED = 2
    """Outside the analysed range, or all zero (the camera's buffer overflowed)."""
    FAILED = 3
    """Its pixels do not exist or cannot be read."""


class ResultCode(IntEnum):
    """How a fit ended."""

    CONVERGED = 1
    """The same number as MINPACK's, so that readers which know PYME's codes agree."""
    ITERATION_LIMIT = 5
    LEFT_ROI = 6
    DEGENERATE = 7
    """The pixels do not determine the parameters; the position is where the search stopped."""


_PARAMETERS = ("A", "x0", "y0", "sigma", "background", "bx", "by")
_PARAMETER_GROUP = np.dtype([(name, "<f4") for name in _PARAMETERS])
SLICE_DTYPE: np.dtype[np.void] = np.dtype([("start", "<i4"), ("stop", "<i4"), ("step", "<i4")])
"""The pixels [start, stop) of the frame that a fit used along an axis."""

LAT_GAUSS_DTYPE: np.dtype[np.void] = np.dtype(
    [
        ("tIndex", "<i4"),
        ("fitResults", _PARAMETER_GROUP),
        ("fitError", _PARAMETER_GROUP),
        ("resultCode", "<i4"),
        ("slicesUsed", np.dtype([("x", SLICE_DTYPE), ("y", SLICE_DTYPE), ("z", SLICE_DTYPE)])),
        ("subtractedBackground", "<f4"),
        ("nchi2", "<f4"),
    ]
)
"""A row of LatGaussFitFR, 108 bytes, packed; PYME reads it unchanged.

A [ADU] height of the equivalent point-sampled peak, x0, y0, sigma [nm], background [ADU] beyond the subtracted one, bx, by
[ADU/nm]; `slicesUsed` [px] of the frame; `subtractedBackground` [ADU] mean over the ROI; `nchi2` [1].
"""

CANDIDATE_DTYPE: np.dtype[np.void] = np.dtype(
    [("frame", "<i4"), ("x_px", "<f4"), ("y_px", "<f4"), ("snr", "<f4"), ("fitted", "u1")]
)
"""A candidate: `snr` is the band-passed signal over the local noise (the detection threshold is a factor on it);
`fitted` is 1 where it became a row and 0 where a brighter one nearby was fitted instead."""
