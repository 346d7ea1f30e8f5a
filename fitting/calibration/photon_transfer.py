r"""Gain of every pixel from how its variance grows with the light (photon transfer), and its response beside its neighbours'.

At mean signal S [ADU] over the dark, Poisson light gives a pixel of gain g [ADU/e⁻] the variance :math:`V = g S` over that of the dark [1]_ [2]_.
:math:`\hat g = \sum_k w_k S_k V_k / \sum_k w_k S_k^2` over light levels k with :math:`1/w_k = 2 (\bar g S_k + v)^2/(n_k - 1)`, the variance of a variance of
:math:`n_k` frames. (The fourth moment of Poisson light would add :math:`g^3 S/n`, and the error of S just as much; both cancel, for mean and
variance of the same frames rise together.) Weights use the mean gain of all pixels, not the pixel's own V: those that happen
to be low would otherwise count more, and every gain come out too small.

Flicker of the lamp moves all pixels in proportion to their signal. It is known from the mean of each frame and taken off; what
it adds to the noise of a variance, :math:`4 \sigma^2 f/n` at variance f, goes into the weights.

References
----------
.. [1] J. R. Janesick, K. P. Klaasen and T. Elliott, Opt. Eng. 26, 972 (1987), https://doi.org/10.1117/12.7974183.
.. [2] F. Huang et al., Nature Methods 10, 653 (2013), https://doi.org/10.1038/nmeth.2488.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fitting.calibration.pixel_sums import MAD, PixelStatistics
from fitting.errors import InvalidCalibration

FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_ABSURD = 3.0  # factor from the median beyond which a gain is none
_NEAR_ERRORS = 4.0
_CALM = 5.0  # times the median: a pixel noisier in the dark than this does not speak for the camera
_REACH = 2  # [px] of the neighbourhood that mends a pixel
_FAR = 6.0  # standard deviations
_LEAST_VARIANCE = 1e-9  # [ADU²]
_NEAR_FULL = 4.0  # standard deviations from the largest reading
_SHADING_DEGREE = 4
_SHADING_PARTS = 32
_DIMMEST = 0.05  # of the brightest: shading is never thought darker


@dataclass(frozen=True)
class Light:
    """The flat series against the dark one.

    Attributes
    ----------
    signal_adu, variance_adu2 : (k, h, w) float64 arrays
        Mean and variance beyond the dark's [ADU, ADU²], of the levels that can be used, dimmest first.
    counts : (k, h, w) bool array
        Where a pixel is not near its largest reading.
    frames : (k,) int array
    flicker : (k,) float64 array
        Variance of the lamp over its mean squared [1].
    saturated : tuple of int
        Positions, in the order given, of series that are left out because they are saturated.
    """

    signal_adu: FloatArray
    variance_adu2: FloatArray
    counts: Mask
    frames: npt.NDArray[np.int64]
    flicker: FloatArray
    saturated: tuple[int, ...]


@dataclass(frozen=True)
class Gains:
    """Gain of every pixel [ADU/e⁻], its standard error, the camera's gain, and the curve it comes from.

    Attributes
    ----------
    pixel_adu_per_e, error_adu_per_e : (h, w) float64 arrays
        As measured: also what cannot be a gain. NaN where no level can be used.
    camera_adu_per_e : float
        Of all calm pixels together.
    curve_adu, curve_adu2 : (k,) float64 arrays
        Mean signal and variance of the calm pixels at each level.
    """

    pixel_adu_per_e: FloatArray
    error_adu_per_e: FloatArray
    camera_adu_per_e: float
    curve_adu: FloatArray
    curve_adu2: FloatArray


def against_the_dark(
    dark: PixelStatistics, flats: Sequence[PixelStatistics], full_adu: float | None = None
) -> Light:
    """Take the dark from flat series, and lamp flicker from their variance; leave saturated series out.

    Raises
    ------
    InvalidCalibration
        If a flat series is not of the dark one's size, or no brighter, or all are saturated.
    """
    signals, variances, counts, flickers = [], [], [], []
    dark_variance = dark.variance_adu2 - dark.common_variance_adu2
    for number, flat in enumerate(flats, 1):
        signal = _signal(dark, flat, number)
        flicker = flat.common_variance_adu2 / float(signal.mean()) ** 2
        full = flat.full_adu if full_adu is None else full_adu
        flickers.append(flicker)
        signals.append(signal)
        variances.append(flat.variance_adu2 - flicker * signal**2 - dark_variance)
        counts.append(flat.mean_adu + _NEAR_FULL * np.sqrt(flat.variance_adu2) < full)
    order = np.argsort([float(np.median(signal)) for signal in signals], kind="stable")
    kept = _unsaturated(order, variances, counts)
    if not kept:
        raise InvalidCalibration("every flat series is saturated; take them with less light")
    return Light(
        signal_adu=np.stack([signals[k] for k in kept]),
        variance_adu2=np.stack([variances[k] for k in kept]),
        counts=np.stack([counts[k] for k in kept]),
        frames=np.array([flats[k].frames for k in kept]),
        flicker=np.array([flickers[k] for k in kept]),
        saturated=tuple(sorted(set(range(len(flats))) - set(kept))),
    )


def _signal(dark: PixelStatistics, flat: PixelStatistics, number: int) -> FloatArray:
    if flat.mean_adu.shape != dark.mean_adu.shape:
        sizes = [f"{h} × {w} px" for h, w in (flat.mean_adu.shape[::-1], dark.mean_adu.shape[::-1])]
        raise InvalidCalibration(f"flat series {number} is {sizes[0]} and the dark one {sizes[1]}")
    signal = flat.mean_adu - dark.mean_adu
    if float(np.median(signal)) < np.sqrt(float(np.median(dark.variance_adu2))) / 3:
        raise InvalidCalibration(
            f"flat series {number} is no brighter than the dark one (by {np.median(signal):.2f} ADU in the median)"
        )
    return signal


def _unsaturated(
    order: npt.NDArray[np.int64], variances: Sequence[FloatArray], counts: Sequence[Mask]
) -> list[int]:
    """Levels, dimmest first, up to where most pixels are full or their variance falls though the light rises."""
    kept: list[int] = []
    for k in order.tolist():
        full = counts[k].mean() < 0.5
        falls = bool(kept) and np.median(variances[k]) < 0.9 * np.median(variances[kept[-1]])
        if full or falls:
            break
        kept.append(k)
    return kept


def gains(dark: PixelStatistics, light: Light) -> Gains:
    """Gain of every pixel by weighted photon transfer.

    Raises
    ------
    InvalidCalibration
        If the variance does not grow with the light.
    """
    own = dark.variance_adu2
    calm = (own > 0) & (own <= _CALM * np.median(own)) & light.counts.all(axis=0)
    if not calm.any():
        raise InvalidCalibration("no pixel is below its largest reading at every light level")
    curve_s, curve_v = (
        np.array([level[calm].mean() for level in levels])
        for levels in (light.signal_adu, light.variance_adu2)
    )
    camera = float(curve_s @ curve_v / (curve_s @ curve_s))
    for _ in range(2):
        worth = (light.frames - 1) / (abs(camera) * curve_s + np.median(own)) ** 2
        camera = float((worth * curve_s * curve_v).sum() / (worth * curve_s**2).sum())
    if not camera > 0:
        raise InvalidCalibration("the variance does not grow with the light; are these flat series?")
    pixel, error = _each(dark, light, camera)
    known = calm & np.isfinite(pixel)
    return Gains(pixel, error, _middle(pixel[known], error[known]), curve_s, curve_v)


def _each(dark: PixelStatistics, light: Light, camera: float) -> tuple[FloatArray, FloatArray]:
    """Gain of every pixel and its error, with weights of the camera's gain."""
    signal, own = light.signal_adu, dark.variance_adu2
    frames, flicker = (column[:, np.newaxis, np.newaxis] for column in (light.frames, light.flicker))
    noise = camera * np.maximum(signal, 0) + own + _LEAST_VARIANCE
    weight = light.counts * (frames - 1) / (2 * noise * (noise + 2 * flicker * signal**2))
    with np.errstate(invalid="ignore", divide="ignore"):
        power = (weight * signal**2).sum(axis=0)
        pixel = (weight * signal * light.variance_adu2).sum(axis=0) / power
        shared = (weight * signal).sum(
            axis=0
        ) / power  # how far an error of the dark's variance moves the gain
        error = np.sqrt(1 / power + shared**2 * 2 * own**2 / (dark.frames - 1))
    known = power > 0
    return np.where(known, pixel, np.nan), np.where(known, error, np.nan)


def _middle(gain: FloatArray, error: FloatArray) -> float:
    """Mean of the gains, without those far from their median."""
    away = np.abs(gain - np.median(gain))
    spread = MAD * np.median(away) + error
    return float(gain[away <= _FAR * spread].mean())


def mended(
    gain: npt.NDArray[np.floating], bad: Mask | None = None, error: FloatArray | None = None
) -> tuple[FloatArray, Mask]:
    """Replace what cannot be a gain by the median of the neighbourhood, 5 × 5 px.

    Parameters
    ----------
    gain : (h, w) array
    bad : (h, w) bool array, optional
        Pixels to replace whatever their gain.
    error : (h, w) array, optional
        Standard errors; a positive gain that is far off, but within four of them, is only badly known and kept.

    Returns
    -------
    (h, w) float64 array, (h, w) bool array
        The map, and what was replaced: not finite, not positive, more than a factor of three from the median, or `bad`.

    Raises
    ------
    InvalidCalibration
        If no pixel has a gain.
    """
    values = np.asarray(gain, np.float64)
    replaced = ~np.isfinite(values) | (values <= 0)
    replaced |= False if bad is None else bad
    if replaced.all():
        raise InvalidCalibration("no pixel has a gain over zero")
    typical = float(np.median(values[~replaced]))
    with np.errstate(invalid="ignore"):
        far = (values < typical / _ABSURD) | (values > typical * _ABSURD)
        if error is not None:
            far &= np.abs(values - typical) > _NEAR_ERRORS * error
    replaced |= far
    return neighbourhood_median(values, replaced, typical), replaced


def neighbourhood_median(values: FloatArray, bad: Mask, otherwise: float) -> FloatArray:
    """Give bad pixels the median of the good ones around them; `otherwise` where there are none."""
    padded = np.pad(np.where(bad, np.nan, values), _REACH, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * _REACH + 1,) * 2)[bad]
    around = windows.reshape(len(windows), (2 * _REACH + 1) ** 2)
    found = np.full(len(around), otherwise)
    some = np.isfinite(around).any(axis=1)
    found[some] = np.nanmedian(around[some], axis=1)
    result = values.copy()
    result[bad] = found
    return result


def response(light: Light, *, even_light: bool) -> FloatArray:
    """How strongly each pixel responds beside its neighbours, mean 1, from all levels.

    Parameters
    ----------
    light : Light
    even_light : bool
        The sensor was lit evenly (an integrating sphere): keep also what varies slowly. Otherwise a smooth surface is taken for the light.

    Returns
    -------
    (h, w) float64 array
        NaN where no level can be used.
    """
    total, weights = np.zeros(light.signal_adu.shape[1:]), np.zeros(light.signal_adu.shape[1:])
    for signal, variance, counts, frames in zip(
        light.signal_adu, light.variance_adu2, light.counts, light.frames, strict=True
    ):
        level = np.full(signal.shape, float(np.median(signal))) if even_light else shading(signal)
        worth = float(frames * np.median(signal) ** 2 / max(float(np.median(variance)), 1e-9))
        total += np.where(counts, worth * signal / level, 0)
        weights += worth * counts
    with np.errstate(invalid="ignore", divide="ignore"):
        raw = total / weights
    result: FloatArray = raw / np.nanmedian(raw)
    return result


def shading(signal: FloatArray) -> FloatArray:
    """The smooth surface, a polynomial of fourth degree, through medians of parts of an image."""
    height, width = signal.shape
    rows, columns = (np.linspace(0, n, min(n, _SHADING_PARTS) + 1).astype(int) for n in (height, width))
    parts = np.array([[np.median(signal[a:b, c:d]) for c, d in pairwise(columns)] for a, b in pairwise(rows)])
    y, x = (_scaled((edges[:-1] + edges[1:] - 1) / 2, n) for edges, n in ((rows, height), (columns, width)))
    degree = min(_SHADING_DEGREE, len(y) - 1, len(x) - 1)
    v, u = np.meshgrid(y, x, indexing="ij")
    powers = [(j, i) for j in range(degree + 1) for i in range(degree + 1 - j)]
    terms = np.stack([v.ravel() ** j * u.ravel() ** i for j, i in powers], axis=1)
    coefficients = np.zeros((degree + 1, degree + 1))
    solved = np.linalg.lstsq(terms, parts.ravel(), rcond=None)[0]
    for (j, i), value in zip(powers, solved, strict=True):
        coefficients[j, i] = value
    down, along = (_scaled(np.arange(n), n) for n in (height, width))
    surface = np.asarray(np.polynomial.polynomial.polygrid2d(down, along, coefficients), np.float64)
    return np.maximum(surface, _DIMMEST * float(surface.max()))


def _scaled(places: npt.NDArray[np.floating] | npt.NDArray[np.integer], number: int) -> FloatArray:
    """Pixel numbers of an axis as -1 to 1."""
    return 2 * np.asarray(places, np.float64) / max(number - 1, 1) - 1
