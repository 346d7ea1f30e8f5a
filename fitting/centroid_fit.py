r"""LatFitCOIR: the centre of the light, for a first look.

Of the signal above the known background and above the median of the ROI's border, what exceeds a third of the maximum counts [1]_:

.. math:: \bar x = \frac{\sum p\,x}{\sum p}

It has no iteration, no error, and a bias towards the ROI's middle. `A` is the highest pixel above the background [ADU]; `sigxl` and `sigxr` [nm] are the
root mean square distances of the light left and right of the centre, `sigyu` and `sigyd` above and below.

References
----------
.. [1] M. K. Cheezum, W. F. Walker and W. H. Guilford, Biophys. J. 81, 2378 (2001), https://doi.org/10.1016/S0006-3495(01)75884-5, compare it with fits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fitting.batch import Batch, Rows

_THRESHOLD = 1 / 3
Array = npt.NDArray[np.float64]


def fit(batch: Batch) -> Rows:
    """Rows of LatFitCOIR."""
    rows = batch.empty_rows()
    if not len(rows):
        return rows
    light = _light(batch.images()[:, 0].astype(np.float64))
    peak = light.max(axis=(1, 2))
    light[light < _THRESHOLD * peak[:, None, None]] = 0
    half = batch.side // 2
    steps = np.arange(-half, half + 1, dtype=np.float64)
    total = np.maximum(light.sum(axis=(1, 2)), np.finfo(np.float64).tiny)
    results = rows["fitResults"]
    along_x, along_y = light.sum(axis=1), light.sum(axis=2)
    x, y = (along @ steps / total for along in (along_x, along_y))
    results["x0"], results["y0"] = batch.x_nm(x), batch.y_nm(y)
    results["A"] = peak / batch.camera.photons_per_adu
    left, right = _sides(along_x, steps - x[:, None])
    up, down = _sides(along_y, steps - y[:, None])
    results["sigxl"], results["sigxr"] = left * batch.camera.voxel_x_nm, right * batch.camera.voxel_x_nm
    results["sigyu"], results["sigyd"] = up * batch.camera.voxel_y_nm, down * batch.camera.voxel_y_nm
    return rows


def _light(images: Array) -> Array:
    """Signal above the border's median; 0 where nothing is known."""
    border = np.ones(images.shape[1:], np.bool_)
    border[1:-1, 1:-1] = False
    edge = images[:, border]
    known = np.isfinite(edge).any(axis=1)
    level = np.zeros(len(images))
    level[known] = np.nanmedian(edge[known], axis=1)
    return np.nan_to_num(np.maximum(images - level[:, None, None], 0))


def _sides(along: Array, distance: Array) -> tuple[Array, Array]:
    """Root mean square distance of the light on either side of its centre."""
    sides = []
    for chosen in (distance <= 0, distance > 0):
        light = np.where(chosen, along, 0)
        weight = np.maximum(light.sum(axis=1), np.finfo(np.float64).tiny)
        sides.append(np.sqrt((light * distance**2).sum(axis=1) / weight))
    return sides[0], sides[1]
