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
from fitting.psf import pixel_integrated

pytestmark = pytest.mark.statistical

NAMES = ("x_px", "y_px", "photons", "background", "sigma_px")
SPOTS = 8000
SECOND_ORDER = np.array([0.0, 0.0, 0.02, 0.05, 0.09])
"""Bias in errors that the maximum of a likelihood has at 300 photons, where it is largest (docs/theory.md §6): none of x and y, which
symmetry forbids; N, b and s depend on each other, and the likelihood is skewed in them. It falls with the root of the photons."""
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
BOUNDS = """
  100   1 1.0 .12943 12.02 .106 .0865 .16143 .56363 .18304
  300   3 1.0 .07472 20.83 .184 .0500 .08185 .19994 .10568
  500   5 1.3 .07956 30.79 .268 .0570 .08558 .19817 .11252
 1000  10 1.0 .04093 38.03 .336 .0274 .04219 .07063 .05788
 1000  10 1.3 .05626 43.55 .379 .0403 .05847 .10786 .07956
 1000  50 1.3 .08204 69.68 .822 .0641 .08331 .12185 .11603
 5000  10 1.3 .02102 78.41 .401 .0136 .02138 .02937 .02973
 5000 100 1.3 .02875 115.3 1.18 .0215 .02890 .03432 .04065
20000  20 1.3 .01010 150.4 .587 .0062 .01016 .01168 .01429
"""
"""Photons, background, sigma [px]; then the bounds, made elsewhere, of x, N, b and sigma, and of x with a read-noise variance of 2.5 and 100 e⁻² and
with an EMCCD's excess noise: 11 × 11 px, all five parameters free, molecule in the middle of a pixel."""
COMPARED = 2 * len(TABLE)
THREE = norm.isf(norm.sf(3) / COMPARED)
"""Standard errors, 3.8, that the largest of all compared means exceeds as rarely as a single one exceeds three (Bonferroni): of
sixteen unbiased means one beyond three is no surprise, it happens in one run of 23."""


def _columns(table: Any, suffix: str = "") -> Any:
    return np.column_stack([table[name + suffix] for name in NAMES]).astype(float)


def _bound_in_the_middle(theta: Any, variance: float) -> Any:
    mu, d = pixel_integrated(theta, 11)
    return np.sqrt(np.diag(np.linalg.inv(np.einsum("kyx,lyx->kl", d, d / (mu + variance)))))


@pytest.mark.parametrize("line", BOUNDS.split("\n")[1:-1])
def test_the_bounds_of_all_parameters_are_those_of_the_table_to_its_last_digit(line: str) -> None:
    printed = line.split()
    theta = np.array([5.0, 5.0, *map(float, printed[:3])])
    bound = _bound_in_the_middle(theta, 0.0)
    noisy = [_bound_in_the_middle(theta, variance)[0] for variance in (2.5, 100.0)]

    found = fit_rois(pixel_integrated(theta, 11)[0][np.newaxis])

    values = [bound[0], *bound[2:], *noisy, np.sqrt(2) * bound[0]]
    for value, digits in zip(values, printed[3:], strict=True):
        assert abs(value - float(digits)) < 10.0 ** -len(digits.partition(".")[2])
    # an error is that of the parameters before the last step, a hundredth of an error away
    np.testing.assert_allclose(_columns(found, "_err")[0], bound, rtol=2e-3)


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
    assert (abs(pull.std(axis=0) - 1) < 0.05).all()
    assert (abs(pull[:, :2].mean(axis=0)) < THREE / np.sqrt(SPOTS)).all()
    assert (abs(pull.mean(axis=0))[2:] < 3 / np.sqrt(SPOTS) + SECOND_ORDER[2:]).all()


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
    ("columns", "lines", "photons", "background"),
    [
        (0, 3, 300, 3),
        (2, 0, 300, 3),
        (2, 2, 500, 3),
        (0, 3, 1000, 10),
        (2, 0, 1000, 10),
        (2, 2, 1000, 10),
        (3, 3, 20_000, 10),
    ],
    ids=[
        "edge, dim",
        "side, dim",
        "near a corner from 500 photons",
        "edge",
        "side",
        "near a corner",
        "corner",
    ],
)
def test_a_clipped_roi_reaches_the_bound_of_the_pixels_it_has(
    columns: int, lines: int, photons: float, background: float, spots: Callable[..., Any]
) -> None:
    unknown = np.zeros((7, 7))
    unknown[:lines], unknown[:, :columns] = 1e30, 1e30
    truth, mu, bound = spots(20_000, photons, background, 1.3, side=7, variance=unknown)
    rois = np.where(unknown > 0, np.nan, np.random.default_rng(columns).poisson(mu))

    found = fit_rois(rois, sigma_px=1.3)

    good = found["status"] == 1
    pull = ((_columns(found) - truth) / _columns(found, "_err"))[good, :2]
    assert good.mean() > 0.99
    # the bound holds for small errors: 300 photons near a corner leave errors of 0.2 px and an RMSE 7 % above it,
    # and in the very corner, three quarters of the light gone, 1000 photons leave 0.3 px
    assert 0.97 < _rmse_over_bound(found[good], truth[good], bound[good]) < 1.04
    assert (abs(pull.std(axis=0) - 1) < 0.05).all()


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
    # by how many bounds the position follows the pixel, for each standard deviation of the pixel's noise; the slope is known to 1/√SPOTS
    noise = (rois[:, 5, 7] - mu[:, 5, 7]) / np.sqrt(variance[5, 7])
    follows, blindly = (
        np.polyfit(noise, (found["x_px"] - truth[:, 0]) / bound[:, 0], 1)[0] for found in (with_map, without)
    )
    assert abs(follows) < 0.1
    assert blindly > 1


def test_an_emccds_excess_noise_costs_the_root_of_two(spots: Callable[..., Any]) -> None:
    truth, mu, bound = spots(SPOTS, 1000, 10, 1.3)
    rng = np.random.default_rng(6)
    gain = 300.0
    rois = rng.gamma(np.maximum(rng.poisson(mu), 1e-9), gain) / gain

    found = fit_rois(rois)

    pull = (_columns(found) - truth) / (np.sqrt(2) * _columns(found, "_err"))
    assert 0.95 < _rmse_over_bound(found, truth, np.sqrt(2) * bound) < 1.1
    assert (abs(pull.std(axis=0) - 1) < 0.05).all()


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
