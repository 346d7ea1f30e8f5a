r"""Maximum-likelihood fit of several Gaussians of one width on one background, all parameters at once.

The model of a window is :math:`\mu_i = c_i + b + \sum_k N_k E(x_i - x_k) E(y_i - y_k)`, with the camera and the known light in
:math:`c_i` as `fitting.mle` has it. Fisher scoring on the joint Fisher matrix; where a step would make the deviance larger,
the matrix gets a heavier diagonal [1]_ until it does not. The inverse of the matrix at the end is the Cramér–Rao bound of all parameters
together: what neighbours do not know about themselves is in each one's error.

One vector holds the parameters: s, b, then x, y, N of each emitter. A width that is known takes no part in the equations.

References
----------
.. [1] T. A. Laurence and B. A. Chromy, Nature Methods 7, 338 (2010), https://doi.org/10.1038/nmeth0510-338.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fitting.kernel import device
from fitting.lanes import LANES, load, store
from fitting.localisations import ResultCode
from fitting.mle import UNKNOWN
from fitting.mle import _expected_deviance as expected_deviance

WIDTH, BACKGROUND, FIRST, EACH = 0, 1, 2, 3
"""Where s, b and the first emitter stand in the vector, and the length of an emitter."""
X, Y, N = 0, 1, 2
LEAST_PHOTONS = 1.0

_LEAST_MEAN = 1e-2
_LEAST_WIDTH = 0.25
_REACH = 5.0  # [sigma] beyond which an emitter gives less than a photon in a million
_FULL_STEP = 1e-3  # a diagonal that is heavier by less is not heavier
_STUCK = 1e6
_CONVERGED = int(ResultCode.CONVERGED)
_ITERATION_LIMIT = int(ResultCode.ITERATION_LIMIT)
_DEGENERATE = int(ResultCode.DEGENERATE)


class Window(NamedTuple):
    """A window's pixels and the room to fit it; `side` px and as many emitters at most as the arrays hold.

    data, extra (side, side): as in `fitting.rois`, [y, x]; size (2,) int64: height and width in use.
    share, shift, widen (2, emitters, side): E, dE/dcentre and dE/ds along x and y.
    surplus, weight, mean (side, side): x/μ - 1 and 1/μ, 0 where unknown, and μ of the last evaluation.
    slope, gradient, other_gradient, step (p,); fisher, other_fisher, lower (p, p); trial (p,); row (side + 16,) float32.
    """

    data: Any
    extra: Any
    size: Any
    share: Any
    shift: Any
    widen: Any
    surplus: Any
    weight: Any
    mean: Any
    slope: Any
    gradient: Any
    other_gradient: Any
    step: Any
    fisher: Any
    other_fisher: Any
    lower: Any
    trial: Any
    row: Any


def make_window(side: int, emitters: int) -> Window:
    """Room for a window of `side` px and `emitters` emitters."""
    p = length_of(emitters)
    pixels, tables = (side, side), (2, emitters, side)
    return Window(
        np.zeros(pixels), np.zeros(pixels), np.zeros(2, np.int64),
        np.zeros(tables), np.zeros(tables), np.zeros(tables),
        np.zeros(pixels), np.zeros(pixels), np.zeros(pixels),
        np.zeros(p), np.zeros(p), np.zeros(p), np.zeros(p),
        np.zeros((p, p)), np.zeros((p, p)), np.zeros((p, p)),
        np.zeros(p), np.zeros(side + LANES, np.float32),
    )  # fmt: skip


def length_of(emitters: int) -> int:
    """Length of the vector of parameters."""
    return FIRST + EACH * emitters


@device
def climb(
    window: Any, theta: Any, count: int, start: int, aspect: Any, tolerance: Any, iterations: int
) -> Any:
    """Bring theta to the maximum of the likelihood.

    Parameters
    ----------
    theta : (p,) float64 array
        Start, and out: s, b, then x, y [px of the window], N [e⁻] of each emitter.
    count : int
        Number of emitters.
    start : int
        `WIDTH` if s is free, `BACKGROUND` if it is known.
    tolerance : float
        Squared distance to the maximum [standard errors²] at which the fit has arrived.

    Returns
    -------
    deviance : float
    code : int
        A ResultCode.
    """
    size = FIRST + EACH * count
    gradient, fisher = window.gradient, window.fisher
    other_gradient, other_fisher = window.other_gradient, window.other_fisher
    least_b = least_background(window)
    deviance = evaluate(window, theta, count, aspect, True, gradient, fisher)
    damping = 0.0
    code = _ITERATION_LIMIT
    for _ in range(iterations):
        _hold(theta, size, least_b, gradient, fisher)
        good = factorise(fisher, start, size, damping, window.lower)
        _substitute(window.lower, gradient, start, size, window.step)
        distance = 0.0
        for i in range(start, size):
            distance += gradient[i] * window.step[i]
        if distance < tolerance and damping < _FULL_STEP:
            code = _CONVERGED if good else _DEGENERATE
            break
        _step(window, theta, size, start, least_b, window.trial)
        other = evaluate(window, window.trial, count, aspect, True, other_gradient, other_fisher)
        if other <= deviance + 1e-9 * abs(deviance):
            deviance = other
            for i in range(size):
                theta[i] = window.trial[i]
            gradient, other_gradient = other_gradient, gradient
            fisher, other_fisher = other_fisher, fisher
            damping = 0.1 * damping if damping > _FULL_STEP else 0.0
        else:
            damping = max(10 * damping, 0.01)
            if not damping < _STUCK:
                break
    return deviance, code


@device
def least_background(window: Any) -> Any:
    """The b at which the darkest pixel's mean is still positive."""
    least = np.float64(UNKNOWN)
    for y in range(window.size[0]):
        for x in range(window.size[1]):
            least = min(least, window.extra[y, x])
    return _LEAST_MEAN - least


@device
def _step(window: Any, theta: Any, size: int, start: int, least_b: Any, to: Any) -> None:
    """One step, bounded, and the parameters within their bounds."""
    s = theta[WIDTH]
    to[WIDTH] = s
    if start == WIDTH:
        to[WIDTH] = max(s + _within(window.step[WIDTH], 0.3 * s), _LEAST_WIDTH)
    to[BACKGROUND] = max(theta[BACKGROUND] + window.step[BACKGROUND], least_b)
    for i in range(FIRST, size, EACH):
        for axis, length in ((X, window.size[1]), (Y, window.size[0])):
            place = theta[i + axis] + _within(window.step[i + axis], 0.7 * s)
            to[i + axis] = min(max(place, -1.0), np.float64(length))
        n = theta[i + N]
        to[i + N] = max(n + window.step[i + N], 0.3 * n, LEAST_PHOTONS)


@device
def _within(value: Any, bound: Any) -> Any:
    return min(max(value, -bound), bound)


@device
def _hold(theta: Any, size: int, least_b: Any, gradient: Any, fisher: Any) -> None:
    """Take out of the equations what rests on a bound: the background, and emitters without photons."""
    if theta[BACKGROUND] <= least_b and gradient[BACKGROUND] < 0:
        _take_out(BACKGROUND, size, gradient, fisher)
    for i in range(FIRST, size, EACH):
        if theta[i + N] <= LEAST_PHOTONS and gradient[i + N] < 0:
            for k in range(EACH):
                _take_out(i + k, size, gradient, fisher)


@device
def _take_out(i: int, size: int, gradient: Any, fisher: Any) -> None:
    gradient[i] = 0.0
    for j in range(size):
        if j < i:
            fisher[i, j] = 0.0
        elif j > i:
            fisher[j, i] = 0.0


@device
def evaluate(
    window: Any, theta: Any, count: int, aspect: Any, slopes: bool, gradient: Any, fisher: Any
) -> Any:
    """Deviance of the window; with `slopes` also gradient and Fisher matrix (lower triangle)."""
    size = FIRST + EACH * count
    _tabulate(window, theta, count, aspect)
    if slopes:
        for i in range(size):
            gradient[i] = 0.0
            for j in range(i + 1):
                fisher[i, j] = 0.0
    deviance = 0.0
    for y in range(window.size[0]):
        for x in range(window.size[1]):
            window.surplus[y, x], window.weight[y, x], window.mean[y, x] = 0.0, 0.0, UNKNOWN
            if window.extra[y, x] < UNKNOWN:
                mu = max(window.extra[y, x] + theta[BACKGROUND] + _light(window, theta, count, y, x), _LEAST_MEAN)
                d = window.data[y, x]
                deviance += mu - d
                if d > 0:
                    deviance += d * math.log(d / mu)
                window.mean[y, x] = mu
                window.weight[y, x] = 1 / mu
                window.surplus[y, x] = d / mu - 1
                if slopes:
                    _slopes(window, theta, count, aspect, y, x)
                    _accumulate(window, size, y, x, gradient, fisher)
    return 2 * deviance


@device
def _light(window: Any, theta: Any, count: int, y: int, x: int) -> Any:
    total = 0.0
    for k in range(count):
        total += theta[FIRST + EACH * k + N] * window.share[0, k, x] * window.share[1, k, y]
    return total


@device
def _slopes(window: Any, theta: Any, count: int, aspect: Any, y: int, x: int) -> None:
    """Derivatives of a pixel's mean."""
    slope, share, shift, widen = window.slope, window.share, window.shift, window.widen
    slope[WIDTH], slope[BACKGROUND] = 0.0, 1.0
    for k in range(count):
        i = FIRST + EACH * k
        n = theta[i + N]
        ex, ey = share[0, k, x], share[1, k, y]
        slope[i + X] = n * shift[0, k, x] * ey
        slope[i + Y] = n * ex * shift[1, k, y]
        slope[i + N] = ex * ey
        slope[WIDTH] += n * (widen[0, k, x] * ey + ex * widen[1, k, y] * aspect)


@device
def _accumulate(window: Any, size: int, y: int, x: int, gradient: Any, fisher: Any) -> None:
    slope, surplus, weight = window.slope, window.surplus[y, x], window.weight[y, x]
    for i in range(size):
        scaled = slope[i] * weight
        if scaled != 0.0:
            gradient[i] += surplus * slope[i]
            row = fisher[i]
            for j in range(i + 1):
                row[j] += scaled * slope[j]


@device
def _tabulate(window: Any, theta: Any, count: int, aspect: Any) -> None:
    s = theta[WIDTH]
    for k in range(count):
        i = FIRST + EACH * k
        for axis, length, width in ((0, window.size[1], s), (1, window.size[0], s * aspect)):
            _tabulate_axis(
                theta[i + axis], width, length, window.share[axis, k], window.shift[axis, k], window.widen[axis, k]
            )


@device
def _tabulate_axis(centre: Any, s: Any, length: int, share: Any, shift: Any, widen: Any) -> None:
    """E, dE/dx and dE/ds of `fitting.psf`; 0 out of reach."""
    first = max(0, math.ceil(centre - _REACH * s - 0.5))
    last = min(length, math.floor(centre + _REACH * s + 0.5) + 1)
    for i in range(length):
        share[i], shift[i], widen[i] = 0.0, 0.0, 0.0
    u = first - 0.5 - centre
    bell = bell_before = math.exp(-0.5 * (u / s) ** 2) * (0.3989422804014327 / s)
    part_before = 0.5 * math.erf(u * (0.7071067811865476 / s))
    for i in range(first, last):
        u = i + 0.5 - centre
        bell = math.exp(-0.5 * (u / s) ** 2) * (0.3989422804014327 / s)
        part = 0.5 * math.erf(u * (0.7071067811865476 / s))
        share[i] = part - part_before
        shift[i] = bell_before - bell
        widen[i] = ((u - 1) * bell_before - u * bell) / s
        bell_before, part_before = bell, part


@device
def factorise(fisher: Any, start: int, size: int, damping: Any, lower: Any) -> bool:
    """L of H + damping diag(H) = L Lᵀ; gives whether H is positive definite. A pivot that is not is raised, so that a step can be taken."""
    good = True
    for i in range(start, size):
        for j in range(start, i + 1):
            total = fisher[i, j]
            for k in range(start, j):
                total -= lower[i, k] * lower[j, k]
            if j < i:
                lower[i, j] = total / lower[j, j]
            else:
                total += damping * fisher[i, i]
                least = 1e-9 * fisher[i, i] + 1e-30
                good &= total > least
                lower[i, i] = math.sqrt(max(total, least))
    return good


@device
def _substitute(lower: Any, gradient: Any, start: int, size: int, to: Any) -> None:
    """Solve L Lᵀ z = g."""
    for i in range(start, size):
        total = gradient[i]
        for j in range(start, i):
            total -= lower[i, j] * to[j]
        to[i] = total / lower[i, i]
    for i in range(size - 1, start - 1, -1):
        total = to[i]
        for j in range(i + 1, size):
            total -= lower[j, i] * to[j]
        to[i] = total / lower[i, i]


@device
def invert(window: Any, theta: Any, count: int, start: int, aspect: Any, bound: Any) -> bool:
    """Cramér–Rao bounds at theta: variances (count, 5) of x, y, N, s and the covariance of N and s; gives whether there are any."""
    size = FIRST + EACH * count
    evaluate(window, theta, count, aspect, True, window.gradient, window.fisher)
    _hold(theta, size, least_background(window), window.gradient, window.fisher)
    good = factorise(window.fisher, start, size, 0.0, window.lower)
    inverse = window.other_fisher
    for i in range(start, size):
        _column(window.lower, i, size, inverse[i])
    of_width = _product(inverse[WIDTH], inverse[WIDTH], WIDTH, size) if start == WIDTH else 0.0
    for k in range(count):
        i = FIRST + EACH * k
        for axis in range(EACH):
            bound[k, axis] = _product(inverse[i + axis], inverse[i + axis], i + axis, size)
        bound[k, 3] = of_width
        bound[k, 4] = _product(inverse[WIDTH], inverse[i + N], i + N, size) if start == WIDTH else 0.0
    return good


@device
def _column(lower: Any, i: int, size: int, to: Any) -> None:
    """Column i of the inverse of L."""
    for j in range(i, size):
        total = 1.0 if j == i else 0.0
        for k in range(i, j):
            total -= lower[j, k] * to[k]
        to[j] = total / lower[j, j]


@device
def _product(one: Any, other: Any, first: int, size: int) -> Any:
    total = 0.0
    for j in range(first, size):
        total += one[j] * other[j]
    return total


@device
def dispersion(window: Any, deviance: Any, parameters: int) -> Any:
    """The deviance over what it would be on average if the model of the last evaluation is right."""
    expected, pixels = 0.0, 0
    row = window.row
    for y in range(window.size[0]):
        width = 0
        for x in range(window.size[1]):
            if window.extra[y, x] < UNKNOWN:
                row[width] = window.mean[y, x]
                width += 1
        for x in range(width, width + LANES):
            row[x] = 1.0
        for first in range(0, width, LANES):
            store(row, first, expected_deviance(load(row, first)))
        for x in range(width):
            expected += row[x]
        pixels += width
    return deviance / max(expected * (1 - parameters / max(pixels, parameters + 1)), 1.0)
