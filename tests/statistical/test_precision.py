"""Precision at the Cramér–Rao bound, errors one can trust, no bias; tolerances follow from the number of spots.

The standard deviation of n numbers is known to 1/√(2(n - 1)) of itself; four of those are allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2, kstest, norm

from fitting import fit_rois

pytestmark = pytest.mark.statistical

NAMES = ("x_px", "y_px", "photons", "background", "sigma_px")
SPOTS = 8000
SPREAD = 4 / np.sqrt(2 * (2 * SPOTS - 1))  # of an RMSE over x and y: 2.2 %
TABLE = [
    (300, 3, 1.0, 0.07472),
    (500, 5, 1.3, 0.07956),
    (1000, 10, 1.0, 0.04093),
    (1000, 10, 1.3, 0.05626),
    (1000, 50, 1.3, 0.08204),
    (5000, 10, 1.3, 0.02102),
    (5000, 100, 1.3, 0.02875),
    (20000, 20, 1.3, 0.01010),
]
"""Photons, background, sigma [px] and the bound of x [px] in 11 × 11 px, molecule in the middle."""
COMPARED = 2 * len(TABLE)
THREE = norm.isf(norm.sf(3) / COMPARED)
"""Standard errors, 3.8, that the largest of all compared means exceeds as rarely as a single one exceeds three (Bonferroni): of
sixteen unbiased means one beyond three is no surprise, it happens in one run of 23."""


def _columns(table: Any, suffix: str = "") -> Any:
    return np.column_stack([table[name + suffix] for name in NAMES]).astype(float)


def _rmse_over_bound(found: Any, truth: Any, bound: Any) -> float:
    relative = (_columns(found) - truth)[:, :2] / bound[:, :2]
    return float(np.sqrt((relative**2).mean()))


@pytest.mark.parametrize(("photons", "background", "sigma", "bound_px"), TABLE)
def test_positions_reach_the_cramer_rao_bound(
    photons: float, background: float, sigma: float, bound_px: float, spots: Callable[..., Any]
) -> None:
    truth, mu, bound = spots(SPOTS, photons, background, sigma, seed=int(photons + background))
    rois = np.random.default_rng(int(photons)).poisson(mu)

    found = fit_rois(rois, sigma_px=1.2)

    pull = (_columns(found) - truth) / _columns(found, "_err")
    assert (found["status"] == 1).mean() > 0.999
    assert bound[:, 0].mean() == pytest.approx(bound_px, rel=0.01)
    assert 0.97 < _rmse_over_bound(found, truth, bound) < 1.04
    assert abs(pull[:, :2].std() - 1) < 0.05
    assert (abs(pull.std(axis=0) - 1) < 0.05 + SPREAD).all()
    assert (abs(pull[:, :2].mean(axis=0)) < THREE / np.sqrt(SPOTS)).all()
    # the maximum of a likelihood is biased in second order: N, b and s by up to a tenth of their error at 300 photons
    assert (abs(pull[:, 2:].mean(axis=0)) < 0.1 + THREE / np.sqrt(SPOTS)).all()


@pytest.mark.parametrize(("photons", "background", "sigma"), [(300, 3, 1.0), (1000, 10, 1.3)])
def test_positions_are_not_biased(
    photons: float, background: float, sigma: float, spots: Callable[..., Any]
) -> None:
    truth, mu, _ = spots(40_000, photons, background, sigma, seed=1)

    found = fit_rois(np.random.default_rng(1).poisson(mu), sigma_px=1.2)

    pull = ((_columns(found) - truth) / _columns(found, "_err"))[:, :2]
    assert (abs(pull.mean(axis=0)) < 3 / np.sqrt(len(pull))).all()


def test_a_roi_of_seven_pixels_costs_little_precision(spots: Callable[..., Any]) -> None:
    truth, mu, bound = spots(SPOTS, 1000, 10, 1.3, side=7)

    found = fit_rois(np.random.default_rng(7).poisson(mu))

    assert bound[:, 0].mean() == pytest.approx(0.05647, rel=0.02)
    assert 0.97 < _rmse_over_bound(found, truth, bound) < 1.04


@pytest.mark.parametrize(
    ("columns", "lines", "photons"),
    [(0, 3, 1000), (2, 0, 1000), (2, 2, 1000), (3, 3, 20_000)],
    ids=["edge", "side", "near a corner", "corner"],
)
def test_a_clipped_roi_reaches_the_bound_of_the_pixels_it_has(
    columns: int, lines: int, photons: float, spots: Callable[..., Any]
) -> None:
    unknown = np.zeros((7, 7))
    unknown[:lines], unknown[:, :columns] = 1e30, 1e30
    truth, mu, bound = spots(SPOTS, photons, 10, 1.3, side=7, variance=unknown)
    rois = np.where(unknown > 0, np.nan, np.random.default_rng(columns).poisson(mu))

    found = fit_rois(rois, sigma_px=1.3)

    good = found["status"] == 1
    pull = ((_columns(found) - truth) / _columns(found, "_err"))[good, :2]
    assert good.mean() > 0.99
    # in the very corner, three quarters of the light gone, 1000 photons leave errors of 0.3 px, too large for a bound that holds for small ones
    assert 0.97 < _rmse_over_bound(found[good], truth[good], bound[good]) < 1.04
    assert (abs(pull.std(axis=0) - 1) < 0.05 + SPREAD).all()


@pytest.mark.parametrize(("variance", "bound_px"), [(2.5, 0.05847), (100.0, 0.10786)])
def test_read_noise_is_accounted_for(variance: float, bound_px: float, spots: Callable[..., Any]) -> None:
    truth, mu, bound = spots(SPOTS, 1000, 10, 1.3, variance=variance)
    rng = np.random.default_rng(2)
    rois = rng.poisson(mu) + rng.normal(0, np.sqrt(variance), mu.shape)

    found = fit_rois(rois, variance=variance)

    pull = (_columns(found) - truth) / _columns(found, "_err")
    assert bound[:, 0].mean() == pytest.approx(bound_px, rel=0.01)
    assert 0.97 < _rmse_over_bound(found, truth, bound) < 1.04
    assert abs(pull[:, :2].std() - 1) < 0.05


def test_a_noisy_pixel_attracts_only_those_who_do_not_know_it(spots: Callable[..., Any]) -> None:
    variance = np.full((11, 11), 2.5)
    variance[5, 7] = 2000.0
    truth, mu, bound = spots(SPOTS, 1000, 10, 1.3, variance=variance)
    rng = np.random.default_rng(5)
    rois = rng.poisson(mu) + rng.normal(0, np.sqrt(variance), mu.shape)

    with_map = fit_rois(rois, variance=variance)
    without = fit_rois(rois, variance=2.5)

    shift = abs((_columns(with_map) - truth)[:, :2].mean(axis=0) / bound[:, :2].mean(axis=0))
    assert (shift < 0.1).all()
    assert _rmse_over_bound(with_map, truth, bound) < 1.06
    assert _rmse_over_bound(without, truth, bound) > 1.2


def test_an_emccds_excess_noise_costs_the_root_of_two(spots: Callable[..., Any]) -> None:
    truth, mu, bound = spots(SPOTS, 1000, 10, 1.3)
    rng = np.random.default_rng(6)
    gain = 300.0
    rois = rng.gamma(np.maximum(rng.poisson(mu), 1e-9), gain) / gain

    found = fit_rois(rois)

    pull = (_columns(found) - truth) / (np.sqrt(2) * _columns(found, "_err"))
    assert 0.95 < _rmse_over_bound(found, truth, np.sqrt(2) * bound) < 1.1
    assert abs(pull[:, :2].std() - 1) < 0.1


def test_the_deviance_is_distributed_as_chi_squared(spots: Callable[..., Any]) -> None:
    _, mu, _ = spots(4000, 1000, 30, 1.3)

    found = fit_rois(np.random.default_rng(8).poisson(mu))

    # a Poisson deviance exceeds χ² by the factor 1 + 1/6μ on average
    expected = (1 + 1 / (6 * mu)).sum(axis=(1, 2)) / 121
    probability = chi2.sf(-2 * found["log_likelihood"] / expected, 121 - 5)
    assert kstest(probability, "uniform").pvalue > 1e-3


def test_least_squares_has_pymes_virtues_and_vices(spots: Callable[..., Any]) -> None:
    truth, mu, bound = spots(SPOTS, 1000, 10, 1.3)

    found = fit_rois(np.random.default_rng(9).poisson(mu), estimator="wls")

    ratio = _rmse_over_bound(found, truth, bound)
    assert 1.05 < ratio < 1.2
    assert np.median(found["sigma_px"]) == pytest.approx(1.3 * 1.022, rel=0.01)
    assert np.median(found["background"]) == pytest.approx(9.0, rel=0.05)
