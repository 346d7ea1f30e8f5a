from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import least_squares

from fitting import fit_rois
from fitting.errors import InvalidFrames, InvalidSettings
from fitting.localisations import ResultCode

ROIS = np.ones((2, 7, 7))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"model": "vortex"}, "model"),
        ({"estimator": "magic"}, "estimator"),
        ({"width": 1.3}, "width"),
        ({"sigma_px": -1.0}, "sigma_px"),
        ({"sigma_px": float("nan")}, "sigma_px"),
    ],
)
def test_an_unknown_choice_is_refused_by_name(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        fit_rois(ROIS, **options)

    assert caught.value.field == field


@pytest.mark.parametrize(
    "rois",
    [np.ones((7, 7)), np.ones((2, 7, 9)), np.ones((1, 2, 2)), np.ones((1, 7, 7), complex), np.array("a")],
)
def test_what_is_no_stack_of_square_images_is_refused(rois: Any) -> None:
    with pytest.raises(InvalidFrames):
        fit_rois(rois)


def test_a_variance_of_another_shape_is_refused() -> None:
    with pytest.raises(InvalidFrames, match="variance"):
        fit_rois(ROIS, variance=np.ones((3, 3)))


def test_positions_count_from_the_centre_of_the_first_pixel(spot: Callable[..., Any]) -> None:
    for side in (7, 8, 11):
        roi = spot(3.25, 2.75, 5000, 1.2, side, side) + 4

        found = fit_rois(roi[np.newaxis])[0]

        assert (found["x_px"], found["y_px"]) == (
            pytest.approx(3.25, abs=1e-4),
            pytest.approx(2.75, abs=1e-4),
        )


def _sampled(theta: Any, side: int) -> Any:
    a, x, y, s, b, bx, by = theta
    v, u = np.mgrid[:side, :side] - np.array([y, x])[:, np.newaxis, np.newaxis]
    return a * np.exp(-(u**2 + v**2) / (2 * s**2)) + b + bx * u + by * v


def test_least_squares_recovers_what_it_models() -> None:
    theta = np.array([400.0, 5.3, 4.8, 1.4, 20.0, 0.5, -0.3])

    found = fit_rois(_sampled(theta, 11)[np.newaxis], estimator="wls")[0]

    assert found["status"] == ResultCode.CONVERGED
    assert abs(found["x_px"] - 5.3) < 1e-4
    assert abs(found["y_px"] - 4.8) < 1e-4
    assert found["photons"] == pytest.approx(2 * np.pi * 400 * 1.4**2, rel=1e-4)
    assert found["sigma_px"] == pytest.approx(1.4, rel=1e-4)
    assert found["background"] == pytest.approx(20, rel=1e-3)


def test_least_squares_agrees_with_a_general_optimiser() -> None:
    rng = np.random.default_rng(5)
    theta = np.array([100.0, 5.2, 4.9, 1.3, 10.0, 0.0, 0.0])
    roi = rng.poisson(_sampled(theta, 11)).astype(float)
    weight = 1 / np.sqrt(np.maximum(roi, 1) + 1)
    best = least_squares(lambda t: ((roi - _sampled(t, 11)) * weight).ravel(), theta, xtol=1e-12, ftol=1e-12)
    scaled = np.linalg.inv(best.jac.T @ best.jac) * 2 * best.cost / (121 - 7)

    found = fit_rois(roi[np.newaxis], estimator="wls")[0]

    assert found["x_px"] == pytest.approx(best.x[1], abs=1e-3)
    assert found["sigma_px"] == pytest.approx(best.x[3], abs=1e-3)
    assert found["x_px_err"] == pytest.approx(np.sqrt(scaled[1, 1]), rel=0.01)
    assert found["sigma_px_err"] == pytest.approx(np.sqrt(scaled[3, 3]), rel=0.01)
    assert found["log_likelihood"] == pytest.approx(-best.cost, rel=1e-3)
