"""From what a kernel found to rows of the result table: nm and ADU, in PYME's terms."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fitting.camera import Camera
from fitting.estimators import Estimates
from fitting.localisations import LAT_GAUSS_DTYPE
from fitting.rois import RoiBuffer


def make_rows(
    found: Estimates,
    estimator: str,
    rois: RoiBuffer,
    camera: Camera,
    shape: tuple[int, int],
    origin: tuple[int, int],
    first_frame: int,
) -> npt.NDArray[np.void]:
    """Rows of the fits of a buffer's first ROIs.

    Parameters
    ----------
    found : Estimates
        k fits.
    estimator : str
        Which estimator they come from.
    rois : RoiBuffer
        Where the ROIs lie; its frames count from `first_frame`.
    shape, origin : (int, int)
        Size (h, w) and first pixel (y, x) of the analysed part of the frame [px].
    """
    number = len(found.theta)
    rows = np.zeros(number, LAT_GAUSS_DTYPE)
    place = rois.place[:number]
    rows["tIndex"] = place[:, 0] + first_frame
    _place_slices(rows, place, rois.side, shape, origin)
    fill = _fill_mle if estimator == "mle" else _fill_wls
    fill(rows, found, camera)
    pitch = {"x0": camera.voxel_x_nm, "y0": camera.voxel_y_nm}
    for axis, name in ((2, "x0"), (1, "y0")):
        middle = place[:, axis] + origin[axis - 1]
        rows["fitResults"][name] = (middle + rows["fitResults"][name].astype(np.float64)) * pitch[name]
        rows["fitError"][name] *= pitch[name]
    rows["resultCode"] = found.quality[:, 3]
    rows["subtractedBackground"] = rois.level[:number]
    return rows


def _place_slices(
    rows: npt.NDArray[np.void],
    place: npt.NDArray[np.int32],
    side: int,
    shape: tuple[int, int],
    origin: tuple[int, int],
) -> None:
    for axis, name in ((1, "y"), (2, "x")):
        used = rows["slicesUsed"][name]
        first = place[:, axis] - side // 2
        used["start"] = np.maximum(first, 0) + origin[axis - 1]
        used["stop"] = np.minimum(first + side, shape[axis - 1]) + origin[axis - 1]
        used["step"] = 1
    rows["slicesUsed"]["z"]["stop"] = 1
    rows["slicesUsed"]["z"]["step"] = 1


def _fill_mle(rows: npt.NDArray[np.void], found: Estimates, camera: Camera) -> None:
    """x, y, N, b, s in px and photo-electrons; the height is that of a peak with N photons as PYME counts them."""
    x, y, n, b, s = found.theta.T.astype(np.float64)
    var_x, var_y, var_n, var_b, var_s, both = found.covariance.T.astype(np.float64) * camera.noise_factor**2
    results, errors = rows["fitResults"], rows["fitError"]
    per_photon = 1 / (camera.photons_per_adu * 2 * math.pi * s**2)
    results["x0"], results["y0"] = x, y
    results["A"], results["background"] = n * per_photon, b / camera.photons_per_adu
    results["sigma"] = s * camera.voxel_x_nm
    errors["x0"], errors["y0"] = np.sqrt(var_x), np.sqrt(var_y)
    spread = var_n - 4 * n / s * both + (2 * n / s) ** 2 * var_s
    errors["A"] = np.sqrt(np.maximum(spread, 0)) * per_photon
    errors["background"] = np.sqrt(var_b) / camera.photons_per_adu
    errors["sigma"] = np.sqrt(var_s) * camera.voxel_x_nm
    errors["bx"] = errors["by"] = np.nan
    rows["nchi2"] = found.quality[:, 1] / camera.noise_factor**2


def _fill_wls(rows: npt.NDArray[np.void], found: Estimates, camera: Camera) -> None:
    scales = {
        "A": 1.0, "x0": 1.0, "y0": 1.0, "sigma": camera.voxel_x_nm, "background": 1.0,
        "bx": 1 / camera.voxel_x_nm, "by": 1 / camera.voxel_y_nm,
    }  # fmt: skip
    for k, (name, scale) in enumerate(scales.items()):
        rows["fitResults"][name] = found.theta[:, k] * scale
        rows["fitError"][name] = np.sqrt(found.covariance[:, k]) * scale
    rows["nchi2"] = found.quality[:, 1]
