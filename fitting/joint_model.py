"""The model of `fitting.joint`: several Gaussians in a window, how far the data are from it, and how it changes with its parameters.

Rows of pixels pass through lanes, and sums over two emitters' slopes run over the rows in which both shine.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fitting.kernel import borrower
from fitting.lane_shuffles import totals
from fitting.lanes import LANES, load, splat, store
from fitting.poisson import LEAST_MEAN, UNKNOWN, expected_deviance

WIDTH, BACKGROUND, FIRST, EACH = 0, 1, 2, 3
"""Where s, b and the first emitter stand in the vector, and the length of an emitter."""
X, Y, N = 0, 1, 2

_REACH = 5.0  # [sigma] beyond which an emitter gives less than a photon in a million


class Window(NamedTuple):
    """A window's pixels and the room to fit it; `side` px and as many emitters at most as the arrays hold.

    Rows of `stride` float32, whole lanes, of which the first `size[1]` are pixels: along the other axis `size[0]`.

    data, extra (side, side) float64: as in `fitting.rois`, [y, x]; size (2,) int64: height and width in use.
    across, across_shift, across_widen (emitters stride,) float32: E, dE/dx, dE/ds of each column; down, down_shift, down_widen
    (emitters, side): the same of each row; reach (emitters, 2) int64: rows from and to which an emitter shines.
    surplus, weight (side stride,) float32: x/μ - 1 and 1/μ, 0 where unknown; mean (side, side): μ; all of the last evaluation.
    slopes (p side stride,) float32: dμ/dθ; scaled (side stride,): one of them over μ; sums: lanes to be added up, 16 for each
    parameter and one more; light (side,); row: their sums, or a row of pixels, (whole lanes,).
    gradient, other_gradient, step, trial (p,); fisher, other_fisher, lower (p, p); stride: int.
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
    sums: Any
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
    slots = -(-(p + 1) // LANES) * LANES
    across, down, pixels = (
        np.zeros(shape, np.float32) for shape in (emitters * stride, (emitters, side), side * stride)
    )
    return Window(
        np.zeros((side, side)), np.zeros((side, side)), np.zeros(2, np.int64),
        across, across.copy(), across.copy(), down, down.copy(), down.copy(), np.zeros((emitters, 2), np.int64),
        pixels, pixels.copy(), np.zeros((side, side)),
        np.zeros(p * side * stride, np.float32), pixels.copy(), np.zeros(slots * LANES, np.float32), np.zeros(side),
        np.zeros(p), np.zeros(p), np.zeros(p), np.zeros(p),
        np.zeros((p, p)), np.zeros((p, p)), np.zeros((p, p)),
        np.zeros(max(side, slots) + LANES, np.float32), stride,
    )  # fmt: skip


def length_of(emitters: int) -> int:
    """Length of the vector of parameters."""
    return FIRST + EACH * emitters


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
            window.slopes, window.surplus, window.weight, window.scaled, window.sums, window.row, window.reach, window.stride,
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
    slopes: Any, surplus: Any, weight: Any, scaled: Any, sums: Any, row: Any, reach: Any, stride: int, area: int, height: int, width: int,
    size: int, gradient: Any, fisher: Any,
) -> None:  # fmt: skip
    """Gradient and Fisher matrix, over the rows that two parameters share."""
    for i in range(size):  # the sums of row i come side by side, that of the gradient after them
        k = max(i - FIRST, 0) // EACH
        first, last = (reach[k, 0], reach[k, 1]) if i >= FIRST else (0, height)
        summed = splat(0.0)
        for y in range(first, last):
            for at in range(y * stride, y * stride + width, LANES):
                slope = load(slopes, i * area + at)
                summed = summed + slope * load(surplus, at)
                store(scaled, at, slope * load(weight, at))
        store(sums, (i + 1) * LANES, summed)
        for j in range(i + 1):
            k = max(j - FIRST, 0) // EACH
            start, stop = (max(first, reach[k, 0]), min(last, reach[k, 1])) if j >= FIRST else (first, last)
            summed = splat(0.0)
            for y in range(start, stop):
                for at in range(y * stride, y * stride + width, LANES):
                    summed = summed + load(scaled, at) * load(slopes, j * area + at)
            store(sums, j * LANES, summed)
        for at in range(0, i + 2, LANES):
            store(row, at, totals(sums, at * LANES))
        for j in range(i + 1):
            fisher[i, j] = row[j]
        gradient[i] = row[i + 1]


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


@borrower
def share_of_pixel(u: Any, s: Any) -> Any:
    """E(u) of `fitting.psf`: what a pixel whose middle is u px away gets of the light along an axis."""
    scale = math.sqrt(0.5) / s
    return 0.5 * (math.erf((u + 0.5) * scale) - math.erf((u - 0.5) * scale))
