"""Estimators by name, and `fit_rois`, the fit alone for whoever has cut out their ROIs already."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fitting import mle, wls
from fitting.calibrated import MeasuredPsf, SigmaCurves
from fitting.errors import InvalidFrames, InvalidSettings
from fitting.lanes import LANES
from fitting.localisations import ResultCode
from fitting.poisson import QUALITY, UNKNOWN
from fitting.rois import fill_blanks, pack

if TYPE_CHECKING:
    from fitting.spline import SplinePsf

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


def _row_dtype(names: tuple[str, ...]) -> np.dtype[np.void]:
    return np.dtype(
        [(name, "<f4") for name in names]
        + [(f"{name}_err", "<f4") for name in names]
        + [("log_likelihood", "<f4"), ("iterations", "<i4"), ("status", "<i4")]
    )


FIT_DTYPE = _row_dtype(_NAMES)
"""A row of `fit_rois`; `status` is a `fitting.localisations.ResultCode`."""
ELLIPTIC_DTYPE = _row_dtype((*_NAMES, "sigma_y_px"))
"""A row of the elliptic model: `sigma_px` is the width along x."""
ASTIGMATIC_DTYPE = _row_dtype((*_NAMES, "sigma_y_px", "z_nm"))
"""A row of the astigmatic model: the widths and their errors are those that follow from z."""
SPLINE_DTYPE = _row_dtype((*_NAMES[:-1], "z_nm"))
"""A row of a measured PSF."""


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
        for columns in (kind.parameters, kind.covariances, QUALITY)
    )
    kind.fit_blocks(
        data, extra, blocks, side, np.float32(width_px), np.float32(aspect), theta, covariance, quality
    )
    rows = [
        _by_roi(array, blocks, number, columns)
        for array, columns in (
            (theta, kind.parameters),
            (covariance, kind.covariances),
            (quality, QUALITY),
        )
    ]
    return _without_nonsense(Estimates(*rows), side, width_px)


def _by_roi(array: FloatArray, blocks: int, number: int, columns: int) -> FloatArray:
    return array.reshape(blocks, columns, LANES).transpose(0, 2, 1).reshape(blocks * LANES, columns)[:number]


def _without_nonsense(found: Estimates, side: int, width_px: float) -> Estimates:
    """A fit that ran away stays at its ROI's middle, degenerate; so is one whose error of the position exceeds the ROI: its pixels do not say where."""
    likelihood = found.theta.shape[1] == mle.PARAMETERS
    away = ~np.isfinite(found.theta).all(axis=1)
    found.theta[away] = 0
    found.theta[away, -1 if likelihood else 3] = width_px
    x = 0 if likelihood else 1
    nowhere = (found.covariance[:, x] > side**2) | (found.covariance[:, x + 1] > side**2)
    found.quality[away | nowhere, 3] = ResultCode.DEGENERATE
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
    **options: Any,
) -> npt.NDArray[np.void]:
    """Fit one molecule in each ROI.

    Parameters
    ----------
    rois : (k, s, s) array
        Photo-electrons, indexed [roi, y, x]; NaN for a pixel that does not count.
    model : {"gaussian", "elliptic", "astigmatic", "spline"}
        PSF: a Gaussian of one free width, of two along the axes, or of two that depend on z; or a measured PSF.
    estimator : {"mle", "wls"}
        Maximum likelihood of the pixel-integrated PSF, or least squares as PYME's, for the round Gaussian only.
    variance : array, optional
        Read-noise variance [e⁻²], a number or an array that broadcasts to the ROIs; infinite for a dead pixel.
    background : array, optional
        Known background [e⁻], likewise; the fitted background is what is left over.
    sigma_px : float, optional
        Width of the PSF at the start [px]; by default that for which the ROI is a good size. Not for "astigmatic".
    curves : fitting.calibrated.SigmaCurves, pixel_nm : float
        Widths against z, and the pixel size [nm]: for "astigmatic", which needs both.
    psf : fitting.calibrated.MeasuredPsf
        For "spline", which needs it; may go with pixel_nm, interpolator and refractive_index_factor of `fitting.spline.spline_psf`.

    Returns
    -------
    (k,) structured array
        x_px, y_px [px] from the centre of pixel [0, 0], photons [e⁻], background [e⁻/px], sigma_px [px]; each with its standard error
        (NaN if unknown); log_likelihood, relative to that of a model which equals the data; iterations; status (a ResultCode).
        "elliptic" adds sigma_y_px, "astigmatic" sigma_y_px and z_nm; "spline" has z_nm and no width.

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
    width_px = sigma_px or max(side / 5.4, 0.6)
    fit = _ModelFit.of(model, estimator, width_px, options)
    table = np.zeros(number, fit.dtype)
    data, extra = np.empty((2, min(_TOGETHER, -(-number // LANES) * LANES) * side * side), np.float32)
    for first in range(0, number, _TOGETHER):
        part = min(_TOGETHER, number - first)
        pack(images, noise, known, estimator == "wls", first, part, data, extra)
        fit.fill(data, extra, part, side, table[first : first + part])
    return table


class _ModelFit(NamedTuple):
    """How `fit_rois` fits packed ROIs: the dtype of its rows, and what fills them from (data, extra, number, side, rows)."""

    dtype: np.dtype[np.void]
    fill: Callable[[FloatArray, FloatArray, int, int, npt.NDArray[np.void]], None]

    @classmethod
    def of(cls, model: str, estimator: str, width_px: float, options: dict[str, Any]) -> _ModelFit:
        """The fit of a model."""
        if model == "gaussian":
            return cls(FIT_DTYPE, partial(_fill_round, estimator, width_px))
        if model == "elliptic":
            return cls(ELLIPTIC_DTYPE, partial(_fill_elliptic, width_px))
        if model == "astigmatic":
            pixel_nm = float(options["pixel_nm"])
            return cls(ASTIGMATIC_DTYPE, partial(_fill_astigmatic, options["curves"], pixel_nm))
        return cls(SPLINE_DTYPE, partial(_fill_spline, _splines(**options)))


_OPTIONS = {
    "gaussian": ("sigma_px",),
    "elliptic": ("sigma_px",),
    "astigmatic": ("curves", "pixel_nm"),
    "spline": ("psf", "pixel_nm", "interpolator", "refractive_index_factor"),
}


def _options(model: str, estimator: str, options: dict[str, Any]) -> float | None:
    if model not in _OPTIONS:
        raise InvalidSettings("model", f"there is no model {model!r}; there are {', '.join(_OPTIONS)}")
    if estimator not in ESTIMATORS:
        raise InvalidSettings(
            "estimator", f"there is no estimator {estimator!r}; there are {', '.join(ESTIMATORS)}"
        )
    if model != "gaussian" and estimator != "mle":
        raise InvalidSettings("estimator", f"must be mle for the model {model}, not {estimator}")
    unknown = [name for name in options if name not in _OPTIONS[model]]
    if unknown:
        raise InvalidSettings(unknown[0], f"unknown option; there is {' and '.join(_OPTIONS[model])}")
    if model == "astigmatic":
        _check_curves(options.get("curves"), options.get("pixel_nm"))
    sigma_px: float | None = options.get("sigma_px")
    if sigma_px is not None and not 0.1 <= sigma_px <= 50:
        raise InvalidSettings("sigma_px", f"must be from 0.1 to 50 px, not {sigma_px}")
    return sigma_px


def _splines(psf: object = None, pixel_nm: float | None = None, **how: Any) -> SplinePsf:
    from fitting.spline import spline_psf

    if not isinstance(psf, MeasuredPsf):
        raise InvalidSettings("psf", "needs a MeasuredPsf, an image stack of the PSF")
    return spline_psf(psf, pixel_nm=psf.pixel_nm if pixel_nm is None else pixel_nm, **how)


def _check_curves(curves: object, pixel_nm: object) -> None:
    if not isinstance(curves, SigmaCurves):
        raise InvalidSettings("curves", "needs SigmaCurves, the widths against z")
    if not isinstance(pixel_nm, int | float) or not 1 <= pixel_nm <= 10_000:
        raise InvalidSettings("pixel_nm", f"must be from 1 to 10000 nm, not {pixel_nm}")


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


def _fill_round(
    estimator: str,
    width_px: float,
    data: FloatArray,
    extra: FloatArray,
    number: int,
    side: int,
    rows: npt.NDArray[np.void],
) -> None:
    found = estimate(estimator, data, extra, number, side, width_px)
    values: npt.NDArray[np.floating] = found.theta
    variances: npt.NDArray[np.floating] = found.covariance
    if estimator == "wls":
        values, variances = photons_from(found)
    for k, name in enumerate(_NAMES):
        rows[name] = values[:, k]
        rows[f"{name}_err"] = np.sqrt(variances[:, k])
    _fill_rest(rows, found.quality, side)


def _fill_elliptic(
    width_px: float, data: FloatArray, extra: FloatArray, number: int, side: int, rows: npt.NDArray[np.void]
) -> None:
    from fitting.linked import EllipticPsf, Link, estimate_linked

    psf = EllipticPsf(width_px)
    found = estimate_linked(psf, Link(), data[None], extra[None], number, side, np.zeros((number, 1, 2)))
    _fill_named(rows, found, ("x_px", "y_px", "sigma_px", "sigma_y_px", "photons", "background"))
    _fill_rest(rows, found.quality, side)


def _fill_astigmatic(
    curves: SigmaCurves,
    pixel_nm: float,
    data: FloatArray,
    extra: FloatArray,
    number: int,
    side: int,
    rows: npt.NDArray[np.void],
) -> None:
    from fitting.linked import AstigmaticPsf, Link, estimate_linked
    from fitting.widths import widths_at

    psf = AstigmaticPsf.from_curves(curves, pixel_nm)
    found = estimate_linked(psf, Link(), data[None], extra[None], number, side, np.zeros((number, 1, 2)))
    _fill_named(rows, found, ("x_px", "y_px", "z_nm", "photons", "background"))
    for name, (width_nm, slope) in zip(
        ("sigma_px", "sigma_y_px"), widths_at(rows["z_nm"], curves), strict=True
    ):
        rows[name] = width_nm / pixel_nm
        rows[f"{name}_err"] = abs(slope) / pixel_nm * rows["z_nm_err"]
    _fill_rest(rows, found.quality, side)


def _fill_spline(
    psf: SplinePsf, data: FloatArray, extra: FloatArray, number: int, side: int, rows: npt.NDArray[np.void]
) -> None:
    from fitting.linked import Link, estimate_linked

    found = estimate_linked(psf, Link(), data[None], extra[None], number, side, np.zeros((number, 1, 2)))
    _fill_named(rows, found, ("x_px", "y_px", "z_nm", "photons", "background"))
    _fill_rest(rows, found.quality, side)


def _fill_named(rows: npt.NDArray[np.void], found: Any, names: tuple[str, ...]) -> None:
    for k, name in enumerate(names):
        rows[name] = found.theta[:, k]
        rows[f"{name}_err"] = np.sqrt(found.covariance[:, k, k])


def _fill_rest(rows: npt.NDArray[np.void], quality: FloatArray, side: int) -> None:
    """What every model has; and positions from the centre of pixel [0, 0]."""
    rows["x_px"] += (side - 1) / 2
    rows["y_px"] += (side - 1) / 2
    rows["log_likelihood"] = -0.5 * quality[:, 0]
    rows["iterations"] = quality[:, 2]
    rows["status"] = quality[:, 3]


def photons_from(found: Estimates) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Least squares' peak as x, y, N = 2π A s², b, s, and their variances."""
    a, x, y, s, b = found.theta.T[:5].astype(np.float64)
    var_a, var_x, var_y, var_s, var_b, _, _, both = found.covariance.T.astype(np.float64)
    per_peak = 2 * np.pi * s**2
    n = a * per_peak
    per_width = 2 * n / s
    var_n = per_peak**2 * var_a + per_width**2 * var_s + 2 * per_peak * per_width * both
    return np.stack([x, y, n, b, s], axis=1), np.stack([var_x, var_y, np.abs(var_n), var_b, var_s], axis=1)
