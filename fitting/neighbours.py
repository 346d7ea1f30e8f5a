r"""Molecules that shine into each other's ROIs, fitted together.

A neighbour that the model leaves out pulls a fit towards itself. So every ROI with a neighbour is fitted again with the light of its
neighbours, as they are known so far, in the model: a background of their own, beside the one that is known from other
frames. Sweep after sweep that leads to the maximum of the likelihood of all of them [1]_. A sweep takes from each
neighbour what the sweep before it found, so that no order of molecules matters.

The start needs care: a ROI fitted alone may take two molecules for one wide one, which leaves nothing for the other. The first sweep
therefore fits each molecule to those pixels of its ROI that are nearer to it than to any neighbour.

Candidates that the debounce dropped are neighbours too: they are in the model, and become no rows. One whose ROI a single molecule
explains is no molecule of its own, but noise on the flank of the brighter one.

References
----------
.. [1] H. Babcock, Y. M. Sigal and X. Zhuang, Optical Nanoscopy 1, 6 (2012), https://doi.org/10.1186/2192-2853-1-6, fit neighbours together for
   the same reason, all parameters at once; parameters taken by blocks reach the same maximum.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fitting.estimators import Estimates, estimate
from fitting.kernel import device, kernel
from fitting.lanes import LANES
from fitting.localisations import ResultCode
from fitting.mle import PARAMETERS
from fitting.poisson import UNKNOWN
from fitting.rois import RoiBuffer

SWEEPS = 3
"""After the first, on pixels of a molecule's own: at 4.5 px they bring a shift of twelve errors below a third of one."""
_REACH = 3.0  # [sigma] beyond a ROI: from farther away less than 0.3 % of the light comes in
_SLACK = 4  # [px] by which the raster order of candidates and that of their ROIs may differ
_CERTAIN = 3.0  # [standard errors] of photons, below which a neighbour is more likely none
_POOR = 3.0  # standard deviations of the deviance, above which one molecule does not explain a ROI
_N, _S = 2, 4


def fit_with_neighbours(
    found: Estimates, rois: RoiBuffer, number: int, width_px: float, aspect: float, excess: float = 1.0
) -> None:
    """Replace what maximum likelihood `found` in ROIs with neighbours by what a fit together gives.

    What comes out for a molecule depends on the ROIs of its frame alone, all of which must be in the buffer. A fit that does not
    converge leaves what the sweep before it found.

    Parameters
    ----------
    found : Estimates
        Of the first `number` ROIs, each fitted alone; changed in place.
    rois : RoiBuffer
        In the order of `fitting.scan`: by frame, then by y to within 4 px.
    width_px : float
        Expected width of the PSF [px of x].
    aspect : float
        Pixel width over pixel height [1].
    excess : float
        Factor of an EM register on the variance [1].
    """
    reach = rois.side // 2 + math.ceil(_REACH * width_px * max(aspect, 1.0))
    real = (rois.place[:number, 3] != 0) | _explained_poorly(found, rois.side, excess)
    chosen, first, others = list_neighbours(rois.place, real, reach)
    if not len(chosen):
        return
    together = Estimates(*(column[chosen] for column in found))
    place = rois.place[chosen]
    room = -(-len(chosen) // LANES) * LANES * rois.side**2
    data, extra = np.empty(room, np.float32), np.empty(room, np.float32)
    for sweep in range(1 + SWEEPS):
        known = _can_be_modelled(together, width_px)
        own_pixels = sweep == 0
        compose(
            rois.data, rois.extra, place, rois.side, np.float32(aspect), chosen, first, others,
            together.theta, known, own_pixels, data, extra,
        )  # fmt: skip
        _replace(together, estimate("mle", data, extra, len(chosen), rois.side, width_px, aspect))
    for column, better in zip(found, together, strict=True):
        column[chosen] = better


def _explained_poorly(found: Estimates, side: int, excess: float) -> npt.NDArray[np.bool_]:
    limit = 1 + _POOR * math.sqrt(2 / max(side**2 - PARAMETERS, 1))
    return ~(found.quality[:, 1] <= limit * excess)


def _can_be_modelled(found: Estimates, width_px: float) -> npt.NDArray[np.bool_]:
    """Neighbours that are certain enough to be taken out of other ROIs."""
    photons, width = found.theta[:, _N], found.theta[:, _S]
    certain = photons > _CERTAIN * np.sqrt(found.covariance[:, _N])
    plausible = (width > 0.5 * width_px) & (width < 2 * width_px)
    result: npt.NDArray[np.bool_] = certain & plausible & (found.quality[:, 3] == ResultCode.CONVERGED)
    return result


def _replace(found: Estimates, new: Estimates) -> None:
    good = new.quality[:, 3:] == ResultCode.CONVERGED
    for old, better in zip(found, new, strict=True):
        np.copyto(old, better, where=good)


def list_neighbours(
    place: npt.NDArray[np.int32], real: npt.NDArray[np.bool_], reach: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Which ROIs lie within `reach` px of each other in both directions, in the same frame.

    Two that touch are one: peaks of the signal-to-noise image that share a peak of the signal.

    Parameters
    ----------
    place : (capacity, 4) int32 array
        See `fitting.rois.RoiBuffer`.
    real : (number,) bool array
        ROIs that count.

    Returns
    -------
    chosen : (k,) int32 array
        Those that have neighbours, in ascending order.
    first : (k + 1,) int64 array
        Where the neighbours of each of these begin.
    others : (pairs,) int32 array
        The neighbours, in ascending order, each as its place in `chosen`.
    """
    number = len(real)
    frame, y, x = place[:number, 0], place[:number, 1], np.ascontiguousarray(place[:number, 2])
    line = frame.astype(np.int64) << 32 | y
    # Lines rise to within the slack: after the first that is so far below, all are out of reach.
    stop = np.searchsorted(np.maximum.accumulate(line), line + reach + _SLACK + 1)
    following = np.maximum(stop - np.arange(1, number + 1), 0)
    one = np.repeat(np.arange(number), following)
    other = np.arange(len(one)) + (np.arange(1, number + 1) - np.cumsum(following) + following)[one]
    beside = np.flatnonzero(abs(x[other] - x[one]) <= reach)  # few: the rest is made for these alone
    one, other = one[beside], other[beside]
    apart = np.maximum(abs(line[other] - line[one]), abs(x[other] - x[one]))
    near = (apart > 1) & (apart <= reach) & real[one] & real[other]
    both = np.concatenate([one[near] * number + other[near], other[near] * number + one[near]])
    both.sort()
    one, other = np.divmod(both, number)
    chosen, first = np.unique(one, return_index=True)
    return (
        chosen.astype(np.int32),
        np.append(first, len(one)),
        np.searchsorted(chosen, other).astype(np.int32),
    )


@kernel
def compose(
    data: Any, extra: Any, place: Any, side: int, aspect: Any, chosen: Any, first: Any, others: Any,
    theta: Any, known: Any, own_pixels: bool, to_data: Any, to_extra: Any,
) -> None:  # fmt: skip
    """Copy the chosen ROIs side by side, with their neighbours in the background.

    Parameters
    ----------
    data, extra
        The ROIs; see `fitting.rois`.
    chosen, first, others
        Which of them are copied, and their neighbours; see `list_neighbours`.
    place : (k, 4) int32 array
        Where these lie; see `fitting.rois.RoiBuffer`.
    theta : (k, 5) float32 array
        What is known of each one's molecule; see `fitting.mle`.
    known : (k,) bool array
        Molecules whose light is added.
    own_pixels : bool
        Instead of adding light, leave out the pixels that are nearer to a neighbour.
    to_data, to_extra : (16 blocks side²,) float32 arrays
        Out.
    """
    share = np.empty(side, np.float32)
    for m in range(len(chosen)):
        to = _copy_roi(data, extra, chosen[m], side, to_data, to_extra, m)
        for q in range(first[m], first[m + 1]):
            j = others[q]
            dy, dx = place[j, 1] - place[m, 1], place[j, 2] - place[m, 2]
            if own_pixels:
                _leave_out(dy, dx, side, to_data, to_extra, to)
            elif known[j]:
                x, y, s = theta[j, 0] + dx, theta[j, 1] + dy, theta[j, 4]
                _add_light(x, y, theta[j, 2], s, aspect, side, share, to_extra, to)


@device
def _copy_roi(data: Any, extra: Any, i: int, side: int, to_data: Any, to_extra: Any, m: int) -> int:
    """Copy ROI i to place m; gives where its first pixel is."""
    area = side * side
    source, to = i // LANES * area * LANES + i % LANES, m // LANES * area * LANES + m % LANES
    for pixel in range(0, area * LANES, LANES):
        to_data[to + pixel], to_extra[to + pixel] = data[source + pixel], extra[source + pixel]
    return to


@device
def _leave_out(dy: Any, dx: Any, side: int, data: Any, extra: Any, to: int) -> None:
    """Make the pixels unknown that are nearer to (dy, dx) than to the ROI's middle."""
    middle = side // 2
    for r in range(side):
        for c in range(side):
            if 2 * ((r - middle) * dy + (c - middle) * dx) > dy * dy + dx * dx:
                at = to + (r * side + c) * LANES
                data[at], extra[at] = UNKNOWN, UNKNOWN


@device
def _add_light(
    x: Any, y: Any, n: Any, s: Any, aspect: Any, side: int, share: Any, extra: Any, to: int
) -> None:
    """Add N E(x) E(y) of `fitting.psf` to the known background of a ROI, x and y from its middle."""
    before = _left_of(-1, side, x, s)
    for c in range(side):
        after = _left_of(c, side, x, s)
        share[c], before = after - before, after
    before = _left_of(-1, side, y, s * aspect)
    for r in range(side):
        after = _left_of(r, side, y, s * aspect)
        along_y, before = n * (after - before), after
        for c in range(side):
            at = to + (r * side + c) * LANES
            if extra[at] < UNKNOWN:
                extra[at] += np.float32(along_y * share[c])


@device
def _left_of(pixel: int, side: int, x: Any, s: Any) -> Any:
    """Part of the light that falls to the left of a pixel's right border, up to a constant."""
    return 0.5 * math.erf((pixel + 0.5 - side // 2 - x) * math.sqrt(0.5) / s)
