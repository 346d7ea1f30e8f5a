"""Estimators by name, and `fit_rois`, the fit alone for whoever has cut out their ROIs already."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fitting import mle, wls
from fitting.errors import InvalidFrames, InvalidSettings
from fitting.lanes import LANES
from fitting.localisations import ResultCode
from fitting.poisson import UNKNOWN
from fitting.rois import fill_blanks, pack

FloatArray = npt.NDArray[np.float32]


class Estimator(NamedTuple):
    """A kernel that fits blocks of 16 ROIs: its parameters, the columns of its covariance, and what marks a pixel that says nothing."""

    fit_blocks: Callable[..., None]
    parameters: int
    covariances: int
    blank: np.float32


class Estimates(NamedTuple):
    """What a kernel found: theta (k, p), covariance (k, c), quality (k, 4), float32; see the kernel's module for the columns."""

    theta: FloatArray
    covariance: FloatArray
    quality: FloatArray


ESTIMATORS = {
    "mle": Estimator(mle.fit_blocks, mle.PARAMETERS, mle.COVARIANCES, UNKNOWN),
    "wls": Estimator(wls.fit_blocks, wls.PARAMETERS, wls.COVARIANCES, np.float32(0.0)),
}

_TOGETHER = 2048  # ROIs packed and fitted at a time: they stay in the processor's cache
_NAMES = ("x_px", "y_px", "photons", "background", "sigma_px")
FIT_DTYPE = np.dtype(
    [(name, "<f4") for name in _NAMES]
    + [(f"{name}_err", "<f4") for name in _NAMES]
    + [("log_likelihood", "<f4"), ("iterations", "<i4"), ("status", "<i4")]
)
"""A row of `fit_rois`; `status` is a `fitting.localisations.ResultCode`."""


def estimate(
    estimator: str,
    data: FloatArray,
    extra: FloatArray,
    number: int,
    side: int,
    width_px: float,
    aspect: float = 1.0,
) -> Estimates:
    """Fit the first `number` ROIs of a buffer (see `fitting.rois`).

    Parameters
    ----------
    data, extra : (16 blocks side²,) float32 arrays
    width_px : float
        Width of the PSF at the start [px of x].
    aspect : float
        Pixel width over pixel height [1].
    """
    kind = ESTIMATORS[estimator]
    fill_blanks(data, extra, number, side, kind.blank)
    blocks = -(-number // LANES)
    theta, covariance, quality = (
        np.empty(blocks * columns * LANES, np.float32)
        for columns in (kind.parameters, kind.covariances, mle.QUALITY)
    )
    kind.fit_blocks(
        data, extra, blocks, side, np.float32(width_px), np.float32(aspect), theta, covariance, quality
    )
    rows = [
        _by_roi(array, blocks, number, columns)
        for array, columns in (
            (theta, kind.parameters),
            (covariance, kind.covariances),
            (quality, mle.QUALITY),
        )
    ]
    return _without_nan(Estimates(*rows), width_px)


def _by_roi(array: FloatArray, blocks: int, number: int, columns: int) -> FloatArray:
    return array.reshape(blocks, columns, LANES).transpose(0, 2, 1).reshape(blocks * LANES, columns)[:number]


def _without_nan(found: Estimates, width_px: float) -> Estimates:
    """A fit that ran away stays at its ROI's middle, degenerate."""
    away = ~np.isfinite(found.theta).all(axis=1)
    found.theta[away] = 0
    found.theta[away, -1 if found.theta.shape[1] == mle.PARAMETERS else 3] = width_px
    found.quality[away, 3] = ResultCode.DEGENERATE
    degenerate = found.quality[:, 3] >= ResultCode.LEFT_ROI
    found.covariance[degenerate | (found.covariance[:, :-1] <= 0).any(axis=1)] = np.nan
    return found


def fit_rois(
    rois: npt.ArrayLike,
    *,
    model: str = "gaussian",
    estimator: str = "mle",
    variance: npt.ArrayLike | None = None,
    background: npt.ArrayLike | None = None,
    **options: float,
) -> npt.NDArray[np.void]:
    """Fit one molecule in each ROI.

    Parameters
    ----------
    rois : (k, s, s) array
        Photo-electrons, indexed [roi, y, x]; NaN for a pixel that does not count.
    model : {"gaussian"}
        PSF: a round Gaussian of free width.
    estimator : {"mle", "wls"}
        Maximum likelihood of the pixel-integrated PSF, or least squares as PYME's.
    variance : array, optional
        Read-noise variance [e⁻²], a number or an array that broadcasts to the ROIs; infinite for a dead pixel.
    background : array, optional
        Known background [e⁻], likewise; the fitted background is what is left over.
    sigma_px : float, optional
        Width of the PSF at the start [px]; by default that for which the ROI is a good size.

    Returns
    -------
    (k,) structured array
        x_px, y_px [px] from the centre of pixel [0, 0], photons [e⁻], background [e⁻/px], sigma_px [px]; each with its standard error
        (NaN if unknown); log_likelihood, relative to that of a model which equals the data; iterations; status (a ResultCode).

    Raises
    ------
    InvalidFrames
        If the ROIs are not square images of 3 to 101 px, or variance or background do not fit them.
    InvalidSettings
        If the model, the estimator or an option does not exist.
    """
    sigma_px = _options(model, estimator, options)
    images, noise, known = _images(rois, variance, background)
    number, side = images.shape[:2]
    table = np.zeros(number, FIT_DTYPE)
    data, extra = np.empty((2, min(_TOGETHER, -(-number // LANES) * LANES) * side * side), np.float32)
    for first in range(0, number, _TOGETHER):
        part = min(_TOGETHER, number - first)
        pack(images, noise, known, estimator == "wls", first, part, data, extra)
        found = estimate(estimator, data, extra, part, side, sigma_px or max(side / 5.4, 0.6))
        _fill_table(table[first : first + part], found, estimator, (side - 1) / 2)
    return table


def _options(model: str, estimator: str, options: dict[str, float]) -> float | None:
    if model != "gaussian":
        raise InvalidSettings("model", f"there is no model {model!r}; there is gaussian")
    if estimator not in ESTIMATORS:
        raise InvalidSettings(
            "estimator", f"there is no estimator {estimator!r}; there are {', '.join(ESTIMATORS)}"
        )
    unknown = [name for name in options if name != "sigma_px"]
    if unknown:
        raise InvalidSettings(unknown[0], "unknown option; there is sigma_px")
    sigma_px = options.get("sigma_px")
    if sigma_px is not None and not 0.1 <= sigma_px <= 50:
        raise InvalidSettings("sigma_px", f"must be from 0.1 to 50 px, not {sigma_px}")
    return sigma_px


def _images(
    rois: npt.ArrayLike, variance: npt.ArrayLike | None, background: npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The ROIs, their variance and their background; the last two with length 1 along the axes on which they do not vary."""
    images = np.asarray(rois)
    if images.dtype.kind not in "uif":
        raise InvalidFrames(f"ROIs must be numbers, not {images.dtype}")
    if images.ndim != 3 or images.shape[1] != images.shape[2] or not 3 <= images.shape[1] <= 101:
        raise InvalidFrames(f"ROIs must be square images of 3 to 101 px, shape (k, s, s), not {images.shape}")
    given = [np.asarray(0.0 if value is None else value) for value in (variance, background)]
    for value in given:
        fits = value.ndim <= 3 and all(
            a in (1, b) for a, b in zip(value.shape[::-1], images.shape[::-1], strict=False)
        )
        if not fits or value.dtype.kind not in "uif":
            raise InvalidFrames(
                f"variance and background must be numbers that fit ROIs of shape {images.shape}"
            )
    noise, known = (value.reshape((1,) * (3 - value.ndim) + value.shape) for value in given)
    with np.errstate(over="ignore"):
        whole, noise, known = (np.array(value, np.float32, order="C") for value in (images, noise, known))
    return whole, noise, known


def _fill_table(table: npt.NDArray[np.void], found: Estimates, estimator: str, middle: float) -> None:
    values: npt.NDArray[np.floating] = found.theta
    variances: npt.NDArray[np.floating] = found.covariance
    if estimator == "wls":
        values, variances = photons_from(found)
    for k, name in enumerate(_NAMES):
        table[name] = values[:, k] + (middle if name in ("x_px", "y_px") else 0)
        table[f"{name}_err"] = np.sqrt(variances[:, k])
    table["log_likelihood"] = -0.5 * found.quality[:, 0]
    table["iterations"] = found.quality[:, 2]
    table["status"] = found.quality[:, 3]


def photons_from(found: Estimates) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Least squares' peak as x, y, N = 2π A s², b, s, and their variances."""
    a, x, y, s, b = found.theta.T[:5].astype(np.float64)
    var_a, var_x, var_y, var_s, var_b, _, _, both = found.covariance.T.astype(np.float64)
    per_peak = 2 * np.pi * s**2
    n = a * per_peak
    per_width = 2 * n / s
    var_n = per_peak**2 * var_a + per_width**2 * var_s + 2 * per_peak * per_width * both
    return np.stack([x, y, n, b, s], axis=1), np.stack([var_x, var_y, np.abs(var_n), var_b, var_s], axis=1)
