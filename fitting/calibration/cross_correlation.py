r"""Drift of the sample from the localisations themselves, by redundant cross-correlation.

The frames are cut into segments with equally many localisations each, and every segment becomes a picture. Between each two segments i < j the
cross-correlation of their pictures peaks at :math:`r_{ij} = d_j - d_i`, the drift from one to the other [1]_. All pairs together are more than the drifts are, so the drifts
are those that fit the pairs best, and pairs that contradict the rest lose their say (weights of Student's law). What does not move with the sample, such as a hot pixel,
must not be among the localisations.

References
----------
.. [1] Y. Wang et al., Opt. Express 22, 15982 (2014), https://doi.org/10.1364/OE.22.015982.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import fft, interpolate

from fitting.errors import InvalidCalibration

FloatArray = npt.NDArray[np.float64]
Spectrum = npt.NDArray[np.complex64]

_FEWEST = 200  # localisations in a segment
_USUAL_SEGMENTS = 12
_PIXEL_NM = 20.0
_LARGEST_PX = 1024  # side of a segment's picture
_BLUR_PX = 1.0
_AROUND = 2  # pixels on either side of a peak that its place is worked out from
_TURNS = 30
_FREEDOM = 2.0
_LEAST_SPREAD_NM = 1.0


@dataclass(frozen=True)
class CorrelatedDrift:
    """Drift since the first frame at the middle frame of each segment.

    Attributes
    ----------
    frame, x_nm, y_nm : (n,) float64 arrays
        Mean frame of each segment's localisations, and the drift there.
    error_nm : float
        Root mean square by which pairs of segments miss the drifts, along one axis, over the pairs a segment is in: what the drift of a segment is uncertain by.
    pairs : int
        How many pairs of segments were used.
    """

    frame: FloatArray
    x_nm: FloatArray
    y_nm: FloatArray
    error_nm: float
    pairs: int

    def at(self, frame: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Drift [nm] in frames of any order: smooth between the segments, straight on beyond them."""
        place = np.asarray(frame, np.float64)
        x, y = (_through(self.frame, column)(place) for column in (self.x_nm, self.y_nm))
        return np.asarray(x, np.float64), np.asarray(y, np.float64)


def drift_by_correlation(
    x_nm: npt.NDArray[np.floating],
    y_nm: npt.NDArray[np.floating],
    frame: npt.NDArray[np.integer],
    *,
    segments: int | None = None,
    largest_nm: float = 600.0,
) -> CorrelatedDrift:
    """Estimate the drift of a series.

    Parameters
    ----------
    x_nm, y_nm : (n,) arrays
        Positions of the localisations [nm], in any order.
    frame : (n,) integer array
        The frame of each.
    segments : int, optional
        Into how many segments the series is cut; by default twelve, or fewer where there are few localisations.
    largest_nm : float
        Between two segments the sample has moved by this at most, along either axis [nm].

    Raises
    ------
    InvalidCalibration
        If there are too few localisations or frames.
    """
    of_segment, middle = _segments(frame, segments)
    number = len(middle)
    pixel_nm, shape, place = _grid(x_nm, y_nm)
    reach = int(np.ceil(largest_nm / pixel_nm))
    padded = tuple(fft.next_fast_len(side + reach, real=True) for side in shape)
    spectra = [
        _spectrum(place[of_segment == segment], shape, (padded[0], padded[1])) for segment in range(number)
    ]
    pairs = np.array(list(combinations(range(number), 2)))
    moved = np.array([_shift(spectra[i], spectra[j], (padded[0], padded[1]), reach) for i, j in pairs])
    drift, missed = _reconciled(pairs, moved * pixel_nm, number)
    begin = [_through(middle, column)(np.float64(frame.min())) for column in drift.T]
    drift = drift - np.asarray(begin)
    return CorrelatedDrift(middle, drift[:, 0], drift[:, 1], missed / np.sqrt(number - 1), len(pairs))


def _segments(frame: npt.NDArray[np.integer], wanted: int | None) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """The segment of each localisation, and the mean frame of each segment; a frame is in one segment."""
    number = min(wanted or _USUAL_SEGMENTS, len(frame) // _FEWEST)
    if number < 2:
        raise InvalidCalibration(
            f"{len(frame)} localisations are too few for a drift by cross-correlation; {2 * _FEWEST} are the least"
        )
    last = int(frame.max())
    counts = np.bincount(frame, minlength=last + 1)
    share = (np.cumsum(counts) - 0.5 * counts) / len(frame)
    of_frame = np.minimum((share * number).astype(np.int64), number - 1)
    labels = np.unique(of_frame[counts > 0])
    if len(labels) < 2:
        raise InvalidCalibration("all localisations are in one frame; that tells no drift")
    renamed = np.searchsorted(labels, of_frame)
    of_segment = renamed[frame]
    sizes = np.bincount(of_segment)
    return of_segment, np.bincount(of_segment, weights=frame) / sizes


def _grid(
    x_nm: npt.NDArray[np.floating], y_nm: npt.NDArray[np.floating]
) -> tuple[float, tuple[int, int], npt.NDArray[np.int64]]:
    """Size of a pixel, the shape of the pictures, and the pixel of each localisation, numbered line by line."""
    low_x, low_y = float(x_nm.min()), float(y_nm.min())
    span = max(float(x_nm.max()) - low_x, float(y_nm.max()) - low_y)
    pixel_nm = max(_PIXEL_NM, span / _LARGEST_PX)
    x = ((x_nm - low_x) / pixel_nm).astype(np.int64)
    y = ((y_nm - low_y) / pixel_nm).astype(np.int64)
    shape = int(y.max()) + 1, int(x.max()) + 1
    return pixel_nm, shape, y * shape[1] + x


def _spectrum(place: npt.NDArray[np.int64], shape: tuple[int, int], padded: tuple[int, int]) -> Spectrum:
    """Spectrum of a segment's picture, blurred a little and without its mean; the root of counts, so that a bright spot does not outvote the rest."""
    image = np.sqrt(np.bincount(place, minlength=shape[0] * shape[1]).astype(np.float32)).reshape(shape)
    image -= image.mean()
    spectrum = fft.rfft2(image, padded)
    blur_y, blur_x = (
        np.exp(-2 * (np.pi * _BLUR_PX * frequency) ** 2, dtype=np.float32)
        for frequency in (np.fft.fftfreq(padded[0]), np.fft.rfftfreq(padded[1]))
    )
    return np.asarray(spectrum * blur_y[:, np.newaxis] * blur_x, np.complex64)


def _shift(first: Spectrum, second: Spectrum, padded: tuple[int, int], reach: int) -> tuple[float, float]:
    """By how much the second picture lies from the first, (x, y) in pixels."""
    whole = fft.irfft2(np.conj(first) * second, padded)
    steps = np.arange(-reach, reach + 1)
    near = whole[np.ix_(steps % padded[0], steps % padded[1])]
    inner = near[_AROUND:-_AROUND, _AROUND:-_AROUND]
    row, column = np.unravel_index(int(np.argmax(inner)), inner.shape)
    side = 2 * _AROUND + 1
    dy, dx = _summit(near[row : row + side, column : column + side].astype(np.float64))
    return float(column + _AROUND - reach + dx), float(row + _AROUND - reach + dy)


def _summit(around: FloatArray) -> tuple[float, float]:
    """Where a paraboloid through the pixels around a peak is highest, (y, x) from the middle; within a pixel and a half of it."""
    steps = np.arange(-_AROUND, _AROUND + 1, dtype=np.float64)
    y, x = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    _, a, b, c, d, e = np.linalg.lstsq(terms, around.ravel(), rcond=None)[0]
    curved = np.array([[2 * c, d], [d, 2 * e]])
    if np.linalg.det(curved) <= 0 or c >= 0:
        return 0.0, 0.0
    dx, dy = np.linalg.solve(curved, [-a, -b]).clip(-1.5, 1.5)
    return float(dy), float(dx)


def _reconciled(pairs: npt.NDArray[np.int64], moved_nm: FloatArray, number: int) -> tuple[FloatArray, float]:
    """The drift of each segment from the first, (n, 2), that fits all pairs, and by how much they miss it."""
    design = np.zeros((len(pairs), number))
    design[np.arange(len(pairs)), pairs[:, 0]] = -1
    design[np.arange(len(pairs)), pairs[:, 1]] = 1
    design = design[:, 1:]
    weight = np.ones(len(pairs))
    drift: FloatArray = np.zeros((number - 1, 2))
    left = moved_nm
    for _ in range(_TURNS):
        root = np.sqrt(weight)[:, np.newaxis]
        drift = np.asarray(np.linalg.lstsq(design * root, moved_nm * root, rcond=None)[0], np.float64)
        left = moved_nm - design @ drift
        far = np.hypot(left[:, 0], left[:, 1])
        spread = max(float(np.median(far)), _LEAST_SPREAD_NM)
        weight = (_FREEDOM + 1) / (_FREEDOM + (far / spread) ** 2)
    missed = float(np.sqrt((weight[:, np.newaxis] * left**2).sum() / (2 * weight.sum())))
    return np.vstack([np.zeros((1, 2)), drift]), missed


def _through(frame: FloatArray, value: FloatArray) -> interpolate.PchipInterpolator:
    """A smooth curve through the segments that goes straight on beyond them."""
    return interpolate.PchipInterpolator(*zip(*_extended(frame, value), strict=True), extrapolate=True)


def _extended(frame: FloatArray, value: FloatArray) -> Iterator[tuple[float, float]]:
    far = 10 * float(frame[-1] - frame[0]) + 1
    first = (value[1] - value[0]) / (frame[1] - frame[0])
    last = (value[-1] - value[-2]) / (frame[-1] - frame[-2])
    yield float(frame[0] - far), float(value[0] - far * first)
    yield from zip(frame.tolist(), value.tolist(), strict=True)
    yield float(frame[-1] + far), float(value[-1] + far * last)
