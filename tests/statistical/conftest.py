"""Seeded spots with their truth and their Cramér–Rao bound, made by the plain model in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

from fitting.psf import pixel_integrated

Array = np.ndarray[Any, Any]
SIDE = 11


def _expected(theta: Array, side: int) -> tuple[Array, Array]:
    pairs = [pixel_integrated(row, side) for row in theta]
    return np.stack([mu for mu, _ in pairs]), np.stack([d for _, d in pairs])


def _bound(mu: Array, derivatives: Array, variance: Array | float) -> Array:
    fisher = np.einsum("nkyx,nlyx->nkl", derivatives, derivatives / (mu + variance)[:, np.newaxis])
    return np.sqrt(np.diagonal(np.linalg.inv(fisher), axis1=1, axis2=2))


@pytest.fixture
def spots() -> Callable[..., tuple[Array, Array, Array]]:
    """Truth (n, 5), expected photons (n, s, s) and bound (n, 5) of spots in random sub-pixel places."""

    def make(
        n: int,
        photons: float,
        background: float,
        sigma: float,
        *,
        variance: Array | float = 0.0,
        side: int = SIDE,
        seed: int = 0,
    ) -> tuple[Array, Array, Array]:
        rng = np.random.default_rng(seed)
        middle = (side - 1) / 2
        phases = rng.uniform(middle - 0.5, middle + 0.5, (64, 2))
        kinds = np.column_stack([phases, np.tile([photons, background, sigma], (64, 1))])
        mu, derivatives = _expected(kinds, side)
        bound = _bound(mu, derivatives, variance)
        which = np.arange(n) % 64
        return kinds[which], mu[which], bound[which]

    return make


@pytest.fixture(scope="session")
def film_metadata() -> dict[str, object]:
    """Of the camera of `film`."""
    return {
        "voxelsize.x": 0.1,
        "voxelsize.y": 0.1,
        "Camera.ADOffset": 100.0,
        "Camera.ElectronsPerCount": 0.5,
        "Camera.ReadNoise": 0.0,
    }


@pytest.fixture(scope="session")
def film() -> Callable[[Any, int, np.random.Generator], Array]:
    """Frames of molecules of 1000 photons at places, (molecules, 2) in px for each frame, on 20 photons/px."""

    def make(places: Any, size: int, rng: np.random.Generator) -> Array:
        edges = np.arange(size + 1) - 0.5
        frames = np.empty((len(places), size, size), np.uint16)
        for frame, xy in zip(frames, places, strict=True):
            along_x, along_y = (
                np.diff(0.5 * erf((edges[:, np.newaxis] - xy[:, axis]) / (np.sqrt(2) * 1.3)), axis=0)
                for axis in (0, 1)
            )
            frame[:] = np.round(100 + rng.poisson(20 + 1000 * along_y @ along_x.T) / 0.5)
        return frames

    return make
