"""How far a molecule's image in channel 1 lies from that in channel 0, over the field of view.

Import-light on purpose (numpy only): files are read and checked where no kernel is loaded. Sign, as PYME's: a point at x in channel 1 is
at x + dx in channel 0, with dx and dy [nm] taken at its place [nm] in channel 0. Fitting a field to beads is `fitting.calibration`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fitting.errors import InvalidSettings

FloatArray = npt.NDArray[np.float64]
_MOST_POWERS = 6


@dataclass(frozen=True)
class ShiftField:
    """A polynomial in x and y for each of dx and dy; the identity has coefficients of zero.

    Attributes
    ----------
    centre_nm : (float, float)
        x, y around which the polynomial is taken [nm].
    scale_nm : float
        Length by which coordinates are divided [nm].
    dx_nm, dy_nm : (p, p) float64 arrays
        Coefficients [nm], indexed [power of x, power of y].
    """

    centre_nm: tuple[float, float] = (0.0, 0.0)
    scale_nm: float = 1000.0
    dx_nm: FloatArray = field(default_factory=lambda: np.zeros((1, 1)))
    dy_nm: FloatArray = field(default_factory=lambda: np.zeros((1, 1)))

    def at(self, x_nm: npt.ArrayLike, y_nm: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """The shifts dx and dy [nm] at places of channel 0 [nm]."""
        u = (np.asarray(x_nm, np.float64) - self.centre_nm[0]) / self.scale_nm
        v = (np.asarray(y_nm, np.float64) - self.centre_nm[1]) / self.scale_nm
        dx, dy = (np.polynomial.polynomial.polyval2d(u, v, c) for c in (self.dx_nm, self.dy_nm))
        return np.asarray(dx, np.float64), np.asarray(dy, np.float64)

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> ShiftField:
        """Read it from what `to_dict` gave."""
        try:
            given: Any = data["centre_nm"]
            dx, dy = (np.atleast_2d(np.asarray(data[name], np.float64)) for name in ("dx_nm", "dy_nm"))
            scale = float(data["scale_nm"])  # type: ignore[arg-type]
            x, y = given
            centre = float(x), float(y)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidSettings("shifts", f"is no polynomial shift field: {error}") from error
        sound = scale > 0 and all(
            c.ndim == 2 and max(c.shape) <= _MOST_POWERS and np.isfinite(c).all() for c in (dx, dy)
        )
        if not sound:
            raise InvalidSettings(
                "shifts",
                f"is no polynomial shift field of finite coefficients, at most {_MOST_POWERS} powers",
            )
        return cls(centre, scale, dx, dy)

    def to_dict(self) -> dict[str, object]:
        """Plain numbers and lists, for JSON."""
        return {
            "kind": "polynomial", "centre_nm": list(self.centre_nm), "scale_nm": self.scale_nm,
            "dx_nm": self.dx_nm.tolist(), "dy_nm": self.dy_nm.tolist(),
        }  # fmt: skip
