r"""Widths of an astigmatic PSF against z, from every plane of every bead.

Points (z, sigma_x, sigma_y) are smoothed by a cubic spline with few knots, fitted robustly; where sigma_x = sigma_y between the two minima is z = 0.
Beside it the five numbers of the defocus form

.. math::

    \sigma(z) = w \sqrt{1 + u^2 + A u^3 + B u^4}, \qquad u = (z - c) / d

are fitted, which other programs want.

References
----------
.. [1] B. Huang et al., Science 319, 810 (2008), https://doi.org/10.1126/science.1153529.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.interpolate import BSpline, make_lsq_spline
from scipy.optimize import least_squares

from fitting.calibrated import SigmaCurves
from fitting.calibration.measure_psf import MeanBead
from fitting.calibration.spot_widths import Spots, fit_spots

FloatArray = npt.NDArray[np.float64]

_KNOTS_NM = 75.0
_PLANES_PER_KNOT = 3
_GRID_NM = 10.0
_LEAST_POINTS = 12
_FOCI_APART_NM = 100.0  # foci of x and y nearer than this: not astigmatic
_BALL = 1 / 20  # variance along an axis of a ball of diameter 1


@dataclass(frozen=True)
class WidthPoints:
    """Fitted widths of every plane of every bead in one channel.

    Attributes
    ----------
    plane : (n,) array
        Plane in the mean's volume, with the bead's own offset taken off.
    sigma_x_nm, sigma_y_nm : (n,) arrays
    x_nm, y_nm : (n,) arrays
        Where the light is, from the bead's own median.
    bead : (n,) int array
        Which bead.
    good : (n,) bool array
        Whether the fit can be used.
    """

    plane: FloatArray
    sigma_x_nm: FloatArray
    sigma_y_nm: FloatArray
    x_nm: FloatArray
    y_nm: FloatArray
    bead: npt.NDArray[np.int64]
    good: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class WidthFit:
    """Smooth widths against the plane of the mean, and what follows from them.

    Attributes
    ----------
    x_nm, y_nm : BSpline
        Widths [nm] of a plane.
    first_plane, last_plane : float
        Where they hold.
    focus_plane : float
        Plane of z = 0.
    astigmatic : bool
        Whether the widths tell z.
    spread_nm : (float, float)
        Robust standard deviation of the points about the curves, x and y.
    """

    x_nm: BSpline
    y_nm: BSpline
    first_plane: float
    last_plane: float
    focus_plane: float
    astigmatic: bool
    spread_nm: tuple[float, float]


def measure_widths(mean: MeanBead, options: Mapping[str, Any], channel: int = 0) -> WidthPoints:
    """Fit every plane of every bead of a channel by an elliptical Gaussian, as cut and without interpolation."""
    half = options["width_half_size"]
    pixel_nm = options["pixel_nm"]
    columns = []
    for number, (cut, offset) in enumerate(zip(mean.cuts, mean.offsets, strict=True)):
        volume = cut[channel] - offset.background[channel]
        middle = volume.shape[1] // 2
        room = middle - half
        y0, x0 = (middle + round(float(np.clip(away[channel], -room, room))) for away in (offset.y, offset.x))
        window = volume[:, y0 - half : y0 + half + 1, x0 - half : x0 + half + 1]
        spots = fit_spots(window, options["photons"], options["background_photons"])
        plane: FloatArray = np.arange(len(volume), dtype=np.float64) - offset.z - mean.first_plane
        columns.append(_columns(spots, plane, number, pixel_nm))
    return WidthPoints(*(np.concatenate(parts) for parts in zip(*columns, strict=True)))


def _columns(spots: Spots, plane: FloatArray, number: int, pixel_nm: float) -> tuple[npt.NDArray[Any], ...]:
    good = spots.good
    middle_x = np.median(spots.x_px[good]) if good.any() else 0.0
    middle_y = np.median(spots.y_px[good]) if good.any() else 0.0
    return (
        plane,
        spots.sigma_x_px * pixel_nm,
        spots.sigma_y_px * pixel_nm,
        (spots.x_px - middle_x) * pixel_nm,
        (spots.y_px - middle_y) * pixel_nm,
        np.full(len(plane), number),
        good,
    )


def fit_widths(points: WidthPoints, planes: int, options: Mapping[str, Any]) -> WidthFit | None:
    """Smooth the widths over z; None where too few planes could be fitted.

    Parameters
    ----------
    points : WidthPoints
    planes : int
        Number of planes of the mean.
    options : mapping
        Resolved options of the calibration.
    """
    limits = _usable(points, planes)
    if limits is None:
        return None
    first, last = limits
    chosen = points.good & (points.plane >= first) & (points.plane <= last)
    if chosen.sum() < _LEAST_POINTS:
        return None
    z = points.plane[chosen]
    ball = _BALL * (options["bead_diameter_nm"] or 0.0) ** 2
    curves, spreads = [], []
    for values in (points.sigma_x_nm[chosen], points.sigma_y_nm[chosen]):
        pure = np.sqrt(np.maximum(values**2 - ball, (0.3 * values) ** 2))
        curve, spread = _smooth(z, pure, max(_KNOTS_NM / options["step_nm"], _PLANES_PER_KNOT))
        curves.append(curve)
        spreads.append(spread)
    focus, astigmatic = _focus(curves[0], curves[1], first, last, options)
    return WidthFit(curves[0], curves[1], first, last, focus, astigmatic, (spreads[0], spreads[1]))


def _usable(points: WidthPoints, planes: int) -> tuple[float, float] | None:
    """The planes around the best one in which most beads could be fitted."""
    number = np.rint(points.plane).astype(np.int64)
    within = (number >= 0) & (number < planes)
    tried = np.bincount(number[within], minlength=planes)
    fitted = np.bincount(number[within], weights=points.good[within], minlength=planes)
    enough = fitted >= 0.5 * np.maximum(tried, 1)
    if not enough.any():
        return None
    width = np.where(points.good, np.hypot(points.sigma_x_nm, points.sigma_y_nm), np.inf)
    best = int(np.clip(number[np.argmin(width)], 0, planes - 1))
    if not enough[best]:
        best = int(np.flatnonzero(enough)[np.argmin(np.abs(np.flatnonzero(enough) - best))])
    first, last = best, best
    while first > 0 and enough[first - 1]:
        first -= 1
    while last < planes - 1 and enough[last + 1]:
        last += 1
    return (float(first), float(last)) if last - first >= 4 else None


def _smooth(z: FloatArray, values: FloatArray, pitch: float) -> tuple[BSpline, float]:
    """Fit a cubic spline with knots about `pitch` apart, points far off counting less (Huber's weights)."""
    order = np.argsort(z, kind="stable")
    z, values = z[order], values[order]
    inner = max(0, int((z[-1] - z[0]) / pitch) - 1)
    knots = np.linspace(z[0], z[-1], inner + 2)[1:-1]
    knots = np.concatenate([[z[0]] * 4, knots, [z[-1]] * 4])
    weights = np.ones(len(z))
    spread = 0.0
    curve = make_lsq_spline(z, values, knots, k=3, w=weights)
    for _ in range(5):
        residual = values - curve(z)
        spread = max(1.4826 * float(np.median(np.abs(residual))), 1e-6)
        weights = 1 / np.maximum(1.0, np.abs(residual) / (1.5 * spread))
        curve = make_lsq_spline(z, values, knots, k=3, w=np.sqrt(weights))
    return curve, spread


def _focus(
    x: BSpline, y: BSpline, first: float, last: float, options: Mapping[str, Any]
) -> tuple[float, bool]:
    grid = np.linspace(first, last, 1 + int(20 * (last - first)))
    sx, sy = x(grid), y(grid)
    apart_nm = abs(float(grid[np.argmin(sx)] - grid[np.argmin(sy)])) * options["step_nm"]
    crossings = np.flatnonzero(np.diff(np.sign(sx - sy)))
    tells = apart_nm >= _FOCI_APART_NM and len(crossings) > 0
    astigmatic = {"auto": tells, "yes": True, "no": False}[options["astigmatism"]]
    if astigmatic and len(crossings):
        area = (sx * sy)[crossings]
        k = int(crossings[np.argmin(area)])
        share = (sx - sy)[k] / ((sx - sy)[k] - (sx - sy)[k + 1])
        return float(grid[k] + share * (grid[k + 1] - grid[k])), astigmatic
    return float(grid[np.argmin(sx * sy)]), astigmatic


def sigma_curves(fit: WidthFit, step_nm: float) -> SigmaCurves:
    """Give the smooth widths on an even grid of z, z = 0 in the focus plane."""
    low, high = (fit.first_plane - fit.focus_plane) * step_nm, (fit.last_plane - fit.focus_plane) * step_nm
    grid = np.arange(np.ceil(low / _GRID_NM), np.floor(high / _GRID_NM) + 1) * _GRID_NM
    if len(grid) < 4:
        grid = np.linspace(low, high, 8)
    plane = grid / step_nm + fit.focus_plane
    return SigmaCurves(grid, np.maximum(fit.x_nm(plane), 1.0), np.maximum(fit.y_nm(plane), 1.0))


def monotonic_range_nm(curves: SigmaCurves) -> tuple[float, float]:
    """The range of z around 0 in which sigma_x - sigma_y only rises or only falls: there the widths tell z."""
    difference = np.asarray(curves.sigma_x_nm) - np.asarray(curves.sigma_y_nm)
    slope = np.diff(difference)
    middle = int(np.clip(np.searchsorted(curves.z_nm, 0.0), 1, len(slope) - 1))
    sign = np.sign(slope[middle - 1] + slope[min(middle, len(slope) - 1)])
    first, last = middle, middle
    while first > 0 and slope[first - 1] * sign > 0:
        first -= 1
    while last < len(slope) and slope[last] * sign > 0:
        last += 1
    return float(curves.z_nm[first]), float(curves.z_nm[last])


def defocus_parameters(z_nm: FloatArray, sigma_nm: FloatArray) -> dict[str, float]:
    """Fit the defocus form to widths, robustly.

    Parameters
    ----------
    z_nm, sigma_nm : (n,) arrays

    Returns
    -------
    dict
        w, c, d [nm], A, B, and the robust standard deviation of what is left, `spread_nm`.
    """
    w0 = float(np.percentile(sigma_nm, 2))
    near = sigma_nm <= np.percentile(sigma_nm, 15)
    start = np.array([w0, float(np.median(z_nm[near])), 400.0, 0.0, 0.0])
    unit = max(1.0, 0.02 * w0)

    def residual(p: FloatArray) -> FloatArray:
        u = (z_nm - p[1]) / p[2]
        inside = np.maximum(1 + u**2 + p[3] * u**3 + p[4] * u**4, 1e-3)
        result: FloatArray = (p[0] * np.sqrt(inside) - sigma_nm) / unit
        return result

    bounds = ([1.0, -1e4, 20.0, -10.0, -10.0], [1e4, 1e4, 1e4, 10.0, 10.0])
    found = least_squares(residual, start, bounds=bounds, x_scale=[w0, 100, 100, 0.1, 0.1], loss="soft_l1")
    left = residual(found.x) * unit
    names = ("w", "c", "d", "A", "B")
    parameters = {name: float(value) for name, value in zip(names, found.x, strict=True)}
    return parameters | {"spread_nm": 1.4826 * float(np.median(np.abs(left)))}
