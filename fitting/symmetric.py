"""Symmetric linear equations of any size, sixteen sets at a time: the square-root-free Cholesky factorisation H = L D Lᵀ in memory.

Matrices are flat float32 arrays indexed [row, column, lane]. `fitting.normal` does the same for five equations in registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fitting.kernel import device
from fitting.lanes import LANES, load, select, splat, store

_SMALLEST_PIVOT = 1e-5
_TINY = 1e-30


@device
def factorise(h: Any, size: int, factors: Any) -> Any:
    """Factorise; gives where H is positive definite.

    A pivot below 1e-5 of its diagonal element is raised to that, so that a step can be taken all the same.

    Parameters
    ----------
    h : (16 size²,) float32 array
        H; its upper triangle is read.
    factors : (16 size²,) float32 array
        Out: 1/D on the diagonal, L below it; above it what is no longer needed.
    """
    for k in range(size):
        for m in range(k, size):
            store(factors, (k * size + m) * LANES, load(h, (k * size + m) * LANES))
    good = splat(np.float32(1.0)) > 0.0
    for k in range(size):
        here = k * size
        diagonal = load(h, (here + k) * LANES)
        least = diagonal * _SMALLEST_PIVOT + _TINY
        pivot = load(factors, (here + k) * LANES)
        fine = pivot > least
        good = good & fine
        inverse = 1.0 / select(fine, pivot, least)
        for j in range(k + 1, size):
            lower = load(factors, (here + j) * LANES) * inverse
            for m in range(j, size):
                to = (j * size + m) * LANES
                store(factors, to, load(factors, to) - lower * load(factors, (here + m) * LANES))
            store(factors, (j * size + k) * LANES, lower)
        store(factors, (here + k) * LANES, inverse)
    return good


@device
def substitute(factors: Any, size: int, solution: Any) -> None:
    """Solve H z = g in place: `solution` holds g on entry and z on return."""
    for j in range(1, size):
        value = load(solution, j * LANES)
        for k in range(j):
            value = value - load(factors, (j * size + k) * LANES) * load(solution, k * LANES)
        store(solution, j * LANES, value)
    for j in range(size - 1, -1, -1):
        value = load(solution, j * LANES) * load(factors, (j * size + j) * LANES)
        for k in range(j + 1, size):
            value = value - load(factors, (k * size + j) * LANES) * load(solution, k * LANES)
        store(solution, j * LANES, value)


@device
def invert(factors: Any, size: int, column: Any, inverse: Any, to: int) -> None:
    """Write H⁻¹, all of it, from offset `to` of `inverse` on; `column` is room for `size` numbers."""
    for k in range(size):
        for j in range(size):
            store(column, j * LANES, splat(np.float32(1.0) if j == k else np.float32(0.0)))
        substitute(factors, size, column)
        for j in range(k, size):
            value = load(column, j * LANES)
            store(inverse, to + (k * size + j) * LANES, value)
            store(inverse, to + (j * size + k) * LANES, value)
