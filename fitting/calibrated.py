"""What calibrations leave for fits: a measured PSF, and the widths of an astigmatic PSF against z.

Import-light on purpose (numpy only): files of both are read and checked where no kernel is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fitting.errors import InvalidSettings


@dataclass(frozen=True)
class MeasuredPsf:
    """A PSF as an image stack.

    Attributes
    ----------
    volume : (z, y, x) float32 array
        Intensity, background free; several channels lie side by side along x, each `volume.shape[2] // channels` wide.
    pixel_nm, step_nm : float
        Lateral and axial pitch [nm]; the lateral one must be that of the data.
    focus_plane : float
        Plane of z = 0, counted from 0; z grows with the plane number.
    channels : int
        How many channels lie side by side.
    """

    volume: npt.NDArray[np.float32]
    pixel_nm: float
    step_nm: float
    focus_plane: float
    channels: int = 1

    def __post_init__(self) -> None:
        shape = np.shape(self.volume)
        if len(shape) != 3 or min(shape) < 4:
            raise InvalidSettings("psf", f"must be a stack of at least 4 × 4 × 4 (z, y, x), not {shape}")
        if not np.isfinite(self.volume).all():
            raise InvalidSettings("psf", "holds NaN or infinite values")
        if not (self.pixel_nm > 0 and self.step_nm > 0):
            raise InvalidSettings("psf", "needs a pixel size and a step between planes, in nm")
        if self.channels < 1 or shape[2] % self.channels:
            raise InvalidSettings(
                "psf", f"is {shape[2]} px wide, which does not hold {self.channels} channels side by side"
            )


@dataclass(frozen=True)
class SigmaCurves:
    """Widths of an astigmatic PSF against z, on an even grid of z.

    Attributes
    ----------
    z_nm : (n,) float64 array
        Rising in equal steps.
    sigma_x_nm, sigma_y_nm : (n,) float64 arrays
    """

    z_nm: npt.NDArray[np.float64]
    sigma_x_nm: npt.NDArray[np.float64]
    sigma_y_nm: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        z = np.asarray(self.z_nm)
        if (
            z.ndim != 1
            or len(z) < 4
            or np.shape(self.sigma_x_nm) != z.shape
            or np.shape(self.sigma_y_nm) != z.shape
        ):
            raise InvalidSettings(
                "sigma_curves", "needs z_nm, sigma_x_nm and sigma_y_nm of one length, 4 or more"
            )
        steps = np.diff(z)
        if not (steps[0] > 0 and np.allclose(steps, steps[0], rtol=1e-6)):
            raise InvalidSettings("sigma_curves", "z_nm must rise in equal steps")
        for name in ("sigma_x_nm", "sigma_y_nm"):
            values = np.asarray(getattr(self, name))
            if not (np.isfinite(values).all() and (values > 0).all()):
                raise InvalidSettings("sigma_curves", f"{name} must be positive")

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> SigmaCurves:
        """Read them from what `to_dict` gave."""
        try:
            columns = [np.asarray(data[name], np.float64) for name in ("z_nm", "sigma_x_nm", "sigma_y_nm")]
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidSettings(
                "sigma_curves", f"is not a table of z_nm, sigma_x_nm and sigma_y_nm: {error}"
            ) from error
        return cls(*columns)

    def to_dict(self) -> dict[str, list[float]]:
        """Plain lists, for JSON."""
        return {
            name: np.asarray(getattr(self, name)).tolist() for name in ("z_nm", "sigma_x_nm", "sigma_y_nm")
        }

    @classmethod
    def from_defocus(
        cls,
        z_nm: npt.NDArray[np.float64],
        x: tuple[float, float, float, float, float],
        y: tuple[float, float, float, float, float],
    ) -> SigmaCurves:
        r"""Curves :math:`\sigma = w \sqrt{1 + u^2 + A u^3 + B u^4}`, :math:`u = (z - c)/d`, each from (w, c, d, A, B) [nm, nm, nm, 1, 1].

        References
        ----------
        .. [1] B. Huang et al., Science 319, 810 (2008), https://doi.org/10.1126/science.1153529.
        """
        return cls(np.asarray(z_nm, np.float64), _defocused(z_nm, *x), _defocused(z_nm, *y))


def _defocused(
    z: npt.NDArray[np.float64], w: float, c: float, d: float, a: float, b: float
) -> npt.NDArray[np.float64]:
    u = (np.asarray(z, np.float64) - c) / d
    result: npt.NDArray[np.float64] = w * np.sqrt(np.maximum(1 + u**2 + a * u**3 + b * u**4, 1e-3))
    return result
