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

from fitting.kernel import borrower
from fitting.lanes import LANES, load, splat, store, total
from fitting.localisations import ResultCode
from fitting.poisson import LEAST_MEAN, LEAST_PHOTONS, LEAST_WIDTH, UNKNOWN, expected_deviance

WIDTH, BACKGROUND, FIRST, EACH = 0, 1, 2, 3
"""Where s, b and the first emitter stand in the vector, and the length of an emitter."""
X, Y, N = 0, 1, 2

_REACH = 5.0  # [sigma] beyond which an emitter gives less than a photon in a million
_BEYOND = 1.0  # [px] from the outermost pixels' centres that an emitter may lie outside a window
_FULL_STEP = 1e-3  # a diagonal that is heavier by less is not heavier
_STUCK = 1e6
_ROUNDING = 1e-4  # by which tables in float32 may make a deviance larger
_CONVERGED = int(ResultCode.CONVERGED)
_ITERATION_LIMIT = int(ResultCode.ITERATION_LIMIT)
_DEGENERATE = int(ResultCode.DEGENERATE)


class Window(NamedTuple):
    """A window's pixels and the room to fit it; `side` px and as many emitters at most as the arrays hold.

    Rows of `stride` float32, whole lanes, of which the first `size[1]` are pixels: along the other axis `size[0]`.

    data, extra (side, side) float64: as in `fitting.rois`, [y, x]; size (2,) int64: height and width in use.
    across, across_shift, across_widen (emitters stride,) float32: E, dE/dx, dE/ds of each column; down, down_shift, down_widen
    (emitters, side): the same of each row; reach (emitters, 2) int64: rows from and to which an emitter shines.
    surplus, weight (side stride,) float32: x/μ - 1 and 1/μ, 0 where unknown; mean (side, side): μ; all of the last evaluation.
    slopes (p side stride,) float32: dμ/dθ; scaled (side stride,): one of them over μ; light (side,).
    gradient, other_gradient, step, trial (p,); fisher, other_fisher, lower (p, p); row (side + 16,) float32; stride: int.
    """

    data: Any
    extra: Any
    size: Any
    across: Any
    across_shift: Any
    across_widen: Any
    down: Any
    down_shift: Any
    down_widen: Any
    reach: Any
    surplus: Any
    weight: Any
    mean: Any
    slopes: Any
    scaled: Any
    light: Any
    gradient: Any
    other_gradient: Any
    step: Any
    trial: Any
    fisher: Any
    other_fisher: Any
    lower: Any
    row: Any
    stride: int


def make_window(side: int, emitters: int) -> Window:
    """Room for a window of `side` px and `emitters` emitters."""
    p, stride = length_of(emitters), -(-side // LANES) * LANES
    across, down, pixels = (
        np.zeros(shape, np.float32) for shape in (emitters * stride, (emitters, side), side * stride)
    )
    return Window(
        np.zeros((side, side)), np.zeros((side, side)), np.zeros(2, np.int64),
        across, across.copy(), across.copy(), down, down.copy(), down.copy(), np.zeros((emitters, 2), np.int64),
        pixels, pixels.copy(), np.zeros((side, side)),
        np.zeros(p * side * stride, np.float32), pixels.copy(), np.zeros(side),
        np.zeros(p), np.zeros(p), np.zeros(p), np.zeros(p),
        np.zeros((p, p)), np.zeros((p, p)), np.zeros((p, p)),
        np.zeros(side + LANES, np.float32), stride,
    )  # fmt: skip


def length_of(emitters: int) -> int:
    """Length of the vector of parameters."""
    return FIRST + EACH * emitters


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
def evaluate(
    window: Any, theta: Any, count: int, aspect: Any, slopes: bool, gradient: Any, fisher: Any
) -> Any:
    """Deviance of the window; with `slopes` also gradient and Fisher matrix (lower triangle)."""
    _tabulate(window, theta, count, aspect)
    deviance = _compare(
        window.data, window.extra, window.across, window.down, window.reach, window.stride, window.size[0], window.size[1],
        theta, count, window.light, window.mean, window.weight, window.surplus,
    )  # fmt: skip
    if slopes:
        _fill_slopes(window, theta, count, aspect)
        _correlate(
            window.slopes, window.surplus, window.weight, window.scaled, window.reach, window.stride,
            window.mean.shape[0] * window.stride, window.size[0], window.size[1], FIRST + EACH * count, gradient, fisher,
        )  # fmt: skip
    return deviance


@borrower
def _compare(
    data: Any, extra: Any, across: Any, down: Any, reach: Any, stride: int, height: int, width: int,
    theta: Any, count: int, light: Any, mean: Any, weight: Any, surplus: Any,
) -> Any:  # fmt: skip
    """Fill in the model and what the data say about it; gives the deviance."""
    deviance = 0.0
    for y in range(height):
        for at in range(y * stride, (y + 1) * stride):
            weight[at], surplus[at] = 0.0, 0.0
        for x in range(width):
            light[x] = theta[BACKGROUND]
        for k in range(count):
            if reach[k, 0] <= y < reach[k, 1]:
                part = theta[FIRST + EACH * k + N] * down[k, y]
                for x in range(width):
                    light[x] += part * across[k * stride + x]
        for x in range(width):
            at = y * stride + x
            mean[y, x] = UNKNOWN
            if extra[y, x] < UNKNOWN:
                mu, d = max(extra[y, x] + light[x], LEAST_MEAN), data[y, x]
                mean[y, x], weight[at], surplus[at] = mu, 1 / mu, d / mu - 1
                deviance += mu - d
                if d > 0:
                    deviance += d * math.log(d / mu)
    return 2 * deviance


@borrower
def _fill_slopes(window: Any, theta: Any, count: int, aspect: Any) -> None:
    """Derivatives of all pixels' means; rows out of an emitter's reach are left as they are."""
    stride, height = window.stride, window.size[0]
    area = window.mean.shape[0] * stride
    slopes = window.slopes
    for at in range(0, height * stride, LANES):
        store(slopes, WIDTH * area + at, splat(0.0))
        store(slopes, BACKGROUND * area + at, splat(1.0))
    for k in range(count):
        to = (FIRST + EACH * k) * area
        n = np.float32(theta[FIRST + EACH * k + N])
        for y in range(window.reach[k, 0], window.reach[k, 1]):
            ey, gy, sy = (
                window.down[k, y],
                window.down_shift[k, y],
                window.down_widen[k, y] * np.float32(aspect),
            )
            for x in range(0, window.size[1], LANES):
                at = y * stride + x
                ex = load(window.across, k * stride + x)
                gx, sx = load(window.across_shift, k * stride + x), load(window.across_widen, k * stride + x)
                store(slopes, to + X * area + at, gx * (n * ey))
                store(slopes, to + Y * area + at, ex * (n * gy))
                store(slopes, to + N * area + at, ex * ey)
                wider = load(slopes, WIDTH * area + at) + (sx * ey + ex * sy) * n
                store(slopes, WIDTH * area + at, wider)


@borrower
def _correlate(
    slopes: Any, surplus: Any, weight: Any, scaled: Any, reach: Any, stride: int, area: int, height: int, width: int,
    size: int, gradient: Any, fisher: Any,
) -> None:  # fmt: skip
    """Gradient and Fisher matrix, over the rows that two parameters share."""
    for i in range(size):
        k = max(i - FIRST, 0) // EACH
        first, last = (reach[k, 0], reach[k, 1]) if i >= FIRST else (0, height)
        summed = splat(0.0)
        for y in range(first, last):
            for at in range(y * stride, y * stride + width, LANES):
                slope = load(slopes, i * area + at)
                summed = summed + slope * load(surplus, at)
                store(scaled, at, slope * load(weight, at))
        gradient[i] = total(summed)
        for j in range(i + 1):
            k = max(j - FIRST, 0) // EACH
            start, stop = (max(first, reach[k, 0]), min(last, reach[k, 1])) if j >= FIRST else (first, last)
            summed = splat(0.0)
            for y in range(start, stop):
                for at in range(y * stride, y * stride + width, LANES):
                    summed = summed + load(scaled, at) * load(slopes, j * area + at)
            fisher[i, j] = total(summed)


@borrower
def _tabulate(window: Any, theta: Any, count: int, aspect: Any) -> None:
    s, stride = theta[WIDTH], window.stride
    for k in range(count):
        i, at = FIRST + EACH * k, k * stride
        _tabulate_axis(
            theta[i + X], s, window.size[1], window.across[at : at + stride],
            window.across_shift[at : at + stride], window.across_widen[at : at + stride],
        )  # fmt: skip
        window.reach[k, 0], window.reach[k, 1] = _tabulate_axis(
            theta[i + Y],
            s * aspect,
            window.size[0],
            window.down[k],
            window.down_shift[k],
            window.down_widen[k],
        )


@borrower
def _tabulate_axis(centre: Any, s: Any, length: int, share: Any, shift: Any, widen: Any) -> Any:
    """E, dE/dx and dE/ds of `fitting.psf`, 0 out of reach; gives what is in reach."""
    first = min(max(0, math.ceil(centre - _REACH * s - 0.5)), length)
    last = max(min(length, math.floor(centre + _REACH * s + 0.5) + 1), first)
    for i in range(len(share)):
        share[i], shift[i], widen[i] = 0.0, 0.0, 0.0
    u = first - 0.5 - centre
    bell_before = math.exp(-0.5 * (u / s) ** 2) * (0.3989422804014327 / s)
    part_before = 0.5 * math.erf(u * (0.7071067811865476 / s))
    for i in range(first, last):
        u = i + 0.5 - centre
        bell = math.exp(-0.5 * (u / s) ** 2) * (0.3989422804014327 / s)
        part = 0.5 * math.erf(u * (0.7071067811865476 / s))
        share[i] = part - part_before
        shift[i] = bell_before - bell
        widen[i] = ((u - 1) * bell_before - u * bell) / s
        bell_before, part_before = bell, part
    return first, last


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


@borrower
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
