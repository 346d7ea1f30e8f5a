"""A kind of PSF that the package does not have is one file, this one: the linked fit takes it as it takes its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

import fitting.linked
from fitting.kernel import provides
from fitting.lanes import LANES, load, splat, store
from fitting.linked import Link, estimate_linked
from fitting.linked_kernel import fit_linked
from fitting.localisations import ResultCode
from fitting.poisson import DEGENERATE, LEAST_MEAN, LEAST_WIDTH, at_least
from fitting.psf_kinds import begin, equations, image, limits, longest_step, scratch, trials
from fitting.rois import pack

Array = np.ndarray[Any, Any]
SIDE, COUNT = 11, 400
PI = np.float32(np.pi)


class MoffatPsf(NamedTuple):
    """h = (1 + r²/a²)⁻² / πa², with the wide wings of a long exposure through the air (A. F. J. Moffat, A&A 3, 455 (1969)); a starts at `radius_px`."""

    radius_px: Any

    @property
    def channels(self) -> int:
        return 1

    @property
    def shape_names(self) -> tuple[str, ...]:
        return ("a",)

    def for_kernel(self) -> MoffatPsf:
        return MoffatPsf(np.float32(self.radius_px))


@provides(scratch, MoffatPsf)
def _scratch(_psf: Any, _views: Any) -> Any:
    return 5 * LANES


@provides(trials, MoffatPsf)
def _trials(_psf: Any) -> int:
    return 1


@provides(begin, MoffatPsf)
def _begin(psf: Any, _trial: int, _views: Any, _block: int, theta: Any, _slots: Any, _work: Any) -> Any:
    store(theta, 2 * LANES, splat(psf.radius_px))
    return splat(np.float32(1.0)) > 0.0


@provides(limits, MoffatPsf)
def _limits(_psf: Any, _shape: int, side: int) -> Any:
    return np.float32(LEAST_WIDTH), np.float32(side), np.float32(DEGENERATE)


@provides(longest_step, MoffatPsf)
def _longest_step(_psf: Any, theta: Any, parameter: int) -> Any:
    return load(theta, 2 * LANES) * (0.3 if parameter >= 2 else 0.5)


@provides(image, MoffatPsf)
def _image(_psf: Any, views: Any, _channel: int, local: Any, share: Any, _work: Any) -> None:
    half = np.float32(views.side - 1) * np.float32(0.5)
    x, y, a = load(local, 0), load(local, LANES), load(local, 2 * LANES)
    for j in range(views.side):
        for i in range(views.side):
            u, v = splat(np.float32(i) - half) - x, splat(np.float32(j) - half) - y
            q = 1.0 / ((u * u + v * v) / (a * a) + 1.0)
            store(share, (j * views.side + i) * LANES, q * q / (a * a * PI))


@provides(equations, MoffatPsf)
def _equations(
    _psf: Any, views: Any, _channel: int, first: int, local: Any, gradient: Any, fisher: Any, work: Any
) -> None:
    half = np.float32(views.side - 1) * np.float32(0.5)
    x, y, a = load(local, 0), load(local, LANES), load(local, 2 * LANES)
    n, b = load(local, 3 * LANES), load(local, 4 * LANES)
    for k in range(5):
        store(gradient, k * LANES, splat(np.float32(0.0)))
    for k in range(25):
        store(fisher, k * LANES, splat(np.float32(0.0)))
    store(work, 4 * LANES, splat(np.float32(1.0)))
    for j in range(views.side):
        for i in range(views.side):
            u, v = splat(np.float32(i) - half) - x, splat(np.float32(j) - half) - y
            r2 = (u * u + v * v) / (a * a)
            q = 1.0 / (r2 + 1.0)
            h = q * q / (a * a * PI)
            slope = h * q * 4.0 / (a * a)
            store(work, 0, slope * u)
            store(work, LANES, slope * v)
            store(work, 2 * LANES, h * (r2 * q * 4.0 - 2.0) / a)
            store(work, 3 * LANES, h)
            at = first + (j * views.side + i) * LANES
            w = 1.0 / at_least(n * h + (load(views.extra, at) + b), LEAST_MEAN)
            rest = load(views.data, at) * w - 1.0
            for k in range(5):
                d = load(work, k * LANES)
                store(gradient, k * LANES, load(gradient, k * LANES) + rest * d)
                for m in range(k, 5):
                    to = (k * 5 + m) * LANES
                    store(fisher, to, load(fisher, to) + w * d * load(work, m * LANES))


@pytest.fixture
def _kernel_that_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machine code of a test does not belong into the package's cache."""
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    monkeypatch.setattr(fitting.linked, "fit_linked", numba.njit(**options)(fit_linked.py_func))


def _plain(theta: Array) -> Array:
    x, y, a, n, b = theta
    v, u = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return n / (np.pi * a**2) * (1 + ((u - x) ** 2 + (v - y) ** 2) / a**2) ** -2 + b


def _bound(theta: Array) -> Array:
    steps = 1e-4 * np.maximum(abs(theta), 1) * np.eye(5)
    d = np.stack(
        [(_plain(theta + step) - _plain(theta - step)) / (2 * step.sum()) for step in steps]
    ).reshape(5, -1)
    return np.linalg.inv(d / _plain(theta).ravel() @ d.T)


@pytest.mark.usefixtures("_kernel_that_is_not_kept")
def test_another_kind_of_psf_is_one_file() -> None:
    rng = np.random.default_rng(20)
    truth = np.column_stack([*rng.uniform(-0.5, 0.5, (2, COUNT)), np.tile([2.0, 3000.0, 10.0], (COUNT, 1))])
    images = np.stack([_plain(theta) for theta in truth])
    images[1:] = rng.poisson(images[1:])
    data, extra = np.empty((2, 1, COUNT * SIDE**2), np.float32)
    none = np.zeros((1, 1, 1), np.float32)
    pack(images.astype(np.float32), none, none, False, 0, COUNT, data[0], extra[0])

    found = estimate_linked(MoffatPsf(1.5), Link(), data, extra, COUNT, SIDE, np.zeros((COUNT, 1, 2)))

    assert found.names == ("x", "y", "a", "N0", "b0")
    assert (found.quality[:, 3] == ResultCode.CONVERGED).all()
    np.testing.assert_allclose(found.theta[0], truth[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.covariance[0], _bound(truth[0]), rtol=0.02, atol=1e-6)
    pull = (found.theta - truth)[1:] / np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))[1:]
    assert (abs(pull.std(axis=0) - 1) < 4 / np.sqrt(2 * (COUNT - 1))).all()
    assert (abs(pull[:, :2].mean(axis=0)) < 4 / np.sqrt(COUNT - 1)).all()
    assert abs(found.quality[1:, 1].mean() - 1) < 4 * np.sqrt(2 / (SIDE**2 * COUNT))
