"""A shift field as a file and as a function."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fitting.errors import InvalidSettings
from fitting.shift_field import ShiftField, SplineGrid, cubic_taps

NUMBERS = st.floats(-1e4, 1e4, allow_nan=False)
PLACES = st.tuples(NUMBERS, NUMBERS)


@st.composite
def fields(draw: st.DrawFn) -> ShiftField:
    powers = draw(st.integers(1, 4))
    dx, dy = (draw(arrays(np.float64, (powers, powers), elements=NUMBERS)) for _ in range(2))
    spline = None
    if draw(st.booleans()):
        shape = draw(st.tuples(st.integers(4, 6), st.integers(4, 6)))
        grid = [draw(arrays(np.float64, shape, elements=NUMBERS)) for _ in range(2)]
        spline = SplineGrid(draw(PLACES), draw(st.floats(10, 1e4)), grid[0], grid[1])
    return ShiftField(draw(PLACES), draw(st.floats(10, 1e5)), dx, dy, spline)


@given(field=fields(), x=NUMBERS, y=NUMBERS)
def test_a_field_is_the_same_after_a_trip_through_json(field: ShiftField, x: float, y: float) -> None:
    again = ShiftField.from_dict(json.loads(json.dumps(field.to_dict())))

    assert again.to_dict() == field.to_dict()
    np.testing.assert_array_equal(again.at(x, y), field.at(x, y))


def test_other_keys_of_a_file_are_passed_over() -> None:
    data = ShiftField().to_dict() | {"made": {"input": "beads.tif"}}

    assert ShiftField.from_dict(data).to_dict() == ShiftField().to_dict()


def test_the_identity_shifts_nothing() -> None:
    dx, dy = ShiftField().at([1.0, 2.0], [3.0, 4.0])

    assert (dx == 0).all()
    assert (dy == 0).all()


def test_a_spline_of_even_coefficients_is_constant_and_of_linear_ones_linear() -> None:
    nodes = np.arange(8.0) - 1
    x, y = np.linspace(0, 500, 11), np.linspace(500, 0, 11)

    even = SplineGrid((0.0, 0.0), 100.0, np.full((8, 8), 7.0), np.zeros((8, 8)))
    linear = SplineGrid((0.0, 0.0), 100.0, np.tile(nodes[:, np.newaxis], 8), np.tile(nodes, (8, 1)))

    np.testing.assert_allclose(even.at(x, y)[0], 7.0)
    np.testing.assert_allclose(linear.at(x, y), [x / 100, y / 100], atol=1e-12)


def test_a_spline_keeps_the_value_of_its_edge_beyond_it() -> None:
    grid = SplineGrid((0.0, 0.0), 100.0, *np.random.default_rng(0).normal(size=(2, 6, 7)))

    np.testing.assert_allclose(
        grid.at(np.array([-500.0]), np.array([150.0])), grid.at(np.array([0.0]), np.array([150.0]))
    )
    np.testing.assert_allclose(
        grid.at(np.array([900.0]), np.array([400.0])), grid.at(np.array([300.0]), np.array([400.0]))
    )


@given(u=st.floats(-2, 12), nodes=st.integers(4, 9))
def test_weights_of_a_spline_add_up_to_one_and_stay_in_the_grid(u: float, nodes: int) -> None:
    index, weight = cubic_taps(u, nodes)

    assert weight.sum() == pytest.approx(1)
    assert (weight >= -1e-15).all()
    assert index.min() >= 0
    assert index.max() < nodes


SPLINE = {
    "start_nm": [0, 0],
    "pitch_nm": 100,
    "dx_nm": np.zeros((4, 4)).tolist(),
    "dy_nm": np.zeros((4, 4)).tolist(),
}


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "bivariate"},
        {"scale_nm": 0},
        {"scale_nm": float("nan")},
        {"centre_nm": [1]},
        {"centre_nm": "ab"},
        {"centre_nm": None},
        {"dx_nm": [[float("inf")]]},
        {"dx_nm": []},
        {"dx_nm": np.zeros((7, 7)).tolist()},
        {"dx_nm": "many"},
        {"kind": "spline"},
        {"kind": "spline", "spline": 3},
        {"kind": "spline", "spline": SPLINE | {"pitch_nm": -1}},
        {"kind": "spline", "spline": SPLINE | {"dx_nm": np.zeros((3, 4)).tolist()}},
        {"kind": "spline", "spline": SPLINE | {"dy_nm": np.zeros((4, 5)).tolist()}},
        {"kind": "spline", "spline": SPLINE | {"dx_nm": np.full((4, 4), np.nan).tolist()}},
        {"kind": "spline", "spline": {k: v for k, v in SPLINE.items() if k != "pitch_nm"}},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_shift_field_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings) as caught:
        ShiftField.from_dict(ShiftField().to_dict() | change)

    assert caught.value.field == "shifts"
