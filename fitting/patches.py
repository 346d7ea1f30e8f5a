r"""Which emitters explain a window: added where the residual says so, kept where the likelihood says so.

The residual of a model is searched with the matched filter of one more emitter at rest: with :math:`r = x/\mu - 1`, its score
:math:`\sum_i P_i r_i` over the root of its information :math:`\sum_i P_i^2 / \mu_i` is the signal-to-noise ratio of that emitter, and its square
the gain in :math:`2 \ln L` that it promises while nothing else moves. At the highest maxima an emitter is put on trial: all
parameters are fitted again, and it stays if :math:`2 \ln L` has grown by more than a threshold, else the next maximum is tried.
Emitters of little certainty are put on trial the other way round: one without which :math:`2 \ln L` falls by less than the threshold is removed.
The Bayesian information criterion [1]_ asks for three times the logarithm of the number of pixels, 12 to 17 for windows of 7 × 7 to 16 × 16
pixels, if the place is known beforehand; the search over all places asks for a little more.

When emitters are removed, a fall is measured in units of the deviance over its expectation, where that exceeds 1 [2]_: a model that
stays wrong with all its emitters says less about each. While emitters are added it is not, for those still to be found make any model wrong.

References
----------
.. [1] G. Schwarz, Annals of Statistics 6, 461 (1978), https://doi.org/10.1214/aos/1176344136.
.. [2] K. P. Burnham and D. R. Anderson, Model Selection and Multimodel Inference (2002), section 2.5: QAIC.
   The residual passes follow H. Babcock, Y. M. Sigal and X. Zhuang, Optical Nanoscopy 1, 6 (2012), https://doi.org/10.1186/2192-2853-1-6.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fitting.joint import climb, invert
from fitting.joint_model import EACH, FIRST, N, X, Y, dispersion, evaluate
from fitting.kernel import borrower
from fitting.localisations import ResultCode
from fitting.poisson import LEAST_PHOTONS

_ROUGHLY = 0.02  # [standard errors²] from the maximum: trials need no more
_FINELY = 1e-4
_TRIAL_STEPS = 20
_FINAL_STEPS = 100
_TRIALS = 4  # maxima of the residual that are tried before it counts as explained
_LEAST_SNR = 1.5  # of a maximum; an unresolved pair leaves little when one emitter sits between the two
_DEGENERATE = int(ResultCode.DEGENERATE)
_LONE = 3.0  # [standard errors] of photons, at which the last emitter of a window stays


class Choice(NamedTuple):
    """What is accepted: gain in 2 ln L that an emitter must bring, excess noise F², first parameter that is fitted (`fitting.joint`),
    pixel width over pixel height.
    """

    gain: Any
    excess: Any
    start: int
    aspect: Any


class Trial(NamedTuple):
    """Room for the growth of a model.

    theta, other (p,): parameters, see `fitting.joint`; bound (emitters, 5): see `fitting.joint.invert`; index (emitters,) int64: the emitters'
    numbers outside, -1 for a new one; tested (emitters,) bool; peaks (trials, 4): x, y, N, snr; snr, photons and the filter's first pass
    (side, side); matched (2, side): the filter along x and y.
    """

    theta: Any
    other: Any
    bound: Any
    index: Any
    tested: Any
    peaks: Any
    snr: Any
    photons: Any
    pass_score: Any
    pass_information: Any
    matched: Any


def make_trial(side: int, emitters: int, width_px: float, aspect: float) -> Trial:
    """Room for windows of `side` px and `emitters` emitters."""
    p = FIRST + EACH * emitters
    pixels = (side, side)
    return Trial(
        np.zeros(p), np.zeros(p), np.zeros((emitters, 5)),
        np.zeros(emitters, np.int64), np.zeros(emitters, np.bool_),
        np.zeros((_TRIALS, 4)),
        np.zeros(pixels), np.zeros(pixels), np.zeros(pixels), np.zeros(pixels),
        np.stack([_matched(width_px, side), _matched(width_px * aspect, side)]),
    )  # fmt: skip


def _matched(s: float, side: int) -> Any:
    """Shares of the pixels beside an emitter in the middle of one, as far as they matter."""
    reach = min(math.ceil(2.5 * s), side - 1)
    edges = (np.arange(side + 1) - 0.5) / s
    parts = np.array([math.erf(edge / math.sqrt(2)) for edge in edges])
    shares = 0.5 * np.diff(parts)
    shares[reach + 1 :] = 0
    return shares


@borrower
def explain(window: Any, trial: Any, choice: Any, count: Any, most: int) -> Any:
    """Fit, add and remove emitters until the window is explained.

    `trial.theta` is start and result, `trial.index` follows its emitters. Gives their number.
    """
    deviance, _ = climb(
        window, trial.theta, count, choice.start, choice.aspect, _ROUGHLY, np.int64(_FINAL_STEPS)
    )
    for grown in (False, True):
        count, deviance = _shrink(window, trial, choice, count, deviance)
        if not grown:
            count, deviance = _grow(window, trial, choice, count, deviance, most)
    return count


@borrower
def _grow(window: Any, trial: Any, choice: Any, count: Any, deviance: Any, most: int) -> Any:
    """Add emitters, one at a time, until none is accepted; gives number and deviance."""
    while count < most:
        gained = 0.0
        for j in range(_find_maxima(window, trial, choice, count)):
            gained = _try_to_add(window, trial, choice, count, deviance, j)
            if gained > 0:
                count += 1
                deviance -= gained
                break
        if gained == 0:
            break
    return count, deviance


@borrower
def _unit(window: Any, choice: Any, deviance: Any, count: int) -> Any:
    """What a gain is measured in: the deviance over its expectation, at least the excess noise; of the last evaluation."""
    parameters = FIRST + EACH * count - choice.start
    return max(choice.excess, dispersion(window, deviance, parameters))


@borrower
def _try_to_add(window: Any, trial: Any, choice: Any, count: int, deviance: Any, j: int) -> Any:
    """Put one more emitter on trial at maximum j; gives by how much the deviance fell if it stays, else 0."""
    size = FIRST + EACH * count
    for i in range(size):
        trial.other[i] = trial.theta[i]
    for axis in range(EACH):
        trial.other[size + axis] = trial.peaks[j, axis]
    other, _ = climb(
        window, trial.other, count + 1, choice.start, choice.aspect, _ROUGHLY, np.int64(_TRIAL_STEPS)
    )
    other = evaluate(window, trial.other, count + 1, choice.aspect, False, window.gradient, window.fisher)
    if not deviance - other > choice.gain * choice.excess:
        return 0.0
    for i in range(size + EACH):
        trial.theta[i] = trial.other[i]
    trial.index[count] = -1
    return deviance - other


@borrower
def _shrink(window: Any, trial: Any, choice: Any, count: int, deviance: Any) -> Any:
    """Remove the emitters that are not needed, the least certain first; gives number and deviance."""
    for k in range(count):
        trial.tested[k] = False
    while count > 0:
        invert(window, trial.theta, count, choice.start, choice.aspect, trial.bound)
        k = _least_certain(trial, count)
        if k < 0:
            break
        unit = _unit(window, choice, deviance, count)
        n = trial.theta[FIRST + EACH * k + N]
        certainty = n * n / trial.bound[k, N] if n > LEAST_PHOTONS else 0.0
        if certainty > 2 * choice.gain * unit:
            break
        trial.tested[k] = True
        needed = choice.gain * unit if count > 1 else _LONE * _LONE * unit
        _leave_out(trial, count, k)
        other, _ = climb(
            window, trial.other, count - 1, choice.start, choice.aspect, _ROUGHLY, np.int64(_TRIAL_STEPS)
        )
        if other - deviance < needed:
            _remove(trial, count, k)
            count -= 1
            deviance = other
    return count, deviance


@borrower
def _least_certain(trial: Any, count: int) -> int:
    """The emitter with the least photons in units of their error, of those that have not been tested; -1 if there is none."""
    chosen, least = -1, np.inf
    for k in range(count):
        if not trial.tested[k]:
            n = trial.theta[FIRST + EACH * k + N]
            certainty = n * n / trial.bound[k, N] if n > LEAST_PHOTONS else 0.0
            if certainty < least:
                chosen, least = k, certainty
    return chosen


@borrower
def _leave_out(trial: Any, count: int, k: int) -> None:
    """The parameters without emitter k, as `other`."""
    size, gap = FIRST + EACH * count, FIRST + EACH * k
    for i in range(gap):
        trial.other[i] = trial.theta[i]
    for i in range(gap + EACH, size):
        trial.other[i - EACH] = trial.theta[i]


@borrower
def _remove(trial: Any, count: int, k: int) -> None:
    """Take `other` for theta, and emitter k from the lists."""
    for i in range(FIRST + EACH * (count - 1)):
        trial.theta[i] = trial.other[i]
    for i in range(k, count - 1):
        trial.index[i], trial.tested[i] = trial.index[i + 1], trial.tested[i + 1]


@borrower
def _find_maxima(window: Any, trial: Any, choice: Any, count: int) -> Any:
    """The highest maxima of the filtered residual, the highest first; gives how many."""
    evaluate(window, trial.theta, count, choice.aspect, False, window.gradient, window.fisher)
    height, width = window.size[0], window.size[1]
    _filter(
        window.surplus, window.weight, window.stride, height, width, trial.matched,
        trial.pass_score, trial.pass_information, trial.snr, trial.photons,
    )  # fmt: skip
    found: Any = np.int64(0)
    for y in range(height):
        for x in range(width):
            snr = trial.snr[y, x]
            if snr > _LEAST_SNR * math.sqrt(choice.excess) and _is_maximum(trial.snr, y, x, height, width):
                found = _insert(trial, found, y, x, height, width)
    return found


@borrower
def _filter(
    surplus: Any, weight: Any, stride: int, height: int, width: int, matched: Any,
    pass_score: Any, pass_information: Any, snr: Any, photons: Any,
) -> None:  # fmt: skip
    """How clear and how bright is one more emitter in the middle of each known pixel?"""
    reach_x, reach_y = _reach(matched[0]), _reach(matched[1])
    for y in range(height):
        for x in range(width):
            score, information = 0.0, 0.0
            for other in range(max(x - reach_x, 0), min(x + reach_x + 1, width)):
                p = matched[0, abs(other - x)]
                score += p * surplus[y * stride + other]
                information += p * p * weight[y * stride + other]
            pass_score[y, x], pass_information[y, x] = score, information
    for y in range(height):
        for x in range(width):
            score, information = 0.0, 1e-30
            for other in range(max(y - reach_y, 0), min(y + reach_y + 1, height)):
                p = matched[1, abs(other - y)]
                score += p * pass_score[other, x]
                information += p * p * pass_information[other, x]
            known = weight[y * stride + x] > 0
            snr[y, x] = score / math.sqrt(information) if known else 0.0
            photons[y, x] = score / information if known else 0.0


@borrower
def _reach(shares: Any) -> int:
    reach = len(shares) - 1
    while reach > 0 and shares[reach] == 0:
        reach -= 1
    return reach


@borrower
def _is_maximum(snr: Any, y: int, x: int, height: int, width: int) -> bool:
    """Above all neighbours; of equal ones the first in raster order."""
    for v in range(max(y - 1, 0), min(y + 2, height)):
        for u in range(max(x - 1, 0), min(x + 2, width)):
            earlier = v < y or (v == y and u < x)
            if (v != y or u != x) and (snr[v, u] > snr[y, x] or (earlier and snr[v, u] == snr[y, x])):
                return False
    return True


@borrower
def _insert(trial: Any, found: Any, y: int, x: int, height: int, width: int) -> Any:
    """Put a maximum in its place among the highest so far."""
    snr, peaks = trial.snr, trial.peaks
    at = found
    while at > 0 and peaks[at - 1, 3] < snr[y, x]:
        at -= 1
    if at == _TRIALS:
        return found
    for k in range(min(found, _TRIALS - 1), at, -1):
        for i in range(4):
            peaks[k, i] = peaks[k - 1, i]
    dx = _vertex(snr[y, x - 1], snr[y, x], snr[y, x + 1]) if 0 < x < width - 1 else 0.0
    dy = _vertex(snr[y - 1, x], snr[y, x], snr[y + 1, x]) if 0 < y < height - 1 else 0.0
    peaks[at, X], peaks[at, Y] = x + dx, y + dy
    peaks[at, N], peaks[at, 3] = max(trial.photons[y, x], 10 * LEAST_PHOTONS), snr[y, x]
    return min(found + 1, _TRIALS)


@borrower
def _vertex(before: Any, here: Any, after: Any) -> Any:
    bend = before - here - here + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0


@borrower
def finish(window: Any, trial: Any, choice: Any, count: int) -> Any:
    """Bring the fit to its end; gives deviance over expectation and result code, and leaves the bounds in `trial.bound`."""
    deviance, code = climb(
        window, trial.theta, count, choice.start, choice.aspect, _FINELY, np.int64(_FINAL_STEPS)
    )
    good = invert(window, trial.theta, count, choice.start, choice.aspect, trial.bound)
    parameters = FIRST + EACH * count - choice.start
    if not good:
        code = _DEGENERATE
    return dispersion(window, deviance, parameters), code
