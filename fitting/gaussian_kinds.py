r"""Gaussian PSFs as kinds for the linked fit: round, elliptic, and with widths that depend on z.

All of them are :math:`h = E(i - x; s_x)\,E(j - y; s_y)` of `fitting.psf` and differ in what :math:`s_x` and :math:`s_y` depend on. One kernel serves
them: the equations are made in x, y, N, b, :math:`s_x`, :math:`s_y` and go over to the shape parameters p by
:math:`\partial h/\partial p = \partial h/\partial s_x \cdot s_x' + \partial h/\partial s_y \cdot s_y'`.

Widths count in pixels of x; `aspect`, pixel width over pixel height, makes :math:`s_y` one in pixels of y.

References
----------
.. [1] B. Huang et al., Science 319, 810 (2008), https://doi.org/10.1126/science.1153529 (z from the widths of an astigmatic PSF).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fitting.calibrated import SigmaCurves
from fitting.kernel import borrower, provides
from fitting.lanes import LANES, load, select, splat, square_root, store
from fitting.poisson import DEGENERATE, LEAST_WIDTH, LEFT_ROI, at_least
from fitting.psf import axis_factors
from fitting.psf_kinds import begin, equations, image, limits, longest_step, scratch, trials
from fitting.row_sums import row_sums
from fitting.template_match import PIXEL_VARIANCE, correlate, write_residual
from fitting.width_table import cubics, look_up, widths_at

_FIXED, _ROUND, _ELLIPTIC, _BY_Z = 0, 1, 2, 3
_SCANNED = 12  # values of z among which the start is chosen
_NONE = np.zeros(8, np.float32)


class Widths(NamedTuple):
    """What kernels see of a Gaussian PSF.

    Attributes
    ----------
    kind : int
        What the widths depend on.
    width, aspect : float32
        Start of the width [px of x], the smallest one where z decides; pixel width over pixel height [1].
    lowest, pitch : float32
        First z of the table and its step [nm].
    intervals : int
        Of z, between the points of the table.
    table : (8 intervals,) float32 array
        Coefficients of the cubics of s_x, then of s_y [px of their axes], in (z - z_interval) / pitch, constant first,
        indexed [coefficient, interval].
    """

    kind: int
    width: Any
    aspect: Any
    lowest: Any
    pitch: Any
    intervals: int
    table: Any


class GaussianPsf(NamedTuple):
    """A round Gaussian, of a width that starts at `width_px` [px of x] or stays there."""

    width_px: float
    aspect: float = 1.0
    free_width: bool = True

    @property
    def channels(self) -> int:
        """One, for all."""
        return 1

    @property
    def shape_names(self) -> tuple[str, ...]:
        """The width, where it is free."""
        return ("s",) if self.free_width else ()

    def for_kernel(self) -> Widths:
        """As kernels see it."""
        kind = _ROUND if self.free_width else _FIXED
        return _widths(kind, self.width_px, self.aspect)


class EllipticPsf(NamedTuple):
    """A Gaussian of two widths along the axes, both in px of x, that start at `width_px`."""

    width_px: float
    aspect: float = 1.0

    @property
    def channels(self) -> int:
        """One, for all."""
        return 1

    @property
    def shape_names(self) -> tuple[str, ...]:
        """The two widths."""
        return ("sx", "sy")

    def for_kernel(self) -> Widths:
        """As kernels see it."""
        return _widths(_ELLIPTIC, self.width_px, self.aspect)


class AstigmaticPsf(NamedTuple):
    """A Gaussian of two widths that depend on z.

    Attributes
    ----------
    lowest_nm, pitch_nm : float
        First z of the curves and the step between their points [nm].
    sigma_x_px, sigma_y_px : (n,) arrays
        Widths [px of x], 4 or more; between them a cubic spline.
    aspect : float
        Pixel width over pixel height [1].
    """

    lowest_nm: float
    pitch_nm: float
    sigma_x_px: npt.NDArray[np.floating]
    sigma_y_px: npt.NDArray[np.floating]
    aspect: float = 1.0

    @classmethod
    def from_curves(cls, curves: SigmaCurves, pixel_nm: float, aspect: float = 1.0) -> AstigmaticPsf:
        """The PSF that a calibration found, for pixels `pixel_nm` wide."""
        z = np.asarray(curves.z_nm, np.float64)
        return cls(
            float(z[0]),
            float(z[-1] - z[0]) / (len(z) - 1),
            np.asarray(curves.sigma_x_nm, np.float64) / pixel_nm,
            np.asarray(curves.sigma_y_nm, np.float64) / pixel_nm,
            aspect,
        )

    @property
    def channels(self) -> int:
        """One, for all."""
        return 1

    @property
    def shape_names(self) -> tuple[str, ...]:
        """The height z [nm]."""
        return ("z",)

    def for_kernel(self) -> Widths:
        """As kernels see it."""
        x, y = (np.asarray(widths, np.float64) for widths in (self.sigma_x_px, self.sigma_y_px))
        return _widths(_BY_Z, min(x.min(), y.min()), self.aspect)._replace(
            lowest=np.float32(self.lowest_nm),
            pitch=np.float32(self.pitch_nm),
            intervals=len(x) - 1,
            table=cubics(x.tobytes(), y.tobytes(), self.aspect),
        )


def _widths(kind: int, width: float, aspect: float) -> Widths:
    return Widths(kind, np.float32(width), np.float32(aspect), np.float32(0), np.float32(1), 1, _NONE)


@borrower
def _shapes(psf: Any) -> int:
    return 1 if psf.kind == _BY_Z else psf.kind


@provides(scratch, Widths)
def _scratch(_psf: Any, views: Any) -> Any:
    side = views.side
    return (6 * side + _WIDTHS + side * side + _SCANNED) * LANES


@provides(trials, Widths)
def _trials(_psf: Any) -> int:
    return 1


@provides(limits, Widths)
def _limits(psf: Any, _shape: int, side: int) -> Any:
    if psf.kind == _BY_Z:
        return psf.lowest, psf.lowest + psf.pitch * np.float32(psf.intervals), np.float32(LEFT_ROI)
    return np.float32(LEAST_WIDTH), np.float32(side), np.float32(DEGENERATE)


@provides(longest_step, Widths)
def _longest_step(psf: Any, theta: Any, parameter: int) -> Any:
    if parameter >= 2:
        if psf.kind == _BY_Z:
            return splat(psf.pitch * np.float32(psf.intervals) * np.float32(_Z_STEP))
        return load(theta, parameter * LANES) * 0.3
    if psf.kind == _ROUND:
        return load(theta, 2 * LANES) * 0.7
    if psf.kind == _ELLIPTIC:
        a, b = load(theta, 2 * LANES), load(theta, 3 * LANES)
        return select(a < b, a, b) * 0.7
    return splat(psf.width * np.float32(0.7))


_TWO_PI = 2.0 * np.pi
_Z_STEP = 1.0 / 6.0  # of the range of the curves
_WIDTHS = 6  # s_x and s_y, then their derivatives by the first and by the second shape parameter


@borrower
def _put_widths(psf: Any, local: Any, out: Any) -> None:
    """Write s_x, s_y [px of their axes] and their derivatives by the shape parameters."""
    zero = splat(np.float32(0.0))
    for k in range(_WIDTHS):
        store(out, k * LANES, zero)
    if psf.kind == _BY_Z:
        look_up(psf, local, out)
        return
    aspect = splat(psf.aspect)
    if psf.kind == _ELLIPTIC:
        store(out, 0, load(local, 2 * LANES))
        store(out, LANES, load(local, 3 * LANES) * psf.aspect)
        store(out, 2 * LANES, splat(np.float32(1.0)))
        store(out, 5 * LANES, aspect)
        return
    s = splat(psf.width)
    if psf.kind == _ROUND:
        s = load(local, 2 * LANES)
        store(out, 2 * LANES, splat(np.float32(1.0)))
        store(out, 3 * LANES, aspect)
    store(out, 0, s)
    store(out, LANES, s * psf.aspect)


@borrower
def _rows(side: int, work: Any) -> Any:
    """The axis factors' arrays in `work`: E, dE/dx, dE/ds along x, the same along y, and what follows them."""
    row = side * LANES
    return (
        work[:row],
        work[row : 2 * row],
        work[2 * row : 3 * row],
        work[3 * row : 4 * row],
        work[4 * row : 5 * row],
        work[5 * row : 6 * row],
        work[6 * row :],
    )


@provides(image, Widths)
def _image(psf: Any, views: Any, _channel: int, local: Any, share: Any, work: Any) -> None:
    fx, gx, hx, fy, gy, hy, widths = _rows(views.side, work)
    _put_widths(psf, local, widths)
    axis_factors(load(local, 0), load(widths, 0), views.side, fx, gx, hx)
    axis_factors(load(local, LANES), load(widths, LANES), views.side, fy, gy, hy)
    for j in range(views.side):
        along_y = load(fy, j * LANES)
        for i in range(views.side):
            store(share, (j * views.side + i) * LANES, along_y * load(fx, i * LANES))


@provides(equations, Widths)
def _equations(
    psf: Any, views: Any, _channel: int, first: int, local: Any, gradient: Any, fisher: Any, work: Any
) -> None:
    fx, gx, hx, fy, gy, hy, widths = _rows(views.side, work)
    _put_widths(psf, local, widths)
    axis_factors(load(local, 0), load(widths, 0), views.side, fx, gx, hx)
    axis_factors(load(local, LANES), load(widths, LANES), views.side, fy, gy, hy)
    shapes = _shapes(psf)
    n, b = load(local, (2 + shapes) * LANES), load(local, (3 + shapes) * LANES)
    g, h = _sums(views.data, views.extra, first, views.side, n, b, fx, gx, hx, fy, gy, hy)
    _to_shape(g, h, shapes, widths, gradient, fisher)


@borrower
def _sums(
    data: Any, extra: Any, first: int, side: int, n: Any, b: Any,
    fx: Any, gx: Any, hx: Any, fy: Any, gy: Any, hy: Any,
) -> Any:  # fmt: skip
    r"""Gradient and Fisher matrix in x, y, s_x, s_y, N, b, the derivatives by the first four divided by N.

    As in `fitting.mle`: sums along a row over products of the x factors only, which the row's y factors then multiply; their names are those
    of `fitting.row_sums`.
    """
    z = splat(0.0)
    g0, g1, g2, g3, g4, g5 = z, z, z, z, z, z
    h00, h01, h02, h03, h04, h05, h11, h12, h13, h14, h15 = z, z, z, z, z, z, z, z, z, z, z
    h22, h23, h24, h25, h33, h34, h35, h44, h45, h55 = z, z, z, z, z, z, z, z, z, z
    for j in range(side):
        py, dy, wy = load(fy, j * LANES), load(gy, j * LANES), load(hy, j * LANES)
        height = n * py
        at = first + j * side * LANES
        R, RP, RG, RS, W, WP, WG, WS, PP, PG, PS, GG, GS, SS = row_sums(
            data, extra, at, side, height, b, fx, gx, hx
        )
        g0, g1, g2, g3 = g0 + py * RG, g1 + dy * RP, g2 + py * RS, g3 + wy * RP
        g4, g5 = g4 + py * RP, g5 + R
        pp, pd, pw, dw = py * py, py * dy, py * wy, dy * wy
        h00, h01, h02, h03 = h00 + pp * GG, h01 + pd * PG, h02 + pp * GS, h03 + pw * PG
        h04, h05 = h04 + pp * PG, h05 + py * WG
        h11, h12, h13, h14, h15 = (
            h11 + dy * dy * PP,
            h12 + pd * PS,
            h13 + dw * PP,
            h14 + pd * PP,
            h15 + dy * WP,
        )
        h22, h23, h24, h25 = h22 + pp * SS, h23 + pw * PS, h24 + pp * PS, h25 + py * WS
        h33, h34, h35 = h33 + wy * wy * PP, h34 + pw * PP, h35 + wy * WP
        h44, h45, h55 = h44 + pp * PP, h45 + py * WP, h55 + W
    return (g0, g1, g2, g3, g4, g5), (
        h00, h01, h02, h03, h04, h05, h11, h12, h13, h14, h15,
        h22, h23, h24, h25, h33, h34, h35, h44, h45, h55,
    )  # fmt: skip


@borrower
def _to_shape(g: Any, h: Any, shapes: int, widths: Any, gradient: Any, fisher: Any) -> None:
    """From derivatives by s_x and s_y to those by the shape parameters."""
    g0, g1, g2, g3, g4, g5 = g
    (
        h00, h01, h02, h03, h04, h05, h11, h12, h13, h14, h15,
        h22, h23, h24, h25, h33, h34, h35, h44, h45, h55,
    ) = h  # fmt: skip
    own = shapes + 4
    n, b = 2 + shapes, 3 + shapes
    store(gradient, 0, g0)
    store(gradient, LANES, g1)
    store(gradient, n * LANES, g4)
    store(gradient, b * LANES, g5)
    _put(fisher, own, 0, 0, h00)
    _put(fisher, own, 0, 1, h01)
    _put(fisher, own, 1, 1, h11)
    _put(fisher, own, 0, n, h04)
    _put(fisher, own, 1, n, h14)
    _put(fisher, own, 0, b, h05)
    _put(fisher, own, 1, b, h15)
    _put(fisher, own, n, n, h44)
    _put(fisher, own, n, b, h45)
    _put(fisher, own, b, b, h55)
    for k in range(shapes):
        u, v = load(widths, (2 + 2 * k) * LANES), load(widths, (3 + 2 * k) * LANES)
        store(gradient, (2 + k) * LANES, u * g2 + v * g3)
        _put(fisher, own, 0, 2 + k, u * h02 + v * h03)
        _put(fisher, own, 1, 2 + k, u * h12 + v * h13)
        _put(fisher, own, 2 + k, n, u * h24 + v * h34)
        _put(fisher, own, 2 + k, b, u * h25 + v * h35)
        for m in range(k, shapes):
            p, q = load(widths, (2 + 2 * m) * LANES), load(widths, (3 + 2 * m) * LANES)
            _put(fisher, own, 2 + k, 2 + m, u * p * h22 + (u * q + v * p) * h23 + v * q * h33)


@borrower
def _put(matrix: Any, size: int, row: int, column: int, value: Any) -> None:
    store(matrix, (row * size + column) * LANES, value)


@provides(begin, Widths)
def _begin(psf: Any, _trial: int, views: Any, block: int, theta: Any, slots: Any, work: Any) -> Any:
    if psf.kind == _BY_Z:
        _scan(psf, views, block, theta, work)
        _brighten(psf, views, block, theta, slots, work)
    else:
        for k in range(_shapes(psf)):
            store(theta, (2 + k) * LANES, splat(psf.width))
    return splat(np.float32(1.0)) > 0.0


@borrower
def _scan(psf: Any, views: Any, block: int, theta: Any, work: Any) -> None:
    """Start z: of `_SCANNED` images of a molecule at the start's x and y, the one that explains most of the squares, N and b being free."""
    side = views.side
    fx, _, _, fy, _, _, rest = _rows(side, work)
    residual, score = rest[_WIDTHS * LANES :], rest[(_WIDTHS + side * side) * LANES :]
    pitch = psf.pitch * np.float32(psf.intervals) / np.float32(_SCANNED)
    for c in range(views.channels):
        weight, _ = write_residual(views, c, block, residual)
        x, y = _place_in(views, block, c, theta)
        for k in range(_SCANNED):
            z = psf.lowest + pitch * (np.float32(k) + np.float32(0.5))
            sx, sy = widths_at(psf, z + views.offsets[c])
            along, variance, _ = correlate(residual, side, x, y, splat(sx), splat(sy), fx, fy)
            along = at_least(along, 0.0)
            gain = along * along / variance * weight
            store(score, k * LANES, gain if c == 0 else load(score, k * LANES) + gain)
    best, number = splat(-1.0), splat(0.0)
    for k in range(_SCANNED):
        value = load(score, k * LANES)
        better = value > best
        best, number = select(better, value, best), select(better, splat(np.float32(k)), number)
    store(theta, 2 * LANES, (number + 0.5) * pitch + psf.lowest)


@borrower
def _brighten(psf: Any, views: Any, block: int, theta: Any, slots: Any, work: Any) -> None:
    """Start N and b: least squares with the widths of the start's z."""
    side = views.side
    fx, _, _, fy, _, _, rest = _rows(side, work)
    residual, local = rest[_WIDTHS * LANES :], rest[(_WIDTHS + side * side) * LANES :]
    total = splat(0.0)
    for c in range(views.channels):
        _, level = write_residual(views, c, block, residual)
        store(local, 2 * LANES, load(theta, 2 * LANES) + views.offsets[c])
        look_up(psf, local, rest)
        sx, sy = load(rest, 0), load(rest, LANES)
        x, y = _place_in(views, block, c, theta)
        along, variance, mean = correlate(residual, side, x, y, sx, sy, fx, fy)
        height = along / variance
        area = square_root((sx * sx + PIXEL_VARIANCE) * (sy * sy + PIXEL_VARIANCE)) * _TWO_PI
        n = at_least(height * area, 10.0)
        total = total + n
        store(theta, slots.photons[c] * LANES, n)
        if slots.backgrounds[c] >= 0:
            store(theta, slots.backgrounds[c] * LANES, level - n / area * mean)
    if views.channels > 1 and slots.photons[0] == slots.photons[1]:
        store(theta, slots.photons[0] * LANES, total)


@borrower
def _place_in(views: Any, block: int, channel: int, theta: Any) -> Any:
    at = (block * views.channels + channel) * 2 * LANES
    return load(theta, 0) + load(views.shifts, at), load(theta, LANES) + load(views.shifts, at + LANES)
