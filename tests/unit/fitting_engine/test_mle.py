from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fitting import fit_rois
from fitting.localisations import ResultCode
from fitting.psf import pixel_integrated

NAMES = ("x_px", "y_px", "photons", "background", "sigma_px")
RNG = np.random.default_rng(11)


def _noisy(count: int, photons: float = 1000.0, background: float = 10.0, side: int = 9) -> tuple[Any, Any]:
    middle = (side - 1) / 2
    theta = np.column_stack(
        [
            *RNG.uniform(middle - 0.5, middle + 0.5, (2, count)),
            np.full(count, photons),
            np.full(count, background),
            np.full(count, 1.3),
        ]
    )
    mu = np.stack([pixel_integrated(row, side)[0] for row in theta])
    return theta, RNG.poisson(mu).astype(float)


def _values(table: Any, suffix: str = "") -> Any:
    return np.column_stack([table[name + suffix] for name in NAMES])


@pytest.mark.parametrize("phase", [-0.5, -0.2, 0.0, 0.3, 0.5])
@pytest.mark.parametrize("start", [0.9, 1.3, 1.8])
def test_a_molecule_without_noise_is_recovered_from_any_start(phase: float, start: float) -> None:
    thetas = [(5 + phase, 5 - phase / 2, 1000.0, 10.0, 1.3), (5 - phase, 5 + phase, 300.0, 3.0, 1.1)]
    rois = np.stack([pixel_integrated(np.array(theta), 11)[0] for theta in thetas])

    found = fit_rois(rois, sigma_px=start)

    assert (found["status"] == ResultCode.CONVERGED).all()
    assert abs(_values(found)[:, :2] - np.array(thetas)[:, :2]).max() < 1e-4
    np.testing.assert_allclose(found["photons"], [theta[2] for theta in thetas], rtol=1e-4)
    np.testing.assert_allclose(found["sigma_px"], [theta[4] for theta in thetas], rtol=1e-4)


def test_a_fit_is_the_likelihoods_maximum(plain_fit: Callable[..., Any]) -> None:
    theta, rois = _noisy(6)

    found = fit_rois(rois)

    errors = _values(found, "_err")
    for k in range(len(rois)):
        best = plain_fit(rois[k], np.zeros_like(rois[k]), theta[k])
        assert (abs(_values(found)[k] - best) < 0.01 * errors[k]).all()


def test_errors_are_the_root_of_the_inverse_fisher_matrix() -> None:
    _, rois = _noisy(20)

    found = fit_rois(rois)

    for row, error in zip(_values(found), _values(found, "_err"), strict=True):
        mu, d = pixel_integrated(row.astype(float), 9)
        fisher = np.einsum("kyx,lyx->kl", d, d / mu)
        np.testing.assert_allclose(error, np.sqrt(np.diag(np.linalg.inv(fisher))), rtol=5e-3)


def test_the_log_likelihood_is_minus_half_the_deviance() -> None:
    _, rois = _noisy(4)

    found = fit_rois(rois)

    for roi, row, value in zip(rois, _values(found), found["log_likelihood"], strict=True):
        mu = pixel_integrated(row.astype(float), 9)[0]
        terms = np.where(roi > 0, roi * np.log(np.maximum(roi, 1) / mu), 0)
        assert value == pytest.approx(-(mu - roi + terms).sum(), rel=1e-4)


def test_a_fit_does_not_depend_on_its_neighbours_or_its_lane() -> None:
    _, rois = _noisy(70, photons=150.0)
    rois[3] = 0
    rois[40] = np.nan
    order = RNG.permutation(len(rois))

    whole = fit_rois(rois)
    shuffled = fit_rois(rois[order])
    alone = np.concatenate([fit_rois(roi[np.newaxis]) for roi in rois])

    assert whole[order].tobytes() == shuffled.tobytes()
    assert whole.tobytes() == alone.tobytes()


def test_read_noise_enters_data_and_model(plain_fit: Callable[..., Any]) -> None:
    theta, rois = _noisy(3)
    variance = RNG.uniform(1, 30, rois.shape)
    rois += RNG.normal(0, np.sqrt(variance))

    found = fit_rois(rois, variance=variance)

    for k in range(3):
        best = plain_fit(np.maximum(rois[k] + variance[k], 0), variance[k], theta[k])
        assert (abs(_values(found)[k] - best) < 0.02 * _values(found, "_err")[k]).all()


def test_a_known_background_leaves_only_the_rest_to_fit() -> None:
    _, rois = _noisy(8, background=30.0)
    slope = np.linspace(-5, 5, 9)[np.newaxis, np.newaxis, :] * np.ones((8, 9, 1))

    plain = fit_rois(rois)
    known = fit_rois(rois + slope + 5, background=slope + 25)

    np.testing.assert_allclose(known["background"], plain["background"] - 20, atol=2.5)
    assert (abs(known["x_px"] - plain["x_px"]) < 3 * plain["x_px_err"]).all()


def test_a_pixel_without_value_counts_for_nothing() -> None:
    _, rois = _noisy(5)
    rois[:, 2, 6] = 1e5
    holes = rois.copy()
    holes[:, 2, 6] = np.nan
    variance = np.zeros_like(rois)
    variance[:, 2, 6] = np.inf

    found = fit_rois(holes)

    assert found.tobytes() == fit_rois(rois, variance=variance).tobytes()
    assert (abs(found["x_px"] - 4) < 1).all()


@pytest.mark.parametrize(
    ("name", "roi"),
    [
        ("all zero", np.zeros((7, 7))),
        ("constant", np.full((7, 7), 12.0)),
        ("saturated", np.full((7, 7), 65535.0)),
        ("nothing but NaN", np.full((7, 7), np.nan)),
        ("one bright pixel", 5.0 + 900.0 * (np.arange(49).reshape(7, 7) == 24)),
        ("infinite", np.full((7, 7), np.inf)),
        ("huge", np.full((7, 7), 1e30)),
        ("negative", np.full((7, 7), -50.0)),
        ("three pixels", np.where(np.arange(49).reshape(7, 7) < 3, 5.0, np.nan)),
    ],
)
@pytest.mark.parametrize("estimator", ["mle", "wls"])
def test_a_degenerate_roi_gives_finite_values_and_a_status(name: str, roi: Any, estimator: str) -> None:
    found = fit_rois(roi[np.newaxis], estimator=estimator)[0]

    assert all(np.isfinite(found[field]) for field in NAMES), name
    assert found["status"] in set(ResultCode)
    if found["status"] == ResultCode.CONVERGED:
        assert all(np.isfinite(found[f"{field}_err"]) for field in NAMES), name


def test_two_molecules_in_one_roi_fit_badly_and_say_so(spot: Callable[..., Any]) -> None:
    expected = spot(4, 4, 800, 1.3, 11, 11) + spot(7, 6, 800, 1.3, 11, 11) + 10
    rois = RNG.poisson(np.stack([expected] * 50)).astype(float)

    found = fit_rois(rois)

    deviance_per_pixel = -2 * found["log_likelihood"] / (121 - 5)
    assert np.isfinite(_values(found)).all()
    assert np.median(deviance_per_pixel) > 1.5


def test_a_molecule_beyond_the_roi_has_left_it(spot: Callable[..., Any]) -> None:
    roi = spot(9.5, 3, 50_000, 1.3, 7, 7) + 5

    found = fit_rois(roi[np.newaxis], sigma_px=1.3)[0]

    assert found["status"] == ResultCode.LEFT_ROI
    assert np.isnan(found["x_px_err"])


def test_no_rois_give_no_rows() -> None:
    assert len(fit_rois(np.zeros((0, 7, 7)))) == 0
