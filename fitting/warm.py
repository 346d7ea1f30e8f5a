"""Compile every kernel once, so that workers that start together find them in the cache."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

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
)  # the settings that decide which kernels run
_VARIATIONS: tuple[dict[str, object], ...] = (
    {},
    {"estimator": "wls"},
    {"track_fiducials": True},
    {"background_percentile": 0.5},
)


def warm_up(settings: Mapping[str, object] | None = None, dtype: str = "uint16") -> None:
    """Compile the kernels, or load them compiled.

    Parameters
    ----------
    settings : mapping, optional
        The analysis to be ready for; without it every kernel for every type of frames.
    dtype : str
        The type of its frames.
    """
    if settings is None:
        for kind in ("uint16", "float32"):
            for variation in _VARIATIONS:
                _run(variation, kind)
    else:
        chosen = {name: settings[name] for name in _CHOOSING if settings.get(name) is not None}
        _run(chosen, "float32" if dtype == "float32" else "uint16")


def kernels_of(settings: Mapping[str, object], dtype: str) -> tuple[object, ...]:
    """Return what tells whether two analyses need the same kernels."""
    by_percentile = settings.get("background_percentile") is not None
    fiducials = bool(settings.get("track_fiducials"))
    fit = settings.get("fit") or "LatGaussFitFR"
    return dtype == "float32", fit, settings.get("estimator"), by_percentile, fiducials


def _run(settings: Mapping[str, object], dtype: str) -> None:
    """Localise a few small frames with two bright spots side by side."""
    y, x = np.mgrid[:32, :32]
    spot = 100 + sum(2000 * np.exp(-((x - centre) ** 2 + (y - 16) ** 2) / 3.4) for centre in (13, 19))
    frames = np.stack([spot, np.full_like(spot, 101), np.full_like(spot, 101)])
    analyse(frames.astype(dtype), settings, _METADATA)
