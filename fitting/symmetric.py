"""Symmetric linear equations of any size, sixteen sets at a time: the square-root-free Cholesky factorisation H = L D Lᵀ in memory.

Matrices are flat float32 arrays indexed [row, column, lane]. `fitting.normal` does the same for five equations in registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fitting.kernel import borrower
from fitting.lanes import LANES, load, select, splat, store

_SMALLEST_PIVOT = 1e-5
_TINY = 1e-30


@borrower
def factorise(h: Any, size: int, factors: Any) -> Any:
    """Factorise; gives where H is positive definite.

    A pivot below 1e-5 of its diagonal element is raised to that, so that a step can be taken all the same.

    Parameters
    ----------
    h : (16 size²,) float32 array
        H; its upper triangle is read.
    factors : (16 size²,) float32 array
        Out: 1/D on the diagonal, L below it; above it D Lᵀ.
    """
    good = splat(np.float32(1.0)) > 0.0
    for k in range(size):
        here = k * size
        for m in range(k, size):
            value = load(h, (here + m) * LANES)
            for q in range(k):
                value = value - load(factors, (here + q) * LANES) * load(factors, (q * size + m) * LANES)
            store(factors, (here + m) * LANES, value)
        diagonal = load(h, (here + k) * LANES)
        least = diagonal * _SMALLEST_PIVOT + _TINY
        pivot = load(factors, (here + k) * LANES)
        fine = pivot > least
        good = good & fine
        inverse = 1.0 / select(fine, pivot, least)
        for m in range(k + 1, size):
            store(factors, (m * size + k) * LANES, load(factors, (here + m) * LANES) * inverse)
        store(factors, (here + k) * LANES, inverse)
    return good


@borrower
def substitute(factors: Any, size: int, solution: Any) -> None:
    """Solve H z = g in place: `solution` holds g on entry and z on return."""
    for j in range(1, size):
        value = load(solution, j * LANES)
        for k in range(j):
            value = value - load(factors, (j * size + k) * LANES) * load(solution, k * LANES)
        store(solution, j * LANES, value)
    for j in range(size - 1, -1, -1):
        value = load(solution, j * LANES) * load(factors, (j * size + j) * LANES)
        for k in range(size - 1, j, -1):  # the latest last: its value is the one to wait for
            value = value - load(factors, (k * size + j) * LANES) * load(solution, k * LANES)
        store(solution, j * LANES, value)


@borrower
def invert(factors: Any, size: int, inverse: Any) -> None:
    """Write H⁻¹, all of it: with M = L⁻¹, (H⁻¹)_jk = Σ_m M_mj M_mk / D_m. What is above the diagonal of `factors` is lost: M takes its place."""
    for k in range(size):
        for m in range(k + 1, size):
            value = -load(factors, (m * size + k) * LANES)
            for q in range(k + 1, m):
                value = value - load(factors, (m * size + q) * LANES) * load(factors, (k * size + q) * LANES)
            store(factors, (k * size + m) * LANES, value)
    for k in range(size):
        for j in range(k, size):
            scale = load(factors, (j * size + j) * LANES)
            value = scale if j == k else load(factors, (k * size + j) * LANES) * scale
            for m in range(j + 1, size):
                upper = load(factors, (k * size + m) * LANES) * load(factors, (m * size + m) * LANES)
                value = value + upper * load(factors, (j * size + m) * LANES)
            store(inverse, (k * size + j) * LANES, value)
            store(inverse, (j * size + k) * LANES, value)
