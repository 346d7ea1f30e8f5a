"""A measured PSF as a kind for the linked fit.

`work` keeps, from one call to the next, the pixels by rows, and the sums of each ROI with the parameters they belong to: a ROI that
has arrived costs nothing while others of its block go on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fitting.kernel import borrower, provides
from fitting.lane_shuffles import totals
from fitting.lanes import LANES, load, select, splat, store
from fitting.poisson import LEAST_MEAN, LEFT_ROI, UNKNOWN, at_least
from fitting.psf_kinds import begin, equations, image, limits, longest_step, scratch, trials
from fitting.spline import TAPS
from fitting.spline_rows import (
    INSIDE,
    OWN,
    SLOPES,
    SUMS,
    Splines,
    Y,
    contract,
    contract_with_slopes,
    down,
    places_of,
    put_table,
    strip_width,
    strips,
    tap,
)
from fitting.spline_starts import choose, compare, take_rows

__all__ = ["Splines"]

_FARTHEST_PX = 1.0


@provides(scratch, Splines)
def _scratch(psf: Any, views: Any) -> Any:
    return places_of(psf, views).end


@provides(trials, Splines)
def _trials(_psf: Any) -> int:
    return 2


@provides(limits, Splines)
def _limits(psf: Any, _shape: int, _side: int) -> Any:
    return psf.lowest, psf.lowest + psf.pitch * np.float32(psf.steps), np.float32(LEFT_ROI)


@provides(longest_step, Splines)
def _longest_step(psf: Any, _theta: Any, parameter: int) -> Any:
    if parameter >= 2:
        return splat(psf.pitch * np.float32(psf.steps) / np.float32(psf.scanned))
    return splat(np.float32(_FARTHEST_PX))


@provides(equations, Splines)
def _equations(
    psf: Any, views: Any, channel: int, _first: int, local: Any, gradient: Any, fisher: Any, work: Any
) -> None:
    places = places_of(psf, views)
    known = places.known + channel * OWN * LANES
    sums = places.sums + channel * SUMS * LANES * LANES
    put_table(psf, views.side, load(local, 0), load(local, LANES), load(local, 2 * LANES), work, places.table)
    for lane in range(LANES):
        if work[places.wanted + lane] > 0 and _is_new(local, work, known, lane):
            _put_sums(psf, views.side, channel, lane, work, places, known)
    per_nm = load(work, places.table + INSIDE) * (np.float32(1.0) / psf.pitch)
    for k in range(OWN):
        value = totals(work, sums + k * LANES * LANES)
        store(gradient, k * LANES, value * per_nm if k == 2 else value)
    at = sums + OWN * LANES * LANES
    for k in range(OWN):
        for m in range(k, OWN):
            value = totals(work, at)
            value = value * per_nm if k == 2 else value
            store(fisher, (k * OWN + m) * LANES, value * per_nm if m == 2 else value)
            at += LANES * LANES


@borrower
def _is_new(local: Any, work: Any, known: int, lane: int) -> bool:
    """Whether a ROI's parameters are not those its sums were made with; makes them known."""
    new = False
    for k in range(lane, OWN * LANES, LANES):
        if work[known + k] != local[k]:
            work[known + k] = local[k]
            new = True
    return new


@borrower
def _put_sums(psf: Any, side: int, channel: int, lane: int, work: Any, places: Any, known: int) -> None:
    """Gradient and Fisher matrix of one ROI, by columns; derivatives by plane, and by place divided by N."""
    table, value = places.table + lane, places.across
    n, b = work[known + 3 * LANES + lane], work[known + 4 * LANES + lane]
    w0, w1, w2, w3 = tap(work, table + Y)
    d0, d1, d2, d3 = tap(work, table + Y + SLOPES)
    shift = (side + TAPS - 1) * LANES
    o = splat(0.0)
    gx, gy, gz, gn, gb = o, o, o, o, o
    xx, xy, xz, xn, xb, yy, yz, yn, yb = o, o, o, o, o, o, o, o, o
    zz, zn, zb, nn, nb, bb = o, o, o, o, o, o
    pixel = (channel * LANES + lane) * strips(side) * side * LANES
    for strip in range(strips(side)):
        contract_with_slopes(psf, channel, side, strip, work, table, value)
        for row in range(value, value + side * LANES, LANES):
            p = down(work, row, w0, w1, w2, w3)
            dx = down(work, row + shift, w0, w1, w2, w3)
            dy = down(work, row, d0, d1, d2, d3)
            dz = down(work, row + 2 * shift, w0, w1, w2, w3)
            c = load(work, places.extra + pixel)
            counts = c < UNKNOWN
            w = 1.0 / at_least(p * n + (c + b), LEAST_MEAN)
            r = select(counts, load(work, places.counts + pixel) * w - 1.0, 0.0)
            w = select(counts, w, 0.0)  # 1/UNKNOWN would lead to denormal numbers, which are slow
            pixel += LANES
            gx, gy, gz, gn, gb = gx + r * dx, gy + r * dy, gz + r * dz, gn + r * p, gb + r
            wx, wy, wz, wn = w * dx, w * dy, w * dz, w * p
            xx, xy, xz, xn, xb = xx + wx * dx, xy + wx * dy, xz + wx * dz, xn + wx * p, xb + wx
            yy, yz, yn, yb = yy + wy * dy, yz + wy * dz, yn + wy * p, yb + wy
            zz, zn, zb = zz + wz * dz, zn + wz * p, zb + wz
            nn, nb, bb = nn + wn * p, nb + wn, bb + w
    to = places.sums + (channel * SUMS * LANES + lane) * LANES
    # the image moves against the coefficients along x and y
    _put_five(work, to, -gx, -gy, gz, gn, gb)
    _put_five(work, to + 5 * LANES * LANES, xx, xy, -xz, -xn, -xb)
    _put_five(work, to + 10 * LANES * LANES, yy, -yz, -yn, -yb, zz)
    _put_five(work, to + 15 * LANES * LANES, zn, zb, nn, nb, bb)


@borrower
def _put_five(work: Any, to: int, v0: Any, v1: Any, v2: Any, v3: Any, v4: Any) -> None:
    store(work, to, v0)
    store(work, to + LANES * LANES, v1)
    store(work, to + 2 * LANES * LANES, v2)
    store(work, to + 3 * LANES * LANES, v3)
    store(work, to + 4 * LANES * LANES, v4)


@provides(image, Splines)
def _image(psf: Any, views: Any, channel: int, local: Any, share: Any, work: Any) -> None:
    places = places_of(psf, views)
    side, width = views.side, strip_width(views.side)
    put_table(psf, side, load(local, 0), load(local, LANES), load(local, 2 * LANES), work, places.table)
    row, across = places.weights, places.across
    for lane in range(LANES):
        if not work[places.wanted + lane] > 0:
            continue
        w0, w1, w2, w3 = tap(work, places.table + lane + Y)
        for strip in range(strips(side)):
            contract(psf, channel, side, strip, work, places.table + lane, across)
            first = strip * width
            for j in range(side):
                store(work, row, down(work, across + j * LANES, w0, w1, w2, w3))
                to = (j * side + first) * LANES + lane
                for i in range(min(width, side - first)):
                    share[to + i * LANES] = work[row + i]


@provides(begin, Splines)
def _begin(psf: Any, trial: int, views: Any, block: int, theta: Any, slots: Any, work: Any) -> Any:
    places = places_of(psf, views)
    if trial > 0:
        for k in range(0, slots.size * LANES, LANES):
            store(theta, k, load(work, places.other + k))
        second = load(work, places.wanted + LANES)
        store(work, places.wanted, second)
        return second > 0.5
    for k in range(0, views.channels * OWN * LANES, LANES):
        store(work, places.known + k, splat(np.float32(np.nan)))
    for c in range(views.channels):
        at = (block * views.channels + c) * 2 * LANES
        x, y = load(theta, 0) + load(views.shifts, at), load(theta, LANES) + load(views.shifts, at + LANES)
        b = load(theta, slots.backgrounds[c] * LANES) if slots.backgrounds[c] >= 0 else splat(0.0)
        take_rows(views, c, block, work, places)
        compare(psf, views, c, x, y, b, work, places)
    choose(psf, views.channels, theta, slots, work, places)
    store(work, places.wanted, splat(1.0))
    return splat(1.0) > 0.5
