r"""A measured PSF as a kind for the linked fit: expected photons, their derivatives, the sums a fit needs of them, and where z may start.

Pixels of a ROI share their weights (see `fitting.spline`), those of two ROIs do not. So the ROIs are taken one at a time, and the sixteen lanes are
pixels along x. The three sums over coefficients are taken one after another: along z for each row of coefficients (value and ∂z), along x (value,
∂x, ∂z), along y (value and all three derivatives), for a side of s pixels 20 (s + 3) + 16 s multiplications of rows.
Sixteen columns of coefficients make thirteen pixels; a wider ROI is cut into strips of at most thirteen columns.

A measured PSF may look alike at several z. On planes spread through the volume N and b follow by linear least squares; where the
residual has two minima along z, both of the two deepest are tried.

`work` keeps, from one call to the next, the pixels by rows, and the sums of each ROI with the parameters they belong to: a ROI that
has arrived costs nothing while others of its block go on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fitting.kernel import borrower, provides
from fitting.lanes import LANES, lane_bits, load, next_lane, rounded, select, splat, store, total, totals
from fitting.poisson import LEAST_MEAN, LEFT_ROI, UNKNOWN, at_least
from fitting.psf_kinds import begin, equations, image, limits, longest_step, scratch, trials
from fitting.spline import PAD_Z, TAPS

_WIDEST = LANES - TAPS + 1
_OWN = 5  # x, y, z, N, b of a channel
_SUMS = 20  # gradient (5) and upper triangle of the Fisher matrix (15) by x, y, plane, N, b
_SLOPES, _FIRST = (
    4 * LANES,
    8 * LANES,
)  # in a table of weights an axis has 4 weights, their 4 slopes, the number of the first coefficient
_X, _Y, _Z = 0, 9 * LANES, 18 * LANES
_INSIDE = 27 * LANES  # 1 where z is inside the volume
_TABLE = 28
_ROW_SETS = 3  # value, ∂x and ∂z
_FARTHEST_PX = 1.0
_DOUBTFUL_SHARE = 0.25  # of what separates the best plane from the worst
_DOUBTFUL = 10.0  # where a molecule is so dim that all planes are as good as that


class Splines(NamedTuple):
    """What kernels see of a measured PSF.

    Attributes
    ----------
    coefficients : flat float32 array
        Indexed [channel, plane, row, column], see `fitting.spline.SplinePsf`.
    channels, planes, rows, columns : int
        Its shape; one channel serves all.
    lowest, pitch : float32
        z of the first sample and the step between samples [nm].
    degree : int
    scanned : int
        How many planes are looked at for a start.
    """

    coefficients: Any
    channels: int
    planes: int
    rows: int
    columns: int
    lowest: Any
    pitch: Any
    degree: int
    scanned: int


class _Places(NamedTuple):
    """Where the parts of `work` begin. (One array and numbers, not many arrays: each array that is handed on costs two counts of its references.)"""

    counts: int  # [channel, lane, strip, y, column]
    extra: int
    sums: int  # [channel, sum, lane, column]
    known: int  # [channel, parameter, lane]: whose sums those are
    table: int  # [weight, lane]
    across: int  # [value ∂x ∂z, row, column]
    weights: int  # [lane, strip, y, column], of one channel
    weighted: int
    seen: int  # [channel, plane, sum, lane]
    costs: int  # [plane, lane], one more at both ends
    linear: int  # [2, parameter, lane]
    other: int  # [parameter, lane]: the second start
    wanted: int  # [lane]: whether the ROI is fitted now, and whether from its second start
    end: int


@borrower
def _strips(side: int) -> int:
    return (side + _WIDEST - 1) // _WIDEST


@borrower
def _strip_width(side: int) -> int:
    number = _strips(side)
    return (side + number - 1) // number


@borrower
def _most_parameters(channels: int) -> int:
    return 3 + 4 * channels


@borrower
def _places(psf: Any, views: Any) -> Any:
    channels, most = views.channels, _most_parameters(views.channels)
    pixels = _strips(views.side) * views.side * LANES
    extra = channels * pixels * LANES
    sums = 2 * extra
    known = sums + channels * _SUMS * LANES * LANES
    table = known + channels * _OWN * LANES
    across = table + _TABLE * LANES
    weights = across + _ROW_SETS * (views.side + TAPS - 1) * LANES
    weighted = weights + pixels * LANES
    seen = weighted + pixels * LANES
    costs = seen + 3 * channels * (psf.scanned + 1) * LANES
    linear = costs + (psf.scanned + 2) * LANES
    other = linear + 2 * most * LANES
    wanted = other + most * LANES
    return _Places(
        0, extra, sums, known, table, across, weights, weighted, seen, costs, linear, other, wanted,
        wanted + 2 * LANES,
    )  # fmt: skip


@provides(scratch, Splines)
def _scratch(psf: Any, views: Any) -> Any:
    return _places(psf, views).end


@provides(trials, Splines)
def _trials(_psf: Any) -> int:
    return 2


@provides(limits, Splines)
def _limits(psf: Any, _shape: int, _side: int) -> Any:
    return psf.lowest, psf.lowest + psf.pitch * np.float32(psf.planes - 4), np.float32(LEFT_ROI)


@provides(longest_step, Splines)
def _longest_step(psf: Any, _theta: Any, parameter: int) -> Any:
    if parameter >= 2:
        return splat(psf.pitch * np.float32(psf.planes - 4) / np.float32(psf.scanned))
    return splat(np.float32(_FARTHEST_PX))


@borrower
def _put_taps(f: Any, degree: int, work: Any, to: int) -> None:
    """Weights of the four coefficients around a place `f` behind the second of them, 0 ≤ f ≤ 1, and their derivatives by it."""
    e = 1.0 - f
    w0, w1, w2, w3 = splat(0.0), e, f, splat(0.0)
    s0, s1, s2, s3 = splat(0.0), splat(-1.0), splat(1.0), splat(0.0)
    if degree == 3:
        w0, w3 = e * e * e * (1.0 / 6.0), f * f * f * (1.0 / 6.0)
        w1, w2 = (f * 0.5 - 1.0) * f * f + 2.0 / 3.0, (e * 0.5 - 1.0) * e * e + 2.0 / 3.0
        s0, s3 = e * e * -0.5, f * f * 0.5
        s1, s2 = (f * 1.5 - 2.0) * f, (2.0 - e * 1.5) * e
    store(work, to, w0)
    store(work, to + LANES, w1)
    store(work, to + 2 * LANES, w2)
    store(work, to + 3 * LANES, w3)
    store(work, to + 4 * LANES, s0)
    store(work, to + 5 * LANES, s1)
    store(work, to + 6 * LANES, s2)
    store(work, to + 7 * LANES, s3)


@borrower
def _put_axis(place: Any, first: Any, last: Any, degree: int, work: Any, to: int) -> None:
    """Weights along an axis for a place `first` + `place` [samples, padding included], `first` a whole number."""
    whole = rounded(place - 0.5)
    _put_taps(place - whole, degree, work, to)
    number = whole + (first - np.float32(1.0))
    number = select(number < last, number, last)
    store(work, to + 8 * LANES, at_least(number, -last))


@borrower
def _put_table(psf: Any, side: int, x: Any, y: Any, z: Any, work: Any, table: int) -> None:
    """Weights and places of the coefficients of sixteen ROIs; x and y [px] from the middle, z [nm] in the channel."""
    inside = np.float32(psf.planes - 4)
    plane = (z - psf.lowest) * (np.float32(1.0) / psf.pitch)
    store(work, table + _INSIDE, select((plane >= 0.0) & (plane <= inside), splat(1.0), splat(0.0)))
    plane = at_least(select(plane < inside, plane, inside), 0.0)
    most = np.float32(psf.planes - TAPS)
    _put_axis(plane, np.float32(PAD_Z), most, psf.degree, work, table + _Z)
    # the middle of the volume is at (n - 1)/2: a whole number of samples, and perhaps a half
    first, rest = (psf.columns - side) // 2, np.float32((psf.columns - side) % 2) * np.float32(0.5)
    _put_axis(rest - x, np.float32(first), np.float32(psf.columns), psf.degree, work, table + _X)
    first, rest = (psf.rows - side) // 2, np.float32((psf.rows - side) % 2) * np.float32(0.5)
    _put_axis(rest - y, np.float32(first), np.float32(psf.rows), psf.degree, work, table + _Y)


@borrower
def _tap(work: Any, at: int) -> Any:
    return work[at], work[at + LANES], work[at + 2 * LANES], work[at + 3 * LANES]


@borrower
def _down(work: Any, at: int, w0: Any, w1: Any, w2: Any, w3: Any) -> Any:
    """Sum of four rows."""
    return (
        load(work, at) * w0
        + load(work, at + LANES) * w1
        + load(work, at + 2 * LANES) * w2
        + load(work, at + 3 * LANES) * w3
    )


@borrower
def _along(a0: Any, w0: Any, w1: Any, w2: Any, w3: Any) -> Any:
    """Sum of four neighbours in a row."""
    a1 = next_lane(a0)
    a2 = next_lane(a1)
    return a0 * w0 + a1 * w1 + a2 * w2 + next_lane(a2) * w3


@borrower
def _first_coefficients(psf: Any, channel: int, side: int, strip: int, work: Any, table: int) -> Any:
    """Number of the first plane's row 0 among all rows, of the first row, and of the first column; `table` is the ROI's own."""
    source = channel if psf.channels > 1 else 0
    column = int(work[table + _X + _FIRST]) + strip * _strip_width(side)
    return (
        (source * psf.planes + int(work[table + _Z + _FIRST])) * psf.rows,
        int(work[table + _Y + _FIRST]),
        max(min(column, psf.columns - LANES), 0),
    )


@borrower
def _contract(psf: Any, channel: int, side: int, strip: int, work: Any, table: int, across: int) -> None:
    """Sum along z, then along x: one row at `across` for each row of coefficients."""
    z0, z1, z2, z3 = _tap(work, table + _Z)
    x0, x1, x2, x3 = _tap(work, table + _X)
    first, row, column = _first_coefficients(psf, channel, side, strip, work, table)
    flat, layer = psf.coefficients, psf.rows * psf.columns
    for r in range(side + TAPS - 1):
        at = (first + max(min(row + r, psf.rows - 1), 0)) * psf.columns + column
        a = load(flat, at) * z0 + load(flat, at + layer) * z1 + load(flat, at + 2 * layer) * z2
        a = a + load(flat, at + 3 * layer) * z3
        store(work, across + r * LANES, _along(a, x0, x1, x2, x3))


@borrower
def _contract_with_slopes(
    psf: Any, channel: int, side: int, strip: int, work: Any, table: int, across: int
) -> None:
    """The same, then the rows of ∂x, then those of ∂z."""
    z0, z1, z2, z3 = _tap(work, table + _Z)
    p0, p1, p2, p3 = _tap(work, table + _Z + _SLOPES)
    x0, x1, x2, x3 = _tap(work, table + _X)
    q0, q1, q2, q3 = _tap(work, table + _X + _SLOPES)
    first, row, column = _first_coefficients(psf, channel, side, strip, work, table)
    flat, layer = psf.coefficients, psf.rows * psf.columns
    across_dx = across + (side + TAPS - 1) * LANES
    across_dz = across_dx + (side + TAPS - 1) * LANES
    for r in range(side + TAPS - 1):
        at = (first + max(min(row + r, psf.rows - 1), 0)) * psf.columns + column
        c0, c1, c2, c3 = (
            load(flat, at),
            load(flat, at + layer),
            load(flat, at + 2 * layer),
            load(flat, at + 3 * layer),
        )
        a = c0 * z0 + c1 * z1 + c2 * z2 + c3 * z3
        store(work, across + r * LANES, _along(a, x0, x1, x2, x3))
        store(work, across_dx + r * LANES, _along(a, q0, q1, q2, q3))
        a = c0 * p0 + c1 * p1 + c2 * p2 + c3 * p3
        store(work, across_dz + r * LANES, _along(a, x0, x1, x2, x3))


@provides(equations, Splines)
def _equations(
    psf: Any, views: Any, channel: int, _first: int, local: Any, gradient: Any, fisher: Any, work: Any
) -> None:
    places = _places(psf, views)
    known = places.known + channel * _OWN * LANES
    sums = places.sums + channel * _SUMS * LANES * LANES
    _put_table(
        psf, views.side, load(local, 0), load(local, LANES), load(local, 2 * LANES), work, places.table
    )
    for lane in range(LANES):
        if work[places.wanted + lane] > 0 and _is_new(local, work, known, lane):
            _put_sums(psf, views.side, channel, lane, work, places, known)
    per_nm = load(work, places.table + _INSIDE) * (np.float32(1.0) / psf.pitch)
    for k in range(_OWN):
        value = totals(work, sums + k * LANES * LANES)
        store(gradient, k * LANES, value * per_nm if k == 2 else value)
    at = sums + _OWN * LANES * LANES
    for k in range(_OWN):
        for m in range(k, _OWN):
            value = totals(work, at)
            value = value * per_nm if k == 2 else value
            store(fisher, (k * _OWN + m) * LANES, value * per_nm if m == 2 else value)
            at += LANES * LANES


@borrower
def _is_new(local: Any, work: Any, known: int, lane: int) -> bool:
    """Whether a ROI's parameters are not those its sums were made with; makes them known."""
    new = False
    for k in range(lane, _OWN * LANES, LANES):
        if work[known + k] != local[k]:
            work[known + k] = local[k]
            new = True
    return new


@borrower
def _put_sums(psf: Any, side: int, channel: int, lane: int, work: Any, places: Any, known: int) -> None:
    """Gradient and Fisher matrix of one ROI, by columns; derivatives by plane, and by place divided by N."""
    table, value = places.table + lane, places.across
    n, b = work[known + 3 * LANES + lane], work[known + 4 * LANES + lane]
    w0, w1, w2, w3 = _tap(work, table + _Y)
    d0, d1, d2, d3 = _tap(work, table + _Y + _SLOPES)
    shift = (side + TAPS - 1) * LANES
    o = splat(0.0)
    gx, gy, gz, gn, gb = o, o, o, o, o
    xx, xy, xz, xn, xb, yy, yz, yn, yb = o, o, o, o, o, o, o, o, o
    zz, zn, zb, nn, nb, bb = o, o, o, o, o, o
    pixel = (channel * LANES + lane) * _strips(side) * side * LANES
    for strip in range(_strips(side)):
        _contract_with_slopes(psf, channel, side, strip, work, table, value)
        for row in range(value, value + side * LANES, LANES):
            p = _down(work, row, w0, w1, w2, w3)
            dx = _down(work, row + shift, w0, w1, w2, w3)
            dy = _down(work, row, d0, d1, d2, d3)
            dz = _down(work, row + 2 * shift, w0, w1, w2, w3)
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
    to = places.sums + (channel * _SUMS * LANES + lane) * LANES
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
    places = _places(psf, views)
    side, width = views.side, _strip_width(views.side)
    _put_table(psf, side, load(local, 0), load(local, LANES), load(local, 2 * LANES), work, places.table)
    row, across = places.weights, places.across
    for lane in range(LANES):
        if not work[places.wanted + lane] > 0:
            continue
        w0, w1, w2, w3 = _tap(work, places.table + lane + _Y)
        for strip in range(_strips(side)):
            _contract(psf, channel, side, strip, work, places.table + lane, across)
            first = strip * width
            for j in range(side):
                store(work, row, _down(work, across + j * LANES, w0, w1, w2, w3))
                to = (j * side + first) * LANES + lane
                for i in range(min(width, side - first)):
                    share[to + i * LANES] = work[row + i]


@provides(begin, Splines)
def _begin(psf: Any, trial: int, views: Any, block: int, theta: Any, slots: Any, work: Any) -> Any:
    places = _places(psf, views)
    if trial > 0:
        for k in range(0, slots.size * LANES, LANES):
            store(theta, k, load(work, places.other + k))
        second = load(work, places.wanted + LANES)
        store(work, places.wanted, second)
        return second > 0.5
    for k in range(0, views.channels * _OWN * LANES, LANES):
        store(work, places.known + k, splat(np.float32(np.nan)))
    for c in range(views.channels):
        at = (block * views.channels + c) * 2 * LANES
        x, y = load(theta, 0) + load(views.shifts, at), load(theta, LANES) + load(views.shifts, at + LANES)
        b = load(theta, slots.backgrounds[c] * LANES) if slots.backgrounds[c] >= 0 else splat(0.0)
        _take_rows(views, c, block, work, places)
        _compare(psf, views, c, x, y, b, work, places)
    _choose(psf, views.channels, theta, slots, work, places)
    store(work, places.wanted, splat(1.0))
    return splat(1.0) > 0.5


@borrower
def _take_rows(views: Any, channel: int, block: int, work: Any, places: Any) -> None:
    """Lay the pixels of a block along x: from [y, x, lane] to [lane, strip, y, column]."""
    side, width, strips = views.side, _strip_width(views.side), _strips(views.side)
    start = channel * views.stride + block * side * side * LANES
    to = channel * LANES * strips * side * LANES
    counts, extra = places.counts + to, places.extra + to
    for lane in range(LANES):
        for strip in range(strips):
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
def _compare(psf: Any, views: Any, channel: int, x: Any, y: Any, b: Any, work: Any, places: Any) -> None:
    """Sums over the pixels of a channel, weighted as the background alone demands, of which N and b follow by least squares.

    For each plane Σ p², Σ p and Σ p d, with p the PSF there and d the photons; after the planes Σ 1, Σ d and Σ d².
    """
    side = views.side
    length = _strips(side) * side * LANES
    seen = places.seen + channel * 3 * (psf.scanned + 1) * LANES
    store(work, places.across, b)
    for lane in range(LANES):
        level = work[places.across + lane]
        _weigh(
            (channel * LANES + lane) * length,
            lane * length,
            length,
            level,
            work,
            places,
            seen + 3 * psf.scanned * LANES + lane,
        )
    for k in range(psf.scanned):
        _put_table(psf, side, x, y, splat(_scanned_z(psf, k) + views.offsets[channel]), work, places.table)
        for lane in range(LANES):
            _correlate(psf, channel, side, lane, lane * length, work, places, seen + 3 * k * LANES + lane)


@borrower
def _scanned_z(psf: Any, k: int) -> Any:
    span = psf.pitch * np.float32(psf.planes - 4)
    return psf.lowest + span * ((np.float32(k) + np.float32(0.5)) / np.float32(psf.scanned))


@borrower
def _weigh(pixel: int, to: int, length: int, level: Any, work: Any, places: Any, out: int) -> None:
    """Write weights and weighted photons of one ROI, and their sums."""
    ones, d1, dd = splat(0.0), splat(0.0), splat(0.0)
    for k in range(0, length, LANES):
        c = load(work, places.extra + pixel + k)
        d = load(work, places.counts + pixel + k) - c
        w = select(c < UNKNOWN, 1.0 / at_least(c + level, LEAST_MEAN), 0.0)
        wd = w * d
        store(work, places.weights + to + k, w)
        store(work, places.weighted + to + k, wd)
        ones, d1, dd = ones + w, d1 + wd, dd + wd * d
    work[out], work[out + LANES], work[out + 2 * LANES] = total(ones), total(d1), total(dd)


@borrower
def _correlate(
    psf: Any, channel: int, side: int, lane: int, pixel: int, work: Any, places: Any, out: int
) -> None:
    pp, p1, pd = splat(0.0), splat(0.0), splat(0.0)
    across = places.across
    w0, w1, w2, w3 = _tap(work, places.table + lane + _Y)
    for strip in range(_strips(side)):
        _contract(psf, channel, side, strip, work, places.table + lane, across)
        for row in range(across, across + side * LANES, LANES):
            p = _down(work, row, w0, w1, w2, w3)
            wp = load(work, places.weights + pixel) * p
            pp, p1, pd = pp + wp * p, p1 + wp, pd + p * load(work, places.weighted + pixel)
            pixel += LANES
    work[out], work[out + LANES], work[out + 2 * LANES] = total(pp), total(p1), total(pd)


@borrower
def _solve(psf: Any, channels: int, k: int, slots: Any, work: Any, places: Any) -> Any:
    """N and b of every channel for a molecule on scanned plane `k`, written to `linear`; gives what is left of the sum of squares."""
    most = _most_parameters(channels) * LANES
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
def _choose(psf: Any, channels: int, theta: Any, slots: Any, work: Any, places: Any) -> None:
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
