r"""Maximum-likelihood fit of one molecule seen in several channels, sixteen molecules at a time, for any kind of PSF.

Each channel gives the gradient and the Fisher matrix of its log-likelihood in parameters of its own; the *link* says which parameter of the fit
each of them is. As channels are independent, :math:`g = \sum_c J_c^T g_c` and :math:`H = \sum_c J_c^T H_c J_c`, with
:math:`J_c` the derivative of the channel's parameters by those of the fit. It has one entry a row, two where a shift is fitted
(:math:`x_c = x + \Delta_c + dx_c`), so the sums are over a list of *slots*. Everything else is as in `fitting.mle`: the likelihood, Fisher scoring, its
end, result codes, and lanes that are frozen when they have arrived.

A parameter with a limit (background, photons, the shape) that rests on it and is pulled beyond is taken out of the equations for that step.

References
----------
As `fitting.mle`; channels that share parameters: Y. Li et al., Nature Communications 13, 3133 (2022), https://doi.org/10.1038/s41467-022-30719-4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fitting.kernel import borrower, kernel
from fitting.lanes import LANES, absolute, lane_bits, load, select, splat, store
from fitting.poisson import (
    CLOSE,
    CONVERGED,
    DAMPED_FROM,
    DEGENERATE,
    ITERATION_LIMIT,
    ITERATIONS,
    LEAST_MEAN,
    LEAST_PHOTONS,
    LEFT_ROI,
    QUALITY,
    at_least,
    deviance_terms,
    moments,
    within,
)
from fitting.psf_kinds import begin, equations, image, limits, longest_step, scratch, trials
from fitting.slots import FACTORS, PHOTONS, POSITION, SHAPE
from fitting.symmetric import factorise, invert, substitute

_LEARNT_FROM = 3  # steps before them are large, and what they did to the slope says little
_SHORTEST, _LONGEST, _LONGEST_LATE = 0.3, 2.0, 0.5


@kernel
def fit_linked(
    psf: Any, slots: Any, views: Any, given: Any, theta: Any, covariance: Any, quality: Any
) -> None:
    """Fit molecules, sixteen side by side.

    Parameters
    ----------
    psf : NamedTuple
        Of a kind that provides what `fitting.psf_kinds` asks for.
    slots : fitting.slots.Slots
    views : fitting.psf_kinds.Views
    given : (number or 0, size) float32 array
        Start of each parameter, NaN where it has to be found.
    theta : (number, size) float32 array
        Out: the parameters.
    covariance : (number, size²) float32 array
        Out: the Cramér-Rao bound.
    quality : (number, 4) float32 array
        Out: see `QUALITY`.
    """
    size, number, side = slots.size, theta.shape[0], views.side
    row, square, own = size * LANES, size * size * LANES, slots.shapes + 4
    room = _Room(
        np.empty(own * LANES, np.float32),
        np.empty(own * LANES, np.float32),
        np.empty(own * own * LANES, np.float32),
        np.empty(row, np.float32),
        np.empty(square, np.float32),
        np.empty(max(square, FACTORS * LANES), np.float32),
        np.empty(square, np.float32),
        np.empty(row, np.float32),
        np.empty(row, np.float32),
        np.empty(row, np.float32),
        np.empty(side * side * LANES, np.float32),
    )
    start, here, best = np.empty(row, np.float32), np.empty(row, np.float32), np.empty(row, np.float32)
    best_fisher, found = np.empty(square, np.float32), np.empty(QUALITY * LANES, np.float32)
    work = np.empty(scratch(psf, views), np.float32)
    for block in range((number + LANES - 1) // LANES):
        pixels = _start(psf, slots, views, block, start, room)
        for trial in range(trials(psf)):
            _copy(start, here, row)
            tried = begin(psf, trial, views, block, here, slots, work)
            if lane_bits(tried) == 0:
                continue
            _take_given(given, block * LANES, here, size, room)
            code, iterations = _climb(psf, slots, views, block, here, tried, pixels, room, work)
            deviance, expected = _deviance(psf, slots, views, block, here, room, work)
            better = _is_better(deviance, code, found, trial)
            _keep(better, here, best, 0, row)
            _keep(better, room.kept, best_fisher, 0, square)
            _judge(better, deviance, expected, iterations, code, pixels, size, trial, found)
        factorise(best_fisher, size, room.factors)
        invert(room.factors, size, room.kept)
        _settle(best, room.kept, found, size)
        _by_molecule(best, block, theta)
        _by_molecule(room.kept, block, covariance)
        _by_molecule(found, block, quality)


class _Room(NamedTuple):
    """Scratch arrays of a fit, in lanes."""

    local: Any  # a channel's own parameters, gradient, Fisher matrix
    channel_gradient: Any
    channel_fisher: Any
    gradient: Any  # those of the fit
    fisher: Any
    factors: Any
    kept: Any  # the Fisher matrix, lane by lane that of its last step; then the covariance
    step: Any
    lowest: Any  # limits of the parameters
    highest: Any
    share: Any  # an image


@borrower
def _copy(source: Any, target: Any, length: int) -> None:
    for k in range(0, length, LANES):
        store(target, k, load(source, k))


@borrower
def _keep(chosen: Any, source: Any, target: Any, begin_at: int, length: int) -> None:
    for k in range(begin_at, begin_at + length, LANES):
        store(target, k, select(chosen, load(source, k), load(target, k)))


@borrower
def _by_molecule(lanes: Any, block: int, rows: Any) -> None:
    """Write what is in lanes to the rows of an array."""
    first = block * LANES
    for lane in range(min(LANES, rows.shape[0] - first)):
        for column in range(rows.shape[1]):
            rows[first + lane, column] = lanes[column * LANES + lane]


@borrower
def _is_better(deviance: Any, code: Any, found: Any, trial: int) -> Any:
    """Where this trial is the first, or of higher likelihood than those before; one that failed counts less than any that did not."""
    first = splat(np.float32(trial)) < 0.5
    return first | (_rank(deviance, code) < _rank(load(found, 0), load(found, 3 * LANES)))


@borrower
def _rank(deviance: Any, code: Any) -> Any:
    return select(code > ITERATION_LIMIT + 0.5, 1e30, select(deviance < 1e29, deviance, 1e29))


@borrower
def _judge(
    better: Any,
    deviance: Any,
    expected: Any,
    iterations: Any,
    code: Any,
    pixels: Any,
    size: int,
    trial: int,
    found: Any,
) -> None:
    """Write the quality of a trial that is better than those before; iterations are those of all trials."""
    count = np.float32(size)
    freedom = expected - expected * (count / at_least(pixels, count + np.float32(1.0)))
    relative = deviance / at_least(freedom, 1.0)
    before = load(found, 2 * LANES) if trial > 0 else splat(0.0)
    store(found, 0, select(better, deviance, load(found, 0)))
    store(found, LANES, select(better, relative, load(found, LANES)))
    store(found, 2 * LANES, before + iterations)
    store(found, 3 * LANES, select(better, code, load(found, 3 * LANES)))


@borrower
def _settle(theta: Any, covariance: Any, found: Any, size: int) -> None:
    """A fit that ran away stays at its ROI's middle, degenerate; what has no errors gets NaN."""
    code = load(found, 3 * LANES)
    sane = code >= 0.0
    for k in range(size):
        sane = sane & (absolute(load(theta, k * LANES)) < 1e30)
    for k in range(0, size * LANES, LANES):
        store(theta, k, select(sane, load(theta, k), 0.0))
    code = select(sane, code, DEGENERATE)
    store(found, 3 * LANES, code)
    known = code < ITERATION_LIMIT + 0.5
    for k in range(size):
        known = known & (load(covariance, k * (size + 1) * LANES) > 0.0)
    for k in range(0, size * size * LANES, LANES):
        store(covariance, k, select(known, load(covariance, k), np.float32(np.nan)))


@borrower
def _start(psf: Any, slots: Any, views: Any, block: int, theta: Any, room: Any) -> Any:
    """Moments of every channel, and the limits of every parameter; gives how many pixels count."""
    side = views.side
    zero = splat(0.0)
    pixels, total, along_x, along_y = zero, zero, zero, zero
    for k in range(slots.size):
        store(theta, k * LANES, zero)
        store(room.lowest, k * LANES, splat(np.float32(-1e30)))
        store(room.highest, k * LANES, splat(np.float32(1e30)))
    for k in range(slots.shapes):
        low, high, _ = limits(psf, k, side)
        store(room.lowest, (2 + k) * LANES, splat(low))
        store(room.highest, (2 + k) * LANES, splat(high))
    for c in range(views.channels):
        first = c * views.stride + block * side * side * LANES
        (x, y, n, b), least_b, known = moments(views.data, views.extra, first, side)
        at = (block * views.channels + c) * 2 * LANES
        along_x = along_x + n * (x - load(views.shifts, at))
        along_y = along_y + n * (y - load(views.shifts, at + LANES))
        total, pixels = total + n, pixels + known
        to = slots.photons[c] * LANES
        store(theta, to, load(theta, to) + n)
        store(room.lowest, to, splat(np.float32(LEAST_PHOTONS)))
        if slots.backgrounds[c] >= 0:
            store(theta, slots.backgrounds[c] * LANES, b)
            store(room.lowest, slots.backgrounds[c] * LANES, least_b)
    store(theta, 0, within(along_x / total, 1.0))
    store(theta, LANES, within(along_y / total, 1.0))
    return pixels


@borrower
def _take_given(given: Any, first: int, theta: Any, size: int, room: Any) -> None:
    """Replace the start by what the caller knows better, and keep it within the limits."""
    for lane in range(min(LANES, given.shape[0] - first)):
        for k in range(size):
            value = given[first + lane, k]
            if not np.isnan(value):
                theta[k * LANES + lane] = value
    for k in range(0, size * LANES, LANES):
        store(theta, k, _between(load(theta, k), load(room.lowest, k), load(room.highest, k)))


@borrower
def _between(value: Any, low: Any, high: Any) -> Any:
    return at_least(select(value < high, value, high), low)


@borrower
def _climb(
    psf: Any, slots: Any, views: Any, block: int, theta: Any, tried: Any, pixels: Any, room: Any, work: Any
) -> Any:
    """Fisher scoring from `theta`, in place; a lane that has arrived is frozen. Gives result codes and iterations."""
    size = slots.size
    code = select(tried & (pixels >= np.float32(size + 1)), splat(0.0), DEGENERATE)
    active = code < 0.5
    iterations = splat(0.0)
    scale, distance = splat(1.0), splat(0.0)
    for turn in range(ITERATIONS):
        first = splat(np.float32(turn)) < 0.5
        _gather(psf, slots, views, block, theta, room, work)
        on_edge = _hold(psf, slots, views.side, theta, room)
        if turn >= _LEARNT_FROM:
            scale = _learn(scale, distance, room, size, _LONGEST if turn < 2 * DAMPED_FROM else _LONGEST_LATE)
        for k in range(size):
            _keep(active | first, room.fisher, room.kept, k * (size + 1) * LANES, (size - k) * LANES)
        good = factorise(room.fisher, size, room.factors)
        _copy(room.gradient, room.step, size * LANES)
        substitute(room.factors, size, room.step)
        distance = _product(room.gradient, room.step, size)
        away, photons = _move(psf, slots, views.side, theta, scale, active, room)
        iterations = iterations + select(active, 1.0, 0.0)
        good = good & (photons > LEAST_PHOTONS)
        arrived = select(on_edge > 0.5, on_edge, select(good, CONVERGED, splat(DEGENERATE)))
        ended = select(
            ~(absolute(distance) < 1e20),
            DEGENERATE,
            select(away, LEFT_ROI, select(absolute(distance) < CLOSE, arrived, splat(0.0))),
        )
        code = select(active, ended, code)
        active = code < 0.5
        if lane_bits(active) == 0:
            break
    return select(active, ITERATION_LIMIT, code), iterations


@borrower
def _product(a: Any, b: Any, size: int) -> Any:
    total = splat(0.0)
    for k in range(0, size * LANES, LANES):
        total = total + load(a, k) * load(b, k)
    return total


@borrower
def _learn(scale: Any, before: Any, room: Any, size: int, longest: Any) -> Any:
    """Scale of the next step, from what the last one did to the slope along it: a secant.

    A step of scale α along d takes the slope g·d to (1 - α h/H) of what it was, with h the curvature that the data have and H the one
    that the Fisher matrix expects; the best scale is H/h.
    """
    left = _product(room.gradient, room.step, size) / before
    fine = left < 0.9  # else the slope does not get less that way
    better = select(fine, scale / (1.0 - left), splat(1.0))
    return at_least(select(better < longest, better, longest), _SHORTEST)


@borrower
def _place(slots: Any, views: Any, block: int, channel: int, theta: Any, local: Any) -> None:
    """The channel's own parameters, from those of the fit."""
    at = (block * views.channels + channel) * 2 * LANES
    x, y = load(theta, 0) + load(views.shifts, at), load(theta, LANES) + load(views.shifts, at + LANES)
    move = slots.moves[channel] * LANES
    if move >= 0:
        x, y = x + load(theta, move), y + load(theta, move + LANES)
    store(local, 0, x)
    store(local, LANES, y)
    offset = views.offsets[channel]
    for k in range(slots.shapes):
        store(local, (2 + k) * LANES, load(theta, (2 + k) * LANES) + offset)
    n = load(theta, slots.photons[channel] * LANES) * slots.ratios[channel]
    store(local, (2 + slots.shapes) * LANES, n)
    b = splat(0.0)
    if slots.backgrounds[channel] >= 0:
        b = load(theta, slots.backgrounds[channel] * LANES)
    store(local, (3 + slots.shapes) * LANES, b)


@borrower
def _gather(psf: Any, slots: Any, views: Any, block: int, theta: Any, room: Any, work: Any) -> None:
    """The sums over channels of Jᵀ g and Jᵀ H J, with the factor N of the derivatives by position and shape."""
    for k in range(0, slots.size * LANES, LANES):
        store(room.gradient, k, splat(0.0))
    for k in range(0, slots.size * slots.size * LANES, LANES):
        store(room.fisher, k, splat(0.0))
    for c in range(views.channels):
        _place(slots, views, block, c, theta, room.local)
        first = c * views.stride + block * views.side * views.side * LANES
        equations(psf, views, c, first, room.local, room.channel_gradient, room.channel_fisher, work)
        n, ratio = load(room.local, (2 + slots.shapes) * LANES), slots.ratios[c]
        for k, value in enumerate((n, splat(ratio), splat(1.0), n * n, n * ratio, splat(ratio * ratio))):
            store(room.factors, k * LANES, value)
        of_g, of_h = slots.gradient_begins, slots.fisher_begins
        _add(room.channel_gradient, slots.gradient, of_g[c], of_g[c + 1], room.factors, room.gradient)
        _add(room.channel_fisher, slots.fisher, of_h[c], of_h[c + 1], room.factors, room.fisher)


@borrower
def _add(source: Any, entries: Any, first: int, last: int, factors: Any, target: Any) -> None:
    """Add numbers of `source`, each times a factor, to those of `target`."""
    for k in range(first, last):
        to = entries[k, 1]
        value = load(source, entries[k, 0]) * load(factors, entries[k, 2] * LANES)
        store(target, to, load(target, to) + value)


@borrower
def _hold(psf: Any, slots: Any, side: int, theta: Any, room: Any) -> Any:
    """Take parameters out of the equations that rest on a limit and are pulled beyond; gives the result code of a shape that is, else 0."""
    size = slots.size
    code = splat(0.0)
    for k in range(2, size):
        role = slots.roles[k]
        if role == POSITION:
            continue
        at = k * LANES
        value, pull = load(theta, at), load(room.gradient, at)
        held = ((value <= load(room.lowest, at)) & (pull < 0.0)) | (
            (value >= load(room.highest, at)) & (pull > 0.0)
        )
        if lane_bits(held) == 0:
            continue
        store(room.gradient, at, select(held, splat(0.0), pull))
        for m in range(size):
            if m != k:
                to = (min(k, m) * size + max(k, m)) * LANES
                store(room.fisher, to, select(held, splat(0.0), load(room.fisher, to)))
        if role == SHAPE:
            _, _, edge = limits(psf, k - 2, side)
            code = select(held, splat(edge), code)
    return code


@borrower
def _move(psf: Any, slots: Any, side: int, theta: Any, scale: Any, active: Any, room: Any) -> Any:
    """Take a step, within bounds; gives where a position is out of the ROI, and photons above the least in each channel."""
    half = np.float32(side) * np.float32(0.5) + np.float32(0.5)
    away = splat(np.float32(1.0)) < 0.0
    photons = splat(0.0)
    reach = longest_step(psf, theta, 0)
    for k in range(slots.size):
        at, role = k * LANES, slots.roles[k]
        value, change = load(theta, at), load(room.step, at) * scale
        if role == POSITION:
            moved = value + within(change, reach)
            away = away | (absolute(moved) > half)
        elif role == SHAPE:
            moved = value + within(change, longest_step(psf, theta, k))
        elif role == PHOTONS:
            moved = at_least(value + change, value * 0.3)
        else:
            moved = value + change
        moved = _between(moved, load(room.lowest, at), load(room.highest, at))
        if role == PHOTONS:
            photons = photons + (moved - LEAST_PHOTONS)
        store(theta, at, select(active, moved, value))
    return away, photons + LEAST_PHOTONS


@borrower
def _deviance(psf: Any, slots: Any, views: Any, block: int, theta: Any, room: Any, work: Any) -> Any:
    """Poisson deviance 2 Σ [μ - x + x ln(x/μ)] over all channels, and what it would be on average if the model is right."""
    total, expected = splat(0.0), splat(0.0)
    area = views.side * views.side
    for c in range(views.channels):
        _place(slots, views, block, c, theta, room.local)
        image(psf, views, c, room.local, room.share, work)
        n, b = load(room.local, (2 + slots.shapes) * LANES), load(room.local, (3 + slots.shapes) * LANES)
        first = c * views.stride + block * area * LANES
        for pixel in range(0, area * LANES, LANES):
            mu = at_least(n * load(room.share, pixel) + (load(views.extra, first + pixel) + b), LEAST_MEAN)
            x = load(views.data, first + pixel)
            half, mean = deviance_terms(x, mu)
            total, expected = total + half, expected + mean
    return total * 2.0, expected
