"""Scores with answers that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitting.localisations import LAT_GAUSS_DTYPE, ResultCode
from fitting.scoring import columns_of, match, score

Table = dict[str, np.ndarray]


def table(*rows: tuple[float, ...]) -> Table:
    frame, x, y = np.array(rows, float).reshape(-1, 3).T
    return {"frame": frame.astype(int), "x_nm": x, "y_nm": y}


def test_a_perfect_result_scores_perfectly() -> None:
    truth = table((0, 100, 100), (0, 900, 900), (3, 100, 100))

    result = score(truth, truth)

    assert (result.recall, result.precision, result.jaccard, result.efficiency) == (1, 1, 1, 100)
    assert (result.accuracy.rmse_nm, result.accuracy.bias_x_nm, result.n_matched) == (0, 0, 3)


def test_counts_and_errors_are_what_one_counts_by_hand() -> None:
    truth = table((0, 100, 100), (0, 5000, 5000), (1, 100, 100), (2, 0, 0))
    found = table((0, 103, 100), (0, 5000, 5004), (1, 400, 100), (7, 0, 0))

    result = score(found, truth)

    assert (result.n_truth, result.n_found, result.n_matched) == (4, 4, 2)
    assert (result.recall, result.precision) == (0.5, 0.5)
    assert result.jaccard == pytest.approx(2 / 6)
    assert result.accuracy.rmse_x_nm == pytest.approx(math.sqrt(9 / 2))
    assert result.accuracy.rmse_y_nm == pytest.approx(math.sqrt(16 / 2))
    assert result.accuracy.rmse_nm == pytest.approx(math.sqrt(25 / 2))
    assert (result.accuracy.bias_x_nm, result.accuracy.bias_y_nm) == (1.5, 2.0)
    assert result.efficiency == pytest.approx(100 - math.hypot(100 - 100 / 3, math.sqrt(12.5)))


def test_the_closest_pair_of_a_frame_goes_first() -> None:
    truth = table((0, 0, 0), (0, 100, 0))
    found = table((0, 60, 0), (0, 90, 0))

    i, j = match(found["frame"], np.c_[found["x_nm"], found["y_nm"]], truth["frame"], [[0, 0], [100, 0]], 250)

    assert list(zip(i, j, strict=True)) == [(0, 0), (1, 1)]


def test_greedy_is_not_optimal_and_that_is_the_convention() -> None:
    i, j = match([0, 0], [[100, 0], [301, 0]], [0, 0], [[0, 0], [160, 0]], 150)

    assert list(zip(i, j, strict=True)) == [(0, 1)]


def test_the_radius_is_inclusive_and_frames_do_not_mix() -> None:
    assert len(match([0], [[250, 0]], [0], [[0, 0]], 250)[0]) == 1
    assert len(match([0], [[250.001, 0]], [0], [[0, 0]], 250)[0]) == 0
    assert len(match([1], [[0, 0]], [0], [[0, 0]], 250)[0]) == 0


def test_a_localisation_that_is_not_finite_is_a_false_one() -> None:
    result = score(table((0, np.nan, 0), (0, 0, 0)), table((0, 0, 0)))

    assert (result.n_found, result.n_matched, result.precision) == (2, 1, 0.5)


def test_nothing_found_or_nothing_there_is_a_score_too() -> None:
    nothing, something = table(), table((0, 0, 0))

    assert score(nothing, something).recall == 0
    assert math.isnan(score(nothing, something).precision)
    assert score(something, nothing).precision == 0
    assert math.isnan(score(nothing, nothing).jaccard)


def test_reported_errors_are_held_against_the_real_ones() -> None:
    rng = np.random.default_rng(1)
    n, sigma = 20_000, 8.0
    truth = {"frame": np.arange(n), "x_nm": np.zeros(n), "y_nm": np.zeros(n)}
    found = truth | {"x_nm": rng.normal(0, sigma, n), "y_nm": rng.normal(0, sigma, n)}

    honest = score(found | {"x_err_nm": np.full(n, sigma), "y_err_nm": np.full(n, sigma)}, truth)
    boasting = score(found | {"x_err_nm": np.full(n, sigma / 2), "y_err_nm": np.full(n, sigma / 2)}, truth)

    tolerance = 4 / math.sqrt(2 * 2 * n)
    assert honest.accuracy.rmse_over_crlb == pytest.approx(1, abs=tolerance)
    assert boasting.accuracy.rmse_over_crlb == pytest.approx(2, abs=2 * tolerance)
    assert math.isnan(score(found, truth).accuracy.rmse_over_crlb)


def test_isolated_molecules_are_scored_apart() -> None:
    truth = table((0, 0, 0), (0, 500, 0), (0, 9000, 0), (1, 0, 0))
    found = table((0, 50, 0), (0, 9001, 0))

    result = score(found, truth)

    assert result.isolated_recall == 0.5
    assert (result.isolated.n, result.isolated.rmse_x_nm) == (1, 1.0)
    assert result.accuracy.n == 2


def test_only_the_frames_and_the_region_asked_for_count() -> None:
    truth = table((0, 500, 500), (5, 500, 500), (5, 10, 500))
    found = table((5, 501, 500), (5, 12, 500), (9, 500, 500))

    result = score(found, truth, frames=(5, 6), region_nm=(100, 100, 900, 900))

    assert (result.n_truth, result.n_found, result.n_matched) == (1, 1, 1)


def test_rows_of_a_fit_give_their_columns() -> None:
    rows = np.zeros(2, LAT_GAUSS_DTYPE)
    rows["tIndex"] = 4, 5
    rows["fitResults"]["x0"] = 10, 20
    rows["fitError"]["y0"] = 1, 2
    rows["resultCode"] = ResultCode.CONVERGED, ResultCode.DEGENERATE

    columns = columns_of(rows)

    assert {name: values.tolist() for name, values in columns.items()} == {
        "frame": [4],
        "x_nm": [10],
        "y_nm": [0],
        "x_err_nm": [0],
        "y_err_nm": [1],
    }
    assert len(columns_of(rows, converged=False)["frame"]) == 2


POINTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 40)), max_size=12)


@given(found=POINTS, truth=POINTS)
def test_matching_agrees_with_the_rule_written_out(
    found: list[tuple[int, int, int]], truth: list[tuple[int, int, int]]
) -> None:
    distances = sorted(
        (math.hypot(f[1] - t[1], f[2] - t[2]), a, b)
        for a, f in enumerate(found)
        for b, t in enumerate(truth)
        if f[0] == t[0]
    )
    expected: dict[int, int] = {}
    for distance, a, b in distances:
        if distance <= 15 and a not in expected and b not in expected.values():
            expected[a] = b

    i, j = match(
        [f[0] for f in found], [f[1:] for f in found], [t[0] for t in truth], [t[1:] for t in truth], 15
    )

    assert dict(zip(i.tolist(), j.tolist(), strict=True)) == expected
