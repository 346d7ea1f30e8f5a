from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from fitting.background import mean_level, move_window, percentile_level

RNG = np.random.default_rng(2)


@numba.njit
def _move(sums: Any, state: Any, stack: Any, present: Any, start: int, stop: int) -> None:
    move_window(sums, state, stack, present, start, stop)


def test_a_running_sum_is_exact_however_the_window_got_there() -> None:
    stack = RNG.integers(0, 65536, (40, 5, 7)).astype(np.uint16)
    present = (RNG.random(40) > 0.2).astype(np.uint8)
    sums, state = np.zeros((5, 7), np.int32), np.zeros(3, np.int64)

    jumps = [sorted(RNG.integers(0, 41, 2)) for _ in range(60)]
    steps = [(start, start + 8) for start in range(33)]
    for start, stop in jumps + steps:
        _move(sums, state, stack, present, start, stop)

        used = stack[start:stop][present[start:stop] != 0]
        if stop > start:
            np.testing.assert_array_equal(sums, used.sum(axis=0, dtype=np.int64))
            assert tuple(state) == (start, stop, len(used))


def test_the_mean_of_floats_leaves_out_what_is_not_a_number() -> None:
    stack = RNG.normal(100, 5, (8, 4, 6)).astype(np.float32)
    stack[2, 1, 1] = np.nan
    stack[3, 2, 2] = np.inf
    stack[:, 3, 3] = np.nan
    present = np.ones(8, np.uint8)
    present[5] = 0
    level = np.empty((4, 6), np.float32)

    used = mean_level(stack, present, 1, 8, level)

    chosen = np.where(np.isfinite(stack), stack, np.nan)[[1, 2, 3, 4, 6, 7]]
    assert used == 6
    assert np.isnan(level[3, 3])
    expected = np.nanmean(chosen[:, level == level], axis=0)
    np.testing.assert_allclose(level[level == level], expected, rtol=1e-6)


@pytest.mark.parametrize("number", [1, 2, 3, 5, 30, 31, 64])
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 1.0])
def test_a_percentile_is_an_order_statistic_raised_to_the_medians_level(number: int, fraction: float) -> None:
    stack = RNG.poisson(40, (number, 6, 21)).astype(np.uint16)
    level = np.empty((6, 21), np.float32)

    used = percentile_level(stack, np.ones(number, np.uint8), 0, number, fraction, level)

    ordered = np.sort(stack, axis=0)
    low = ordered[max(int(number * fraction), 1) - 1].astype(float)
    raised = (np.median(stack, axis=0) - low).mean()
    assert used == number
    np.testing.assert_allclose(level, low + raised, rtol=1e-6)
