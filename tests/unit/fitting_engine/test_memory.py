"""What an analysis adds to the memory that its frames take."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from fitting import analyse

ALLOWED = 300e6
SIDE, TILES = 2048, 4


def _frames() -> Any:
    """Four frames of 2048 × 2048 px with 20 molecules for each 256 × 256, out of one tile of 512 × 512."""
    rng = np.random.default_rng(0)
    tiles = rng.poisson(120, (4, SIDE // TILES, SIDE // TILES))
    y, x = np.mgrid[-6:7, -6:7]
    for tile in tiles:
        for column, line in rng.integers(6, SIDE // TILES - 6, (80, 2)):
            spot = rng.poisson(190 * np.exp(-(x**2 + y**2) / 3.4))
            tile[line - 6 : line + 7, column - 6 : column + 7] += spot
    return np.tile(tiles.astype(np.uint16), (1, TILES, TILES))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"estimator": "wls"},
        {"background_percentile": None},
        {"variance_map": np.full((SIDE, SIDE), 2.5, np.float32)},
    ],
    ids=["default", "wls", "mean", "map"],
)
def test_an_analysis_of_large_frames_adds_less_than_300_mb(
    settings: dict[str, Any], metadata: dict[str, object]
) -> None:
    frames = _frames()
    analyse(frames[:, :64, :64], {name: settings[name] for name in settings if "map" not in name}, metadata)
    tracemalloc.start()
    try:
        rows = analyse(frames, settings, metadata).rows
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(rows) > 4 * 1200
    # what numba allocates by itself, rows of a ROI, is not seen; the images and tables, which are numpy's, are
    assert peak > SIDE**2, "not even one image was seen"
    assert peak < ALLOWED
