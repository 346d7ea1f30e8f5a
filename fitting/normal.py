"""Five normal equations, sixteen sets at a time: the square-root-free Cholesky factorisation H = L D Lᵀ.

The upper triangle of H comes as 15 lanes in the order
00 01 02 03 04 11 12 13 14 22 23 24 33 34 44.
"""

from __future__ import annotations

from typing import Any

from fitting.kernel import device
from fitting.lanes import select

_SMALLEST_PIVOT = 1e-5
_TINY = 1e-30


@device
def _pivot(pivot: Any, diagonal: Any) -> Any:
    """1/d of a pivot, kept away from zero, and whether it had to be."""
    least = diagonal * _SMALLEST_PIVOT + _TINY
    good = pivot > least
    return 1.0 / select(good, pivot, least), good


@device
def factorise(h: Any) -> Any:
    """Factorise; gives 1/D (5), the lower triangle of L by columns (10), and where H is positive definite.

    A pivot below 1e-5 of its diagonal element is raised to that, so that a step can be taken all the same.
    """
    h00, h01, h02, h03, h04, h11, h12, h13, h14, h22, h23, h24, h33, h34, h44 = h
    i0, good0 = _pivot(h00, h00)
    l10, l20, l30, l40 = h01 * i0, h02 * i0, h03 * i0, h04 * i0
    i1, good1 = _pivot(h11 - l10 * h01, h11)
    c21, c31, c41 = h12 - l20 * h01, h13 - l30 * h01, h14 - l40 * h01
    l21, l31, l41 = c21 * i1, c31 * i1, c41 * i1
    i2, good2 = _pivot(h22 - l20 * h02 - l21 * c21, h22)
    c32, c42 = h23 - l30 * h02 - l31 * c21, h24 - l40 * h02 - l41 * c21
    l32, l42 = c32 * i2, c42 * i2
    i3, good3 = _pivot(h33 - l30 * h03 - l31 * c31 - l32 * c32, h33)
    c43 = h34 - l40 * h03 - l41 * c31 - l42 * c32
    l43 = c43 * i3
    i4, good4 = _pivot(h44 - l40 * h04 - l41 * c41 - l42 * c42 - l43 * c43, h44)
    good = good0 & good1 & good2 & good3 & good4
    return (i0, i1, i2, i3, i4), (l10, l20, l30, l40, l21, l31, l41, l32, l42, l43), good


@device
def substitute(inverse_pivots: Any, lower: Any, g: Any) -> Any:
    """Solve H z = g."""
    i0, i1, i2, i3, i4 = inverse_pivots
    l10, l20, l30, l40, l21, l31, l41, l32, l42, l43 = lower
    y0, g1, g2, g3, g4 = g
    y1 = g1 - l10 * y0
    y2 = g2 - l20 * y0 - l21 * y1
    y3 = g3 - l30 * y0 - l31 * y1 - l32 * y2
    y4 = g4 - l40 * y0 - l41 * y1 - l42 * y2 - l43 * y3
    z4 = y4 * i4
    z3 = y3 * i3 - l43 * z4
    z2 = y2 * i2 - l32 * z3 - l42 * z4
    z1 = y1 * i1 - l21 * z2 - l31 * z3 - l41 * z4
    z0 = y0 * i0 - l10 * z1 - l20 * z2 - l30 * z3 - l40 * z4
    return z0, z1, z2, z3, z4


@device
def inverse_diagonal(inverse_pivots: Any, lower: Any) -> Any:
    """The diagonal of the inverse of H, then its element 24: with M = L⁻¹, (H⁻¹)_jk = Σ_m M_mj M_mk / d_m."""
    i0, i1, i2, i3, i4 = inverse_pivots
    l10, l20, l30, l40, l21, l31, l41, l32, l42, l43 = lower
    m43 = -l43
    m32 = -l32
    m42 = -l42 - l43 * m32
    m21 = -l21
    m31 = -l31 - l32 * m21
    m41 = -l41 - l42 * m21 - l43 * m31
    m10 = -l10
    m20 = -l20 - l21 * m10
    m30 = -l30 - l31 * m10 - l32 * m20
    m40 = -l40 - l41 * m10 - l42 * m20 - l43 * m30
    v4 = i4
    v3 = i3 + m43 * m43 * i4
    v2 = i2 + m32 * m32 * i3 + m42 * m42 * i4
    v1 = i1 + m21 * m21 * i2 + m31 * m31 * i3 + m41 * m41 * i4
    v0 = i0 + m10 * m10 * i1 + m20 * m20 * i2 + m30 * m30 * i3 + m40 * m40 * i4
    return v0, v1, v2, v3, v4, m42 * i4
