"""The workload that every comparison uses: frames and ROIs with known truth, and the bound on their precision.

256 × 256 px of 100 nm, 20 molecules in each frame, 1000 photons each, 20 background photons/px, a pixel-integrated
Gaussian of sigma 1.3 px, ADU = 100 + photons / 0.5, no read noise. Molecules of different frames have nothing to do
with each other, and none sits nearer than 6 px to the frame's edge, because most programs leave out a border.

Independent of `fitting.simulate` on purpose: a slip there must not hide here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf

FloatArray = npt.NDArray[np.float64]

PIXEL_NM = 100.0
OFFSET_ADU = 100.0
ELECTRONS_PER_ADU = 0.5
_REACH_PX = 8  # six sigmas: what lies beyond is less than a photon in a million


@dataclass(frozen=True)
class Workload:
    """What to simulate.

    Attributes
    ----------
    frames, size_px : int
        Number of frames and their side.
    photons, background : float
        Photons of a molecule, background photons of a pixel.
    sigma_px : float
        Width of the PSF.
    emitters_per_256 : float
        Molecules for each 256 × 256 px of a frame; a frame gets that density, whatever its size.
    border_px : float
        Least distance of a molecule from the outermost pixel centres.
    seed : int
        Source of all chance.
    """

    frames: int = 500
    size_px: int = 256
    photons: float = 1000.0
    background: float = 20.0
    sigma_px: float = 1.3
    emitters_per_256: float = 20.0
    border_px: float = 6.0
    seed: int = 20261123

    @property
    def emitters(self) -> int:
        """Molecules in each frame."""
        return max(1, round(self.emitters_per_256 * (self.size_px / 256) ** 2))

    @property
    def metadata(self) -> dict[str, object]:
        """What a microscope would have written."""
        return {
            "voxelsize.x": PIXEL_NM / 1000,
            "voxelsize.y": PIXEL_NM / 1000,
            "Camera.ADOffset": OFFSET_ADU,
            "Camera.ElectronsPerCount": ELECTRONS_PER_ADU,
            "Camera.TrueEMGain": 1.0,
            "Camera.NoiseFactor": 1.0,
            "Camera.ReadNoise": 0.0,
        }


def series(work: Workload) -> tuple[npt.NDArray[np.uint16], dict[str, npt.NDArray[Any]]]:
    """Make all frames.

    Returns
    -------
    frames : (n, h, w) uint16 array
        Camera frames [ADU].
    truth : dict
        Columns ``frame``, ``x_nm``, ``y_nm``.
    """
    rng = np.random.default_rng(work.seed)
    position = rng.uniform(work.border_px, work.size_px - 1 - work.border_px, (work.frames, work.emitters, 2))
    frames = np.empty((work.frames, work.size_px, work.size_px), np.uint16)
    for image, xy in zip(frames, position, strict=True):
        photons = rng.poisson(_expected_frame(work, xy))
        image[:] = np.rint(OFFSET_ADU + photons / ELECTRONS_PER_ADU).clip(0, 65535)
    truth = {
        "frame": np.repeat(np.arange(work.frames), work.emitters),
        "x_nm": position[..., 0].ravel() * PIXEL_NM,
        "y_nm": position[..., 1].ravel() * PIXEL_NM,
    }
    return frames, truth


def rois(work: Workload, count: int, side: int) -> tuple[npt.NDArray[np.float32], FloatArray]:
    """Make ROIs with one molecule each, somewhere in the middle pixel.

    Returns
    -------
    rois : (k, s, s) float32 array
        Photons.
    truth : (k, 2) array
        x and y [px]; pixel [0, 0] has its centre at 0.
    """
    rng = np.random.default_rng((work.seed, side))
    truth = (side - 1) / 2 + rng.uniform(-0.5, 0.5, (count, 2))
    images = np.empty((count, side, side), np.float32)
    for part in range(0, count, 4096):
        chosen = slice(part, part + 4096)
        images[chosen] = rng.poisson(_expected_rois(work, truth[chosen], side))
    return images, truth


def crlb_px(work: Workload, side: int, phases: int = 8) -> float:
    """Bound on the standard error of a position [px], for x, y, photons, background and sigma all unknown.

    The root mean square over the molecule's place in the middle pixel.

    References
    ----------
    C. S. Smith et al., Nature Methods 7, 373 (2010), eq. 9. https://doi.org/10.1038/nmeth.1449
    """
    place = (side - 1) / 2 + (np.arange(phases) + 0.5) / phases - 0.5
    x, y = (axis.ravel() for axis in np.meshgrid(place, place))
    gradient = _gradient(work, np.stack([x, y], axis=1), side)
    expected = _expected_rois(work, np.stack([x, y], axis=1), side).reshape(len(x), -1)
    fisher = np.einsum("kpi,kqi,ki->kpq", gradient, gradient, 1 / expected)
    variance = np.linalg.inv(fisher)[:, 0, 0]
    return float(np.sqrt(variance.mean()))


def _expected_frame(work: Workload, xy: FloatArray) -> FloatArray:
    expected = np.full((work.size_px, work.size_px), work.background)
    for x, y in xy:
        left, top = (max(0, round(float(centre)) - _REACH_PX) for centre in (x, y))
        columns, lines = (
            np.arange(first, min(work.size_px, first + 2 * _REACH_PX + 1)) for first in (left, top)
        )
        spot = np.outer(_share(lines - y, work.sigma_px), _share(columns - x, work.sigma_px))
        expected[lines[0] : lines[-1] + 1, columns[0] : columns[-1] + 1] += work.photons * spot
    return expected


def _expected_rois(work: Workload, xy: FloatArray, side: int) -> FloatArray:
    along_x, along_y = (_share(np.arange(side) - xy[:, [axis]], work.sigma_px) for axis in (0, 1))
    spot: FloatArray = along_y[:, :, np.newaxis] * along_x[:, np.newaxis, :]
    return work.background + work.photons * spot


def _gradient(work: Workload, xy: FloatArray, side: int) -> FloatArray:
    """Derivatives of the expected photons by x, y, photons, background, sigma: (k, 5, s²), by central differences."""
    step = 1e-4

    def at(dx: float = 0, dy: float = 0, ds: float = 0) -> FloatArray:
        moved = xy + np.array((dx, dy))
        along_x, along_y = (_share(np.arange(side) - moved[:, [axis]], work.sigma_px + ds) for axis in (0, 1))
        return (along_y[:, :, np.newaxis] * along_x[:, np.newaxis, :]).reshape(len(xy), -1)

    slopes = [
        work.photons * (at(dx=step) - at(dx=-step)) / (2 * step),
        work.photons * (at(dy=step) - at(dy=-step)) / (2 * step),
        at(),
        np.ones((len(xy), side * side)),
        work.photons * (at(ds=step) - at(ds=-step)) / (2 * step),
    ]
    return np.stack(slopes, axis=1)


def _share(u: FloatArray, sigma: float) -> FloatArray:
    """Fraction of a unit 1-D Gaussian that falls on a pixel whose centre is `u` away."""
    scale = 1 / (np.sqrt(2) * sigma)
    inside: FloatArray = 0.5 * (erf((u + 0.5) * scale) - erf((u - 0.5) * scale))
    return inside
