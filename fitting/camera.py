r"""What the camera did to the photons: from ADU to photo-electrons, and how noisy a pixel is.

A reading is :math:`(\text{ADU} - \text{dark}) \cdot \text{flat}`, times electrons per ADU, divided by the EM gain: photo-electrons.
Its standard deviation [ADU], as PYME has it (the last term is one photo-electron of regularisation):

.. math::

    \sigma = \sqrt{v + F^2 \, (c \, G \max(D, 1) + G^2)} \, / \, c

with v read-noise variance [e⁻²], c electrons per ADU, G EM gain, F excess noise factor [1]_ and D the corrected reading [ADU].

References
----------
.. [1] M. S. Robbins and B. J. Hadwen, IEEE Trans. Electron Devices 50, 1227 (2003), https://doi.org/10.1109/TED.2003.813462.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fitting.errors import InvalidSettings
from fitting.geometry import map_start
from fitting.requirements import check_metadata

FloatMap = npt.NDArray[np.float32]
_MAPS = ("dark_map", "variance_map", "flatfield_map")
_DEAD = 1e12  # a map marks a dead pixel by a variance without bound [e⁻²]


class PixelLaw(NamedTuple):
    """The camera as the kernels see it; an array of one row holds for every row of the frame.

    dark [ADU], flat [1]; detection noise [ADU²] = floor + slope max(D, 1); variance [e⁻²] of a fit, in photo-electrons;
    photons = D scale [e⁻/ADU]; a raw reading of `full` ADU or more is saturated.
    """

    dark: Any
    flat: Any
    floor: Any
    slope: Any
    variance: Any
    scale: Any
    full: Any


@dataclass(frozen=True)
class Camera:
    """The camera of a series, cropped to the frame.

    Attributes
    ----------
    voxel_x_nm, voxel_y_nm : float
        Pixel size in the sample [nm].
    offset_adu : float or (h, w) float32 array
        Reading of a dark pixel [ADU].
    electrons_per_adu : float
        Electrons after the EM register for each ADU.
    em_gain, noise_factor : float
        Gain of the EM register and its excess noise factor, 1 without one.
    read_noise_e : float
        Read noise of the camera [e⁻], used where there is no map.
    variance_e2 : float or (h, w) float32 array
        Read-noise variance [e⁻²].
    flatfield : float or (h, w) float32 array
        Factor that evens out the pixels' gain [1].
    saturation_adu : float
        Reading from which a pixel is saturated; infinite where unknown [ADU].
    """

    voxel_x_nm: float
    voxel_y_nm: float
    offset_adu: float | FloatMap
    electrons_per_adu: float
    em_gain: float
    noise_factor: float
    read_noise_e: float
    variance_e2: float | FloatMap
    flatfield: float | FloatMap
    saturation_adu: float = np.inf

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, object], settings: Mapping[str, object], shape: tuple[int, int]
    ) -> Camera:
        """Read the camera of frames of `shape` (h, w) from metadata and settings.

        Raises
        ------
        InvalidMetadata
            If a required key is missing or out of range.
        InvalidSettings
            If a map is not an image that covers the frame.
        """
        check_metadata(settings, metadata)
        dark, variance, flat = (_cropped(name, settings.get(name), metadata, shape) for name in _MAPS)
        gain = _number(metadata, "Camera.TrueEMGain", 1.0)
        read_noise = _number(metadata, "Camera.ReadNoise", 0.0)
        return cls(
            voxel_x_nm=1000 * _number(metadata, "voxelsize.x", np.nan),
            voxel_y_nm=1000 * _number(metadata, "voxelsize.y", np.nan),
            offset_adu=_number(metadata, "Camera.ADOffset", 0.0) if dark is None else dark,
            electrons_per_adu=_number(metadata, "Camera.ElectronsPerCount", np.nan),
            em_gain=gain,
            noise_factor=_number(metadata, "Camera.NoiseFactor", np.sqrt(2.0) if gain > 1 else 1.0),
            read_noise_e=read_noise,
            variance_e2=read_noise**2 if variance is None else _live(variance),
            flatfield=1.0 if flat is None else flat,
            saturation_adu=_full_scale(metadata),
        )

    @property
    def photons_per_adu(self) -> float:
        """Photo-electrons for each ADU."""
        return self.electrons_per_adu / self.em_gain

    def part(self, x0: int, y0: int, x1: int, y1: int) -> Camera:
        """The camera of a part of the frame."""
        cut = {
            name: value[y0:y1, x0:x1]
            for name in ("offset_adu", "variance_e2", "flatfield")
            if isinstance(value := getattr(self, name), np.ndarray)
        }
        return Camera(**(self.__dict__ | cut))

    def pixel_law(self, lowpass_sigma_px: float, full_adu: float, shape: tuple[int, int]) -> PixelLaw:
        """Arrange the camera for the kernels.

        Detection compares the band-passed frame with a pixel's noise. Where the variance differs between pixels, what
        matters is the variance that the smoothing filter lets through: the map is filtered with the square of that filter.

        Parameters
        ----------
        lowpass_sigma_px : float
            Width of the smoothing filter [px].
        full_adu : float
            Full scale of the frames' type, an upper bound of saturation.
        shape : (int, int)
            Height and width of the frames [px].
        """
        flat, variance = _rows(self.flatfield, shape), _rows(self.variance_e2, shape)
        excess = self.noise_factor**2
        passed = variance * flat**2
        if passed.shape[0] > 1:
            from scipy.ndimage import gaussian_filter  # slow to load, and few cameras have maps

            passed = gaussian_filter(np.minimum(passed, _DEAD), lowpass_sigma_px / np.sqrt(2.0))
        return PixelLaw(
            dark=_rows(self.offset_adu, shape),
            flat=flat,
            floor=_rows((passed + excess * self.em_gain**2) / self.electrons_per_adu**2, shape),
            slope=np.float32(excess * self.em_gain / self.electrons_per_adu),
            variance=_rows(variance * flat**2 / (excess * self.em_gain**2), shape),
            scale=np.float32(self.photons_per_adu),
            full=np.float32(min(self.saturation_adu, full_adu)),
        )


def _rows(value: float | FloatMap, shape: tuple[int, int]) -> FloatMap:
    """A map as it is; a number, or a row that holds for all, as one row of the frame's width."""
    array = np.atleast_2d(np.asarray(value, np.float32))
    return np.array(np.broadcast_to(array, (array.shape[0], shape[1])), order="C")


def _number(metadata: Mapping[str, object], key: str, default: float) -> float:
    value = metadata.get(key)
    return default if value is None else float(value)  # type: ignore[arg-type]


def _live(variance: FloatMap) -> FloatMap:
    bad = ~np.isfinite(variance) | (variance < 0)
    return np.where(bad, np.float32(np.inf), variance).astype(np.float32)


def _full_scale(metadata: Mapping[str, object]) -> float:
    bits = metadata.get("Camera.BitDepth")
    return float(2 ** int(bits) - 1) if isinstance(bits, int | float) and 1 <= bits <= 32 else np.inf


def _cropped(
    name: str, value: object, metadata: Mapping[str, object], shape: tuple[int, int]
) -> FloatMap | None:
    """The part of a full-sensor map that the frame shows; a map of the frame's own shape is taken as it is."""
    if value is None:
        return None
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "uif":
        raise InvalidSettings(name, "must be a two-dimensional array of numbers when frames are localised")
    y, x = map_start(name, value.shape, shape, metadata)
    return value[y : y + shape[0], x : x + shape[1]].astype(np.float32)
