"""Rows and a provenance as a small job would leave them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cluster.results.ledger import Ledger
from cluster.results.provenance import Provenance
from fitting.fits import resolve
from fitting.localisations import LAT_GAUSS_DTYPE, FrameStatus, ResultCode

METADATA: dict[str, Any] = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 100.0,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ReadNoise": 1.6,
    "Camera.ROIWidth": 64,
    "Camera.ROIHeight": 48,
}


@pytest.fixture
def metadata() -> dict[str, Any]:
    return dict(METADATA)


@pytest.fixture
def make_rows() -> Callable[..., np.ndarray]:
    """Converged localisations scattered over a field of 64 by 48 pixels of 100 nm, five a frame."""

    def make(count: int = 100, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        rows = np.zeros(count, LAT_GAUSS_DTYPE)
        rows["tIndex"] = np.arange(count) // 5
        fits = rows["fitResults"]
        fits["A"], fits["sigma"] = 100.0, 130.0
        fits["x0"], fits["y0"] = rng.uniform(0, 6400, count), rng.uniform(0, 4800, count)
        for name in ("A", "x0", "y0", "sigma", "background"):
            rows["fitError"][name] = rng.uniform(5, 15, count)
        rows["fitError"]["bx"] = rows["fitError"]["by"] = np.nan
        rows["resultCode"] = ResultCode.CONVERGED
        rows["subtractedBackground"] = 40.0
        rows["nchi2"] = 1.0
        return rows

    return make


@pytest.fixture
def make_provenance() -> Callable[..., Provenance]:
    def make(ledger: Ledger | None = None) -> Provenance:
        return Provenance(
            settings=resolve({}, METADATA),
            metadata={key: {"value": value, "source": "file"} for key, value in METADATA.items()},
            versions={"clusterofone": "0.1.0", "numpy": "2.4"},
            input={"path": "day/series.tif", "fingerprint": "abc"},
            job={"id": "j1", "name": "µ"},
            ledger=ledger or Ledger(np.full(20, FrameStatus.LOCALISED, np.uint8), np.full(20, 5, np.uint32)),
        )

    return make
