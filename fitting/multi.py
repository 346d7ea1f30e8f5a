r"""Several molecules in one place: the fit of GaussMultifitSR.

Every ROI is first fitted alone, then with the light of its neighbours known, as LatGaussFitFR does it. Where that explains all
ROIs of a connected region (one molecule each, of the PSF's width, far enough from each other) nothing more is done: the free width is
turned into that one by what the Fisher matrix says of both,
:math:`\hat N_{s_0} = \hat N - (\hat s - s_0) \operatorname{cov}(N, s) / \operatorname{var}(s)`. Every other region is
fitted as `fitting.regions` and `fitting.patches` say, with as many emitters as the likelihood asks for.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fitting.common_width import widths_of_frames
from fitting.estimators import Estimates, estimate
from fitting.joint_model import BACKGROUND, WIDTH, make_window
from fitting.localisations import ResultCode
from fitting.mle import PARAMETERS
from fitting.neighbours import fit_with_neighbours
from fitting.patches import Choice, make_trial
from fitting.regions import COLUMNS, Found, cut_for, fit_regions, label_regions
from fitting.rois import RoiBuffer

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_SLACK = 4  # [px] by which the raster order of candidates and that of their ROIs may differ
_POOR = 2.5  # standard deviations of the deviance, above which one molecule does not explain a ROI
_WIDE = 2.0  # [standard errors] by which the width may exceed the expected one
_APART = 4.0  # [sigma] from which on neighbours do not matter for each other's error
_MANY = 12  # ROIs of a region, above which it is not worth while to ask whether it is settled
_FEW = 64


class MultiOptions(NamedTuple):
    """What GaussMultifitSR is asked for.

    most_emitters: in one window; gain: in 2 ln L that an emitter must bring; width: "frame" for that of lone molecules of the frame
    (`fitting.common_width`), "place" for one to be fitted in each window, "given" for the expected one.
    """

    most_emitters: int = 30
    gain: float = 16.0
    width: str = "frame"


class Emitters(NamedTuple):
    """Molecules of all frames of a buffer, by frame.

    frame (m,) int32; theta (m, 5) float64: x, y [px of the frame], N [e⁻], b [e⁻/px], s [px]; covariance (m, 5): variances of x, y,
    N, s and the covariance of N and s, NaN where the fit has none; quality (m, 3): deviance over its expectation, emitters fitted
    together, result code.
    """

    frame: npt.NDArray[np.int32]
    theta: FloatArray
    covariance: FloatArray
    quality: FloatArray


def fit_patches(
    rois: RoiBuffer,
    number: int,
    width_px: float,
    aspect: float = 1.0,
    excess: float = 1.0,
    options: MultiOptions = MultiOptions(),  # noqa: B008 - immutable
) -> Emitters:
    """Fit all molecules that the first `number` ROIs of a buffer show.

    What comes out for a frame depends on its ROIs alone, all of which must be in the buffer.

    Parameters
    ----------
    rois : RoiBuffer
        For maximum likelihood, in the order of `fitting.scan`: by frame, then by y to within 4 px.
    width_px : float
        Expected width of the PSF [px of x].
    aspect : float
        Pixel width over pixel height [1].
    excess : float
        Factor of an EM register on the variance [1].
    """
    alone = estimate("mle", rois.data, rois.extra, number, rois.side, width_px, aspect)
    found = Estimates(*(array.copy() for array in alone))
    fit_with_neighbours(found, rois, number, width_px, aspect, excess)
    label = np.empty(number, np.int32)
    label_regions(rois.place, number, rois.side, _SLACK, label)
    good = _explained(found, rois, number, excess)
    width, var_s = np.full(number, float(width_px)), np.zeros(number)
    if options.width != "given":
        widths = found.theta[:, 4].astype(np.float64), found.covariance[:, 4].astype(np.float64)
        width, var_s = widths_of_frames(rois.place[:number, 0], *widths, good, width_px)
    settled = _settled(found, good, rois.place[:number], label, width, aspect, excess)
    free = options.width == "place"
    choice = Choice(float(options.gain), float(excess), WIDTH if free else BACKGROUND, float(aspect))
    parts = [
        _of_settled(found, rois.place[:number], settled, label, width, None if free else var_s),
        _of_regions(
            alone, rois, np.flatnonzero(~settled), label, width_px, width, choice, options.most_emitters
        ),
    ]
    frame, theta, covariance, quality = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(frame, kind="stable")
    return Emitters(frame[order].astype(np.int32), theta[order], covariance[order], quality[order])


def _explained(found: Estimates, rois: RoiBuffer, number: int, excess: float) -> BoolArray:
    """ROIs whose candidate is fitted, and explained by one molecule of some width."""
    spread = math.sqrt(2 / max(rois.side**2 - PARAMETERS, 1))
    with np.errstate(invalid="ignore"):
        fits = found.quality[:, 1] <= (1 + _POOR * spread) * excess
    result: BoolArray = fits & (found.quality[:, 3] == ResultCode.CONVERGED) & (rois.place[:number, 3] != 0)
    return result


def _settled(
    found: Estimates,
    good: BoolArray,
    place: npt.NDArray[np.int32],
    label: npt.NDArray[np.int32],
    width: FloatArray,
    aspect: float,
    excess: float,
) -> BoolArray:
    """ROIs of regions in which one molecule of the PSF's width for each ROI explains everything."""
    with np.errstate(invalid="ignore"):
        narrow = found.theta[:, 4] - width <= _WIDE * np.sqrt(found.covariance[:, 4] * excess)
    good = good & narrow & ~_too_close(found, place, label, width, aspect)
    bad = np.zeros(len(label), bool)
    bad[label[~good]] = True
    result: BoolArray = ~bad[label]
    return result


def _too_close(
    found: Estimates,
    place: npt.NDArray[np.int32],
    label: npt.NDArray[np.int32],
    width: FloatArray,
    aspect: float,
) -> BoolArray:
    """ROIs whose molecule has another one of the same region near, and those of regions with many ROIs."""
    x, y = place[:, 2] + found.theta[:, 0], (place[:, 1] + found.theta[:, 1]) / aspect
    order = np.argsort(label, kind="stable")
    close = np.bincount(label, minlength=len(label))[label] > _MANY
    for step in range(1, min(_MANY, len(label))):
        one, other = order[:-step], order[step:]
        together = label[one] == label[other]
        near = together & (np.hypot(x[one] - x[other], y[one] - y[other]) < _APART * width[one])
        close[one[near]] = close[other[near]] = True
    return close


def _of_settled(
    found: Estimates,
    place: npt.NDArray[np.int32],
    settled: BoolArray,
    label: npt.NDArray[np.int32],
    width: FloatArray,
    uncertain: FloatArray | None,
) -> Emitters:
    """The molecules of regions with nothing to settle, at the width of the PSF, whose variance is `uncertain`; None to leave them their own."""
    theta = found.theta[settled].astype(np.float64)
    theta[:, 0] += place[settled, 2]
    theta[:, 1] += place[settled, 1]
    var_x, var_y, var_n, _, var_s, both = found.covariance[settled].T.astype(np.float64)
    if uncertain is not None:
        slope = both / var_s
        theta[:, 2] -= slope * (theta[:, 4] - width[settled])
        theta[:, 4] = width[settled]
        common = uncertain[settled]
        var_n = var_n - slope * both + slope**2 * common
        var_s, both = common, slope * common
    together = np.bincount(label, minlength=len(label))[label[settled]]
    quality = np.column_stack([found.quality[settled, 1], together, found.quality[settled, 3]]).astype(
        np.float64
    )
    return Emitters(place[settled, 0], theta, np.stack([var_x, var_y, var_n, var_s, both], axis=1), quality)


def _of_regions(
    alone: Estimates,
    rois: RoiBuffer,
    members: npt.NDArray[np.intp],
    label: npt.NDArray[np.int32],
    width_px: float,
    width: FloatArray,
    choice: Choice,
    most: int,
) -> Emitters:
    """The emitters of the regions of these ROIs."""
    members = members[np.argsort(label[members], kind="stable")].astype(np.int64)
    first = np.flatnonzero(np.diff(label[members], prepend=-1, append=-1)).astype(np.int64)
    if not len(members):
        first = np.zeros(1, np.int64)
    cut = cut_for(width_px, choice.aspect, rois.side, most)
    window = make_window(cut.whole, most + 1)
    trial = make_trial(cut.whole, most + 1, width_px, choice.aspect)
    guess = np.where(alone.quality[:, 3:] == ResultCode.CONVERGED, alone.theta[:, :2], 0)
    start = np.ascontiguousarray(guess, np.float32)  # another order in memory would be another kernel
    room = 4 * len(members) + _FEW
    while True:
        found = Found(np.empty(room, np.int32), np.empty((room, COLUMNS)), np.empty((room, 3)))
        total = fit_regions(
            first, members, rois.place, rois.data, rois.extra, start, rois.side, width, cut, choice, window, trial, found
        )  # fmt: skip
        if total <= room:
            break
        room = total
    frame, values, quality = (array[:total] for array in found)
    theta = values[:, [1, 0, 2, 9, 3]]
    covariance = values[:, [4, 5, 6, 7, 8]]
    covariance[(quality[:, 2] >= ResultCode.LEFT_ROI) | ~(covariance[:, :3] > 0).all(axis=1)] = np.nan
    return Emitters(frame, theta, covariance, quality)
