from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from fitting.lanes import LANES, lane_bits
from fitting.symmetric import factorise, invert, substitute


@numba.njit
def _solve(h: Any, size: int, factors: Any, g: Any, inverse: Any) -> int:
    good = factorise(h, size, factors)
    substitute(factors, size, g)
    invert(factors, size, inverse)
    return lane_bits(good)


def _in_lanes(sets: Any) -> Any:
    return np.ascontiguousarray(sets.reshape(LANES, -1).T, np.float32).reshape(-1)


@pytest.mark.parametrize("size", [1, 2, 5, 6, 9, 14])
def test_sixteen_sets_of_any_size_are_solved_side_by_side(size: int) -> None:
    rng = np.random.default_rng(size)
    root = rng.normal(size=(LANES, size, size + 3))
    scale = 10.0 ** rng.uniform(-3, 3, (LANES, size))
    h = np.einsum("lij,lkj,li,lk->lik", root, root, scale, scale)
    g = rng.normal(size=(LANES, size)) * scale
    solution, inverse = _in_lanes(g), np.empty(LANES * size * size, np.float32)

    good = _solve(_in_lanes(np.triu(h)), size, np.empty(LANES * size * size, np.float32), solution, inverse)

    exact = np.linalg.inv(h)
    errors = np.sqrt(np.diagonal(exact, axis1=1, axis2=2))
    found = inverse.reshape(size, size, LANES).transpose(2, 0, 1)
    assert good == 2**LANES - 1
    assert (abs(found - exact) / (errors[:, :, np.newaxis] * errors[:, np.newaxis])).max() < 2e-3
    best = np.linalg.solve(h, g[:, :, np.newaxis])[:, :, 0]
    assert (abs(solution.reshape(size, LANES).T - best) / errors).max() < 2e-3


def test_a_set_that_determines_nothing_is_told_apart_from_its_neighbours() -> None:
    h = np.tile(np.eye(3), (LANES, 1, 1))
    h[5] = 0
    h[9, 0, 1] = 1.0
    inverse = np.empty(LANES * 9, np.float32)

    good = _solve(_in_lanes(h), 3, np.empty(LANES * 9, np.float32), np.zeros(LANES * 3, np.float32), inverse)

    assert good == 2**LANES - 1 - 2**5 - 2**9
    assert np.isfinite(inverse).all()
