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
from typing import Any

import numpy as np

from fitting.joint_model import BACKGROUND, EACH, FIRST, WIDTH, N, X, Y, evaluate
from fitting.kernel import borrower
from fitting.localisations import ResultCode
from fitting.poisson import LEAST_MEAN, LEAST_PHOTONS, LEAST_WIDTH, UNKNOWN

_BEYOND = 1.0  # [px] from the outermost pixels' centres that an emitter may lie outside a window
_FULL_STEP = 1e-3  # a diagonal that is heavier by less is not heavier
_STUCK = 1e6
_ROUNDING = 1e-4  # by which tables in float32 may make a deviance larger
_CONVERGED = int(ResultCode.CONVERGED)
_ITERATION_LIMIT = int(ResultCode.ITERATION_LIMIT)
_DEGENERATE = int(ResultCode.DEGENERATE)


@borrower
def climb(
    window: Any, theta: Any, count: int, start: int, aspect: Any, tolerance: Any, iterations: Any
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
        _hold(window, theta, size, least_b, gradient, fisher)
        good = factorise(fisher, start, size, 0.0, window.lower)
        _substitute(window.lower, gradient, start, size, window.step)
        distance = 0.0
        for i in range(start, size):
            distance += gradient[i] * window.step[i]
        if distance < tolerance:
            code = _CONVERGED if good else _DEGENERATE
            break
        if damping > 0:
            factorise(fisher, start, size, damping, window.lower)
            _substitute(window.lower, gradient, start, size, window.step)
        _step(window, theta, size, start, least_b, window.trial)
        other = evaluate(window, window.trial, count, aspect, True, other_gradient, other_fisher)
        if other <= deviance + _ROUNDING:
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


@borrower
def least_background(window: Any) -> Any:
    """The b at which the darkest pixel's mean is still positive."""
    least = np.float64(UNKNOWN)
    for y in range(window.size[0]):
        for x in range(window.size[1]):
            least = min(least, window.extra[y, x])
    return LEAST_MEAN - least


@borrower
def _step(window: Any, theta: Any, size: int, start: int, least_b: Any, to: Any) -> None:
    """One step, bounded, and the parameters within their bounds."""
    s = theta[WIDTH]
    to[WIDTH] = s
    if start == WIDTH:
        to[WIDTH] = max(s + _within(window.step[WIDTH], 0.3 * s), LEAST_WIDTH)
    to[BACKGROUND] = max(theta[BACKGROUND] + window.step[BACKGROUND], least_b)
    for i in range(FIRST, size, EACH):
        for axis, length in ((X, window.size[1]), (Y, window.size[0])):
            place = theta[i + axis] + _within(window.step[i + axis], 0.7 * s)
            to[i + axis] = min(max(place, -_BEYOND), length - 1 + _BEYOND)
        n = theta[i + N]
        to[i + N] = max(n + window.step[i + N], 0.3 * n, LEAST_PHOTONS)


@borrower
def _within(value: Any, bound: Any) -> Any:
    return min(max(value, -bound), bound)


@borrower
def _hold(window: Any, theta: Any, size: int, least_b: Any, gradient: Any, fisher: Any) -> None:
    """Take out of the equations what rests on a bound: background, places beyond the window's edge, emitters without photons."""
    if theta[BACKGROUND] <= least_b and gradient[BACKGROUND] < 0:
        _take_out(BACKGROUND, size, gradient, fisher)
    for i in range(FIRST, size, EACH):
        for axis, length in ((X, window.size[1]), (Y, window.size[0])):
            place, slope = theta[i + axis], gradient[i + axis]
            if (place <= -_BEYOND and slope < 0) or (place >= length - 1 + _BEYOND and slope > 0):
                _take_out(i + axis, size, gradient, fisher)
        if theta[i + N] <= LEAST_PHOTONS and gradient[i + N] < 0:
            for k in range(EACH):
                _take_out(i + k, size, gradient, fisher)


@borrower
def _take_out(i: int, size: int, gradient: Any, fisher: Any) -> None:
    gradient[i] = 0.0
    for j in range(size):
        if j < i:
            fisher[i, j] = 0.0
        elif j > i:
            fisher[j, i] = 0.0


@borrower
def factorise(fisher: Any, start: int, size: int, damping: Any, lower: Any) -> bool:
    """L of H + damping diag(H) = L Lᵀ; gives whether H is positive definite. A pivot that is not is raised, so that a step can be taken."""
    good = True
    for i in range(start, size):
        for j in range(start, i + 1):
            rest = fisher[i, j]
            for k in range(start, j):
                rest -= lower[i, k] * lower[j, k]
            if j < i:
                lower[i, j] = rest / lower[j, j]
            else:
                rest += damping * fisher[i, i]
                least = 1e-9 * fisher[i, i] + 1e-30
                good &= rest > least
                lower[i, i] = math.sqrt(max(rest, least))
    return good


@borrower
def _substitute(lower: Any, gradient: Any, start: int, size: int, to: Any) -> None:
    """Solve L Lᵀ z = g."""
    for i in range(start, size):
        rest = gradient[i]
        for j in range(start, i):
            rest -= lower[i, j] * to[j]
        to[i] = rest / lower[i, i]
    for i in range(size - 1, start - 1, -1):
        rest = to[i]
        for j in range(i + 1, size):
            rest -= lower[j, i] * to[j]
        to[i] = rest / lower[i, i]


@borrower
def invert(window: Any, theta: Any, count: int, start: int, aspect: Any, bound: Any) -> bool:
    """Cramér–Rao bounds at theta: variances (count, 5) of x, y, N, s and the covariance of N and s; gives whether there are any."""
    size = FIRST + EACH * count
    evaluate(window, theta, count, aspect, True, window.gradient, window.fisher)
    _hold(window, theta, size, least_background(window), window.gradient, window.fisher)
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


@borrower
def _column(lower: Any, i: int, size: int, to: Any) -> None:
    """Column i of the inverse of L."""
    for j in range(i, size):
        rest = 1.0 if j == i else 0.0
        for k in range(i, j):
            rest -= lower[j, k] * to[k]
        to[j] = rest / lower[j, j]


@borrower
def _product(one: Any, other: Any, first: int, size: int) -> Any:
    rest = 0.0
    for j in range(first, size):
        rest += one[j] * other[j]
    return rest
