"""Linked fits at the Cramér–Rao bound of all their channels together; tolerances follow from the number of molecules.

The bound is made here, in float64, from a plain model and differences. The standard deviation of n numbers is known to 1/√(2(n - 1)) of itself; the
bands below are five of those wide at least.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import erf
from scipy.stats import norm

from fitting import fit_rois
from fitting.calibrated import SigmaCurves
from fitting.linked import AstigmaticPsf, EllipticPsf, GaussianPsf, Link, LinkedEstimates, estimate_linked
from fitting.rois import pack
from fitting.widths import z_from_widths

pytestmark = pytest.mark.statistical

Array = np.ndarray[Any, Any]

COUNT = 4000
PULL = (0.93, 1.07)
WORST_RATIO = 1.06
PIXEL_NM = 100.0
CURVES = SigmaCurves.from_defocus(np.linspace(-700, 700, 57), (130, 200, 400, 0, 0), (130, -200, 400, 0, 0))


def _share(centre: Array, s: Array, side: int) -> Array:
    edges = (np.arange(side + 1) - side / 2 - centre[:, np.newaxis]) / (np.sqrt(2) * s[:, np.newaxis])
    return np.diff(0.5 * erf(edges))


def _image(x: Array, y: Array, sx: Array, sy: Array, side: int) -> Array:
    return _share(y, sy, side)[:, :, np.newaxis] * _share(x, sx, side)[:, np.newaxis, :]


def _widths(z: Array) -> tuple[Array, Array]:
    return 1.3 * np.sqrt(1 + ((z - 200) / 400) ** 2), 1.3 * np.sqrt(1 + ((z + 200) / 400) ** 2)


class Scene:
    """Molecules in channels: their parameters in the order of the fit, and the plain model of what is seen of them."""

    def __init__(self, psf: Any, link: Link, side: int, seed: int, **truth: Any) -> None:
        rng = np.random.default_rng(seed)
        self.psf, self.link, self.side = psf, link, side
        self.shifts = np.zeros((COUNT, link.channels, 2))
        self.shifts[:, 1:] = rng.uniform(-0.5, 0.5, (COUNT, link.channels - 1, 2))
        columns = {"x": (-0.5, 0.5), "y": (-0.5, 0.5)} | truth
        self.names = tuple(columns)
        self.truth = np.column_stack(
            [
                rng.uniform(*value, COUNT) if isinstance(value, tuple) else np.full(COUNT, float(value))
                for value in columns.values()
            ]
        )
        self.images = rng.poisson(self.expected(self.truth)).astype(np.float32)

    def expected(self, theta: Array) -> Array:
        """(k, channels, side, side) photons."""
        value = dict(zip(self.names, theta.T, strict=True))
        channels = []
        for c in range(self.link.channels):
            sx, sy = self._widths(value, self.link.axial_shift_nm[c] if self.link.axial_shift_nm else 0.0)
            x = value["x"] + self.shifts[:, c, 0] + value.get(f"dx{c}", 0)
            y = value["y"] + self.shifts[:, c, 1] + value.get(f"dy{c}", 0)
            n = value[f"N{c}"] if self.link.ratios is None else value["N"] * self.link.ratios[c]
            image = _image(x, y, sx, sy, self.side)
            channels.append(n[:, np.newaxis, np.newaxis] * image + value[f"b{c}"][:, np.newaxis, np.newaxis])
        return np.stack(channels, axis=1)

    @staticmethod
    def _widths(value: dict[str, Array], offset: float) -> tuple[Array, Array]:
        if "z" in value:
            return _widths(value["z"] + offset)
        return value.get("sx", value.get("s")), value.get("sy", value.get("s"))  # type: ignore[return-value]

    def bound(self) -> Array:
        """(k, p) standard errors that no unbiased estimator beats."""
        slopes = []
        for k in range(self.truth.shape[1]):
            step = np.zeros_like(self.truth)
            step[:, k] = 1e-4 * np.maximum(abs(self.truth[:, k]), 1)
            difference = self.expected(self.truth + step) - self.expected(self.truth - step)
            slopes.append(difference.reshape(COUNT, -1) / (2 * step[:, [k]]))
        d = np.stack(slopes, axis=1)
        fisher = np.einsum("kpi,kqi->kpq", d / self.expected(self.truth).reshape(COUNT, 1, -1), d)
        return np.sqrt(np.diagonal(np.linalg.inv(fisher), axis1=1, axis2=2))

    def fit(self) -> LinkedEstimates:
        data, extra = np.empty((2, self.link.channels, COUNT * self.side**2), np.float32)
        none = np.zeros((1, 1, 1), np.float32)
        for c in range(self.link.channels):
            pack(np.ascontiguousarray(self.images[:, c]), none, none, False, 0, COUNT, data[c], extra[c])
        found = estimate_linked(self.psf, self.link, data, extra, COUNT, self.side, self.shifts)
        assert found.names == self.names
        return found


def _check(scene: Scene, found: LinkedEstimates) -> None:
    """All converge; x, y and shape reach the bound; every error is the spread; positions are not biased."""
    bound = scene.bound()
    errors = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
    pull = (found.theta - scene.truth) / errors
    positions = [k for k, name in enumerate(scene.names) if name[0] in "xyzd"]
    ratio = np.sqrt((((found.theta - scene.truth) / bound) ** 2).mean(axis=0))
    assert (found.quality[:, 3] == 1).mean() > 0.999
    assert (ratio < WORST_RATIO).all(), dict(zip(scene.names, ratio, strict=True))
    assert (ratio > 2 - WORST_RATIO).all(), "better than the bound is a mistake in it"
    assert (pull.std(axis=0) > PULL[0]).all()
    assert (pull.std(axis=0) < PULL[1]).all()
    limit = norm.isf(norm.sf(3) / len(positions)) / np.sqrt(COUNT)
    axial = np.array(
        [0.03 if scene.names[k] == "z" else 0.0 for k in positions]
    )  # second order, as that of a width
    assert (abs(pull[:, positions].mean(axis=0)) < limit + axial).all()


def test_two_widths_reach_their_bound() -> None:
    scene = Scene(EllipticPsf(1.3), Link(), 13, 1, sx=(1.0, 2.0), sy=(1.0, 2.0), N0=1000, b0=10)

    _check(scene, scene.fit())


@pytest.mark.parametrize(("photons", "background"), [(1000, 10), (1000, 50), (5000, 20)])
def test_z_reaches_its_bound_in_the_central_800_nm(photons: float, background: float) -> None:
    psf = AstigmaticPsf.from_curves(CURVES, PIXEL_NM)
    scene = Scene(psf, Link(), 15, int(photons + background), z=(-400.0, 400.0), N0=photons, b0=background)

    _check(scene, scene.fit())


def test_z_looked_up_from_two_fitted_widths_has_the_error_it_says() -> None:
    psf = AstigmaticPsf.from_curves(CURVES, PIXEL_NM)
    scene = Scene(psf, Link(), 15, 3, z=(-400.0, 400.0), N0=5000, b0=20)
    rows = fit_rois(scene.images[:, 0], model="elliptic", sigma_px=1.5)
    columns = [
        rows[name].astype(float) * PIXEL_NM
        for name in ("sigma_px", "sigma_px_err", "sigma_y_px", "sigma_y_px_err")
    ]

    z, error = z_from_widths(*columns, CURVES)

    pull = (z - scene.truth[:, 2]) / error
    ratio = np.sqrt((((z - scene.truth[:, 2]) / scene.bound()[:, 2]) ** 2).mean())
    assert PULL[0] < pull.std() < PULL[1]
    assert ratio < 1.1  # the widths' covariance is not used


@pytest.mark.parametrize("photons", [(700, 300), (500, 500), (1800, 200)])
def test_two_channels_share_what_they_know(photons: tuple[float, float]) -> None:
    scene = Scene(
        GaussianPsf(1.3), Link(2), 9, sum(photons), s=(1.1, 1.5), N0=photons[0], N1=photons[1], b0=10, b1=5
    )

    found = scene.fit()

    _check(scene, found)
    n0, n1 = found.theta[:, 3].astype(float), found.theta[:, 4].astype(float)
    share = n0 / (n0 + n1)
    slope = np.stack([n1, -n0], axis=1) / ((n0 + n1) ** 2)[:, np.newaxis]
    error = np.sqrt(np.einsum("ki,kij,kj->k", slope, found.covariance[:, 3:5, 3:5], slope))
    pull = (share - photons[0] / sum(photons)) / error
    assert PULL[0] < pull.std() < PULL[1]
    assert abs(pull.mean()) < 4 / np.sqrt(COUNT) + 0.02


def test_a_free_shift_reaches_its_bound() -> None:
    scene = Scene(
        GaussianPsf(1.3), Link(2, free_shift=True), 11, 5,
        s=(1.1, 1.5), N0=3000, N1=2000, b0=10, b1=5, dx1=(-0.6, 0.6), dy1=(-0.6, 0.6),
    )  # fmt: skip

    _check(scene, scene.fit())


def test_three_channels_share_what_they_know() -> None:
    scene = Scene(
        GaussianPsf(1.3), Link(3), 9, 6, s=(1.1, 1.5), N0=500, N1=400, N2=300, b0=10, b1=5, b2=8
    )  # fmt: skip

    _check(scene, scene.fit())


def test_two_planes_with_a_known_share_of_the_light_know_z() -> None:
    psf = AstigmaticPsf.from_curves(CURVES, PIXEL_NM)
    link = Link(2, ratios=(0.6, 0.4), axial_shift_nm=(150.0, -150.0))
    scene = Scene(psf, link, 15, 7, z=(-400.0, 400.0), N=2000, b0=10, b1=10)

    _check(scene, scene.fit())
