"""How far localisations are from the truth, counted as the SMLM challenges count.

Tables are given by columns: anything that gives an array for ``table["x_nm"]``, a dict or a structured array.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from fitting.localisations import ResultCode

Columns = Mapping[str, Any] | npt.NDArray[np.void]
FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]

_NAN = float("nan")


@dataclass(frozen=True)
class Accuracy:
    """How well matched localisations sit; NaN where there are none.

    Attributes
    ----------
    n : int
        Number of matched localisations.
    rmse_x_nm, rmse_y_nm : float
        Root mean square error of each axis.
    rmse_nm : float
        Root mean square distance, the challenges' lateral RMSE (√2 larger than an axis').
    bias_x_nm, bias_y_nm : float
        Mean error of each axis.
    rmse_over_crlb : float
        Root mean square error over the root mean square of the errors that the fits report; 1 is what theory allows.
    """

    n: int
    rmse_x_nm: float
    rmse_y_nm: float
    rmse_nm: float
    bias_x_nm: float
    bias_y_nm: float
    rmse_over_crlb: float


@dataclass(frozen=True)
class Score:
    """Localisations against truth.

    Attributes
    ----------
    n_truth, n_found, n_matched : int
        Molecules, localisations, and pairs of one of each.
    recall, precision, jaccard : float
        Pairs over molecules, over localisations, over everything that is either.
    efficiency : float
        The 2016 challenge's figure [%]: 100 is perfect, and it may be negative.
    accuracy : Accuracy
        Of all pairs.
    isolated_recall : float
        Recall of the molecules that had no neighbour.
    isolated : Accuracy
        Of the pairs of those.
    """

    n_truth: int
    n_found: int
    n_matched: int
    recall: float
    precision: float
    jaccard: float
    efficiency: float
    accuracy: Accuracy
    isolated_recall: float
    isolated: Accuracy


def score(
    found: Columns,
    truth: Columns,
    *,
    radius_nm: float = 250.0,
    isolation_nm: float = 1000.0,
    frames: tuple[int, int] | None = None,
    region_nm: tuple[float, float, float, float] | None = None,
) -> Score:
    """Compare localisations with the truth.

    Parameters
    ----------
    found : table
        Columns ``frame``, ``x_nm``, ``y_nm`` and, for `rmse_over_crlb`, ``x_err_nm``, ``y_err_nm``; a row that is not
        finite is a localisation that matches nothing.
    truth : table
        Columns ``frame``, ``x_nm``, ``y_nm``.
    radius_nm : float
        Largest distance of a pair.
    isolation_nm : float
        A molecule is isolated when no other shines in its frame within this distance.
    frames : (int, int), optional
        Count these frames only.
    region_nm : (x0, y0, x1, y1), optional
        Count what lies inside, in both tables, as the challenges leave out the border.

    References
    ----------
    D. Sage et al., Nature Methods 16, 387 (2019). https://doi.org/10.1038/s41592-019-0364-4
    """
    truth_frame, truth_xy = _positions(truth)
    alone = _isolated(truth_frame, truth_xy, isolation_nm)
    counted = _counted(truth_frame, truth_xy, frames, region_nm)
    truth_frame, truth_xy, alone = truth_frame[counted], truth_xy[counted], alone[counted]
    found_frame, found_xy = _positions(found)
    chosen = _counted(found_frame, found_xy, frames, region_nm)
    found_frame, found_xy, error = found_frame[chosen], found_xy[chosen], _errors(found)[chosen]

    i, j = match(found_frame, found_xy, truth_frame, truth_xy, radius_nm)
    off = found_xy[i] - truth_xy[j]
    accuracy = _accuracy(off, error[i])
    matched, either = len(i), len(found_xy) + len(truth_xy) - len(i)
    jaccard = _ratio(matched, either)
    return Score(
        n_truth=len(truth_xy),
        n_found=len(found_xy),
        n_matched=matched,
        recall=_ratio(matched, len(truth_xy)),
        precision=_ratio(matched, len(found_xy)),
        jaccard=jaccard,
        efficiency=100 - float(np.hypot(100 - 100 * jaccard, accuracy.rmse_nm)),
        accuracy=accuracy,
        isolated_recall=_ratio(int(alone[j].sum()), int(alone.sum())),
        isolated=_accuracy(off[alone[j]], error[i][alone[j]]),
    )


def match(
    found_frame: npt.ArrayLike,
    found_xy: npt.ArrayLike,
    truth_frame: npt.ArrayLike,
    truth_xy: npt.ArrayLike,
    radius: float,
) -> tuple[IndexArray, IndexArray]:
    """Pair the rows of two tables, frame by frame, the closest first.

    Within a frame the smallest of all distances makes a pair, then the smallest that is left, up to `radius`
    (inclusive); equal distances go by row number.

    Parameters
    ----------
    found_frame, truth_frame : (k,) and (m,) int arrays
        Frame of each row.
    found_xy, truth_xy : (k, 2) and (m, 2) arrays
        Positions, in the unit of `radius`.
    radius : float
        Largest distance of a pair.

    Returns
    -------
    i, j : (p,) int arrays
        Row numbers of the pairs, ordered by `i`.
    """
    found_xy, truth_xy = (
        np.asarray(found_xy, float).reshape(-1, 2),
        np.asarray(truth_xy, float).reshape(-1, 2),
    )
    i, j = _near(np.asarray(found_frame), found_xy, np.asarray(truth_frame), truth_xy, radius)
    distance = np.hypot(*(found_xy[i] - truth_xy[j]).T)
    order = np.lexsort((j, i, distance))[: np.count_nonzero(distance <= radius)]
    taken_i, taken_j = np.zeros(len(found_xy), bool), np.zeros(len(truth_xy), bool)
    pairs = []
    for a, b in zip(i[order].tolist(), j[order].tolist(), strict=True):
        if not taken_i[a] and not taken_j[b]:
            taken_i[a] = taken_j[b] = True
            pairs.append((a, b))
    paired = np.array(sorted(pairs), np.intp).reshape(-1, 2)
    return paired[:, 0], paired[:, 1]


def columns_of(rows: npt.NDArray[np.void], *, converged: bool = True) -> dict[str, FloatArray]:
    """Give result rows as the columns that `score` reads.

    Parameters
    ----------
    rows : structured array
        Rows of a fit with ``tIndex`` and ``fitResults``, and ``fitError`` and ``resultCode`` where it has them.
    converged : bool
        Only rows whose fit converged.
    """
    names = rows.dtype.names or ()
    if converged and "resultCode" in names:
        rows = rows[rows["resultCode"] == ResultCode.CONVERGED]
    columns = {
        "frame": rows["tIndex"],
        "x_nm": rows["fitResults"]["x0"].astype(float),
        "y_nm": rows["fitResults"]["y0"].astype(float),
    }
    if "fitError" in names:
        columns |= {f"{axis}_err_nm": rows["fitError"][f"{axis}0"].astype(float) for axis in "xy"}
    return columns


def _column(table: Columns, name: str) -> FloatArray | None:
    names = (table.dtype.names or ()) if isinstance(table, np.ndarray) else table
    return np.asarray(table[name], float).ravel() if name in names else None


def _positions(table: Columns) -> tuple[npt.NDArray[np.int64], FloatArray]:
    frame = np.asarray(table["frame"]).ravel().astype(np.int64)
    return frame, np.stack([np.asarray(table[name], float).ravel() for name in ("x_nm", "y_nm")], axis=1)


def _errors(table: Columns) -> FloatArray:
    x, y = _column(table, "x_err_nm"), _column(table, "y_err_nm")
    if x is None or y is None:
        return np.full((len(np.asarray(table["frame"]).ravel()), 2), np.nan)
    return np.stack([x, y], axis=1)


def _counted(
    frame: npt.NDArray[np.int64],
    xy: FloatArray,
    frames: tuple[int, int] | None,
    region_nm: tuple[float, float, float, float] | None,
) -> npt.NDArray[np.bool_]:
    counted = np.ones(len(frame), bool)
    if frames is not None:
        counted &= (frame >= frames[0]) & (frame < frames[1])
    if region_nm is not None:
        x0, y0, x1, y1 = region_nm
        counted &= ((xy > (x0, y0)) & (xy < (x1, y1))).all(axis=1)
    return counted


def _in_time(frame: npt.NDArray[Any], xy: FloatArray, radius: float) -> FloatArray:
    """Put frames so far apart along a third axis that neighbours are of one frame."""
    return np.column_stack([xy, frame * (4.0 * radius)])


def _near(
    found_frame: npt.NDArray[Any],
    found_xy: FloatArray,
    truth_frame: npt.NDArray[Any],
    truth_xy: FloatArray,
    radius: float,
) -> tuple[IndexArray, IndexArray]:
    rows, others = (np.flatnonzero(np.isfinite(xy).all(axis=1)) for xy in (found_xy, truth_xy))
    if len(rows) == 0 or len(others) == 0:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    tree = cKDTree(_in_time(found_frame[rows], found_xy[rows], radius))
    other_tree = cKDTree(_in_time(truth_frame[others], truth_xy[others], radius))
    # a hair wider than the radius: whether a pair is within it is decided on exact distances
    pairs = tree.sparse_distance_matrix(other_tree, radius * (1 + 1e-9), output_type="ndarray")
    return rows[pairs["i"]], others[pairs["j"]]


def _isolated(frame: npt.NDArray[np.int64], xy: FloatArray, radius: float) -> npt.NDArray[np.bool_]:
    if len(frame) < 2:
        return np.ones(len(frame), bool)
    points = _in_time(frame, xy, radius)
    distance = np.asarray(cKDTree(points).query(points, k=2)[0])
    alone: npt.NDArray[np.bool_] = distance[:, 1] > radius
    return alone


def _accuracy(off: FloatArray, error: FloatArray) -> Accuracy:
    if len(off) == 0:
        return Accuracy(0, *(_NAN,) * 6)
    square_x, square_y = (float(np.mean(along**2)) for along in off.T)
    known = np.isfinite(error).all(axis=1)
    expected = (error[known] ** 2).mean() if known.any() else _NAN
    ratio = np.sqrt((off[known] ** 2).mean() / expected) if known.any() and expected > 0 else _NAN
    return Accuracy(
        n=len(off),
        rmse_x_nm=math.sqrt(square_x),
        rmse_y_nm=math.sqrt(square_y),
        rmse_nm=math.sqrt(square_x + square_y),
        bias_x_nm=float(off[:, 0].mean()),
        bias_y_nm=float(off[:, 1].mean()),
        rmse_over_crlb=float(ratio),
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else _NAN
