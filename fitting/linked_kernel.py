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

from fitting.kernel import device, kernel
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
    UNKNOWN,
    at_least,
    expected_deviance,
    moments,
    within,
)
from fitting.psf import logarithm
from fitting.psf_kinds import begin, equations, image, limits, longest_step, scratch, trials
from fitting.symmetric import factorise, invert, substitute

QUALITY = 4
"""deviance, deviance over its expectation, iterations, result code."""
POSITION, SHAPE, PHOTONS, BACKGROUND = 0, 1, 2, 3
"""Roles of parameters."""


class Slots(NamedTuple):
    """Where the parameters of the channels are among those of the fit.

    Attributes
    ----------
    size, shapes : int
        Number of parameters, and of shape parameters among them (numbers 2 to 1 + shapes).
    roles : (size,) int64 array
    photons, backgrounds, moves : (channels,) int64 arrays
        Number of N, b and dx in the fit (dy comes next); -1 where the fit has none.
    ratios : (channels,) float32 array
        The channel's N over the N of the fit.
    """

    size: int
    shapes: int
    roles: Any
    photons: Any
    backgrounds: Any
    moves: Any
    ratios: Any


@kernel
def fit_linked(
    psf: Any, slots: Any, views: Any, blocks: int, given: Any, theta: Any, covariance: Any, quality: Any
) -> None:
    """Fit blocks of 16 molecules.

    Parameters
    ----------
    psf : NamedTuple
        Of a kind that provides what `fitting.psf_kinds` asks for.
    slots : Slots
    views : fitting.psf_kinds.Views
    given : (16 size blocks or 0,) float32 array
        Start of each parameter, NaN where it has to be found; indexed [block, parameter, lane].
    theta : (16 size blocks,) float32 array
        Out: the parameters, likewise.
    covariance : (16 size² blocks,) float32 array
        Out: the Cramér-Rao bound, indexed [block, row, column, lane].
    quality : (16 · 4 blocks,) float32 array
        Out: see `QUALITY`.
    """
    size = slots.size
    square = size * size * LANES
    here, kept_h, best_h = (
        np.empty(size * LANES, np.float32),
        np.empty(square, np.float32),
        np.empty(square, np.float32),
    )
    moment, lowest, highest, step = (
        np.empty(size * LANES, np.float32),
        np.empty(size * LANES, np.float32),
        np.empty(size * LANES, np.float32),
        np.empty(size * LANES, np.float32),
    )
    room = _room(slots, views.side)
    work = np.empty(scratch(psf, views.side), np.float32)
    for block in range(blocks):
        pixels = _start(psf, slots, views, block, moment, lowest, highest)
        to = block * size * LANES
        best, expected, iterations, code = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        for trial in range(trials(psf)):
            for k in range(0, size * LANES, LANES):
                store(here, k, load(moment, k))
            begin(psf, trial, views, block, here, slots, work)
            _take_given(given, to, here, lowest, highest, size)
            ended, used = _climb(
                psf, slots, views, block, here, lowest, highest, pixels, kept_h, step, room, work
            )
            deviance, mean = _deviance(psf, slots, views, block, here, room, work)
            better = (_rank(deviance, ended) < _rank(best, code)) | (splat(np.float32(trial)) < 0.5)
            best, expected = select(better, deviance, best), select(better, mean, expected)
            iterations, code = iterations + used, select(better, ended, code)
            _keep(better, here, 0, theta, to, size * LANES)
            _keep(better, kept_h, 0, best_h, 0, square)
        factorise(best_h, size, kept_h)
        invert(kept_h, size, step, covariance, block * square)
        count = np.float32(size)
        freedom = expected - expected * (count / at_least(pixels, count + np.float32(1.0)))
        at = block * QUALITY * LANES
        store(quality, at, best)
        store(quality, at + LANES, best / at_least(freedom, 1.0))
        store(quality, at + 2 * LANES, iterations)
        store(quality, at + 3 * LANES, code)


class _Room(NamedTuple):
    """Scratch arrays of a fit: one channel's parameters, gradient and Fisher matrix, the sums over channels, an image."""

    local: Any
    channel_gradient: Any
    channel_fisher: Any
    gradient: Any
    fisher: Any
    factors: Any
    share: Any


@device
def _room(slots: Any, side: int) -> Any:
    own = slots.shapes + 4
    return _Room(
        np.empty(own * LANES, np.float32),
        np.empty(own * LANES, np.float32),
        np.empty(own * own * LANES, np.float32),
        np.empty(slots.size * LANES, np.float32),
        np.empty(slots.size * slots.size * LANES, np.float32),
        np.empty(slots.size * slots.size * LANES, np.float32),
        np.empty(side * side * LANES, np.float32),
    )


@device
def _rank(deviance: Any, code: Any) -> Any:
    """The deviance; of a fit that failed, as if it were very high."""
    return select(code > 5.5, 1e30, select(deviance < 1e29, deviance, 1e29))


@device
def _keep(chosen: Any, source: Any, begin_at: int, target: Any, to: int, length: int) -> None:
    for k in range(0, length, LANES):
        store(target, to + k, select(chosen, load(source, begin_at + k), load(target, to + k)))


@device
def _start(psf: Any, slots: Any, views: Any, block: int, theta: Any, lowest: Any, highest: Any) -> Any:
    """Moments of every channel, and the limits of every parameter; gives how many pixels count."""
    side = views.side
    zero = splat(0.0)
    pixels, total, along_x, along_y = zero, zero, zero, zero
    for k in range(slots.size):
        store(theta, k * LANES, zero)
        store(lowest, k * LANES, splat(np.float32(-1e30)))
        store(highest, k * LANES, splat(np.float32(1e30)))
    for k in range(slots.shapes):
        low, high, _ = limits(psf, k, side)
        store(lowest, (2 + k) * LANES, splat(low))
        store(highest, (2 + k) * LANES, splat(high))
    for c in range(views.channels):
        first = c * views.stride + block * side * side * LANES
        (x, y, n, b), least_b, known = moments(views.data, views.extra, first, side)
        at = (block * views.channels + c) * 2 * LANES
        along_x = along_x + n * (x - load(views.shifts, at))
        along_y = along_y + n * (y - load(views.shifts, at + LANES))
        total, pixels = total + n, pixels + known
        to = slots.photons[c] * LANES
        store(theta, to, load(theta, to) + n)
        store(lowest, to, splat(np.float32(LEAST_PHOTONS)))
        if slots.backgrounds[c] >= 0:
            store(theta, slots.backgrounds[c] * LANES, b)
            store(lowest, slots.backgrounds[c] * LANES, least_b)
    store(theta, 0, within(along_x / total, 1.0))
    store(theta, LANES, within(along_y / total, 1.0))
    return pixels


@device
def _take_given(given: Any, at: int, theta: Any, lowest: Any, highest: Any, size: int) -> None:
    """Replace the start by what the caller knows better, and keep it within the limits."""
    for k in range(0, size * LANES, LANES):
        value = load(theta, k)
        if given.size:
            known = load(given, at + k)
            value = select(known >= known, known, value)
        high = load(highest, k)
        store(theta, k, at_least(select(value < high, value, high), load(lowest, k)))


@device
def _climb(
    psf: Any, slots: Any, views: Any, block: int, theta: Any, lowest: Any, highest: Any, pixels: Any,
    kept_h: Any, step: Any, room: Any, work: Any,
) -> Any:  # fmt: skip
    """Fisher scoring from `theta`, in place; a lane that has arrived is frozen. Gives result codes and iterations."""
    size = slots.size
    code = select(pixels < np.float32(size + 1), DEGENERATE, splat(0.0))
    active = code < 0.5
    iterations = splat(0.0)
    scale = np.float32(1.0)
    for k in range(0, size * size * LANES, LANES):
        store(kept_h, k, splat(0.0))
    for turn in range(ITERATIONS):
        _gather(psf, slots, views, block, theta, room, work)
        on_edge = _hold(psf, slots, views.side, theta, lowest, highest, room)
        _keep(active, room.fisher, 0, kept_h, 0, size * size * LANES)
        good = factorise(room.fisher, size, room.factors)
        for k in range(0, size * LANES, LANES):
            store(step, k, load(room.gradient, k))
        substitute(room.factors, size, step)
        distance = splat(0.0)
        for k in range(0, size * LANES, LANES):
            distance = distance + load(room.gradient, k) * load(step, k)
        if turn >= DAMPED_FROM:
            scale = np.float32(0.5) if turn < 2 * DAMPED_FROM else np.float32(0.25)
        away, photons = _move(psf, slots, views.side, theta, lowest, highest, step, scale, active)
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


@device
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


@device
def _gather(psf: Any, slots: Any, views: Any, block: int, theta: Any, room: Any, work: Any) -> None:
    """The sums over channels of Jᵀ g and Jᵀ H J, with the factor N of the derivatives by position and shape."""
    size, own = slots.size, slots.shapes + 4
    for k in range(0, size * LANES, LANES):
        store(room.gradient, k, splat(0.0))
    for k in range(0, size * size * LANES, LANES):
        store(room.fisher, k, splat(0.0))
    for c in range(views.channels):
        _place(slots, views, block, c, theta, room.local)
        first = c * views.stride + block * views.side * views.side * LANES
        equations(psf, views, c, first, room.local, room.channel_gradient, room.channel_fisher, work)
        n = load(room.local, (2 + slots.shapes) * LANES)
        entries = own + 2
        for a in range(entries):
            k, to_k = _entry(slots, c, a)
            if to_k >= 0:
                factor = _factor(slots, c, k, n)
                to = to_k * LANES
                store(
                    room.gradient,
                    to,
                    load(room.gradient, to) + load(room.channel_gradient, k * LANES) * factor,
                )
                for e in range(a, entries):
                    m, to_m = _entry(slots, c, e)
                    if to_m >= 0:
                        at = (min(k, m) * own + max(k, m)) * LANES
                        to = (to_k * size + to_m) * LANES
                        value = load(room.channel_fisher, at) * factor * _factor(slots, c, m, n)
                        store(room.fisher, to, load(room.fisher, to) + value)


@device
def _entry(slots: Any, channel: int, number: int) -> Any:
    """Entry of J: number of the channel's parameter, and of the fit's (-1: there is none), in ascending order of the latter."""
    shapes = slots.shapes
    if number < 2 + shapes:
        return number, number
    if number == 2 + shapes:
        return number, slots.photons[channel]
    if number == 3 + shapes:
        return number, slots.backgrounds[channel]
    which = number - 4 - shapes
    move = slots.moves[channel]
    return which, (move + which if move >= 0 else -1)


@device
def _factor(slots: Any, channel: int, number: int, n: Any) -> Any:
    """What a derivative by the channel's parameter is multiplied by."""
    if number < 2 + slots.shapes:
        return n
    return splat(slots.ratios[channel] if number == 2 + slots.shapes else np.float32(1.0))


@device
def _hold(psf: Any, slots: Any, side: int, theta: Any, lowest: Any, highest: Any, room: Any) -> Any:
    """Take parameters out of the equations that rest on a limit and are pulled beyond; gives the result code of a shape that is, else 0."""
    size = slots.size
    code = splat(0.0)
    for k in range(2, size):
        role = slots.roles[k]
        if role == POSITION:
            continue
        at = k * LANES
        value, pull = load(theta, at), load(room.gradient, at)
        held = ((value <= load(lowest, at)) & (pull < 0.0)) | ((value >= load(highest, at)) & (pull > 0.0))
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


@device
def _move(
    psf: Any, slots: Any, side: int, theta: Any, lowest: Any, highest: Any, step: Any, scale: Any, active: Any
) -> Any:
    """Take a step, within bounds; gives where a position is out of the ROI, and photons above the least in each channel."""
    half = np.float32(side) * np.float32(0.5) + np.float32(0.5)
    away = splat(np.float32(1.0)) < 0.0
    photons = splat(0.0)
    reach = longest_step(psf, theta, 0)
    for k in range(slots.size):
        at, role = k * LANES, slots.roles[k]
        value, change = load(theta, at), load(step, at) * scale
        if role == POSITION:
            moved = value + within(change, reach)
            away = away | (absolute(moved) > half)
        elif role == SHAPE:
            moved = value + within(change, longest_step(psf, theta, k))
        elif role == PHOTONS:
            moved = at_least(value + change, value * 0.3)
        else:
            moved = value + change
        high = load(highest, at)
        moved = at_least(select(moved < high, moved, high), load(lowest, at))
        if role == PHOTONS:
            photons = photons + (moved - LEAST_PHOTONS)
        store(theta, at, select(active, moved, value))
    return away, photons + LEAST_PHOTONS


@device
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
            total = total + (mu - x + x * logarithm(at_least(x / mu, 1e-30)))
            expected = expected + select(mu < UNKNOWN, expected_deviance(mu), 0.0)
    return total * 2.0, expected
