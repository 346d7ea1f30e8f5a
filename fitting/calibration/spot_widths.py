"""Elliptical Gaussians fitted to many small images at once, weighted as a molecule's image would be.

Each image is scaled to a molecule's photons on a background, and fitted by Fisher scoring of the Poisson likelihood. A bead's image has far
less noise than that; but a real PSF is no Gaussian, and which Gaussian suits it best depends on the weights. With these it is
the one that a maximum-likelihood fit finds on molecules of that brightness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import erf

FloatArray = npt.NDArray[np.float64]

_ITERATIONS = 60
_ARRIVED = 1e-5
_LEAST_WIDTH_PX = 0.3
_SQRT_2 = float(np.sqrt(2))


@dataclass(frozen=True)
class Spots:
    """What was fitted to n images; positions from the middle pixel.

    Attributes
    ----------
    x_px, y_px, sigma_x_px, sigma_y_px : (n,) arrays
    photons, background : (n,) arrays
        In the scale of the images after scaling.
    sigma_x_err_px, sigma_y_err_px, x_err_px, y_err_px : (n,) arrays
        Standard errors, from the residuals.
    good : (n,) bool array
        Arrived, inside the image, and not wider than it can tell.
    """

    x_px: FloatArray
    y_px: FloatArray
    photons: FloatArray
    background: FloatArray
    sigma_x_px: FloatArray
    sigma_y_px: FloatArray
    x_err_px: FloatArray
    y_err_px: FloatArray
    sigma_x_err_px: FloatArray
    sigma_y_err_px: FloatArray
    good: npt.NDArray[np.bool_]


def fit_spots(images: FloatArray, photons: float, background_photons: float) -> Spots:
    """Fit an elliptical, pixel-integrated Gaussian on a flat background to each image.

    Parameters
    ----------
    images : (n, s, s) array
        Background roughly taken off, any common scale, s odd.
    photons, background_photons : float
        What a molecule has in its brightest image [e⁻], and what lies under it [e⁻/px].

    Returns
    -------
    Spots
    """
    totals = images.sum(axis=(1, 2))
    brightest = float(np.median(np.sort(totals)[-max(1, len(totals) // 3) :]))
    scale = photons / max(brightest, 1e-3 * float(np.abs(images).sum(axis=(1, 2)).max()), 1e-100)
    data = images * scale + background_photons
    theta = _start(data, background_photons)
    arrived = np.zeros(len(data), bool)
    for _ in range(_ITERATIONS):
        mu, jacobian = _model(theta, data.shape[1])
        step, _ = _scoring_step(data, mu, jacobian)
        step = np.where(arrived[:, np.newaxis], 0.0, _limited(step, theta))
        theta = _bounded(theta + step, data.shape[1], background_photons)
        arrived |= np.abs(step[:, [0, 1, 4, 5]]).max(axis=1) < _ARRIVED
        if arrived.all():
            break
    errors = _errors(data, theta)
    x, y, n, b, sx, sy = theta.T
    half = data.shape[1] // 2
    good = (
        arrived
        & (np.maximum(np.abs(x), np.abs(y)) < half / 2)
        & (np.maximum(sx, sy) < 0.8 * half)
        & (np.minimum(sx, sy) > 1.01 * _LEAST_WIDTH_PX)
        & (n > 0.1 * photons)
        & (np.maximum(errors[:, 4] / sx, errors[:, 5] / sy) < 0.15)
    )
    return Spots(x, y, n, b, sx, sy, errors[:, 0], errors[:, 1], errors[:, 4], errors[:, 5], good)


def _start(data: FloatArray, background: float) -> FloatArray:
    n, side, _ = data.shape
    light = np.maximum(data - background - 0.1 * (data.max(axis=(1, 2), keepdims=True) - background), 0)
    total = np.maximum(light.sum(axis=(1, 2)), 1e-9)
    u = np.arange(side) - side // 2
    across, down = light.sum(axis=1), light.sum(axis=2)
    x, y = (across @ u) / total, (down @ u) / total
    sx = np.sqrt(np.maximum((across @ u**2) / total - x**2, 0.5))
    sy = np.sqrt(np.maximum((down @ u**2) / total - y**2, 0.5))
    photons = np.maximum((data - background).sum(axis=(1, 2)), 1.0)
    theta = np.stack([x, y, photons, np.full(n, background), sx, sy], axis=1)
    return _bounded(theta, side, background)


def _axis(centre: FloatArray, sigma: FloatArray, side: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Share of the light in each pixel of an axis, and its derivatives by centre and width: (n, side) each."""
    edges = np.arange(side + 1) - side / 2 - centre[:, np.newaxis]
    u = edges / sigma[:, np.newaxis]
    density = np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi) / sigma[:, np.newaxis]
    share = np.diff(erf(u / _SQRT_2), axis=1) / 2
    return share, -np.diff(density, axis=1), -np.diff(u * density, axis=1)


def _model(theta: FloatArray, side: int) -> tuple[FloatArray, FloatArray]:
    x, y, n, b, sx, sy = theta.T
    ex, gx, wx = _axis(x, sx, side)
    ey, gy, wy = _axis(y, sy, side)
    n = n[:, np.newaxis]
    parts = [
        (ey, n * gx), (n * gy, ex), (ey, ex), (np.ones_like(ey), np.ones_like(ex)), (ey, n * wx), (n * wy, ex),
    ]  # fmt: skip
    jacobian = np.stack([np.einsum("ki,kj->kij", down, across) for down, across in parts], axis=1)
    mu = n[:, :, np.newaxis] * jacobian[:, 2] + b[:, np.newaxis, np.newaxis]
    return np.maximum(mu, 1e-3), jacobian.reshape(len(theta), 6, -1)


def _scoring_step(data: FloatArray, mu: FloatArray, jacobian: FloatArray) -> tuple[FloatArray, FloatArray]:
    flat = mu.reshape(len(mu), 1, -1)
    weighted = jacobian / flat
    fisher = weighted @ jacobian.transpose(0, 2, 1)
    gradient = (weighted @ (data.reshape(len(mu), -1, 1) - flat.transpose(0, 2, 1)))[:, :, 0]
    size = np.sqrt(np.maximum(np.einsum("kpp->kp", fisher), 1e-300))
    scaled = fisher / (size[:, :, np.newaxis] * size[:, np.newaxis]) + 1e-6 * np.eye(6)
    inverse = np.linalg.inv(scaled) / (size[:, :, np.newaxis] * size[:, np.newaxis])
    return np.einsum("kpq,kq->kp", inverse, gradient), inverse


def _limited(step: FloatArray, theta: FloatArray) -> FloatArray:
    largest = np.stack(
        [
            np.full(len(theta), 0.5), np.full(len(theta), 0.5), 0.5 * theta[:, 2], 1e9 + 0 * theta[:, 3],
            0.3 * theta[:, 4], 0.3 * theta[:, 5],
        ],
        axis=1,
    )  # fmt: skip
    return np.clip(step, -largest, largest)


def _bounded(theta: FloatArray, side: int, background: float) -> FloatArray:
    half = side // 2
    low = np.array([-half, -half, 1.0, 0.02 * background, _LEAST_WIDTH_PX, _LEAST_WIDTH_PX])
    high = np.array([half, half, np.inf, np.inf, side, side])
    return np.clip(theta, low, high)


def _errors(data: FloatArray, theta: FloatArray) -> FloatArray:
    """Standard errors by the sandwich of curvature and observed residuals: the images' own noise, whatever it is."""
    mu, jacobian = _model(theta, data.shape[1])
    _, inverse = _scoring_step(data, mu, jacobian)
    score = jacobian * ((data - mu) / mu).reshape(len(mu), 1, -1)
    middle = score @ score.transpose(0, 2, 1)
    covariance = inverse @ middle @ inverse
    result: FloatArray = np.sqrt(np.maximum(np.einsum("kpp->kp", covariance), 0))
    return result
