"""Compile every kernel once, so that workers that start together find them in the cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fitting import fits
from fitting.calibrated import MeasuredPsf, SigmaCurves
from fitting.localise import analyse

_METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ElectronsPerCount": 1.0,
    "Camera.ADOffset": 100.0,
    "Camera.ReadNoise": 1.0,
}


_CHOOSING = (
    "fit",
    "estimator",
    "track_fiducials",
    "background_percentile",
    "interpolator",
)  # the settings that decide which kernels run
_VARIATIONS: tuple[dict[str, object], ...] = (
    {},
    {"estimator": "wls"},
    {"track_fiducials": True},
    {"background_percentile": None},
    {"fit": "AstigGaussFitFR"},
    {"fit": "SplitterFitFNR"},
    {"fit": "GaussMultifitSR"},
)


def warm_up(settings: Mapping[str, object] | None = None, dtype: str = "uint16") -> None:
    """Compile the kernels, or load them compiled.

    Parameters
    ----------
    settings : mapping, optional
        The analysis to be ready for; without it the kernels of the fits that need no calibration, for every type of frames.
    dtype : str
        The type of its frames.
    """
    if settings is None:
        for kind in ("uint16", "float32"):
            for variation in _VARIATIONS:
                _run(variation, _two_spots(), kind)
    else:
        _run(_deciding(settings), _two_spots(), dtype)


def warm_up_fit(settings: Mapping[str, object], dtype: str = "uint16") -> None:
    """Compile the kernels of the fit alone, while another process compiles those of detection; as `warm_up`."""
    _run(_deciding(settings), np.zeros((3, 64, 32)), dtype)  # frames without content are not looked at


def kernels_of(settings: Mapping[str, object], dtype: str) -> tuple[object, ...]:
    """Return what tells whether two analyses need the same kernels."""
    by_percentile = settings.get("background_percentile") is not None
    fiducials = bool(settings.get("track_fiducials"))
    fit = settings.get("fit") or "LatGaussFitFR"
    linear = settings.get("interpolator") == "linear"
    by_z = settings.get("sigma_curves") is not None
    return dtype == "float32", fit, settings.get("estimator"), by_percentile, fiducials, linear, by_z


def _stand_ins(settings: Mapping[str, object]) -> dict[str, object]:
    """Calibrations of the kinds that an analysis names, small and made up: here they only decide which kernels run."""
    made: dict[str, object] = {}
    fit = fits.find(str(settings.get("fit") or "LatGaussFitFR"))
    z = np.linspace(-500, 500, 21)
    if settings.get("sigma_curves") is not None:
        made["sigma_curves"] = SigmaCurves.from_defocus(z, (130, 250, 400, 0, 0), (130, -250, 400, 0, 0))
    if "psf" in fit.needs:
        made["psf"] = _psf(z, max(fit.channels, 1))
        made["roi_half_size"] = 4
    return made


def _psf(z: np.ndarray[Any, np.dtype[np.float64]], channels: int) -> MeasuredPsf:
    y, x = np.mgrid[-10:11, -10:11]
    widths = [(1.3 * np.sqrt(1 + ((height - c) / 400) ** 2) for c in (250, -250)) for height in z]
    planes = [np.exp(-(x**2) / (2 * a**2) - y**2 / (2 * b**2)) / (2 * np.pi * a * b) for a, b in widths]
    volume = np.concatenate([np.array(planes)] * channels, axis=2).astype(np.float32)
    return MeasuredPsf(volume, 100.0, float(z[1] - z[0]), (len(z) - 1) / 2, channels)


def _deciding(settings: Mapping[str, object]) -> dict[str, object]:
    return {name: settings[name] for name in _CHOOSING if name in settings} | _stand_ins(settings)


def _run(settings: Mapping[str, object], frames: np.ndarray[Any, Any], dtype: str) -> None:
    analyse(frames.astype("float32" if dtype == "float32" else "uint16"), settings, _METADATA)


def _two_spots() -> np.ndarray[Any, Any]:
    """Make a few small frames with two bright spots side by side, above each other the same for a second channel."""
    y, x = np.mgrid[:64, :32]
    places = [(cx, cy) for cx in (13, 19) for cy in (16, 47)]
    spot = 100 + sum(2000 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 3.4) for cx, cy in places)
    return np.stack([spot, np.full_like(spot, 101), np.full_like(spot, 101)])
