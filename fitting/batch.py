"""What a fit is handed: ROIs cut from frames, what is known of them, and what its rows have in common with all others'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fitting.calibrated import MeasuredPsf, SigmaCurves
from fitting.camera import Camera
from fitting.channels import Geometry
from fitting.errors import InvalidSettings
from fitting.lanes import LANES
from fitting.poisson import UNKNOWN
from fitting.rois import FloatArray, RoiBuffer
from fitting.shift_field import ShiftField

Rows = npt.NDArray[np.void]


@dataclass(frozen=True)
class Calibrations:
    """What was measured beforehand; None for what was not given."""

    psf: MeasuredPsf | None = None
    sigma_curves: SigmaCurves | None = None
    shifts: tuple[ShiftField | None, ...] = (None,)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], channels: int) -> Calibrations:
        """Make objects of what complete settings hold; `shifts` becomes one a channel, None for channel 0.

        Raises
        ------
        InvalidSettings
            If a setting is still the path of a file.
        """
        for name in ("psf", "sigma_curves", "shifts"):
            if isinstance(settings[name], str):
                raise InvalidSettings(
                    name,
                    f"must be the calibration itself when frames are localised, not its path, {settings[name]!r}",
                )
        curves = settings["sigma_curves"]
        fields = settings["shifts"]
        if not isinstance(fields, list):
            fields = [fields] * (channels - 1)
        return cls(
            settings["psf"],
            SigmaCurves.from_dict(curves) if isinstance(curves, Mapping) else curves,
            (None, *(ShiftField.from_dict(one) if isinstance(one, Mapping) else one for one in fields)),
        )


@dataclass(frozen=True)
class Batch:
    """ROIs side by side, one a molecule and channel, from any number of frames.

    Attributes
    ----------
    rois : RoiBuffer
        Pixels and places; its frames count from `first_frame`.
    number : int
        Molecules in it.
    settings : mapping
        Complete settings of the analysis.
    camera : Camera
        Of the analysed part of the frame.
    calibrations : Calibrations
    dtype : numpy.dtype
        Layout of the rows to make.
    shape, origin : (int, int)
        Size (h, w) and first pixel (y, x) of the analysed part of the frame [px].
    first_frame : int
        Absolute number of the buffer's frame 0.
    geometry : WholeFrame or Channels
        Where the channels lie.
    """

    rois: RoiBuffer
    number: int
    settings: Mapping[str, Any]
    camera: Camera
    calibrations: Calibrations
    dtype: np.dtype[np.void]
    shape: tuple[int, int]
    origin: tuple[int, int]
    first_frame: int
    geometry: Geometry

    @property
    def side(self) -> int:
        """Side of a ROI [px]."""
        return self.rois.side

    @property
    def channels(self) -> int:
        """How many ROIs a molecule has."""
        return int(self.rois.middles.shape[1])

    @property
    def width_px(self) -> float:
        """Expected width of the PSF [px of x]."""
        return float(self.settings["psf_sigma_nm"] / self.camera.voxel_x_nm)

    @property
    def aspect(self) -> float:
        """Pixel width over pixel height [1]."""
        return self.camera.voxel_x_nm / self.camera.voxel_y_nm

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Which molecules become rows; all, but for a fit that asks for the neighbours too."""
        kept: npt.NDArray[np.bool_] = self.rois.place[: self.number, 3] != 0
        return kept

    @property
    def shifts(self) -> FloatArray:
        """(number, C, 2) dx, dy [px] of each channel, see `RoiBuffer`."""
        return self.rois.shifts[: self.number]

    def whole_shifts(self, channel: int) -> npt.NDArray[np.float64]:
        """dx, dy [px] from where a molecule is in channel 0 to where it is in another, whose pixels are numbered as those of channel 0."""
        geometry, rois = self.geometry, self.rois
        own = rois.middles[: self.number, channel] - geometry.start[channel]
        moved = own * geometry.sign[channel] - rois.place[: self.number, 1:3]
        return np.asarray(moved[:, ::-1] + rois.shifts[: self.number, channel], np.float64)

    def lanes(self) -> tuple[FloatArray, FloatArray]:
        """`data` and `extra` as the kernels take them, each (C, capacity side²)."""
        return self.rois.data.reshape(self.channels, -1), self.rois.extra.reshape(self.channels, -1)

    def images(self) -> FloatArray:
        """Photo-electrons above the known background, (number, C, side, side); NaN for a pixel that says nothing."""
        data, extra = (self._by_molecule(array) for array in (self.rois.data, self.rois.extra))
        return np.where(extra < UNKNOWN, data - extra, np.float32(np.nan))

    def noise(self) -> FloatArray:
        """Standard deviation of each pixel as it follows from its own reading [e⁻], (number, C, side, side)."""
        data = self._by_molecule(self.rois.data)
        excess = np.float32(self.camera.noise_factor)
        return np.where(data < UNKNOWN, excess * np.sqrt(np.maximum(data, 1)), np.float32(np.nan)).astype(
            np.float32
        )

    def _by_molecule(self, array: FloatArray) -> FloatArray:
        side, channels = self.side, self.channels
        lanes = array.reshape(channels, -1, side, side, LANES)
        molecules = lanes.transpose(1, 4, 0, 2, 3).reshape(-1, channels, side, side)
        return molecules[: self.number]

    def level(self) -> FloatArray:
        """Mean known background of each ROI [ADU], (number, C)."""
        return self.rois.level.reshape(self.channels, -1)[:, : self.number].T

    def empty_rows(self) -> Rows:
        """A row for each molecule, with its frame and the pixels used; `startParams` and errors are NaN until they are filled."""
        rows = np.zeros(self.number, self.dtype)
        names = self.dtype.names or ()
        for name in ("fitResults", "fitError", "startParams"):
            if name in names:
                for column in self.dtype[name].names or ():
                    rows[name][column] = np.nan
        rows["tIndex"] = self.rois.place[: self.number, 0] + self.first_frame
        if "slicesUsed" in names:
            self._fill_slices(rows["slicesUsed"])
        return rows

    def _fill_slices(self, used: Rows) -> None:
        """Axes x and y of channel 0; x2 and y2 of channel 1."""
        for name in used.dtype.names or ():
            axis, channel = name[0], int(name[1:] or 1) - 1
            used[name]["step"] = 1
            if axis == "z":
                used[name]["stop"] = 1
                continue
            k = "yx".index(axis)
            low, high = self.geometry.bounds[channel, 2 * k : 2 * k + 2]
            first = self.rois.middles[: self.number, channel, k] - self.side // 2
            used[name]["start"] = np.maximum(first, low) + self.origin[k]
            used[name]["stop"] = np.minimum(first + self.side, high) + self.origin[k]

    def x_nm(self, x_px: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """From pixels off the middle of channel 0's ROI to nm in the frame."""
        return self._nm(x_px, 2, self.camera.voxel_x_nm)

    def y_nm(self, y_px: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """As `x_nm`, along y."""
        return self._nm(y_px, 1, self.camera.voxel_y_nm)

    def _nm(self, offset_px: npt.ArrayLike, axis: int, pitch_nm: float) -> npt.NDArray[np.float64]:
        middle = self.rois.place[: self.number, axis] + self.origin[axis - 1]
        return np.asarray((middle + np.asarray(offset_px, np.float64)) * pitch_nm, np.float64)
