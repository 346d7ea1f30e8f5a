"""What people and other programs ask of a localisation: photons, widths and errors, from the columns of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.errors import Invalid

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.void]

_CONVERGED = (1, 2, 3, 4)  # ours is 1; the others are MINPACK's ways to converge, in PYME's files
_LARGEST_ERROR_NM = 100.0


@dataclass(frozen=True)
class Calibration:
    """What turns ADU and nm into photons and pixels, read from metadata by PYME's keys."""

    pixel_x_nm: float
    pixel_y_nm: float
    photons_per_adu: float
    read_noise_photons: float
    noise_factor: float

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Calibration:
        """Read it.

        Raises
        ------
        Invalid
            If a key is missing or no number; names it.
        """
        em_gain = _number(metadata, "Camera.TrueEMGain", 1.0)
        return cls(
            pixel_x_nm=1000 * _number(metadata, "voxelsize.x"),
            pixel_y_nm=1000 * _number(metadata, "voxelsize.y"),
            photons_per_adu=_number(metadata, "Camera.ElectronsPerCount") / em_gain,
            read_noise_photons=_number(metadata, "Camera.ReadNoise", 0.0) / em_gain,
            noise_factor=_number(metadata, "Camera.NoiseFactor", 1.0 if em_gain <= 1 else 2**0.5),
        )


def _number(metadata: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise Invalid(f"the metadata say {key} is {value!r}; a number is needed", key=key)
    return float(value)


@dataclass(frozen=True)
class Quantities:
    """Columns of equal length: nm, photons and photons per pixel."""

    frame: npt.NDArray[np.int64]
    x_nm: FloatArray
    y_nm: FloatArray
    sigma_nm: FloatArray
    photons: FloatArray
    background: FloatArray
    background_std: FloatArray
    x_err_nm: FloatArray
    y_err_nm: FloatArray

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """Rows all of whose columns are finite."""
        known: npt.NDArray[np.bool_] = np.isfinite(np.stack([*vars(self).values()])).all(axis=0)
        return known

    def select(self, chosen: npt.NDArray[np.bool_]) -> Quantities:
        """Keep some of the rows."""
        return Quantities(**{name: column[chosen] for name, column in vars(self).items()})


def quantities(rows: Rows, calibration: Calibration) -> Quantities:
    """Work out the quantities of each row; an unknown error is NaN, also where a file says -5000."""
    fits, errors = rows["fitResults"], rows["fitError"]
    sigma_nm = fits["sigma"].astype(float)
    sigma2_px = sigma_nm**2 / (calibration.pixel_x_nm * calibration.pixel_y_nm)
    background = (
        fits["background"] + rows["subtractedBackground"].astype(float)
    ) * calibration.photons_per_adu
    noise = calibration.noise_factor**2 * np.maximum(background, 0) + calibration.read_noise_photons**2
    return Quantities(
        frame=rows["tIndex"].astype(np.int64),
        x_nm=fits["x0"].astype(float),
        y_nm=fits["y0"].astype(float),
        sigma_nm=sigma_nm,
        photons=2 * np.pi * fits["A"] * sigma2_px * calibration.photons_per_adu,
        background=background,
        background_std=np.sqrt(noise),
        x_err_nm=known_error(errors["x0"]),
        y_err_nm=known_error(errors["y0"]),
    )


def known_error(error: npt.NDArray[np.float32]) -> FloatArray:
    """Give errors with what cannot be one as NaN."""
    return np.where(error > 0, error, np.nan).astype(float)


def converged(rows: Rows) -> npt.NDArray[np.bool_]:
    """Rows whose fit converged, at a position."""
    at = rows["fitResults"]
    found: npt.NDArray[np.bool_] = (
        np.isin(rows["resultCode"], _CONVERGED) & np.isfinite(at["x0"]) & np.isfinite(at["y0"])
    )
    return found


def worth_showing(rows: Rows, largest_error_nm: float = _LARGEST_ERROR_NM) -> npt.NDArray[np.bool_]:
    """Rows that belong in a picture: converged, and not known to be nowhere in particular."""
    worst = np.fmax(rows["fitError"]["x0"], rows["fitError"]["y0"])
    shown: npt.NDArray[np.bool_] = converged(rows) & ~(worst > largest_error_nm)
    return shown
