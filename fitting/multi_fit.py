"""GaussMultifitSR: as many round Gaussians of one width as a region of the frame asks for."""

from __future__ import annotations

import math

import numpy as np

from fitting.batch import Batch, Rows
from fitting.multi import MultiOptions, fit_patches


def fit(batch: Batch) -> Rows:
    """Rows of GaussMultifitSR, one an emitter; heights are those of peaks with as many photons as PYME counts them."""
    options = batch.settings["options"]
    camera = batch.camera
    found = fit_patches(
        batch.rois, batch.number, batch.width_px, batch.aspect, camera.noise_factor**2,
        MultiOptions(options["most_emitters"], options["least_gain"], options["width"]),
    )  # fmt: skip
    rows = np.zeros(len(found.frame), batch.dtype)
    rows["tIndex"] = found.frame + batch.first_frame
    x, y, n, _, s = found.theta.T
    var_x, var_y, var_n, var_s, both = found.covariance.T * camera.noise_factor**2
    results, errors = rows["fitResults"], rows["fitError"]
    per_photon = 1 / (camera.photons_per_adu * 2 * math.pi * s**2)
    results["x0"] = (x + batch.origin[1]) * camera.voxel_x_nm
    results["y0"] = (y + batch.origin[0]) * camera.voxel_y_nm
    results["A"] = n * per_photon
    errors["x0"], errors["y0"] = np.sqrt(var_x) * camera.voxel_x_nm, np.sqrt(var_y) * camera.voxel_y_nm
    spread = var_n - 4 * n / s * both + (2 * n / s) ** 2 * var_s
    errors["A"] = np.sqrt(np.maximum(spread, 0)) * per_photon
    rows["nChi2"] = found.quality[:, 0] / camera.noise_factor**2
    rows["nFit"], rows["resultCode"] = found.quality[:, 1], found.quality[:, 2]
    return rows
