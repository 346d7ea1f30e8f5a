"""From beads seen in both channels to a shift field: what to leave out, the fit, and how far to trust it.

Sign as everywhere: a point at x in channel 1 is at x + dx in channel 0, with dx taken at its place in channel 0. Beads are fitted by
SplitterShiftEstFR; surfaces are those of `fitting.calibration.field_models`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay, QhullError, cKDTree

from fitting.calibration.clusters import ALONE, clusters
from fitting.calibration.field_models import MODELS, ModelName, Solved, Surface, solve, surface
from fitting.calibration.pixel_sums import MAD
from fitting.errors import InvalidCalibration
from fitting.shift_field import FloatArray, ShiftField

Mask = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]
"""A rectangle (x0, y0, x1, y1) [nm]."""
FEWEST: dict[ModelName, int] = {"affine": 6, "cubic": 20, "spline": 30}

_CONVERGED = (1, 2, 3, 4)
_UNLIKE_ERRORS = 2.0
_UNLIKE_SPREAD = 4.0
_SAME_BEAD_NM = 100.0
_FOLDS = 5
_PARTS = 4  # of the field, along each axis
_MANY_LEFT_OUT = 0.2
_NOISY = 3.0
_MEDIAN_ERROR = 1.2533  # of a median over that of a mean, of a Gaussian


@dataclass(frozen=True)
class ShiftVectors:
    """Beads: place in channel 0, shift, and the shift's standard errors, (n,) float64 arrays [nm]."""

    x_nm: FloatArray
    y_nm: FloatArray
    dx_nm: FloatArray
    dy_nm: FloatArray
    dx_error_nm: FloatArray
    dy_error_nm: FloatArray

    def __post_init__(self) -> None:
        columns = [np.asarray(column) for column in vars(self).values()]
        if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
            raise InvalidCalibration("shift vectors need columns of one length")
        if not all(np.isfinite(column).all() for column in columns):
            raise InvalidCalibration("shift vectors hold values that are not finite")
        if not ((self.dx_error_nm > 0).all() and (self.dy_error_nm > 0).all()):
            raise InvalidCalibration("errors of shift vectors must be over 0")

    def __len__(self) -> int:
        return len(self.x_nm)

    def select(self, chosen: npt.NDArray[Any]) -> ShiftVectors:
        """Some of them."""
        return ShiftVectors(**{name: column[chosen] for name, column in vars(self).items()})

    def moved(self, x_nm: float, y_nm: float) -> ShiftVectors:
        """The same vectors at places that count from elsewhere [nm]."""
        return replace(self, x_nm=self.x_nm + x_nm, y_nm=self.y_nm + y_nm)


@dataclass(frozen=True)
class ShiftFit:
    """A shift field and what it rests on.

    Attributes
    ----------
    field : ShiftField
    model : {"affine", "cubic", "spline"}
    beads : ShiftVectors
        One for each bead, those left out too.
    kept : (n,) bool array
        Beads that are like their neighbours.
    residual_x_nm, residual_y_nm : (n,) float64 arrays
        Shift of each bead less the field's.
    cross_validated_nm : dict
        For each model that there are beads enough for: rms [nm] of what beads differ by, along one axis, from a field that was fitted without them.
    factor : float
        By how much beads scatter more than their errors say.
    notes : tuple of str
        What a person should know, in sentences.
    """

    field: ShiftField
    model: ModelName
    beads: ShiftVectors
    kept: Mask
    residual_x_nm: FloatArray
    residual_y_nm: FloatArray
    cross_validated_nm: dict[ModelName, float]
    factor: float
    notes: tuple[str, ...]
    _surface: Surface
    _solved: tuple[Solved, Solved]

    @property
    def rms_nm(self) -> tuple[float, float]:
        """Root mean square of the residuals of the kept beads, along x and y [nm]."""
        x, y = (
            float(np.sqrt(np.mean(residual[self.kept] ** 2)))
            for residual in (self.residual_x_nm, self.residual_y_nm)
        )
        return x, y

    def error_at(self, x_nm: npt.ArrayLike, y_nm: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Standard errors of the field's dx and dy at n places [nm]; beyond the beads they are too small."""
        x, y = np.atleast_1d(np.asarray(x_nm, np.float64)), np.atleast_1d(np.asarray(y_nm, np.float64))
        design = self._surface.design(x, y)
        ex, ey = (
            np.sqrt(np.einsum("ni,ij,nj->n", design, solved.covariance, design)) for solved in self._solved
        )
        return ex, ey

    def is_extrapolated(self, x_nm: npt.ArrayLike, y_nm: npt.ArrayLike) -> Mask:
        """Which of n places [nm] lie outside the hull of the kept beads."""
        hull = Delaunay(_places(self.beads.select(self.kept)))
        places = np.stack([np.atleast_1d(x_nm), np.atleast_1d(y_nm)], axis=1).astype(np.float64)
        return np.asarray(hull.find_simplex(places) < 0, np.bool_)

    def numbers(self) -> dict[str, object]:
        """What the calibration amounts to, as plain numbers."""
        kept = self.beads.select(self.kept)
        rms_x, rms_y = self.rms_nm
        return {
            "model": self.model,
            "beads": len(self.beads),
            "beads_left_out": int((~self.kept).sum()),
            "residual_rms_nm": {"x": rms_x, "y": rms_y},
            "cross_validated_rms_nm": dict(self.cross_validated_nm),
            "scatter_over_errors": self.factor,
            "shift_nm": {"x": float(np.median(kept.dx_nm)), "y": float(np.median(kept.dy_nm))},
            "beads_box_nm": list(_box(kept)),
        }


def vectors_from_rows(rows: npt.NDArray[np.void]) -> ShiftVectors:
    """The shift vectors of rows of SplitterShiftEstFR: those that converged, with errors.

    Raises
    ------
    InvalidCalibration
        If the rows are of another fit.
    """
    names = rows.dtype.names or ()
    has_shifts = {"fitResults", "fitError", "resultCode"} <= set(names) and {"x0", "y0", "dx", "dy"} <= set(
        rows.dtype["fitResults"].names or ()
    )
    if not has_shifts:
        raise InvalidCalibration(
            "the rows hold no shifts dx and dy; localise the beads with SplitterShiftEstFR"
        )
    columns = [rows["fitResults"][name].astype(np.float64) for name in ("x0", "y0", "dx", "dy")]
    columns += [rows["fitError"][name].astype(np.float64) for name in ("dx", "dy")]
    good = np.isin(rows["resultCode"], _CONVERGED) & np.isfinite(columns).all(axis=0)
    good &= (columns[4] > 0) & (columns[5] > 0)
    return ShiftVectors(*(column[good] for column in columns))


def shifts_from_rows(
    rows: npt.NDArray[np.void], model: ModelName = "cubic", *, box_nm: Box | None = None
) -> ShiftFit:
    """Fit a shift field to rows of SplitterShiftEstFR; `fit_shift_field` says the rest."""
    return fit_shift_field(vectors_from_rows(rows), model, box_nm=box_nm)


def fit_shift_field(
    vectors: ShiftVectors, model: ModelName = "cubic", *, box_nm: Box | None = None
) -> ShiftFit:
    """Fit a shift field to beads.

    Fits of one bead in several frames become one vector. Vectors unlike their neighbours are left out (see `unlike_neighbours`);
    the fit itself gives what is far out little weight.

    Parameters
    ----------
    vectors : ShiftVectors
    model : {"affine", "cubic", "spline"}
        All products of powers up to the first or third degree, or a smoothing spline.
    box_nm : (x0, y0, x1, y1), optional
        The field of view [nm], to say how much of it the beads cover.

    Raises
    ------
    InvalidCalibration
        If there are too few beads for the model.
    """
    if model not in MODELS:
        raise InvalidCalibration(f"there is no model {model!r}; there are {', '.join(MODELS)}")
    beads = one_for_each_bead(vectors)
    _check_number(beads, model)
    kept = ~unlike_neighbours(beads)
    used = beads.select(kept)
    _check_number(used, model)
    box = _box(used) if box_nm is None else box_nm
    form, solved = _fit(used, model, box)
    field = form.field(solved[0].coefficients, solved[1].coefficients)
    dx, dy = field.at(beads.x_nm, beads.y_nm)
    validated = {name: _cross_validated(used, name, box) for name in MODELS if len(used) >= FEWEST[name]}
    factor = float(np.sqrt(np.mean([one.factor**2 for one in solved])))
    fit = ShiftFit(
        field, model, beads, kept, beads.dx_nm - dx, beads.dy_nm - dy, validated, factor, (), form, solved
    )
    notes = (*_about_beads(fit), *_about_model(fit), *_about_coverage(fit, box_nm))
    return replace(fit, notes=notes)


def one_for_each_bead(vectors: ShiftVectors, radius_nm: float = _SAME_BEAD_NM) -> ShiftVectors:
    """Fits of one bead made one: their median, with the error of their scatter or of the fits, whichever is larger.

    What lies within `radius_nm` is one bead, unless its fits spread farther than that, as when the stage moves.
    """
    labels = clusters(_places(vectors), radius_nm)
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []
    columns = np.array(list(vars(vectors).values()))
    found = []
    for group in groups:
        some = columns[:, group]
        spreads = (some[:2].max(axis=1) - some[:2].min(axis=1)).max() > 2 * radius_nm
        if len(group) == 1 or spreads or labels[group[0]] == ALONE:
            found += list(some.T)
        else:
            found.append(_middle(some))
    return ShiftVectors(*np.array(found).reshape(-1, len(columns)).T)


def _middle(some: FloatArray) -> FloatArray:
    middle = np.median(some, axis=1)
    scatter = MAD * np.median(np.abs(some[2:4] - middle[2:4, np.newaxis]), axis=1)
    middle[4:] = _MEDIAN_ERROR * np.maximum(middle[4:], scatter) / np.sqrt(some.shape[1])
    return middle


def unlike_neighbours(beads: ShiftVectors) -> Mask:
    """Vectors that differ from the median of their Delaunay neighbours, along either axis, by more than twice the mean error.

    A robust plane is taken off first, so that magnification and rotation count as no difference. Errors of bright beads are much
    smaller than what differs between beads; the limit is therefore at least four robust standard deviations of all such differences.

    Raises
    ------
    InvalidCalibration
        If the beads lie on a line.
    """
    form, solved = _fit(beads, "affine", _box(beads))
    plane = form.field(solved[0].coefficients, solved[1].coefficients)
    flat = np.stack([beads.dx_nm, beads.dy_nm]) - np.stack(plane.at(beads.x_nm, beads.y_nm))
    try:
        starts, neighbours = Delaunay(_places(beads)).vertex_neighbor_vertices
    except QhullError:
        raise InvalidCalibration(
            "the beads lie on one line; a field needs them spread over the image"
        ) from None
    unlike = np.zeros(len(beads), np.bool_)
    around = flat.copy()
    for k in np.flatnonzero(np.diff(starts)):
        around[:, k] = np.median(flat[:, neighbours[starts[k] : starts[k + 1]]], axis=1)
    for difference, error in zip(np.abs(flat - around), (beads.dx_error_nm, beads.dy_error_nm), strict=True):
        spread = MAD * float(np.median(difference))
        unlike |= difference > max(_UNLIKE_ERRORS * float(error.mean()), _UNLIKE_SPREAD * spread)
    return unlike


def _fit(beads: ShiftVectors, model: ModelName, box: Box) -> tuple[Surface, tuple[Solved, Solved]]:
    form = surface(model, box, len(beads))
    design = form.design(beads.x_nm, beads.y_nm)
    return form, (
        solve(design, beads.dx_nm, beads.dx_error_nm, form.penalty),
        solve(design, beads.dy_nm, beads.dy_error_nm, form.penalty),
    )


def _cross_validated(beads: ShiftVectors, model: ModelName, box: Box) -> float:
    """Rms of what beads differ by from fields fitted without them: five fields, each without a fifth of the beads."""
    fold = np.random.default_rng(0).permutation(len(beads)) % _FOLDS
    squares = []
    for k in range(_FOLDS):
        form, solved = _fit(beads.select(fold != k), model, box)
        left = beads.select(fold == k)
        dx, dy = form.field(solved[0].coefficients, solved[1].coefficients).at(left.x_nm, left.y_nm)
        squares += [(left.dx_nm - dx) ** 2, (left.dy_nm - dy) ** 2]
    return float(np.sqrt(np.concatenate(squares).mean()))


def _about_beads(fit: ShiftFit) -> Iterator[str]:
    out = int((~fit.kept).sum())
    yield f"Beads: {len(fit.beads)}, of which {out} are unlike their neighbours and left out."
    if out > _MANY_LEFT_OUT * len(fit.beads):
        yield (
            "That is many: are beads so close together that one is taken for another's image? "
            "Check the channels, or use fewer beads."
        )
    rms_x, rms_y = fit.rms_nm
    yield f"The others differ from the field by {rms_x:.1f} nm (x) and {rms_y:.1f} nm (y) rms."
    if fit.factor > _NOISY:
        yield (
            f"They scatter {fit.factor:.1f} times as much as the errors of their fits say: "
            "clumps of beads, or a model too stiff for the optics."
        )


def _about_model(fit: ShiftFit) -> Iterator[str]:
    validated = fit.cross_validated_nm
    if fit.model not in validated:
        return
    own, best = validated[fit.model], min(validated, key=lambda name: validated[name])
    yield f"Beads that the fit has not seen differ by {own:.1f} nm rms along an axis."
    if own > 1.1 * validated[best]:
        yield f"The model {best} would do better: {validated[best]:.1f} nm."


def _about_coverage(fit: ShiftFit, box_nm: Box | None) -> Iterator[str]:
    if box_nm is None:
        yield "The size of the field of view was not given: whether the beads cover it is not known."
        return
    used = fit.beads.select(fit.kept)
    x0, y0, x1, y1 = box_nm
    counts = np.histogram2d(used.x_nm, used.y_nm, bins=_PARTS, range=((x0, x1), (y0, y1)))[0]
    empty = int((counts == 0).sum())
    if empty:
        yield f"{empty} of {_PARTS**2} parts of the field hold no bead: the shifts there are guessed."
    corners = np.array([[x0, y0], [x0, y1], [x1, y0], [x1, y1]])
    far = float(cKDTree(_places(used)).query(corners)[0].max())
    if far > max(x1 - x0, y1 - y0) / _PARTS:
        yield f"The nearest bead is {far / 1000:.1f} µm from a corner of the field; out there the field is extrapolated."


def _check_number(beads: ShiftVectors, model: ModelName) -> None:
    if len(beads) < FEWEST[model]:
        raise InvalidCalibration(
            f"the model {model} needs {FEWEST[model]} beads or more, and there are {len(beads)}"
        )


def _box(beads: ShiftVectors) -> Box:
    x0, y0 = float(beads.x_nm.min()), float(beads.y_nm.min())
    x1, y1 = float(beads.x_nm.max()), float(beads.y_nm.max())
    if max(x1 - x0, y1 - y0) <= 0:
        raise InvalidCalibration("the beads all lie at one place")
    return x0, y0, x1, y1


def _places(beads: ShiftVectors) -> FloatArray:
    return np.stack([beads.x_nm, beads.y_nm], axis=1)
