"""Metadata that a series needs, as every test of the registry wants them."""

from __future__ import annotations

import pytest


@pytest.fixture
def metadata() -> dict[str, object]:
    return {
        "voxelsize.x": 0.1,
        "voxelsize.y": 0.1,
        "Camera.ElectronsPerCount": 0.5,
        "Camera.ADOffset": 100.0,
        "Camera.ReadNoise": 1.6,
    }
