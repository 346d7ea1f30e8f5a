"""What people and other programs ask of a localisation: photons, widths, z and errors, from the columns of any fit's table.

The columns say which fit it was. `A` is the height of a peak where the fit has a width, and the whole signal where it has none (the fits of a
measured PSF); photo-electrons in the rows of AstigGaussGPUFitFR. Channels are summed, and kept apart too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.errors import Invalid

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.void]

_CONVERGED = (1, 2, 3, 4)  # ours is 1; the others are MINPACK's ways to converge, in PYME's files
_GPU_CONVERGED = 0  # in PYME's files of its GPU fit, which says nothing else
_LARGEST_ERROR_NM = 100.0
_SIGNAL = re.compile(r"A(g|r|\d*)")
_BACKGROUND = re.compile(r"background(_g|_r|\d*)|bg|br")


@dataclass(frozen=True)
class Calibration:
    """What turns ADU and nm into photons and pixels, read from metadata by PYME's keys.

    `fixed_sigma_nm` is the width of a fit whose rows say none, None where the metadata do not say it.
    """

    pixel_x_nm: float
    pixel_y_nm: float
    photons_per_adu: float
    read_noise_photons: float
    noise_factor: float
    fixed_sigma_nm: float | None = None

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Calibration:
        """Read it.

        Raises
        ------
        Invalid
            If a key is missing or no number; names it.
        """
        em_gain = _number(metadata, "Camera.TrueEMGain", 1.0)
        fixed = metadata.get("Analysis.PSFSigma", metadata.get("Analysis.PSFSigmaGuess"))
        return cls(
            pixel_x_nm=1000 * _number(metadata, "voxelsize.x"),
            pixel_y_nm=1000 * _number(metadata, "voxelsize.y"),
            photons_per_adu=_number(metadata, "Camera.ElectronsPerCount") / em_gain,
            read_noise_photons=_number(metadata, "Camera.ReadNoise", 0.0) / em_gain,
            noise_factor=_number(metadata, "Camera.NoiseFactor", 1.0 if em_gain <= 1 else 2**0.5),
            fixed_sigma_nm=float(fixed) if isinstance(fixed, int | float) and fixed > 0 else None,
        )


def _number(metadata: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise Invalid(f"the metadata say {key} is {value!r}; a number is needed", key=key)
    return float(value)


@dataclass(frozen=True)
class Quantities:
    """Columns of equal length: nm, photons and photons per pixel; None where the fit does not know such a thing.

    `extra` holds what only some fits know, by a name with its unit: signals of the channels, the species.
    """

    frame: npt.NDArray[np.int64]
    x_nm: FloatArray
    y_nm: FloatArray
    photons: FloatArray
    sigma_nm: FloatArray | None
    sigma_x_nm: FloatArray | None
    sigma_y_nm: FloatArray | None
    background: FloatArray | None
    background_std: FloatArray | None
    x_err_nm: FloatArray | None
    y_err_nm: FloatArray | None
    z_nm: FloatArray | None = None
    z_err_nm: FloatArray | None = None
    extra: dict[str, FloatArray] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Those that the fit knows."""
        own = {name: value for name, value in vars(self).items() if name != "extra" and value is not None}
        return own | self.extra

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """Rows all of whose columns are finite, but for the errors of z and what is extra."""
        asked = [value for name, value in self.columns.items() if name not in {"z_err_nm", *self.extra}]
        known: npt.NDArray[np.bool_] = np.isfinite(np.stack(asked)).all(axis=0)
        return known

    def select(self, chosen: npt.NDArray[np.bool_]) -> Quantities:
        """Keep some of the rows."""
        own: dict[str, Any] = {
            name: None if value is None else value[chosen]
            for name, value in vars(self).items()
            if name != "extra"
        }
        if self.sigma_y_nm is self.sigma_x_nm:
            own["sigma_y_nm"] = own["sigma_x_nm"]  # a round PSF stays one
        return Quantities(**own, extra={name: value[chosen] for name, value in self.extra.items()})


def quantities(rows: Rows, calibration: Calibration) -> Quantities:
    """Work out the quantities of each row; an unknown error is NaN, also where a file says -5000."""
    fits = rows["fitResults"]
    names = fits.dtype.names or ()
    sigma_x, sigma_y = _widths(fits)
    per_signal = _photons_per_signal(rows, (sigma_x, sigma_y), calibration)
    signals = {name: fits[name] * per_signal for name in names if _SIGNAL.fullmatch(name)}
    background = _background(rows, calibration)
    has_errors = "fitError" in (rows.dtype.names or ())
    has_z = "z0" in names
    return Quantities(
        frame=rows["tIndex"].astype(np.int64),
        x_nm=fits["x0"].astype(float),
        y_nm=fits["y0"].astype(float),
        photons=np.sum([*signals.values()], axis=0) if signals else np.full(len(rows), np.nan),
        sigma_nm=None if sigma_x is None or sigma_y is None else np.sqrt(sigma_x * sigma_y),
        sigma_x_nm=sigma_x,
        sigma_y_nm=sigma_y,
        background=background,
        background_std=None if background is None else _spread(background, calibration),
        x_err_nm=errors_of(rows, "x0") if has_errors else None,
        y_err_nm=errors_of(rows, "y0") if has_errors else None,
        z_nm=fits["z0"].astype(float) if has_z else None,
        z_err_nm=errors_of(rows, "z0") if has_z and has_errors else None,
        extra=_extra(rows, signals),
    )


def _widths(fits: Rows) -> tuple[FloatArray | None, FloatArray | None]:
    names = set(fits.dtype.names or ())
    if "sigma" in names:
        sigma = fits["sigma"].astype(float)
        return sigma, sigma
    if {"sigmax", "sigmay"} <= names:
        return fits["sigmax"].astype(float), fits["sigmay"].astype(float)
    if {"sigxl", "sigxr", "sigyu", "sigyd"} <= names:
        x, y = (
            [fits[side].astype(float) for side in pair] for pair in (("sigxl", "sigxr"), ("sigyu", "sigyd"))
        )
        return np.sqrt((x[0] ** 2 + x[1] ** 2) / 2), np.sqrt((y[0] ** 2 + y[1] ** 2) / 2)
    return None, None


def _photons_per_signal(
    rows: Rows, widths: tuple[FloatArray | None, FloatArray | None], calibration: Calibration
) -> FloatArray | float:
    """How many photons one unit of `A` is."""
    if "LLH" in (rows.dtype.names or ()):
        return 1.0
    x, y = widths
    fixed = calibration.fixed_sigma_nm
    if x is None and "z0" not in (rows["fitResults"].dtype.names or ()) and fixed is not None:
        x = y = np.full(len(rows), fixed)
    if x is None or y is None:
        return calibration.photons_per_adu
    pixel = calibration.pixel_x_nm * calibration.pixel_y_nm
    return np.asarray(2 * np.pi * x * y / pixel * calibration.photons_per_adu)


def _background(rows: Rows, calibration: Calibration) -> FloatArray | None:
    """In all channels together, with what was subtracted."""
    fits, names = rows["fitResults"], rows.dtype.names or ()
    fitted = [fits[name].astype(float) for name in fits.dtype.names or () if _BACKGROUND.fullmatch(name)]
    if not fitted:
        return None
    total: FloatArray = np.sum(fitted, axis=0)
    if "LLH" in names:
        return total
    if "subtractedBackground" in names:
        level = rows["subtractedBackground"]
        parts = [level] if level.dtype.names is None else [level[name] for name in level.dtype.names]
        total = total + np.sum([part.astype(float) for part in parts], axis=0)
    return total * calibration.photons_per_adu


def _spread(background: FloatArray, calibration: Calibration) -> FloatArray:
    noise = calibration.noise_factor**2 * np.maximum(background, 0) + calibration.read_noise_photons**2
    return np.asarray(np.sqrt(noise))


def _extra(rows: Rows, signals: Mapping[str, Any]) -> dict[str, FloatArray]:
    found = {f"intensity {name[1:]} [photon]": value for name, value in signals.items() if len(signals) > 1}
    for name, title in (("species", "species"), ("speciesMargin", "species margin"), ("ratio", "ratio")):
        if name in (rows.dtype.names or ()):
            found[title] = rows[name].astype(float)
    return found


def errors_of(rows: Rows, name: str) -> FloatArray:
    """Errors of a parameter; NaN where they are unknown, also where a file says -5000, or the fit knows none."""
    if "fitError" not in (rows.dtype.names or ()) or name not in (rows["fitError"].dtype.names or ()):
        return np.full(len(rows), np.nan)
    error = rows["fitError"][name]
    return np.where(error > 0, error, np.nan).astype(float)


def converged(rows: Rows) -> npt.NDArray[np.bool_]:
    """Rows whose fit converged, at a position; of a fit that cannot say, all at a position."""
    at, names = rows["fitResults"], rows.dtype.names or ()
    found: npt.NDArray[np.bool_] = np.isfinite(at["x0"]) & np.isfinite(at["y0"])
    if "resultCode" in names:
        codes = (*_CONVERGED, _GPU_CONVERGED) if "LLH" in names else _CONVERGED
        found &= np.isin(rows["resultCode"], codes)
    return found


def status_of(rows: Rows) -> npt.NDArray[np.int64]:
    """Result codes; 1 for a fit that has none."""
    if "resultCode" not in (rows.dtype.names or ()):
        return np.ones(len(rows), np.int64)
    return np.asarray(rows["resultCode"], np.int64)


def worth_showing(rows: Rows, largest_error_nm: float = _LARGEST_ERROR_NM) -> npt.NDArray[np.bool_]:
    """Rows that belong in a picture: converged, and not known to be nowhere in particular."""
    worst = np.fmax(errors_of(rows, "x0"), errors_of(rows, "y0"))
    shown: npt.NDArray[np.bool_] = converged(rows) & ~(worst > largest_error_nm)
    return shown
