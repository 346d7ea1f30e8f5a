r"""The width of the PSF in a frame, from molecules that stand alone, for the fit of several molecules in one place.

One molecule too many or too few is decided by whether an image is wider than the PSF, so the width must be right to a few per cent; what a person
knows of it beforehand often is not. Every ROI has been fitted with a width of its own, the light of its neighbours known. Of those that one
molecule explains, the weighted median :math:`\tilde s` is taken, weights :math:`1/\operatorname{var}(s)`: in half of the molecules and more a companion
would have to hide to move it. Its variance is :math:`\pi/2` over the sum of the weights [1]_. The expected width counts
as one more observation, known to a quarter.

Only the ROIs of the frame have a say, so that rows do not depend on tasks.

References
----------
.. [1] P. J. Huber and E. M. Ronchetti, Robust Statistics (2009), section 4.3.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_PRIOR = 0.25  # of the expected width, its standard error


def widths_of_frames(
    frame: npt.NDArray[np.int32],
    width: FloatArray,
    variance: FloatArray,
    alone: npt.NDArray[np.bool_],
    expected_px: float,
) -> tuple[FloatArray, FloatArray]:
    """The width of the PSF for every ROI, and its variance; the same for all ROIs of a frame.

    Parameters
    ----------
    frame : (k,) int32 array
        In ascending order.
    width, variance : (k,) float64 arrays
        Of the fit of one molecule with a free width [px], [px²].
    alone : (k,) bool array
        ROIs that one molecule explains.
    expected_px : float
    """
    common, uncertain = np.empty(len(frame)), np.empty(len(frame))
    first = np.flatnonzero(np.diff(frame, prepend=-1, append=-1))
    prior = 1 / (_PRIOR * expected_px) ** 2
    for start, stop in pairwise(first):
        counts = alone[start:stop] & (variance[start:stop] > 0)
        seen, weight = width[start:stop][counts], 1 / variance[start:stop][counts]
        known = weight.sum() * 2 / math.pi
        median = _weighted_median(seen, weight) if known > 0 else expected_px
        common[start:stop] = (known * median + prior * expected_px) / (known + prior)
        uncertain[start:stop] = 1 / (known + prior)
    return common, uncertain


def _weighted_median(values: FloatArray, weight: FloatArray) -> float:
    """Where half of the weight lies below, linear between the middles of the steps."""
    order = np.argsort(values, kind="stable")
    steps = np.cumsum(weight[order]) - 0.5 * weight[order]
    return float(np.interp(0.5 * weight.sum(), steps, values[order]))
