"""Sums along a row of a ROI, from which Gaussian fits make their gradient and Fisher matrix.

A Gaussian is separable, so that products of the x factors alone are summed along a row; the row's y factors multiply the sums afterwards.
"""

from __future__ import annotations

from typing import Any

from fitting.kernel import borrower
from fitting.lanes import LANES, load, splat
from fitting.poisson import LEAST_MEAN, at_least


@borrower
def row_sums(
    data: Any, extra: Any, at: Any, side: int, height: Any, b: Any, fx: Any, gx: Any, sx: Any
) -> Any:
    """Sums over the pixels of a row, with μ = height E + b + `extra`.

    ``P`` stands for E, ``G`` for dE/dx, ``S`` for dE/ds, ``R`` for x/μ - 1 and ``W`` for 1/μ; of two factors 1/μ is one more.

    Parameters
    ----------
    data, extra : flat float32 arrays
        See `fitting.rois`.
    at : int
        Where the row begins in them.
    height, b : lanes
        N times the row's share of the light [e⁻]; constant background [e⁻/px].
    fx, gx, sx : (16 side,) float32 arrays
        E, dE/dx, dE/ds along x; see `fitting.psf.axis_factors`.

    Returns
    -------
    tuple
        R, RP, RG, RS, W, WP, WG, WS, PP, PG, PS, GG, GS, SS.
    """
    z = splat(0.0)
    R, RP, RG, RS, W, WP, WG, WS = z, z, z, z, z, z, z, z
    PP, PG, PS, GG, GS, SS = z, z, z, z, z, z
    for i in range(side):
        p, g, s = load(fx, i * LANES), load(gx, i * LANES), load(sx, i * LANES)
        mu = at_least(height * p + (load(extra, at + i * LANES) + b), LEAST_MEAN)
        w = 1.0 / mu
        r = load(data, at + i * LANES) * w - 1.0
        R, RP, RG, RS = R + r, RP + r * p, RG + r * g, RS + r * s
        wp, wg, ws = w * p, w * g, w * s
        W, WP, WG, WS = W + w, WP + wp, WG + wg, WS + ws
        PP, PG, PS = PP + wp * p, PG + wp * g, PS + wp * s
        GG, GS, SS = GG + wg * g, GS + wg * s, SS + ws * s
    return R, RP, RG, RS, W, WP, WG, WS, PP, PG, PS, GG, GS, SS
