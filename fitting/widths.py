r"""z from the two widths of an astigmatic PSF, after the fit.

z is where the curves come closest to the widths, in units of their errors:

.. math::

    \hat z = \arg\min_z \frac{(s_x - S_x(z))^2}{e_x^2} + \frac{(s_y - S_y(z))^2}{e_y^2}, \qquad
    \operatorname{var} \hat z = \left[ \frac{S_x'^2}{e_x^2} + \frac{S_y'^2}{e_y^2} \right]^{-1}

To fit z itself (`fitting.gaussian_kinds.AstigmaticPsf`) is as precise and knows the widths that belong together; this serves widths
that have been fitted already.

References
----------
.. [1] B. Huang et al., Science 319, 810 (2008), https://doi.org/10.1126/science.1153529, supporting material (there with square
   roots of the widths in place of errors).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

from fitting.calibrated import SigmaCurves

FloatArray = npt.NDArray[np.float64]

_GRID = 141  # values of z to begin with
_STEPS = 6  # of Gauss and Newton
_TOGETHER = 1024


def widths_at(
    z_nm: npt.ArrayLike, curves: SigmaCurves
) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]:
    """Width along x and its slope by z at places within the curves, and the same along y [nm, 1]."""
    z = np.asarray(z_nm, np.float64)
    x, y = _splines(curves)
    return (x(z), x(z, 1)), (y(z), y(z, 1))


def z_from_widths(
    sx: npt.ArrayLike, sx_err: npt.ArrayLike, sy: npt.ArrayLike, sy_err: npt.ArrayLike, curves: SigmaCurves
) -> tuple[FloatArray, FloatArray]:
    """Find z of fitted widths.

    Parameters
    ----------
    sx, sy, sx_err, sy_err : (k,) arrays
        Widths along x and y with their standard errors [nm].
    curves : SigmaCurves

    Returns
    -------
    z_nm, z_err_nm : (k,) float64 arrays
        NaN both where a width or its error is not known; the error is NaN where z is an end of the curves.
    """
    columns = [np.atleast_1d(np.asarray(values, np.float64)) for values in (sx, sx_err, sy, sy_err)]
    sx, sx_err, sy, sy_err = np.broadcast_arrays(*columns)
    z, z_err = np.full(sx.shape, np.nan), np.full(sx.shape, np.nan)
    known = np.flatnonzero(np.isfinite(sx + sy + sx_err + sy_err) & (sx_err > 0) & (sy_err > 0))
    for first in range(0, len(known), _TOGETHER):
        part = known[first : first + _TOGETHER]
        z[part], z_err[part] = _nearest(sx[part], sx_err[part], sy[part], sy_err[part], curves)
    return z, z_err


def _splines(curves: SigmaCurves) -> tuple[CubicSpline, CubicSpline]:
    z = np.asarray(curves.z_nm, np.float64)
    return CubicSpline(z, curves.sigma_x_nm), CubicSpline(z, curves.sigma_y_nm)


def _nearest(
    sx: FloatArray, sx_err: FloatArray, sy: FloatArray, sy_err: FloatArray, curves: SigmaCurves
) -> tuple[FloatArray, FloatArray]:
    x, y = _splines(curves)
    low, high = float(curves.z_nm[0]), float(curves.z_nm[-1])
    grid = np.linspace(low, high, _GRID)
    pitch = (high - low) / (_GRID - 1)
    _, away, _ = _step(
        grid,
        sx[:, np.newaxis],
        sx_err[:, np.newaxis],
        sy[:, np.newaxis],
        sy_err[:, np.newaxis],
        x,
        y,
        pitch / 2,
    )
    start = grid[np.argmin(away, axis=1)]
    z, information = start, np.ones_like(start)
    for _ in range(_STEPS):
        step, _, information = _step(z, sx, sx_err, sy, sy_err, x, y, pitch)
        z = np.clip(np.clip(z + step, start - pitch, start + pitch), low, high)
    inside = (z > low) & (z < high)
    return z, np.where(inside, 1 / np.sqrt(information), np.nan)


def _step(
    z: FloatArray, sx: FloatArray, sx_err: FloatArray, sy: FloatArray, sy_err: FloatArray,
    x: CubicSpline, y: CubicSpline, longest: float,
) -> tuple[FloatArray, FloatArray, FloatArray]:  # fmt: skip
    """Gauss's and Newton's step from z, at most `longest`, the distance² after it if curves were straight, and 1/var z."""
    off_x, off_y = (sx - x(z)) / sx_err, (sy - y(z)) / sy_err
    slope_x, slope_y = x(z, 1) / sx_err, y(z, 1) / sy_err
    information = np.maximum(slope_x**2 + slope_y**2, 1e-12)
    step = np.clip((slope_x * off_x + slope_y * off_y) / information, -longest, longest)
    return step, (off_x - slope_x * step) ** 2 + (off_y - slope_y * step) ** 2, information
