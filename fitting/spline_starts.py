"""Where the fit of a measured PSF may start: planes along z on which it looks like the molecule.

A measured PSF may look alike at several z. On planes spread through the volume, N and b follow by linear least squares from a few sums over pixels; where what is left of the
squares has two minima along z, the two deepest are starts, the second one only where it is in doubt.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fitting.kernel import borrower
from fitting.lane_shuffles import totals
from fitting.lanes import LANES, lane_bits, load, select, splat, store
from fitting.poisson import LEAST_MEAN, UNKNOWN, at_least
from fitting.spline_rows import Y, contract, down, most_parameters, put_table, strip_width, strips, tap

_DOUBTFUL_SHARE = 0.25  # of what separates the best plane from the worst
_DOUBTFUL = 10.0  # where a molecule is so dim that all planes are as good as that


@borrower
def take_rows(views: Any, channel: int, block: int, work: Any, places: Any) -> None:
    """Lay the pixels of a block along x: from [y, x, lane] to [lane, strip, y, column]."""
    side, width, number = views.side, strip_width(views.side), strips(views.side)
    start = channel * views.stride + block * side * side * LANES
    to = channel * LANES * number * side * LANES
    counts, extra = places.counts + to, places.extra + to
    for lane in range(LANES):
        for strip in range(number):
            known = min(width, side - strip * width)
            for j in range(side):
                at = start + (j * side + strip * width) * LANES + lane
                store(work, counts, splat(UNKNOWN))
                store(work, extra, splat(UNKNOWN))
                for i in range(known):
                    work[counts + i] = views.data[at + i * LANES]
                    work[extra + i] = views.extra[at + i * LANES]
                counts += LANES
                extra += LANES


@borrower
def compare(psf: Any, views: Any, channel: int, x: Any, y: Any, b: Any, work: Any, places: Any) -> None:
    """Sums over the pixels of a channel, weighted as the background alone demands, of which N and b follow by least squares.

    For each plane Σ p², Σ p and Σ p d, with p the PSF there and d the photons; after the planes Σ 1, Σ d and Σ d².
    """
    side = views.side
    length = strips(side) * side * LANES
    seen = places.seen + channel * 3 * (psf.scanned + 1) * LANES
    store(work, places.across, b)
    for lane in range(LANES):
        pixel = (channel * LANES + lane) * length
        _weigh(pixel, lane * length, length, work[places.across + lane], lane, work, places)
    _put_totals(work, places.sums, seen + 3 * psf.scanned * LANES)
    for k in range(psf.scanned):
        put_table(psf, side, x, y, splat(_scanned_z(psf, k) + views.offsets[channel]), work, places.table)
        for lane in range(LANES):
            _correlate(psf, channel, side, lane, lane * length, work, places)
        _put_totals(work, places.sums, seen + 3 * k * LANES)


@borrower
def _put_totals(work: Any, source: int, to: int) -> None:
    """Add up three sums of sixteen ROIs."""
    for k in range(3):
        store(work, to + k * LANES, totals(work, source + k * LANES * LANES))


@borrower
def _scanned_z(psf: Any, k: int) -> Any:
    span = psf.pitch * np.float32(psf.steps)
    return psf.lowest + span * ((np.float32(k) + np.float32(0.5)) / np.float32(psf.scanned))


@borrower
def _weigh(pixel: int, to: int, length: int, level: Any, lane: int, work: Any, places: Any) -> None:
    """Write weights and weighted photons of one ROI, and their sums by columns."""
    ones, d1, dd = splat(0.0), splat(0.0), splat(0.0)
    for k in range(0, length, LANES):
        c = load(work, places.extra + pixel + k)
        d = load(work, places.counts + pixel + k) - c
        w = select(c < UNKNOWN, 1.0 / at_least(c + level, LEAST_MEAN), 0.0)
        wd = w * d
        store(work, places.weights + to + k, w)
        store(work, places.weighted + to + k, wd)
        ones, d1, dd = ones + w, d1 + wd, dd + wd * d
    _put_three(work, places.sums + lane * LANES, ones, d1, dd)


@borrower
def _correlate(psf: Any, channel: int, side: int, lane: int, pixel: int, work: Any, places: Any) -> None:
    pp, p1, pd = splat(0.0), splat(0.0), splat(0.0)
    across = places.across
    w0, w1, w2, w3 = tap(work, places.table + lane + Y)
    for strip in range(strips(side)):
        contract(psf, channel, side, strip, work, places.table + lane, across)
        for row in range(across, across + side * LANES, LANES):
            p = down(work, row, w0, w1, w2, w3)
            wp = load(work, places.weights + pixel) * p
            pp, p1, pd = pp + wp * p, p1 + wp, pd + p * load(work, places.weighted + pixel)
            pixel += LANES
    _put_three(work, places.sums + lane * LANES, pp, p1, pd)


@borrower
def _put_three(work: Any, to: int, v0: Any, v1: Any, v2: Any) -> None:
    store(work, to, v0)
    store(work, to + LANES * LANES, v1)
    store(work, to + 2 * LANES * LANES, v2)


@borrower
def _solve(psf: Any, channels: int, k: int, slots: Any, work: Any, places: Any) -> Any:
    """N and b of every channel for a molecule on scanned plane `k`, written to `linear`; gives what is left of the sum of squares."""
    most = most_parameters(channels) * LANES
    linear, across = places.linear, places.linear + most
    for i in range(0, 2 * most, LANES):
        store(work, linear + i, splat(0.0))
    left = splat(0.0)
    for c in range(channels):
        pp, p1, pd, ones, d1, dd = _sums_of(psf, c, k, work, places)
        if slots.backgrounds[c] >= 0:
            pp, pd, dd = pp - p1 * p1 / ones, pd - p1 * d1 / ones, dd - d1 * d1 / ones
        to, share = slots.photons[c] * LANES, slots.ratios[c]
        store(work, linear + to, load(work, linear + to) + pd * share)
        store(work, across + to, load(work, across + to) + pp * (share * share))
        left = left + dd
    for i in range(3 * LANES, most, LANES):
        along = at_least(load(work, linear + i), 0.0)
        n = along / at_least(load(work, across + i), 1e-20)
        store(work, linear + i, n)
        left = left - along * n
    for c in range(channels):
        if slots.backgrounds[c] >= 0:
            _, p1, _, ones, d1, _ = _sums_of(psf, c, k, work, places)
            n = load(work, linear + slots.photons[c] * LANES) * slots.ratios[c]
            store(work, linear + slots.backgrounds[c] * LANES, (d1 - n * p1) / ones)
    return left


@borrower
def _sums_of(psf: Any, channel: int, k: int, work: Any, places: Any) -> Any:
    first = places.seen + channel * 3 * (psf.scanned + 1) * LANES
    at, base = first + 3 * k * LANES, first + 3 * psf.scanned * LANES
    return (
        load(work, at), load(work, at + LANES), load(work, at + 2 * LANES),
        at_least(load(work, base), 1e-20), load(work, base + LANES), load(work, base + 2 * LANES),
    )  # fmt: skip


@borrower
def choose(psf: Any, channels: int, theta: Any, slots: Any, work: Any, places: Any) -> None:
    """Put the deepest minimum along z into `theta`, the second deepest into `other`, and behind `wanted` where it may be as good."""
    number, costs = psf.scanned, places.costs
    worst = splat(0.0)
    for k in range(number):
        cost = _solve(psf, channels, k, slots, work, places)
        store(work, costs + (k + 1) * LANES, cost)
        worst = at_least(cost, worst)
    store(work, costs, splat(1e30))
    store(work, costs + (number + 1) * LANES, splat(1e30))
    for k in range(0, slots.size * LANES, LANES):
        store(work, places.other + k, load(theta, k))
    best, second = splat(1e30), splat(1e30)
    for k in range(number):
        here = load(work, costs + (k + 1) * LANES)
        lowest = (here <= load(work, costs + k * LANES)) & (here < load(work, costs + (k + 2) * LANES))
        if lane_bits(lowest) == 0:
            continue
        deepest = lowest & (here < best)
        deeper = lowest & ~deepest & (here < second)
        _solve(psf, channels, k, slots, work, places)
        store(work, places.linear + 2 * LANES, _between(psf, k, work, costs + k * LANES))
        for i in range(2 * LANES, slots.size * LANES, LANES):
            was, found = load(theta, i), load(work, places.linear + i)
            to = places.other + i
            store(work, to, select(deepest, was, select(deeper, found, load(work, to))))
            store(theta, i, select(deepest, found, was))
        second = select(deepest, best, select(deeper, here, second))
        best = select(deepest, here, best)
    doubtful = at_least((worst - best) * _DOUBTFUL_SHARE, _DOUBTFUL)
    store(work, places.wanted + LANES, select(second - best < doubtful, splat(1.0), splat(0.0)))


@borrower
def _between(psf: Any, k: int, work: Any, costs: int) -> Any:
    """The lowest point, in z, of the parabola through the costs of a plane and of those before and behind it."""
    z = splat(_scanned_z(psf, k))
    if 0 < k < psf.scanned - 1:
        before, here, after = load(work, costs), load(work, costs + LANES), load(work, costs + 2 * LANES)
        bend = at_least(before + after - here * 2.0, 1e-20)
        z = z + (before - after) / bend * (np.float32(0.5) * (_scanned_z(psf, 1) - _scanned_z(psf, 0)))
    return z
