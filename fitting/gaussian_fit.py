"""LatGaussFitFR: one round Gaussian a molecule, close ones fitted together."""

from __future__ import annotations

import numpy as np

from fitting.batch import Batch, Rows
from fitting.estimators import estimate
from fitting.neighbours import fit_with_neighbours
from fitting.rows import make_rows


def fit(batch: Batch) -> Rows:
    """Rows of LatGaussFitFR."""
    rois, camera, estimator = batch.rois, batch.camera, batch.settings["estimator"]
    found = estimate(estimator, rois.data, rois.extra, batch.number, rois.side, batch.width_px, batch.aspect)
    if estimator == "mle":
        fit_with_neighbours(found, rois, batch.number, batch.width_px, batch.aspect, camera.noise_factor**2)
    rows = make_rows(found, estimator, rois, camera, batch.shape, batch.origin, batch.first_frame)
    return rows.take(np.flatnonzero(batch.kept))
