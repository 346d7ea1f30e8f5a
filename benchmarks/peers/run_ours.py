"""Ours, as a runner: `fit_rois` and `analyse`."""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before the imports below, whose time is measured

from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from runner import Task, serve  # noqa: E402

from fitting import analyse, fit_rois  # noqa: E402
from fitting.localisations import ResultCode  # noqa: E402
from fitting.scoring import columns_of  # noqa: E402


def fit(rois: Any, options: dict[str, Any]) -> Task:
    """Fit ROIs; CRLB and log-likelihood included."""

    def rows(table: Any) -> Any:
        good = table["status"] == ResultCode.CONVERGED
        return np.where(good[:, np.newaxis], np.stack([table["x_px"], table["y_px"]], axis=1), np.nan)

    return Task(lambda: fit_rois(rois, model="gaussian", **options), rows, len(rois))


def pipeline(frames: Any, options: dict[str, Any]) -> Task:
    """Background, detection and fit of frames in memory."""
    pixel_nm = 1000 * options["metadata"]["voxelsize.x"]

    def rows(found: Any) -> Any:
        table = columns_of(found.rows)
        return np.stack([table["frame"], table["x_nm"] / pixel_nm, table["y_nm"] / pixel_nm], axis=1)

    return Task(lambda: analyse(frames, options["analysis"], options["metadata"]), rows, len(frames))


if __name__ == "__main__":
    serve(STARTED, ("clusterofone", "numpy", "numba"), {"fit": fit, "pipeline": pipeline})
