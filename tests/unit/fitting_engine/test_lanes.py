from __future__ import annotations

import operator
from typing import Any

import numba
import numpy as np
import pytest
from scipy.special import erf

from fitting.lane_shuffles import next_lane, totals
from fitting.lanes import (
    LANES,
    absolute,
    binary_exponent,
    gather,
    lane_bits,
    load,
    power_of_two,
    rounded,
    select,
    splat,
    square_root,
    store,
)
from fitting.psf import error_function, gaussian, logarithm

RNG = np.random.default_rng(3)
A = RNG.uniform(0.5, 9, LANES).astype(np.float32)
B = RNG.uniform(-9, 9, LANES).astype(np.float32)


@numba.njit
def _binary(a: Any, b: Any, out: Any) -> None:
    x, y = load(a, 0), load(b, 0)
    store(out, 0, x + y)
    store(out, 16, x - y)
    store(out, 32, x * y)
    store(out, 48, x / y)
    store(out, 64, 2.0 - x)
    store(out, 80, -x)


@numba.njit
def _masks(a: Any, b: Any) -> Any:
    x, y = load(a, 0), load(b, 0)
    less, more = x < y, x > 2.0
    return (
        lane_bits(less),
        lane_bits(less | more),
        lane_bits(less & more),
        lane_bits(~less),
        lane_bits(x >= x),
    )


@numba.njit
def _functions(a: Any, b: Any, out: Any) -> None:
    x, y = load(a, 0), load(b, 0)
    store(out, 0, absolute(y))
    store(out, 16, square_root(x))
    store(out, 32, rounded(y))
    store(out, 48, power_of_two(rounded(y)))
    store(out, 64, binary_exponent(x))
    store(out, 80, select(x > y, splat(np.float32(1.0)), y))


@numba.njit
def _gather(table: Any, index: Any, out: Any) -> None:
    store(out, 0, gather(table, 3, load(index, 0)))


@numba.njit
def _sums(rows: Any, out: Any) -> None:
    store(out, 0, next_lane(load(rows, 5)))
    store(out, 16, totals(rows, 5))


@numba.njit
def _special(v: Any, out: Any) -> None:
    for k in range(0, v.size, LANES):
        x = load(v, k)
        store(out[0], k, gaussian(x))
        store(out[1], k, error_function(x, gaussian(x * 1.4142135623730951)))
        store(out[2], k, logarithm(absolute(x) + 1e-6))


def _bits(mask: Any) -> int:
    return int(sum(1 << k for k, true in enumerate(mask) if true))


def test_arithmetic_is_that_of_float32_in_every_lane() -> None:
    out = np.empty(96, np.float32)

    _binary(A, B, out)

    expected = [operator.add(A, B), A - B, A * B, A / B, np.float32(2) - A, -A]
    np.testing.assert_array_equal(out.reshape(6, LANES), expected)


def test_masks_combine_lane_by_lane() -> None:
    less, more = A < B, A > 2

    assert _masks(A, B) == (_bits(less), _bits(less | more), _bits(less & more), _bits(~less), 0xFFFF)


def test_a_comparison_with_nan_is_false() -> None:
    nan = np.full(LANES, np.nan, np.float32)

    assert _masks(nan, A)[0] == 0


def test_functions_act_on_every_lane() -> None:
    out = np.empty(96, np.float32)

    _functions(A, B, out)

    expected = [
        abs(B),
        np.sqrt(A),
        np.rint(B),
        np.exp2(np.rint(B)),
        np.floor(np.log2(A)),
        np.where(A > B, 1, B),
    ]
    np.testing.assert_allclose(out.reshape(6, LANES), expected, rtol=1e-7)


@pytest.mark.parametrize("scale", [0.1, 1.0, 6.0])
def test_exp_erf_and_log_are_good_to_float32(scale: float) -> None:
    v = (scale * np.linspace(-1, 1, 64 * LANES)).astype(np.float32)
    out = np.empty((3, v.size), np.float32)

    _special(v, out)

    exact = v.astype(np.float64)
    np.testing.assert_allclose(out[0], np.exp(-(exact**2) / 2), rtol=3e-6, atol=1e-12)
    np.testing.assert_allclose(out[1], erf(exact), atol=5e-7)  # eight roundings of numbers below one
    np.testing.assert_allclose(out[2], np.log(abs(exact) + 1e-6), rtol=3e-7, atol=3e-7)


def test_each_lane_gathers_a_number_of_its_own() -> None:
    table, index = RNG.normal(size=40).astype(np.float32), RNG.integers(0, 37, LANES)
    out = np.empty(LANES, np.float32)

    _gather(table, index.astype(np.float32), out)

    np.testing.assert_array_equal(out, table[3 + index])


def test_lanes_move_on_and_sums_of_sixteen_rows_come_in_their_order() -> None:
    rows = RNG.uniform(-9, 9, 5 + LANES * LANES).astype(np.float32)
    out = np.empty(2 * LANES, np.float32)

    _sums(rows, out)

    assert (out[:LANES] == np.roll(rows[5 : 5 + LANES], -1)).all()
    np.testing.assert_allclose(out[LANES:], rows[5:].reshape(LANES, LANES).sum(axis=1), rtol=1e-5, atol=1e-5)
