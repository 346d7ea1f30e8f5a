r"""A measured PSF's pixels, a row at a time: for one ROI after another the sums over the coefficients of `fitting.spline`.

Pixels of a ROI share their weights, those of two ROIs do not. So the ROIs are taken one at a time, and the sixteen lanes are
pixels along x. The three sums over coefficients are taken one after another: along z for each row of coefficients (value and ∂z), along x (value,
∂x, ∂z), along y (value and all three derivatives), for a side of s pixels 20 (s + 3) + 16 s multiplications of rows.
Sixteen columns of coefficients make thirteen pixels; a wider ROI is cut into strips of at most thirteen columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fitting.kernel import borrower
from fitting.lane_shuffles import next_lane
from fitting.lanes import LANES, load, rounded, select, splat, store
from fitting.poisson import at_least
from fitting.spline import PAD_Z, TAPS

OWN = 5
"""Parameters of a channel: x, y, z, N, b."""
SUMS = 20
"""Gradient (5) and upper triangle of the Fisher matrix (15) by x, y, plane, N, b."""
X, Y, Z = 0, 9 * LANES, 18 * LANES
"""Where an axis begins in a table of weights: with 4 weights, at `SLOPES` their 4 derivatives, and then the number of the first coefficient."""
SLOPES, _FIRST = 4 * LANES, 8 * LANES
INSIDE = 27 * LANES
"""In a table of weights: 1 where z is inside the volume."""
_TABLE = 28
_ROW_SETS = 3  # value, ∂x and ∂z
_WIDEST = LANES - TAPS + 1


class Splines(NamedTuple):
    """What kernels see of a measured PSF.

    Attributes
    ----------
    coefficients : flat float32 array
        Indexed [channel, plane, row, column], see `fitting.spline.SplinePsf`.
    channels, planes, rows, columns : int
        Its shape; one channel serves all.
    steps : int
        From the first sample along z to the last.
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
    steps: int
    lowest: Any
    pitch: Any
    degree: int
    scanned: int


class Places(NamedTuple):
    """Where the parts of `work` begin, an array of lanes."""

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
def strips(side: int) -> int:
    """Into how many strips of columns a ROI is cut."""
    return (side + _WIDEST - 1) // _WIDEST


@borrower
def strip_width(side: int) -> int:
    """Columns of a strip; the last may have fewer."""
    number = strips(side)
    return (side + number - 1) // number


@borrower
def most_parameters(channels: int) -> int:
    """Parameters that a fit of so many channels has at most."""
    return 3 + 4 * channels


@borrower
def places_of(psf: Any, views: Any) -> Any:
    """The parts of `work` for a measured PSF and ROIs."""
    channels, most = views.channels, most_parameters(views.channels)
    pixels = strips(views.side) * views.side * LANES
    extra = channels * pixels * LANES
    sums = 2 * extra
    known = sums + channels * SUMS * LANES * LANES
    table = known + channels * OWN * LANES
    across = table + _TABLE * LANES
    weights = across + _ROW_SETS * (views.side + TAPS - 1) * LANES
    weighted = weights + pixels * LANES
    seen = weighted + pixels * LANES
    costs = seen + 3 * channels * (psf.scanned + 1) * LANES
    linear = costs + (psf.scanned + 2) * LANES
    other = linear + 2 * most * LANES
    wanted = other + most * LANES
    return Places(
        0, extra, sums, known, table, across, weights, weighted, seen, costs, linear, other, wanted,
        wanted + 2 * LANES,
    )  # fmt: skip


@borrower
def _put_taps(f: Any, degree: int, work: Any, to: int) -> None:
    """Weights of the four coefficients around a place `f` behind the second of them, 0 ≤ f ≤ 1, and their derivatives by it."""
    e = 1.0 - f
    w0, w1, w2, w3 = splat(0.0), e, f, splat(0.0)
    # for degree one, the difference over a sample around the place
    s0, s1 = at_least(0.5 - f, 0.0) * -1.0, at_least(f * -2.0, f - 1.5)
    s2, s3 = at_least(e * -2.0, e - 1.5) * -1.0, at_least(f - 0.5, 0.0)
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
def put_table(psf: Any, side: int, x: Any, y: Any, z: Any, work: Any, table: int) -> None:
    """Weights and places of the coefficients of sixteen ROIs; x and y [px] from the middle, z [nm] in the channel."""
    inside = np.float32(psf.steps)
    plane = (z - psf.lowest) * (np.float32(1.0) / psf.pitch)
    store(work, table + INSIDE, select((plane >= 0.0) & (plane <= inside), splat(1.0), splat(0.0)))
    plane = at_least(select(plane < inside, plane, inside), 0.0)
    most = np.float32(psf.steps)
    _put_axis(plane, np.float32(PAD_Z), most, psf.degree, work, table + Z)
    # the middle of the volume is at (n - 1)/2: a whole number of samples, and perhaps a half
    first, rest = (psf.columns - side) // 2, np.float32((psf.columns - side) % 2) * np.float32(0.5)
    _put_axis(rest - x, np.float32(first), np.float32(psf.columns), psf.degree, work, table + X)
    first, rest = (psf.rows - side) // 2, np.float32((psf.rows - side) % 2) * np.float32(0.5)
    _put_axis(rest - y, np.float32(first), np.float32(psf.rows), psf.degree, work, table + Y)


@borrower
def tap(work: Any, at: int) -> Any:
    """Four numbers of one lane, of a table of weights: the weights of the four coefficients along an axis, or their derivatives."""
    return work[at], work[at + LANES], work[at + 2 * LANES], work[at + 3 * LANES]


@borrower
def down(work: Any, at: int, w0: Any, w1: Any, w2: Any, w3: Any) -> Any:
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
    column = int(work[table + X + _FIRST]) + strip * strip_width(side)
    return (
        (source * psf.planes + int(work[table + Z + _FIRST])) * psf.rows,
        int(work[table + Y + _FIRST]),
        max(min(column, psf.columns - LANES), 0),
    )


@borrower
def contract(psf: Any, channel: int, side: int, strip: int, work: Any, table: int, across: int) -> None:
    """Sum along z, then along x: one row at `across` for each row of coefficients."""
    z0, z1, z2, z3 = tap(work, table + Z)
    x0, x1, x2, x3 = tap(work, table + X)
    first, row, column = _first_coefficients(psf, channel, side, strip, work, table)
    flat, layer = psf.coefficients, psf.rows * psf.columns
    for r in range(side + TAPS - 1):
        at = (first + max(min(row + r, psf.rows - 1), 0)) * psf.columns + column
        a = load(flat, at) * z0 + load(flat, at + layer) * z1 + load(flat, at + 2 * layer) * z2
        a = a + load(flat, at + 3 * layer) * z3
        store(work, across + r * LANES, _along(a, x0, x1, x2, x3))


@borrower
def contract_with_slopes(
    psf: Any, channel: int, side: int, strip: int, work: Any, table: int, across: int
) -> None:
    """The same, then the rows of ∂x, then those of ∂z."""
    z0, z1, z2, z3 = tap(work, table + Z)
    p0, p1, p2, p3 = tap(work, table + Z + SLOPES)
    x0, x1, x2, x3 = tap(work, table + X)
    q0, q1, q2, q3 = tap(work, table + X + SLOPES)
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
