r"""The centre of radial symmetry.

The gradient of a round image points to its centre. With g the direction of the gradient at p, the distance of c from the line through p along g is
:math:`|(1 - g g^T)(p - c)|`; the point with the smallest sum of weighted squares of these distances solves

.. math:: \sum_k w_k (1 - g_k g_k^T) \, c = \sum_k w_k (1 - g_k g_k^T) \, p_k ,

where w is the squared gradient over the distance from the centroid [1]_.

References
----------
.. [1] R. Parthasarathy, Nature Methods 9, 724 (2012), https://doi.org/10.1038/nmeth.2071.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fitting.batch import Batch, Rows
from fitting.localisations import ResultCode

Array = npt.NDArray[np.float64]


def fit(batch: Batch) -> Rows:
    """Rows of RadialSymmetryFitR."""
    rows = batch.empty_rows()
    light = np.nan_to_num(batch.images()[:, 0].astype(np.float64))
    x, y, solved = centres(light, smooth=batch.settings["options"]["smooth"])
    rows["fitResults"]["x0"], rows["fitResults"]["y0"] = batch.x_nm(x), batch.y_nm(y)
    rows["fitResults"]["A"] = light.max(axis=(1, 2), initial=0) / batch.camera.photons_per_adu
    inside = solved & (np.hypot(x, y) <= batch.side / 2)
    rows["resultCode"] = np.where(inside, ResultCode.CONVERGED, ResultCode.DEGENERATE)
    return rows


def centres(light: Array, *, smooth: bool) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Centres of (k, s, s) images, x and y in pixels from the middle, and whether there is one."""
    # differences along the diagonals, at the corners between pixels
    falling = light[:, 1:, 1:] - light[:, :-1, :-1]
    rising = light[:, :-1, 1:] - light[:, 1:, :-1]
    gradient = np.stack([falling + rising, falling - rising], axis=-1)  # x, y
    if smooth:
        gradient = _averaged(gradient)
    side = gradient.shape[1]
    steps = np.arange(side) - (side - 1) / 2
    place = np.stack(np.meshgrid(steps, steps), axis=-1)  # x, y of each corner
    strength = (gradient**2).sum(axis=-1)
    across = (
        np.eye(2)
        - gradient[..., :, None] * gradient[..., None, :] / np.maximum(strength, 1e-12)[..., None, None]
    )
    weighted = (strength / _distance(place, strength))[..., None, None] * across
    left = weighted.sum(axis=(1, 2))
    right = (weighted @ place[..., None]).sum(axis=(1, 2))
    solved = np.abs(np.linalg.det(left)) > 0
    left[~solved] = np.eye(2)
    centre = np.linalg.solve(left, right)[..., 0]
    return centre[:, 0], centre[:, 1], solved


def _averaged(gradient: Array) -> Array:
    """Mean of each 3 × 3 neighbourhood, 0 beyond the edge."""
    rows, columns = gradient.shape[1:3]
    padded = np.pad(gradient, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, j : j + rows, i : i + columns] for j in range(3) for i in range(3)]
    return np.asarray(sum(shifted) / 9)


def _distance(place: Array, strength: Array) -> Array:
    """Distance of each corner from the centroid of the gradients, half a pixel at least."""
    total = np.maximum(strength.sum(axis=(1, 2)), 1e-12)
    centroid = (strength[..., None] * place).sum(axis=(1, 2)) / total[:, None]
    return np.asarray(np.maximum(np.linalg.norm(place - centroid[:, None, None], axis=-1), 0.5))
