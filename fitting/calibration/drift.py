r"""Drift of the sample from fiducial markers, and rows corrected for it.

Marker i is seen at frame t at :math:`x_{it} = m_i + d_t + \epsilon_{it}`. Positions m and drift d minimise the weighted squares of all
:math:`\epsilon`, with Student's weights so that a mistaken marker has little say: what averaging markers and aligning them to the average, turn by turn,
arrives at, solved at once. Where no marker joins two stretches of time, the drift is taken to go on from one to the other. The curve is then
smoothed over frames by local straight lines (a Gaussian window [1]_), which leave a steady drift as it is, also at the ends and beside gaps, and interpolated.

References
----------
.. [1] W. S. Cleveland, J. Am. Stat. Assoc. 74, 829 (1979), https://doi.org/10.1080/01621459.1979.10481038.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fitting.calibration.markers import Marker, find_markers
from fitting.calibration.pixel_sums import MAD
from fitting.errors import InvalidCalibration
from fitting.still_rows import without_drift

FloatArray = npt.NDArray[np.float64]
Frames = npt.NDArray[np.int64]

SMOOTH_FRAMES = 10.0
_FREEDOM = 4.0  # of Student's law
_SETTLING = 5
_TURNS = 30
_ARRIVED_NM = 1e-3
_WINDOW = 4.0  # smoothing widths, on either side
_JOIN = 5  # frames averaged on either side of a gap
_FEW_MARKERS = 3
_LONG_GAP = 50.0  # smoothing widths


@dataclass(frozen=True)
class DriftCurve:
    """Where the sample has moved since the first frame with a marker.

    Attributes
    ----------
    frame : (n,) int64 array
        Every frame, from 0.
    x_nm, y_nm : (n,) float64 arrays
        Drift; a molecule's own place is its position less this.
    x_error_nm, y_error_nm : (n,) float64 arrays
        Standard error of the drift since then, as far as markers tell; in a gap that of its nearer end.
    markers : (n,) int64 array
        How many markers were seen in the frame.
    tracks : tuple of Marker
        What the curve rests on.
    places_nm : (k, 2) float64 array
        Position of each marker in the first frame.
    scatter : (float, float)
        By how much markers scatter around the curve more than their errors say, along x and y.
    notes : tuple of str
        What a person should know, in sentences.
    """

    frame: Frames
    x_nm: FloatArray
    y_nm: FloatArray
    x_error_nm: FloatArray
    y_error_nm: FloatArray
    markers: Frames
    tracks: tuple[Marker, ...]
    places_nm: FloatArray
    scatter: tuple[float, float]
    notes: tuple[str, ...] = ()

    def at(self, frame: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Drift [nm] in frames of any order; beyond the curve that of its ends."""
        place = np.asarray(frame, np.float64)
        x, y = (np.interp(place, self.frame, column) for column in (self.x_nm, self.y_nm))
        return np.asarray(x, np.float64), np.asarray(y, np.float64)

    def numbers(self) -> dict[str, object]:
        """What the curve amounts to, as plain numbers."""
        return {
            "frames": len(self.frame),
            "markers": len(self.tracks),
            "frames_with_markers": int((self.markers > 0).sum()),
            "range_nm": {"x": float(np.ptp(self.x_nm)), "y": float(np.ptp(self.y_nm))},
            "error_nm": {"x": float(np.median(self.x_error_nm)), "y": float(np.median(self.y_error_nm))},
            "scatter_over_errors": {"x": self.scatter[0], "y": self.scatter[1]},
        }


def drift_from_rows(
    rows: npt.NDArray[np.void],
    frames: int,
    *,
    smooth_frames: float = SMOOTH_FRAMES,
    largest_error_nm: float = 10.0,
) -> DriftCurve:
    """Work out the drift of a series from the fits of its fiducial markers.

    Parameters
    ----------
    rows : structured array
        DriftResults, as LatGaussFitFR makes them.
    frames : int
        Number of frames of the series.
    smooth_frames : float
        Standard deviation of the window that smooths the curve [frames]; 0 for none.
    largest_error_nm : float
        Fits whose error along x or y is larger do not count [nm].

    Raises
    ------
    InvalidCalibration
        If no marker was seen often enough.
    """
    tracks, notes = find_markers(rows, largest_error_nm=largest_error_nm)
    curve = drift_of_markers(tracks, frames, smooth_frames=smooth_frames)
    return replace(curve, notes=(*notes, *_about(curve, smooth_frames)))


def drift_of_markers(
    tracks: tuple[Marker, ...], frames: int, *, smooth_frames: float = SMOOTH_FRAMES
) -> DriftCurve:
    """Work out the drift from markers that were found; `drift_from_rows` says the rest."""
    if not tracks:
        raise InvalidCalibration("there is no marker to take the drift from")
    seen, table = _tables(tracks)
    frames = max(frames, int(seen[-1]) + 1)
    counts = np.zeros(frames, np.int64)
    counts[seen] = np.isfinite(table[:, 0]).sum(axis=1)
    every = np.arange(frames)
    curves, errors, scatters, places = [], [], [], []
    for axis in (0, 1):
        positions, errors_of = (np.ascontiguousarray(table[:, k]) for k in (axis, 2 + axis))
        raw = _solve(seen, positions, errors_of)
        smooth, error, factor = _settled(seen, raw, smooth_frames)
        begin = smooth[0]
        curves.append(np.interp(every, seen, smooth - begin))
        errors.append(np.interp(every, seen, error))
        scatters.append(factor)
        places.append(raw.place + begin)
    return DriftCurve(
        every, curves[0], curves[1], errors[0], errors[1], counts, tracks,
        np.stack(places, axis=1), (scatters[0], scatters[1]),
    )  # fmt: skip


def corrected_rows(rows: npt.NDArray[np.void], curve: DriftCurve) -> npt.NDArray[np.void]:
    """A copy of rows with x0 and y0 less the drift of their frame; all else, errors too, as it was."""
    return without_drift(rows, *curve.at(rows["tIndex"]))


def _tables(tracks: tuple[Marker, ...]) -> tuple[Frames, FloatArray]:
    """Frames with a marker, and (frame, x | y | error x | error y, marker), NaN where a marker was not seen."""
    seen = np.unique(np.concatenate([track.frame for track in tracks]))
    table = np.full((len(seen), 4, len(tracks)), np.nan)
    for k, track in enumerate(tracks):
        table[np.searchsorted(seen, track.frame), :, k] = np.stack(
            [track.x_nm, track.y_nm, track.x_error_nm, track.y_error_nm], axis=1
        )
    return seen, table


@dataclass(frozen=True)
class _Raw:
    """One axis before smoothing: drift of each seen frame, its weight [nm⁻²], markers' places, residuals over errors.

    `shared` [nm²] is the variance that the places' own errors bring into each frame, which no smoothing takes away.
    """

    drift: FloatArray
    weight: FloatArray
    shared: FloatArray
    place: FloatArray
    positions: FloatArray
    errors: FloatArray


def _solve(seen: Frames, positions: FloatArray, errors: FloatArray) -> _Raw:
    """Places of markers and drift of frames, robustly; arrays are (frame, marker)."""
    known = np.isfinite(positions)
    values = np.where(known, positions, 0.0)
    trust = np.where(known, 1 / np.where(known, errors, 1.0) ** 2, 0.0)
    groups = _groups(known)
    weight, drift = trust, np.zeros(len(seen))
    place = np.zeros(positions.shape[1])
    inverse = np.zeros((len(place),) * 2)
    for _ in range(_TURNS):
        before = drift
        place, inverse = _places(weight, values, groups)
        drift = (weight * (values - place)).sum(axis=1) / weight.sum(axis=1)
        pulls = np.sqrt(trust) * (values - place - drift[:, np.newaxis])
        spread = max(MAD * float(np.median(np.abs(pulls[known]))), 1e-6)
        weight = trust * (_FREEDOM + 1) / (_FREEDOM + (pulls / max(spread, 1.0)) ** 2)
        if np.abs(drift - before).max() < _ARRIVED_NM:
            break
    drift, place = _joined(seen, drift, place, groups, known)
    total = weight.sum(axis=1)
    share = weight / total[:, np.newaxis]
    # relative to the first frame: what all places have in common is no error of the drift
    change = share - share[0]
    shared = np.einsum("ti,ij,tj->t", change, inverse, change)
    return _Raw(drift, total, np.maximum(shared, 0), place, positions, errors)


def _groups(known: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Which markers are joined by frames that they share, one number for each set."""
    together = (known.T.astype(np.float64) @ known.astype(np.float64)) > 0
    group = np.arange(known.shape[1])
    for _ in range(known.shape[1]):
        lowest = np.array([group[row].min() for row in together])
        if (lowest == group).all():
            break
        group = lowest
    return group


def _places(
    weight: FloatArray, values: FloatArray, groups: npt.NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    """Places that minimise the weighted squares when each frame has its own drift, of mean 0 in each group, and their covariance."""
    total = weight.sum(axis=1)
    share = weight / total[:, np.newaxis]
    normal = np.diag(weight.sum(axis=0)) - share.T @ weight
    mean = (weight * values).sum(axis=1) / total
    right = (weight * (values - mean[:, np.newaxis])).sum(axis=0)
    same = (groups[:, np.newaxis] == groups[np.newaxis, :]).astype(np.float64)
    gauge = same * float(np.trace(normal) + 1e-12) / len(groups)  # the group's mean, which nothing determines
    inverse = np.linalg.inv(normal + gauge)
    return inverse @ right, inverse


def _joined(
    seen: Frames,
    drift: FloatArray,
    place: FloatArray,
    groups: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_],
) -> tuple[FloatArray, FloatArray]:
    """Stretches of time that no marker joins, each shifted to go on where the one before it ended."""
    drift, place = drift.copy(), place.copy()
    of_frame = groups[known.argmax(axis=1)]
    done: FloatArray | None = None
    for group in _in_order(of_frame):
        own = np.flatnonzero(of_frame == group)
        if done is not None:
            earlier = np.flatnonzero((seen < seen[own[0]]) & np.isfinite(done))
            step = float(np.median(drift[own[:_JOIN]]) - np.median(done[earlier[-_JOIN:]]))
            drift[own] -= step
            place[groups == group] += step
        else:
            done = np.full(len(drift), np.nan)
        done[own] = drift[own]
    return drift, place


def _in_order(of_frame: npt.NDArray[np.int64]) -> list[int]:
    names, first = np.unique(of_frame, return_index=True)
    return [int(name) for name in names[np.argsort(first)]]


def _settled(seen: Frames, raw: _Raw, smooth_frames: float) -> tuple[FloatArray, FloatArray, float]:
    """The curve at the seen frames, its error since the first, and by how much markers scatter more than they say.

    A fit that is far from the smooth curve loses weight also where it is the only one in its frame.
    """
    known = np.isfinite(raw.positions)
    errors = np.where(known, raw.errors, 1.0)
    offsets = np.where(known, raw.positions - raw.place, 0.0)
    trust = known / errors**2
    drift, weight, factor = raw.drift, raw.weight, 1.0
    curve, variance = drift, 1 / weight
    for _ in range(_SETTLING if smooth_frames > 0 else 0):
        curve, variance = _local_lines(seen, drift, weight, smooth_frames)
        pulls = (offsets - curve[:, np.newaxis]) / errors
        factor = MAD * float(np.median(np.abs(pulls[known])))
        each = trust * (_FREEDOM + 1) / (_FREEDOM + (pulls / max(factor, 1.0)) ** 2)
        weight = each.sum(axis=1)
        drift = (each * offsets).sum(axis=1) / weight
    wider = max(1.0, factor) ** 2
    since = variance + variance[0] * (seen != seen[0])
    return curve, np.sqrt(wider * (since + raw.shared)), factor


def _local_lines(
    seen: Frames, drift: FloatArray, weight: FloatArray, width: float
) -> tuple[FloatArray, FloatArray]:
    """Weighted straight lines through a Gaussian window around each seen frame: their value there, and its variance."""
    first, number = int(seen[0]), int(seen[-1] - seen[0]) + 1
    full, value = np.zeros(number), np.zeros(number)
    full[seen - first], value[seen - first] = weight, weight * (drift - drift.mean())
    reach = max(1, int(np.ceil(_WINDOW * width)))
    u = np.arange(-reach, reach + 1)
    window = np.exp(-0.5 * (u / width) ** 2)

    def moment(series: FloatArray, kernel: FloatArray, power: int) -> FloatArray:
        # np.convolve turns the kernel round; what lies at t + u must meet the kernel's u
        return np.convolve(series, (kernel * u**power)[::-1])[reach : reach + number][seen - first]

    s0, s1, s2 = (moment(full, window, k) for k in (0, 1, 2))
    t0, t1 = (moment(value, window, k) for k in (0, 1))
    q0, q1, q2 = (moment(full, window**2, k) for k in (0, 1, 2))
    # a window with one frame in it has no slope; a little stiffness keeps it level
    s2 = s2 * (1 + 1e-9) + 1e-9 * s0 * width**2
    determinant = s0 * s2 - s1**2
    curve = (s2 * t0 - s1 * t1) / determinant
    variance = (s2**2 * q0 - 2 * s1 * s2 * q1 + s1**2 * q2) / determinant**2
    return curve + drift.mean(), np.maximum(variance, 0)


def _about(curve: DriftCurve, smooth_frames: float) -> Iterator[str]:
    number = len(curve.tracks)
    yield f"Markers: {number}. The sample moves over {np.ptp(curve.x_nm):.0f} nm in x and {np.ptp(curve.y_nm):.0f} nm in y."
    if number < _FEW_MARKERS:
        yield "With so few markers nothing tells a marker that moves by itself from the sample's drift; three or more are better."
    seen = np.flatnonzero(curve.markers)
    if seen[0] > 0:
        yield f"No marker is seen before frame {seen[0]}: the drift before it is taken to be none."
    if seen[-1] < len(curve.frame) - 1:
        yield f"No marker is seen after frame {seen[-1]}: the drift after it is taken to stay."
    gaps = np.diff(seen)
    long = np.flatnonzero(gaps > max(_LONG_GAP * max(smooth_frames, 1.0), 1))
    for k in long[:5]:
        yield f"No marker is seen between frames {seen[k]} and {seen[k + 1]}: the drift there is interpolated."
    worst = max(curve.scatter)
    if worst > 2:
        yield (
            f"Markers scatter {worst:.1f} times as much as the errors of their fits say: do some move by themselves, "
            "or are they not round?"
        )
