"""How far a molecule's image in channel 1 lies from that in channel 0, over the field of view.

Import-light on purpose (numpy only): files are read and checked where no kernel is loaded. Sign, as PYME's: a point at x in channel 1 is
at x + dx in channel 0, with dx and dy [nm] taken at its place [nm] in channel 0. Fitting a field to beads is `fitting.calibration`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fitting.errors import InvalidSettings

FloatArray = npt.NDArray[np.float64]
_MOST_POWERS = 6
_MOST_NODES = 200  # along an axis; no field of a splitter needs more
_KINDS = ("polynomial", "spline")


@dataclass(frozen=True)
class SplineGrid:
    """A cubic B-spline on an even grid, for dx and for dy; beyond the grid's last full cell it keeps the value of the edge.

    Attributes
    ----------
    start_nm : (float, float)
        x, y of the left (lower) end of the first cell; the first coefficient belongs to the node one pitch before it [nm].
    pitch_nm : float
        Distance of nodes [nm].
    dx_nm, dy_nm : (nx, ny) float64 arrays
        Coefficients [nm], indexed [node along x, node along y]; at least four along each axis.
    """

    start_nm: tuple[float, float]
    pitch_nm: float
    dx_nm: FloatArray
    dy_nm: FloatArray

    def __post_init__(self) -> None:
        shape = np.shape(self.dx_nm)
        sound = (
            self.pitch_nm > 0
            and len(shape) == 2
            and np.shape(self.dy_nm) == shape
            and min(shape) >= 4
            and max(shape) <= _MOST_NODES
            and np.isfinite(self.dx_nm).all()
            and np.isfinite(self.dy_nm).all()
        )
        if not sound:
            raise InvalidSettings(
                "shifts",
                f"needs spline coefficients that are finite, of one shape, 4 to {_MOST_NODES} along each axis, and a pitch",
            )

    def at(self, x_nm: FloatArray, y_nm: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The shifts dx and dy [nm] at places of any shape [nm]."""
        shape = np.shape(self.dx_nm)
        (i, wx), (j, wy) = (
            cubic_taps((place - start) / self.pitch_nm, nodes)
            for place, start, nodes in zip((x_nm, y_nm), self.start_nm, shape, strict=True)
        )
        rows, columns = i[..., :, np.newaxis], j[..., np.newaxis, :]
        dx, dy = (
            np.einsum("...i,...j,...ij->...", wx, wy, coefficients[rows, columns])
            for coefficients in (self.dx_nm, self.dy_nm)
        )
        return dx, dy


def cubic_taps(u: npt.ArrayLike, nodes: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """The four coefficients of an even cubic B-spline that make its value at u, and their weights.

    Parameters
    ----------
    u : array
        Place in cells from the start of the first one; clamped to the grid.
    nodes : int
        Number of coefficients, three more than cells.

    Returns
    -------
    (..., 4) int64 array, (..., 4) float64 array
    """
    inside = np.clip(np.asarray(u, np.float64), 0, nodes - 3)
    cell = np.minimum(inside.astype(np.int64), nodes - 4)
    t = inside - cell
    weights = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=-1
    )
    return cell[..., np.newaxis] + np.arange(4), weights / 6


@dataclass(frozen=True)
class ShiftField:
    """A polynomial in x and y for each of dx and dy, and what a spline adds to it; the identity has coefficients of zero.

    Attributes
    ----------
    centre_nm : (float, float)
        x, y around which the polynomial is taken [nm].
    scale_nm : float
        Length by which coordinates are divided [nm].
    dx_nm, dy_nm : (p, p) float64 arrays
        Coefficients [nm], indexed [power of x, power of y].
    spline : SplineGrid or None
        Added to the polynomial, which alone is carried on beyond the beads.
    """

    centre_nm: tuple[float, float] = (0.0, 0.0)
    scale_nm: float = 1000.0
    dx_nm: FloatArray = field(default_factory=lambda: np.zeros((1, 1)))
    dy_nm: FloatArray = field(default_factory=lambda: np.zeros((1, 1)))
    spline: SplineGrid | None = None

    def at(self, x_nm: npt.ArrayLike, y_nm: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """The shifts dx and dy [nm] at places of channel 0 [nm]."""
        x, y = np.broadcast_arrays(np.asarray(x_nm, np.float64), np.asarray(y_nm, np.float64))
        u, v = (x - self.centre_nm[0]) / self.scale_nm, (y - self.centre_nm[1]) / self.scale_nm
        dx, dy = (
            np.asarray(np.polynomial.polynomial.polyval2d(u, v, c), np.float64)
            for c in (self.dx_nm, self.dy_nm)
        )
        if self.spline is None:
            return dx, dy
        more_x, more_y = self.spline.at(x, y)
        return dx + more_x, dy + more_y

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> ShiftField:
        """Read it from what `to_dict` gave; other keys are passed over.

        Raises
        ------
        InvalidSettings
            If it is no shift field.
        """
        kind = data.get("kind", "polynomial")
        if kind not in _KINDS:
            raise InvalidSettings(
                "shifts", f"is a shift field of a kind unknown here, {kind!r}; known are {', '.join(_KINDS)}"
            )
        try:
            dx, dy = (np.atleast_2d(np.asarray(data[name], np.float64)) for name in ("dx_nm", "dy_nm"))
            scale, centre = _number(data["scale_nm"]), _pair(data["centre_nm"])
            spline = _spline_of(data["spline"]) if kind == "spline" else None
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidSettings("shifts", f"is no {kind} shift field: {error}") from error
        sound = scale > 0 and all(
            c.ndim == 2 and c.size and max(c.shape) <= _MOST_POWERS and np.isfinite(c).all() for c in (dx, dy)
        )
        if not sound:
            raise InvalidSettings(
                "shifts",
                f"is no polynomial shift field of finite coefficients, at most {_MOST_POWERS} powers",
            )
        return cls(centre, scale, dx, dy, spline)

    def to_dict(self) -> dict[str, object]:
        """Plain numbers and lists, for JSON."""
        plain: dict[str, object] = {
            "kind": "polynomial", "centre_nm": list(self.centre_nm), "scale_nm": self.scale_nm,
            "dx_nm": self.dx_nm.tolist(), "dy_nm": self.dy_nm.tolist(),
        }  # fmt: skip
        if self.spline is not None:
            grid = self.spline
            plain |= {
                "kind": "spline",
                "spline": {
                    "start_nm": list(grid.start_nm), "pitch_nm": grid.pitch_nm,
                    "dx_nm": grid.dx_nm.tolist(), "dy_nm": grid.dy_nm.tolist(),
                },
            }  # fmt: skip
        return plain


def _number(value: Any) -> float:
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"{number} is no finite number")
    return number


def _pair(value: Any) -> tuple[float, float]:
    if not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError("two coordinates are needed")
    return _number(value[0]), _number(value[1])


def _spline_of(value: Any) -> SplineGrid:
    if not isinstance(value, Mapping):
        raise TypeError("its spline is no object")
    dx, dy = (np.atleast_2d(np.asarray(value[name], np.float64)) for name in ("dx_nm", "dy_nm"))
    return SplineGrid(_pair(value["start_nm"]), _number(value["pitch_nm"]), dx, dy)
