"""Fiducial markers among the fits in DriftResults: which fits are good, and which belong to one marker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fitting.calibration.clusters import clusters
from fitting.calibration.pixel_sums import MAD
from fitting.errors import InvalidCalibration
from fitting.kernel import device, kernel

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.void]

_CONVERGED = (1, 2, 3, 4)
_RADIUS_NM = 500.0
_FEWEST = 20  # fits of a marker
_MOST = 50  # markers: more say nothing new
_WIDTHS = 0.15  # of the median width that a marker's may differ, whatever the others' spread
_WIDTH_SPREADS = 4.0
_REACH_ERRORS = 5.0
_REACH_NM = 50.0
_PATIENCE = 25  # frames
_AGILITY = 0.3


@dataclass(frozen=True)
class Marker:
    """The fits of one marker, in the order of the frames: (n,) arrays, one fit a frame [nm]."""

    frame: npt.NDArray[np.int64]
    x_nm: FloatArray
    y_nm: FloatArray
    x_error_nm: FloatArray
    y_error_nm: FloatArray

    def __len__(self) -> int:
        return len(self.frame)


def find_markers(
    rows: Rows, *, largest_error_nm: float = 10.0, fewest: int = _FEWEST
) -> tuple[tuple[Marker, ...], tuple[str, ...]]:
    """Sort fits into markers.

    A fit counts if it converged, its errors are small and its width is like the others'. What lies together (half a micrometre from the next) is one marker; where that
    gives two fits in a frame, they are followed from frame to frame instead.

    Parameters
    ----------
    rows : structured array
        DriftResults of LatGaussFitFR.
    largest_error_nm : float
        Errors of good fits are at most this [nm].
    fewest : int
        A marker has as many good fits or more.

    Returns
    -------
    tuple of Marker, tuple of str
        Those with the most fits first, and sentences on what was left out.

    Raises
    ------
    InvalidCalibration
        If no marker is left.
    """
    _check(rows)
    good = good_fits(rows, largest_error_nm)
    some = rows[good]
    some = some[np.argsort(some["tIndex"], kind="stable")]
    labels = clusters(_places(some), _RADIUS_NM, fewest)
    markers = [
        marker
        for label in range(int(labels.max(initial=-1)) + 1)
        for marker in _followed(some[labels == label])
        if len(marker) >= fewest
    ]
    if not markers:
        raise InvalidCalibration(
            f"no marker: of {len(rows)} fits {good.sum()} are good (errors up to {largest_error_nm:g} nm, widths alike), "
            f"and nowhere are there {fewest} of one marker"
        )
    markers.sort(key=lambda marker: (-len(marker), float(marker.x_nm[0]), float(marker.y_nm[0])))
    used = sum(len(marker) for marker in markers[:_MOST])
    left = len(rows) - used
    notes = [
        f"Fits of markers: {len(rows)}, of which {left} do not count (large errors, odd widths, or alone)."
    ] * bool(left)
    return tuple(markers[:_MOST]), tuple(notes)


def good_fits(rows: Rows, largest_error_nm: float) -> npt.NDArray[np.bool_]:
    """Fits that converged, with small errors and a width like the others'."""
    fits, errors = rows["fitResults"], rows["fitError"]
    worst = np.maximum(errors["x0"], errors["y0"])
    good = np.isin(rows["resultCode"], _CONVERGED) & (worst <= largest_error_nm)
    good &= (errors["x0"] > 0) & (errors["y0"] > 0)
    good &= np.isfinite(fits["x0"]) & np.isfinite(fits["y0"]) & np.isfinite(fits["sigma"])
    if good.any():
        middle = float(np.median(fits["sigma"][good]))
        away = np.abs(fits["sigma"] - middle)
        spread = MAD * float(np.median(away[good]))
        good &= away <= max(_WIDTHS * middle, _WIDTH_SPREADS * spread)
    return np.asarray(good, np.bool_)


def _followed(some: Rows) -> list[Marker]:
    """One marker, or several that lie so close together that they must be followed from frame to frame."""
    if len(np.unique(some["tIndex"])) == len(some):
        return [_marker(some)]
    track = follow(
        some["tIndex"].astype(np.int64),
        _places(some),
        np.maximum(some["fitError"]["x0"], some["fitError"]["y0"]).astype(np.float64),
    )
    return [_marker(some[track == k]) for k in range(int(track.max()) + 1)]


def follow(frame: npt.NDArray[np.int64], places: FloatArray, errors: FloatArray) -> npt.NDArray[np.int64]:
    """Number the tracks that fits, sorted by frame, belong to.

    A fit goes on with the track that ended nearest to it, within five of its errors (at least 50 nm) and 25 frames; nearest pairs first, one fit a frame and track.
    """
    track = np.full(len(frame), -1, np.int64)
    reach = np.maximum(_REACH_ERRORS * errors, _REACH_NM)
    _follow(frame, places, reach**2, _PATIENCE, track)
    return track


@kernel
def _follow(frame: Any, places: Any, reach2: Any, patience: int, track: Any) -> None:
    """Fill `track`.

    Within, `live` holds for each track that may go on the fit that it ended with, `place` where it is on average.

    Parameters
    ----------
    frame : (n,) int64 array
        Of each fit, in ascending order.
    places : (n, 2) float64 array
        x, y [nm].
    reach2 : (n,) float64 array
        Square of how far from its track a fit may be [nm²].
    patience : int
        Frames that a track may be unseen for.
    track : (n,) int64 array
        Written: the number of the track of each fit; -1 at entry.
    """
    number = len(frame)
    live, place = np.empty(number, np.int64), np.empty((number, 2))
    count, names, start = 0, 0, 0
    while start < number:
        stop = start
        while stop < number and frame[stop] == frame[start]:
            stop += 1
        count = _let_go(frame, frame[start] - patience, live, place, count)
        while True:
            fit, end = _nearest(frame, places, reach2, track, start, stop, live, place, count)
            if fit < 0:
                break
            track[fit] = track[live[end]]
            live[end] = fit
            for k in range(2):  # a mistaken fit moves its track only so far
                place[end, k] += _AGILITY * (places[fit, k] - place[end, k])
        for a in range(start, stop):
            if track[a] < 0:
                track[a], live[count] = names, a
                place[count, 0], place[count, 1] = places[a, 0], places[a, 1]
                names, count = names + 1, count + 1
        start = stop


@device
def _let_go(frame: Any, oldest: int, live: Any, place: Any, count: int) -> int:
    kept = 0
    for k in range(count):
        if frame[live[k]] >= oldest:
            live[kept], place[kept, 0], place[kept, 1] = live[k], place[k, 0], place[k, 1]
            kept += 1
    return kept


@device
def _nearest(
    frame: Any, places: Any, reach2: Any, track: Any, start: int, stop: int, live: Any, place: Any, count: int
) -> tuple[int, int]:
    """The fit of a frame and the track nearest to each other of those that are free; -1 where none is within reach."""
    nearest, fit, end = np.inf, -1, -1
    for a in range(start, stop):
        for k in range(count):
            if track[a] < 0 and frame[live[k]] < frame[a]:
                far2 = (places[a, 0] - place[k, 0]) ** 2 + (places[a, 1] - place[k, 1]) ** 2
                if far2 <= reach2[a] and far2 < nearest:
                    nearest, fit, end = far2, a, k
    return fit, end


def _marker(some: Rows) -> Marker:
    fits, errors = some["fitResults"], some["fitError"]
    return Marker(
        some["tIndex"].astype(np.int64),
        fits["x0"].astype(np.float64),
        fits["y0"].astype(np.float64),
        errors["x0"].astype(np.float64),
        errors["y0"].astype(np.float64),
    )


def _places(rows: Rows) -> FloatArray:
    return np.stack([rows["fitResults"]["x0"], rows["fitResults"]["y0"]], axis=1).astype(np.float64)


def _check(rows: Rows) -> None:
    wanted = {"tIndex", "fitResults", "fitError", "resultCode"}
    if not wanted <= set(rows.dtype.names or ()) or not {"x0", "y0", "sigma"} <= set(
        rows.dtype["fitResults"].names or ()
    ):
        raise InvalidCalibration("markers are rows of LatGaussFitFR, with x0, y0 and sigma")
    if not len(rows):
        raise InvalidCalibration("there are no fits of markers; localise the series with track_fiducials")
