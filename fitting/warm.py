"""Compile every kernel once, so that workers that start together find them in the cache."""

from __future__ import annotations

import numpy as np

from fitting.localise import analyse

_METADATA = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ElectronsPerCount": 1.0,
    "Camera.ADOffset": 100.0,
    "Camera.ReadNoise": 1.0,
}


def warm_up() -> None:
    """Run every kernel for every type of frames on a few small frames with two bright spots side by side."""
    y, x = np.mgrid[:32, :32]
    spot = 100 + sum(2000 * np.exp(-((x - centre) ** 2 + (y - 16) ** 2) / 3.4) for centre in (13, 19))
    frames = np.stack([spot, np.full_like(spot, 101), np.full_like(spot, 101)])
    variations: list[dict[str, object]] = [
        {},
        {"estimator": "wls"},
        {"track_fiducials": True},
        {"background_percentile": 0.5},
    ]
    for kind in (np.uint16, np.float32):
        for settings in variations:
            analyse(frames.astype(kind), settings, _METADATA)
