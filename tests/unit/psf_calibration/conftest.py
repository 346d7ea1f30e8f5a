"""Beads of known PSF, place and brightness: an astigmatic Gaussian with rings that grow with defocus, photon and read noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

Array = np.ndarray[Any, Any]

X_FOCUS = (140.0, -200.0, 420.0, 0.0, 0.0)  # w, c, d, A, B
Y_FOCUS = (145.0, 200.0, 400.0, 0.1, 0.05)


def width_nm(z_nm: Array | float, form: Sequence[float]) -> Array:
    w, c, d, a, b = form
    u = (np.asarray(z_nm, float) - c) / d
    return w * np.sqrt(1 + u**2 + a * u**3 + b * u**4)


@dataclass(frozen=True)
class Scope:
    """A microscope: pixels, planes, and how wide a point is in x and y at a height."""

    pixel_nm: float = 100.0
    step_nm: float = 50.0
    planes: int = 31
    x: tuple[float, ...] = X_FOCUS
    y: tuple[float, ...] = Y_FOCUS

    @property
    def z_nm(self) -> Array:
        """Heights of the planes, 0 in the middle one."""
        return (np.arange(self.planes) - self.planes // 2) * self.step_nm

    def psf(self, side: int, dz_nm: float = 0.0, dy_px: float = 0.0, dx_px: float = 0.0) -> Array:
        """Share of the light of a point in each pixel, (z, y, x)."""
        planes = []
        for z in self.z_nm - dz_nm:
            sx, sy = width_nm(z, self.x) / self.pixel_nm, width_nm(z, self.y) / self.pixel_nm
            planes.append(np.outer(_shares(dy_px, sy, side), _shares(dx_px, sx, side)))
        return np.array(planes)

    def ball(self, side: int, diameter_nm: float) -> Array:
        """The same of a ball that shines throughout, from points on a grid in it."""
        grid = np.linspace(-1, 1, 9)
        points = np.stack(np.meshgrid(grid, grid, grid), axis=-1).reshape(-1, 3)
        points = points[(points**2).sum(axis=1) <= 1]
        points *= np.sqrt(diameter_nm**2 / 20 / (points**2).mean(axis=0))  # a ball's variance along each axis
        images = [self.psf(side, z, y / self.pixel_nm, x / self.pixel_nm) for z, y, x in points]
        return np.mean(images, axis=0)


def _shares(centre_px: float, sigma_px: float, side: int) -> Array:
    edges = np.arange(side + 1) - side / 2 - centre_px
    return np.diff(erf(edges / sigma_px / np.sqrt(2))) / 2


@dataclass(frozen=True)
class Placed:
    """A bead: pixel, fraction of a pixel, height, photons in a plane."""

    y: int
    x: int
    dy_px: float = 0.0
    dx_px: float = 0.0
    dz_nm: float = 0.0
    photons: float = 40_000.0


@pytest.fixture
def scope() -> Scope:
    return Scope()


@pytest.fixture
def bead() -> type[Placed]:
    return Placed


@pytest.fixture
def field() -> Callable[..., Array]:
    """A stack of beads with noise: (scope, beads, shape, …) → (planes, h, w) uint16 ADU, 2 e⁻ per ADU, offset 100."""

    def make(
        scope: Scope,
        beads: Sequence[Placed],
        shape: tuple[int, int] = (120, 120),
        *,
        seed: int | None = 1,
        background: float = 20.0,
        highest: float = 65535.0,
        keep: float = 1.0,
    ) -> Array:
        light = np.full((scope.planes, *shape), background)
        side = 37
        for one in beads:
            image = one.photons * scope.psf(side, one.dz_nm, one.dy_px, one.dx_px)
            image *= (keep ** np.linspace(0, 1, scope.planes))[:, None, None]
            _add(light, image, one.y, one.x)
        if seed is None:
            return np.minimum(100 + light / 2, highest).astype(np.float32)
        rng = np.random.default_rng(seed)
        electrons = rng.poisson(light) + rng.normal(0, 1.5, light.shape)
        return np.clip(np.rint(100 + electrons / 2), 0, highest).astype(np.uint16)

    return make


def _add(light: Array, image: Array, y: int, x: int) -> None:
    half = image.shape[1] // 2
    y0, x0 = max(0, y - half), max(0, x - half)
    y1, x1 = min(light.shape[1], y + half + 1), min(light.shape[2], x + half + 1)
    light[:, y0:y1, x0:x1] += image[:, y0 - y + half : y1 - y + half, x0 - x + half : x1 - x + half]
