r"""Surfaces that a robust fit may lay through scattered values: polynomials and smoothing splines.

A surface is :math:`f(x, y) = \sum_k c_k \phi_k(x, y)`. Coefficients minimise :math:`\sum_i \rho(r_i / s e_i) + \tfrac12 \lambda c^T P c` with residuals r, errors e, their
common factor s (from the median absolute residual) and Student's law of four degrees of freedom for :math:`\rho`, by iteratively reweighted least squares [1]_: what is far out counts ever less. The
spline is a tensor product of cubic B-splines on an even grid with a penalty on its second differences [2]_, :math:`\lambda` by generalised cross-validation [3]_.

References
----------
.. [1] P. W. Holland and R. E. Welsch, Commun. Stat. A 6, 813 (1977), https://doi.org/10.1080/03610927708827533.
.. [2] P. H. C. Eilers and B. D. Marx, Stat. Sci. 11, 89 (1996), https://doi.org/10.1214/ss/1038425655.
.. [3] P. Craven and G. Wahba, Numer. Math. 31, 377 (1979), https://doi.org/10.1007/BF01404567.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from fitting.calibration.pixel_sums import MAD
from fitting.shift_field import FloatArray, ShiftField, SplineGrid, cubic_taps

ModelName = Literal["affine", "cubic", "spline"]
MODELS: tuple[ModelName, ...] = ("affine", "cubic", "spline")

_FREEDOM = 4.0  # of Student's law
_TURNS = 50
_ARRIVED = 1e-4  # of a standard error
_DEGREES = {"affine": 1, "cubic": 3}
_BEADS_A_CELL = 4
_FEWEST_CELLS, _MOST_CELLS = 3, 12
_STIFFNESSES = np.logspace(-6, 6, 49)


class Surface(Protocol):
    """Basis functions, what their coefficients cost, and the field they amount to."""

    @property
    def penalty(self) -> FloatArray | None:
        """(p, p) matrix of the roughness of coefficients; None where nothing is smoothed."""
        ...

    def design(self, x_nm: FloatArray, y_nm: FloatArray) -> FloatArray:
        """(n, p) values of the basis functions at places [nm]."""
        ...

    def field(self, dx: FloatArray, dy: FloatArray) -> ShiftField:
        """The shift field of two sets of p coefficients."""
        ...


@dataclass(frozen=True)
class Polynomial:
    """All products of powers of x and y up to a degree in sum, around the middle of a box [nm]."""

    degree: int
    centre_nm: tuple[float, float]
    scale_nm: float
    penalty: None = None

    @property
    def powers(self) -> list[tuple[int, int]]:
        """(power of x, power of y) of each term."""
        return [(i, j) for i in range(self.degree + 1) for j in range(self.degree + 1 - i)]

    def design(self, x_nm: FloatArray, y_nm: FloatArray) -> FloatArray:
        """As `Surface`."""
        u, v = (x_nm - self.centre_nm[0]) / self.scale_nm, (y_nm - self.centre_nm[1]) / self.scale_nm
        return np.stack([u**i * v**j for i, j in self.powers], axis=-1)

    def field(self, dx: FloatArray, dy: FloatArray) -> ShiftField:
        """As `Surface`."""
        tables = np.zeros((2, self.degree + 1, self.degree + 1))
        for k, (i, j) in enumerate(self.powers):
            tables[:, i, j] = dx[k], dy[k]
        return ShiftField(self.centre_nm, self.scale_nm, tables[0], tables[1])


@dataclass(frozen=True)
class Spline:
    """Cubic B-splines on an even grid over a box."""

    start_nm: tuple[float, float]
    pitch_nm: float
    nodes: tuple[int, int]

    @property
    def penalty(self) -> FloatArray:
        """Second differences along both axes and across: free is what is linear in x and y."""
        x, y = (_differences(n) for n in self.nodes)
        cost = np.kron(x[1], y[0]) + np.kron(x[0], y[1]) + 2 * np.kron(x[2], y[2])
        return np.asarray(cost, np.float64)

    def design(self, x_nm: FloatArray, y_nm: FloatArray) -> FloatArray:
        """As `Surface`."""
        along = []
        for place, start, number in zip((x_nm, y_nm), self.start_nm, self.nodes, strict=True):
            index, weight = cubic_taps((place - start) / self.pitch_nm, number)
            full = np.zeros((len(place), number))
            np.put_along_axis(full, index, weight, axis=1)
            along.append(full)
        return np.asarray(np.einsum("ni,nj->nij", *along).reshape(len(x_nm), -1), np.float64)

    def field(self, dx: FloatArray, dy: FloatArray) -> ShiftField:
        """As `Surface`: the linear part becomes the polynomial, which goes on beyond the grid."""
        x, y = (
            start + (np.arange(number) - 1) * self.pitch_nm
            for start, number in zip(self.start_nm, self.nodes, strict=True)
        )
        plane = Polynomial(1, (float(x.mean()), float(y.mean())), self.pitch_nm)
        terms = plane.design(*(axis.ravel() for axis in np.meshgrid(x, y, indexing="ij")))
        linear, rest = [], []
        for coefficients in (dx, dy):
            part = np.asarray(np.linalg.lstsq(terms, coefficients, rcond=None)[0], np.float64)
            linear.append(part)
            rest.append((coefficients - terms @ part).reshape(self.nodes))
        return replace(
            plane.field(linear[0], linear[1]), spline=SplineGrid(self.start_nm, self.pitch_nm, *rest)
        )


def _differences(number: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Identity, and what second and first differences of neighbouring coefficients cost."""
    one = np.eye(number)
    second, first = np.diff(one, 2, axis=0), np.diff(one, axis=0)
    return one, second.T @ second, first.T @ first


def surface(model: ModelName, box_nm: tuple[float, float, float, float], beads: int) -> Polynomial | Spline:
    """The surface of a model for so many beads over a box (x0, y0, x1, y1) [nm]."""
    x0, y0, x1, y1 = box_nm
    extent = max(x1 - x0, y1 - y0)
    if model != "spline":
        return Polynomial(_DEGREES[model], ((x0 + x1) / 2, (y0 + y1) / 2), extent / 2)
    cells = int(np.clip(round(np.sqrt(beads / _BEADS_A_CELL)), _FEWEST_CELLS, _MOST_CELLS))
    pitch = extent / cells
    nodes = [max(1, int(np.ceil((b - a) / pitch - 1e-9))) + 3 for a, b in ((x0, x1), (y0, y1))]
    return Spline((x0, y0), pitch, (nodes[0], nodes[1]))


@dataclass(frozen=True)
class Solved:
    """Coefficients of a surface, their covariance, and how far the data are from it.

    Attributes
    ----------
    coefficients : (p,) float64 array
    covariance : (p, p) float64 array
        Of a smoothing spline the Bayesian one, which holds for its bias too.
    factor : float
        By how much the data scatter more than their errors say; below 1 where they scatter less.
    """

    coefficients: FloatArray
    covariance: FloatArray
    factor: float


def solve(design: FloatArray, values: FloatArray, errors: FloatArray, penalty: FloatArray | None) -> Solved:
    """Lay a surface through values robustly.

    Parameters
    ----------
    design : (n, p) array
    values, errors : (n,) arrays
        Errors are standard errors, over zero.
    penalty : (p, p) array or None
    """
    scaled, target = design / errors[:, np.newaxis], values / errors
    if penalty is None:
        return _solve(scaled, target, np.zeros((design.shape[1],) * 2))
    even = _solve(scaled, target, penalty * _stiffness(scaled, target, np.ones(len(target)), penalty))
    pulls = (target - scaled @ even.coefficients) / even.factor  # what is far out has no say in how stiff
    return _solve(scaled, target, penalty * _stiffness(scaled, target, _weights(pulls), penalty))


def _solve(scaled: FloatArray, target: FloatArray, cost: FloatArray) -> Solved:
    free = len(target) - _used(scaled, cost)
    coefficients = _smoothed(scaled, target, np.ones(len(target)), cost)
    coefficients = _reweighted(scaled, target, coefficients, cost, free)
    pulls, factor = _pulls(scaled, target, coefficients, free)
    return Solved(coefficients, _covariance(scaled, pulls, factor, cost), factor)


def _reweighted(
    scaled: FloatArray, target: FloatArray, coefficients: FloatArray, cost: FloatArray, free: float
) -> FloatArray:
    for _ in range(_TURNS):
        pulls, factor = _pulls(scaled, target, coefficients, free)
        before, coefficients = coefficients, _smoothed(scaled, target, _weights(pulls), cost)
        if np.abs(scaled @ (coefficients - before)).max() < _ARRIVED * factor:
            break
    return coefficients


def _used(scaled: FloatArray, cost: FloatArray) -> float:
    """Degrees of freedom that a surface takes from the data."""
    plain = scaled.T @ scaled
    return float(np.trace(np.linalg.solve(_firm(plain + cost), plain)))


def _pulls(
    scaled: FloatArray, target: FloatArray, coefficients: FloatArray, free: float
) -> tuple[FloatArray, float]:
    """Residuals in units of their spread, and that spread in units of the errors."""
    residuals = target - scaled @ coefficients
    spread = MAD * float(np.median(np.abs(residuals))) * np.sqrt(len(target) / max(free, 1.0))
    spread = max(spread, 1e-9)
    return residuals / spread, spread


def _weights(pulls: FloatArray) -> FloatArray:
    result: FloatArray = (_FREEDOM + 1) / (_FREEDOM + pulls**2)
    return result


def _smoothed(scaled: FloatArray, target: FloatArray, weights: FloatArray, cost: FloatArray) -> FloatArray:
    weighted = scaled * weights[:, np.newaxis]
    solved = np.linalg.solve(_firm(weighted.T @ scaled + cost), weighted.T @ target)
    return np.asarray(solved, np.float64)


def _firm(normal: FloatArray) -> FloatArray:
    """A normal matrix with that little on its diagonal which keeps rounding from making it singular."""
    return normal + 1e-11 * float(np.trace(normal)) / len(normal) * np.eye(len(normal))


def _stiffness(scaled: FloatArray, target: FloatArray, weights: FloatArray, penalty: FloatArray) -> float:
    """Factor of the penalty with the least generalised cross-validation score.

    In the basis that makes the normal matrix and the penalty diagonal together every factor costs only a few sums.
    """
    weighted = scaled * weights[:, np.newaxis]
    plain, right = weighted.T @ scaled, weighted.T @ target
    unit = float(np.trace(plain) / np.trace(penalty))
    shares, basis = eigh(plain, _firm(plain + unit * penalty))
    shares, along = np.clip(shares, 0, 1), basis.T @ right
    total = float((weights * target**2).sum())
    scores = []
    for stiffness in _STIFFNESSES:
        damped = 1 / (shares + stiffness * (1 - shares))
        rest = total - float((along**2 * damped * (2 - shares * damped)).sum())
        used = float((shares * damped).sum())
        scores.append(max(rest, 0.0) / max(len(target) - used, 1.0) ** 2)
    return float(unit * _STIFFNESSES[int(np.argmin(scores))])


def _covariance(
    scaled: FloatArray, pulls: FloatArray, factor: float, cost: FloatArray
) -> npt.NDArray[np.float64]:
    """Asymptotic covariance of an M-estimator, with the data's own mean slope and square of its score."""
    score = pulls * _weights(pulls)
    slope = (_FREEDOM + 1) * (_FREEDOM - pulls**2) / (_FREEDOM + pulls**2) ** 2
    efficiency = float((score**2).mean()) / max(float(slope.mean()), 0.05) ** 2
    return np.asarray(factor**2 * efficiency * np.linalg.inv(_firm(scaled.T @ scaled + cost)), np.float64)
