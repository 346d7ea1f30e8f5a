"""The linked fit against a plain model of its own: values by scipy's erf, derivatives by differences."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

from fitting.calibrated import SigmaCurves
from fitting.errors import InvalidFrames, InvalidSettings
from fitting.estimators import estimate
from fitting.linked import AstigmaticPsf, EllipticPsf, GaussianPsf, Link, LinkedEstimates, estimate_linked
from fitting.localisations import ResultCode
from fitting.rois import pack

Array = np.ndarray[Any, Any]

SIDE = 11
CURVES = SigmaCurves.from_defocus(np.linspace(-700, 700, 71), (130, 200, 400, 0, 0), (130, -200, 400, 0, 0))
ASTIGMATIC = AstigmaticPsf.from_curves(CURVES, 100.0)
SHIFTS = np.array([[0.0, 0.0], [0.31, -0.22], [-0.4, 0.15]])


def _share(centre: float, s: float, side: int) -> Array:
    edges = (np.arange(side + 1) - side / 2 - centre) / (np.sqrt(2) * s)
    return np.diff(0.5 * erf(edges))


def _widths(psf: Any, shape: Array, offset: float) -> tuple[float, float]:
    if isinstance(psf, AstigmaticPsf):
        z = shape[0] + offset
        across, along = (1.3 * np.sqrt(1 + ((z + at) / 400) ** 2) for at in (-200, 200))
        return across, along * psf.aspect
    if isinstance(psf, EllipticPsf):
        return shape[0], shape[1] * psf.aspect
    s = shape[0] if psf.free_width else psf.width_px
    return s, s * psf.aspect


def _expected(psf: Any, link: Link, theta: Array, side: int = SIDE) -> Array:
    """Photons of every channel, (channels, side, side), from parameters in the order of the fit."""
    theta = list(theta)  # type: ignore[assignment]
    x, y = theta[:2]
    n_shape, channels = len(psf.shape_names), link.channels
    shape, rest = np.array(theta[2 : 2 + n_shape]), theta[2 + n_shape :]
    n = rest[0] * np.array(link.ratios) if link.ratios else rest[:channels]
    rest = rest[1 if link.ratios else channels :]
    b = rest[:channels] if link.free_background else np.zeros(channels)
    moves = np.zeros((channels, 2))
    if link.free_shift:
        moves[1:] = np.reshape(rest[channels if link.free_background else 0 :], (-1, 2))
    images = []
    for c in range(channels):
        sx, sy = _widths(psf, shape, link.axial_shift_nm[c] if link.axial_shift_nm else 0.0)
        dx, dy = SHIFTS[c] + moves[c]
        images.append(n[c] * np.outer(_share(y + dy, sy, side), _share(x + dx, sx, side)) + b[c])
    return np.stack(images)


def _derivatives(psf: Any, link: Link, theta: Array) -> Array:
    steps = 1e-5 * np.maximum(abs(theta), 1)
    up, down = theta + np.diag(steps), theta - np.diag(steps)
    return np.stack(
        [
            (_expected(psf, link, high) - _expected(psf, link, low)) / (2 * step)
            for high, low, step in zip(up, down, steps, strict=True)
        ]
    )


def _packed(
    images: Array, variance: Array | float = 0.0, background: Array | float = 0.0
) -> tuple[Array, Array]:
    """(k, channels, side, side) photons → a buffer for each channel."""
    number, channels, side = images.shape[:3]
    data, extra = np.empty((2, channels, -(-number // 16) * 16 * side**2), np.float32)
    v, b = (
        np.broadcast_to(np.asarray(value, np.float32), images.shape[1:]).copy()
        for value in (variance, background)
    )
    for c in range(channels):
        pack(
            np.array(images[:, c], np.float32),
            v[c : c + 1],
            b[c : c + 1],
            False,
            0,
            number,
            data[c],
            extra[c],
        )
    return data, extra


def _fit(psf: Any, link: Link, images: Array, start: Array | None = None, **noise: Any) -> LinkedEstimates:
    data, extra = _packed(images, **noise)
    shifts = np.tile(SHIFTS[: link.channels], (len(images), 1, 1))
    return estimate_linked(psf, link, data, extra, len(images), images.shape[-1], shifts, start)


CASES = {
    "round": (GaussianPsf(1.3), Link(), (0.3, -0.2, 1.2, 1000, 10)),
    "round of known width": (GaussianPsf(1.2, free_width=False), Link(), (0.3, -0.2, 1000, 10)),
    "elliptic": (EllipticPsf(1.3), Link(), (-0.4, 0.1, 1.1, 1.7, 1000, 10)),
    "elliptic on oblong pixels": (EllipticPsf(1.3, 0.8), Link(), (-0.4, 0.1, 1.1, 1.7, 1000, 10)),
    "astigmatic": (ASTIGMATIC, Link(), (0.2, 0.4, -310.0, 2000, 10)),
    "astigmatic on oblong pixels": (
        AstigmaticPsf.from_curves(CURVES, 100.0, 0.8),
        Link(),
        (0.2, 0.4, 250.0, 2000, 10),
    ),
    "two channels": (GaussianPsf(1.3), Link(2), (0.3, -0.2, 1.2, 700, 400, 10, 5)),
    "three channels": (EllipticPsf(1.3), Link(3), (0.1, -0.2, 1.1, 1.4, 700, 400, 500, 10, 5, 7)),
    "no background": (GaussianPsf(1.3), Link(2, free_background=False), (0.3, -0.2, 1.2, 700, 400)),
    "free shift": (
        GaussianPsf(1.3),
        Link(3, free_shift=True),
        (0.1, -0.2, 1.2, 2000, 1000, 1500, 10, 5, 7, 0.3, 0.2, -0.5, 0.1),
    ),
    "ratios": (GaussianPsf(1.3), Link(2, ratios=(0.7, 0.3)), (0.3, -0.2, 1.2, 1500, 10, 5)),
    "biplane": (
        ASTIGMATIC,
        Link(2, ratios=(0.5, 0.5), axial_shift_nm=(100.0, -150.0)),
        (0.3, -0.2, 220.0, 3000, 10, 5),
    ),
}
every_case = pytest.mark.parametrize(("psf", "link", "theta"), CASES.values(), ids=CASES)


def _scale(psf: Any, link: Link, theta: Array) -> Array:
    """Standard errors by the plain model."""
    mu, d = _expected(psf, link, theta), _derivatives(psf, link, theta)
    fisher = np.einsum("kcyx,lcyx->kl", d, d / np.maximum(mu, 1e-2))
    return np.sqrt(np.diag(np.linalg.inv(fisher)))


@every_case
def test_a_molecule_without_noise_is_recovered(psf: Any, link: Link, theta: tuple[float, ...]) -> None:
    truth = np.array(theta)

    found = _fit(psf, link, _expected(psf, link, truth)[np.newaxis])

    assert found.quality[0, 3] == ResultCode.CONVERGED
    assert (abs(found.theta[0] - truth) / _scale(psf, link, truth)).max() < 0.02
    assert abs(found.theta[0, :2] - truth[:2]).max() < 5e-4


@every_case
def test_a_fit_is_the_likelihoods_maximum(psf: Any, link: Link, theta: tuple[float, ...]) -> None:
    images = np.random.default_rng(3).poisson(
        _expected(psf, link, np.array(theta)), (4, link.channels, SIDE, SIDE)
    )

    found = _fit(psf, link, images)

    for row, x, quality in zip(found.theta.astype(float), images, found.quality, strict=True):
        mu, d = np.maximum(_expected(psf, link, row), 1e-2), _derivatives(psf, link, row)
        inside = np.ones(len(row), bool)
        inside[[k for k, name in enumerate(found.names) if name[0] == "b" and row[k] < 0.02]] = False
        gradient = np.einsum("kcyx,cyx->k", d, x / mu - 1)[inside]
        fisher = np.einsum("kcyx,lcyx->kl", d, d / mu)[np.ix_(inside, inside)]
        assert gradient @ np.linalg.solve(fisher, gradient) < 1e-4
        assert quality[3] == ResultCode.CONVERGED


@every_case
def test_the_covariance_is_the_inverse_fisher_matrix(psf: Any, link: Link, theta: tuple[float, ...]) -> None:
    images = np.random.default_rng(4).poisson(
        _expected(psf, link, np.array(theta)), (3, link.channels, SIDE, SIDE)
    )

    found = _fit(psf, link, images)

    for row, covariance in zip(found.theta.astype(float), found.covariance, strict=True):
        mu, d = _expected(psf, link, row), _derivatives(psf, link, row)
        exact = np.linalg.inv(np.einsum("kcyx,lcyx->kl", d, d / np.maximum(mu, 1e-2)))
        errors = np.sqrt(np.diag(exact))
        assert (abs(covariance - exact) / np.outer(errors, errors)).max() < 0.01
        np.testing.assert_array_equal(covariance, covariance.T)


def test_quality_is_the_deviance_of_all_channels() -> None:
    psf, link, theta = CASES["two channels"]
    images = np.random.default_rng(5).poisson(_expected(psf, link, np.array(theta)), (200, 2, SIDE, SIDE))

    found = _fit(psf, link, images)

    mu = _expected(psf, link, found.theta[0].astype(float))
    terms = np.where(images[0] > 0, images[0] * np.log(np.maximum(images[0], 1) / mu), 0)
    assert found.quality[0, 0] == pytest.approx(2 * (mu - images[0] + terms).sum(), rel=1e-3)
    assert found.quality[:, 1].mean() == pytest.approx(1, abs=4 * np.sqrt(2 / (2 * SIDE**2) / 200) + 0.005)


@pytest.mark.parametrize("case", ["elliptic", "astigmatic", "two channels", "free shift"])
def test_a_fit_does_not_depend_on_its_neighbours_or_its_lane(case: str) -> None:
    psf, link, theta = CASES[case]
    rng = np.random.default_rng(6)
    images = rng.poisson(0.2 * _expected(psf, link, np.array(theta)), (70, link.channels, SIDE, SIDE)).astype(
        float
    )
    images[3] = 0
    images[40] = np.nan
    order = rng.permutation(len(images))

    whole = _fit(psf, link, images)
    shuffled = _fit(psf, link, images[order])
    alone = [_fit(psf, link, image[np.newaxis]) for image in images]

    for k in (1, 2, 3):
        assert whole[k][order].tobytes() == shuffled[k].tobytes()
        assert whole[k].tobytes() == np.concatenate([one[k] for one in alone]).tobytes()


def test_channels_with_longer_buffers_give_the_same() -> None:
    psf, link, theta = CASES["two channels"]
    images = np.random.default_rng(7).poisson(_expected(psf, link, np.array(theta)), (20, 2, SIDE, SIDE))
    data, extra = _packed(images)
    longer = [np.concatenate([part, np.full_like(part, np.nan)], axis=1) for part in (data, extra)]
    shifts = np.tile(SHIFTS[:2], (20, 1, 1))

    found = estimate_linked(psf, link, *longer, 20, SIDE, shifts)

    assert found.theta.tobytes() == estimate_linked(psf, link, data, extra, 20, SIDE, shifts).theta.tobytes()


def test_one_channel_and_one_width_is_the_round_fit(spot: Callable[..., Array]) -> None:
    rng = np.random.default_rng(8)
    images = np.stack(
        [rng.poisson(spot(5 + dx, 5 - dx, 600, 1.3, SIDE, SIDE) + 8) for dx in rng.uniform(-0.5, 0.5, 100)]
    )
    data, extra = _packed(images[:, np.newaxis])

    linked = estimate_linked(GaussianPsf(1.2), Link(), data, extra, 100, SIDE, np.zeros((100, 1, 2)))
    plain = estimate("mle", data[0], extra[0], 100, SIDE, 1.2)

    order = [0, 1, 4, 2, 3]
    errors = np.sqrt(plain.covariance[:, order])
    assert linked.names == ("x", "y", "s", "N0", "b0")
    assert (abs(linked.theta - plain.theta[:, order]) / errors).max() < 0.01
    np.testing.assert_allclose(np.diagonal(linked.covariance, axis1=1, axis2=2), errors**2, rtol=5e-3)
    np.testing.assert_allclose(linked.quality[:, :2], plain.quality[:, :2], rtol=1e-4)
    np.testing.assert_array_equal(linked.quality[:, 3], plain.quality[:, 3])


def test_a_molecule_in_two_equal_channels_is_known_as_well_as_one_of_twice_the_light() -> None:
    one = _expected(EllipticPsf(1.3), Link(), np.array([0.1, 0.2, 1.2, 1.5, 1000, 10]))
    data, extra = _packed(np.repeat(one[np.newaxis], 2, axis=1))
    double, double_extra = _packed(2 * one[np.newaxis])

    linked = estimate_linked(EllipticPsf(1.3), Link(2), data, extra, 1, SIDE, np.zeros((1, 2, 2)))
    bright = estimate_linked(EllipticPsf(1.3), Link(), double, double_extra, 1, SIDE, np.zeros((1, 1, 2)))

    np.testing.assert_allclose(linked.theta[:, :4], bright.theta[:, :4], atol=1e-4)
    np.testing.assert_allclose(
        linked.covariance[:, :4, :4], bright.covariance[:, :4, :4], rtol=0.01, atol=1e-8
    )


def test_a_pixel_without_value_counts_for_nothing() -> None:
    psf, link, theta = CASES["two channels"]
    images = (
        np.random.default_rng(9)
        .poisson(_expected(psf, link, np.array(theta)), (5, 2, SIDE, SIDE))
        .astype(float)
    )
    images[:, 1, 2, 6] = 1e5
    holes = images.copy()
    holes[:, 1, 2, 6] = np.nan
    variance = np.zeros(images.shape[1:])
    variance[1, 2, 6] = np.inf

    found = _fit(psf, link, holes)

    assert found.theta.tobytes() == _fit(psf, link, images, variance=variance).theta.tobytes()
    assert (abs(found.theta[:, 0] - theta[0]) < 5 * np.sqrt(found.covariance[:, 0, 0])).all()


def test_a_channel_without_pixels_leaves_the_other_to_decide() -> None:
    psf, link, theta = CASES["two channels"]
    images = (
        np.random.default_rng(10)
        .poisson(_expected(psf, link, np.array(theta)), (5, 2, SIDE, SIDE))
        .astype(float)
    )
    images[:, 1] = np.nan

    found = _fit(psf, link, images)

    assert np.isfinite(found.theta).all()
    assert (found.quality[:, 3] == ResultCode.DEGENERATE).all()
    assert np.isnan(found.covariance).all()


def test_read_noise_and_a_known_background_enter_the_model() -> None:
    psf, link, theta = CASES["elliptic"]
    rng = np.random.default_rng(11)
    known = rng.uniform(0, 30, (1, SIDE, SIDE))
    variance = rng.uniform(0, 10, (1, SIDE, SIDE))
    mu = _expected(psf, link, np.array(theta))

    found = _fit(psf, link, (mu + known)[np.newaxis], variance=variance, background=known)

    d = _derivatives(psf, link, np.array(theta))
    exact = np.linalg.inv(np.einsum("kcyx,lcyx->kl", d, d / (mu + known + variance)))
    np.testing.assert_allclose(found.theta[0], theta, rtol=2e-3)
    np.testing.assert_allclose(np.diag(found.covariance[0]), np.diag(exact), rtol=0.01)


def test_a_given_start_is_taken_and_nan_leaves_it_to_the_fit() -> None:
    psf, link, theta = CASES["astigmatic"]
    images = np.random.default_rng(12).poisson(_expected(psf, link, np.array(theta)), (40, 1, SIDE, SIDE))
    unknown = np.full((40, 5), np.nan)
    near = np.tile(np.array(theta), (40, 1))

    plain, same, quick = (_fit(psf, link, images, start) for start in (None, unknown, near))

    assert plain.theta.tobytes() == same.theta.tobytes()
    assert quick.quality[:, 2].mean() < plain.quality[:, 2].mean()
    errors = np.sqrt(np.diagonal(plain.covariance, axis1=1, axis2=2))
    assert (abs(quick.theta - plain.theta) < 0.05 * errors).all()


def test_z_beyond_the_curves_has_left_them() -> None:
    theta = np.array([0.1, 0.0, 2.2, 5.5, 20_000, 10])  # flatter than any molecule between the ends
    images = _expected(EllipticPsf(1.3), Link(), theta, 25)[np.newaxis]

    found = _fit(ASTIGMATIC, Link(), images)

    assert found.theta[0, 2] == 700
    assert found.quality[0, 3] == ResultCode.LEFT_ROI
    assert np.isnan(found.covariance).all()


def test_a_channel_that_sees_nothing_has_no_photons_and_hinders_nobody() -> None:
    psf, link, _ = CASES["two channels"]
    images = np.random.default_rng(13).poisson(
        _expected(psf, link, np.array([0.1, 0.2, 1.3, 1000, 0, 10, 5])), (200, 2, SIDE, SIDE)
    )

    found = _fit(psf, link, images)

    assert (found.quality[:, 3] == ResultCode.CONVERGED).all()
    assert (found.theta[:, 4] >= 0).all()
    assert (abs(found.theta[:, 0] - 0.1) < 5 * np.sqrt(found.covariance[:, 0, 0])).all()


DEGENERATE = {
    "all zero": np.zeros((7, 7)),
    "constant": np.full((7, 7), 12.0),
    "saturated": np.full((7, 7), 65535.0),
    "nothing but NaN": np.full((7, 7), np.nan),
    "one bright pixel": 5.0 + 900.0 * (np.arange(49).reshape(7, 7) == 24),
    "infinite": np.full((7, 7), np.inf),
    "huge": np.full((7, 7), 1e19) + 1e18 * np.eye(7),
    "negative": np.full((7, 7), -50.0),
    "three pixels": np.where(np.arange(49).reshape(7, 7) < 3, 5.0, np.nan),
}


@pytest.mark.parametrize("image", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("case", ["round", "elliptic", "astigmatic", "two channels", "free shift", "biplane"])
def test_a_degenerate_roi_gives_finite_values_and_a_status(case: str, image: Array) -> None:
    psf, link, _ = CASES[case]

    found = _fit(psf, link, np.tile(image, (1, link.channels, 1, 1)))

    assert np.isfinite(found.theta).all()
    assert np.isfinite(found.quality).all()
    assert found.quality[0, 3] in set(ResultCode)
    if found.quality[0, 3] == ResultCode.CONVERGED:
        assert (np.diagonal(found.covariance[0]) > 0).all()


def test_no_molecules_give_no_rows() -> None:
    found = _fit(GaussianPsf(1.3), Link(2), np.zeros((0, 2, 7, 7)))

    assert found.theta.shape == (0, 7)
    assert found.covariance.shape == (0, 7, 7)


@pytest.mark.parametrize(
    ("psf", "link", "field"),
    [
        (GaussianPsf(1.3), Link(0), "channels"),
        (GaussianPsf(1.3), Link(2, ratios=(0.5, 0.6)), "ratios"),
        (GaussianPsf(1.3), Link(2, ratios=(1.0,)), "ratios"),
        (GaussianPsf(1.3), Link(2, axial_shift_nm=(0.0, 200.0)), "axial_shift_nm"),
        (ASTIGMATIC, Link(2, axial_shift_nm=(0.0, np.nan)), "axial_shift_nm"),
    ],
)
def test_a_link_that_makes_no_sense_is_refused_by_name(psf: Any, link: Link, field: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        _fit(psf, link, np.ones((1, max(link.channels, 1), 7, 7)))

    assert caught.value.field == field


def test_arrays_of_another_shape_are_refused() -> None:
    data, extra = np.zeros((2, 1, 16 * 49), np.float32)
    psf, none = GaussianPsf(1.3), np.zeros((3, 1, 2))

    for arguments in (
        (Link(2), data, extra, 3, 7, np.zeros((3, 2, 2))),
        (Link(), data, extra, 17, 7, np.zeros((17, 1, 2))),
        (Link(), data.astype(np.float64), extra, 3, 7, none),
        (Link(), data, extra, 3, 7, np.zeros((3, 2, 2))),
        (Link(), data, extra, 3, 7, none, np.zeros((3, 4))),
    ):
        with pytest.raises(InvalidFrames):
            estimate_linked(psf, *arguments)


def test_a_job_that_needs_no_link_loads_none() -> None:
    code = "import sys, fitting.localise, fitting.estimators; print(*[m for m in sys.modules if 'linked' in m or 'gaussian_kinds' in m])"

    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )

    assert out.stdout.split() == []
