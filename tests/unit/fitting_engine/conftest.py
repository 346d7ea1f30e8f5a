"""A camera, spots rendered without the package's own code, and a plain maximum-likelihood fit to compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import erf

Array = np.ndarray[Any, Any]


@pytest.fixture
def metadata() -> dict[str, object]:
    return {
        "voxelsize.x": 0.1,
        "voxelsize.y": 0.1,
        "Camera.ADOffset": 100.0,
        "Camera.ElectronsPerCount": 0.5,
        "Camera.ReadNoise": 1.6,
    }


def _shares(centre: float, sigma: float, length: int) -> Array:
    edges = (np.arange(length + 1) - 0.5 - centre) / (np.sqrt(2) * sigma)
    return np.diff(0.5 * erf(edges))


def _spot(x: float, y: float, n: float, sigma: float, height: int, width: int) -> Array:
    return n * np.outer(_shares(y, sigma, height), _shares(x, sigma, width))


@pytest.fixture
def spot() -> Callable[..., Array]:
    """Photons of a molecule at x, y: (x, y, n, sigma, height, width) → (h, w)."""
    return _spot


@pytest.fixture
def film() -> Callable[..., Array]:
    """Raw frames of molecules that change place in every frame, with Poisson and read noise."""

    def make(
        frames: int,
        height: int,
        width: int,
        per_frame: int,
        seed: int = 0,
        photons: float = 800.0,
        background: float = 10.0,
    ) -> Array:
        rng = np.random.default_rng(seed)
        expected = np.full((frames, height, width), background)
        for image in expected:
            for x, y in rng.uniform(0, (width - 1, height - 1), (per_frame, 2)):
                image += _spot(x, y, photons, 1.3, height, width)
        electrons = rng.poisson(expected) + rng.normal(0, 1.6, expected.shape)
        return np.clip(np.round(100 + electrons / 0.5), 0, 65535).astype(np.uint16)

    return make


@pytest.fixture
def plain_fit() -> Callable[..., Array]:
    """Maximise the Poisson likelihood of one ROI with a general-purpose optimiser, from a good start: x, y, N, b, s."""

    def fit(roi: Array, extra: Array, start: Array) -> Array:
        def cost(theta: Array) -> float:
            x, y, n, b, s = theta
            mu = _spot(x, y, n, s, *roi.shape) + b + extra
            return float((mu - (roi + 0.0) * np.log(mu)).sum()) if mu.min() > 0 and s > 0.3 else 1e12

        found = minimize(
            cost,
            start,
            method="Nelder-Mead",
            options={"xatol": 1e-7, "fatol": 1e-11, "maxiter": 20000, "adaptive": True},
        )
        result: Array = found.x
        return result

    return fit
