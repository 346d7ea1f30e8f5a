"""Fiducial markers: what is bright in the same place ten frames before and ten frames after.

The frames at -10, 0 and +10, each over its noise and over its median, are multiplied; molecules blink and drop out, markers stay. What
the band-pass, widened by the marker's radius, leaves of the product is compared with the cube of the threshold. Up to ten
markers a frame are fitted with a round Gaussian, in a larger ROI and without a background from other frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fitting.camera import Camera, PixelLaw
from fitting.estimators import estimate
from fitting.frames import Stack
from fitting.kernel import kernel
from fitting.localisations import LAT_GAUSS_DTYPE
from fitting.rois import RoiBuffer, cut
from fitting.rows import make_rows
from fitting.windows import FIDUCIAL_REACH

_MOST = 10  # markers fitted in a frame


def find_fiducials(
    stack: Stack,
    chosen: npt.NDArray[np.int64],
    settings: Mapping[str, Any],
    camera: Camera,
    origin: tuple[int, int],
    bounds: npt.NDArray[np.int64],
) -> npt.NDArray[np.void]:
    """Rows of the markers in the chosen frames, positions in the stack; whatever the fit of the molecules, those of LatGaussFitFR.

    Parameters
    ----------
    stack : Stack
        Must hold the frames ten before and after each chosen one, where the series has them.
    origin : (int, int)
        First pixel (y, x) of the analysed part of the frame [px].
    bounds : (4,) int64 array
        top, bottom, left, right of channel 0 [px]: a marker is in every channel, and counts once.
    """
    shape = stack.pixels.shape[1:]
    law = camera.pixel_law(settings["lowpass_sigma"], stack.full_adu, shape)
    side = 2 * settings["fiducial_roi_half_size"] + 1
    width_px = settings["psf_sigma_nm"] / camera.voxel_x_nm
    ratios = _Ratios(stack, law)
    rois = RoiBuffer.with_room(_MOST, side)
    tables = [np.zeros(0, LAT_GAUSS_DTYPE)]
    for t in chosen:
        number = 0
        for y, x in _markers(ratios.product(t), settings, camera, bounds):
            rois.place[number] = t, y, x, 1
            _cut_marker(
                stack.pixels[t],
                law,
                settings["estimator"] == "wls",
                y,
                x,
                bounds,
                side,
                rois.data,
                rois.extra,
                number,
            )
            number += 1
        rois.level[:] = 0
        found = estimate(
            settings["estimator"],
            rois.data,
            rois.extra,
            number,
            side,
            width_px,
            camera.voxel_x_nm / camera.voxel_y_nm,
        )
        tables.append(make_rows(found, settings["estimator"], rois, camera, shape, origin, stack.first))
    rows = np.concatenate(tables)
    where = rows["fitResults"]
    return rows[np.lexsort((where["x0"], where["y0"], rows["tIndex"]))]


class _Ratios:
    """Frames over their noise and median, each made once while it is near."""

    def __init__(self, stack: Stack, law: PixelLaw) -> None:
        self._stack, self._law = stack, law
        self._made: dict[int, npt.NDArray[np.float64]] = {}

    def product(self, t: int) -> npt.NDArray[np.float64]:
        """Product of the frames at -10, 0 and 10 that there are, as if there were three."""
        last = len(self._stack.pixels)
        near = [
            u for u in (t - FIDUCIAL_REACH, t, t + FIDUCIAL_REACH) if 0 <= u < last and self._stack.present[u]
        ]
        self._made = {u: image for u, image in self._made.items() if u >= t - FIDUCIAL_REACH}
        result: npt.NDArray[np.float64] = np.prod([self._ratio(u) for u in near], axis=0) ** (3 / len(near))
        return result

    def _ratio(self, t: int) -> npt.NDArray[np.float64]:
        if t not in self._made:
            d = (np.nan_to_num(self._stack.pixels[t].astype(np.float64)) - self._law.dark) * self._law.flat
            d = np.maximum(d, 1)
            ratio = d / np.sqrt(self._law.floor + self._law.slope * d)
            self._made[t] = ratio / np.median(ratio)
        return self._made[t]


def _markers(
    product: npt.NDArray[np.float64],
    settings: Mapping[str, Any],
    camera: Camera,
    bounds: npt.NDArray[np.int64],
) -> list[tuple[int, int]]:
    from scipy.ndimage import gaussian_filter, maximum_filter

    radius_px = 0.5 * settings["fiducial_diameter_nm"] / camera.voxel_x_nm
    low, high = (settings[name] + radius_px for name in ("lowpass_sigma", "highpass_sigma"))
    passed = gaussian_filter(product, low) - gaussian_filter(product, high)
    reach = 2 * int(max(settings["debounce_radius"], radius_px)) + 1
    peaks = (passed == maximum_filter(passed, reach)) & (passed > settings["fiducial_threshold"] ** 3)
    top, bottom, left, right = bounds
    y, x = (
        at + first for at, first in zip(np.nonzero(peaks[top:bottom, left:right]), (top, left), strict=True)
    )
    brightest = np.lexsort((x, y, -passed[y, x]))[:_MOST]
    return sorted((int(y[k]), int(x[k])) for k in brightest)


@kernel
def _cut_marker(
    frame: Any,
    law: Any,
    weighted: bool,
    y: int,
    x: int,
    bounds: Any,
    side: int,
    data: Any,
    extra: Any,
    index: int,
) -> None:
    """Cut a marker's ROI out of its frame, without a background.

    Parameters
    ----------
    frame : (h, w) array
        Raw frame [ADU].
    law : fitting.camera.PixelLaw
    weighted : bool
        Whether for weighted least squares, else for maximum likelihood.
    y, x, side : int
        Middle and side of the ROI [px].
    data, extra : (16 blocks side²,) float32 arrays
        Out: ROI number `index` of these; see `fitting.rois`.
    """
    level = np.zeros((1, 1), np.float32)
    sign = np.ones(2, np.int64)
    cut(frame, level, np.float32(0.0), law, False, weighted, y, x, sign, bounds, side, data, extra, index)
