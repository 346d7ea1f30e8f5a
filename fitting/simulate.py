"""Simulated series with known truth.

Molecules sit on a structure, blink, and are imaged through a pixel-integrated Gaussian PSF onto a camera: Poisson
photons, EM gain, read noise, maps, quantisation, saturation. Everything follows from the `Simulation` alone, so any
range of frames can be made at any time and comes out the same: frame f has its own generator, seeded by (seed, f).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
from scipy.special import erf
from scipy.stats import poisson

from fitting import blinking
from fitting.errors import InvalidSettings
from fitting.structures import Structure, place

TRUTH_DTYPE = np.dtype(
    [("frame", "<i4"), ("x_nm", "<f8"), ("y_nm", "<f8"), ("photons", "<f8"), ("molecule", "<i4")]
)

_MOLECULES, _MAPS, _FRAMES = range(3)  # what a generator is for
_PSF_REACH = 5.0  # sigmas, beyond which a molecule adds less than 1e-6 of its photons
_ALIAS_BITS = 10
_ALIAS_LIMIT = 600.0  # above this mean the table does not reach far enough into the tail

FloatArray = npt.NDArray[np.float64]
Truth = npt.NDArray[np.void]


@dataclass(frozen=True)
class Simulation:
    """A series to simulate.

    Attributes
    ----------
    frames, height_px, width_px : int
        Size of the series.
    pixel_nm, sigma_px : float
        Size of a pixel [nm], width of the PSF [px].
    photons : float
        Mean photons of a molecule in a frame.
    photon_spread : float
        Standard deviation of that over its mean (a gamma distribution; 1: exponential; 0: all the same).
    background_photons : float
        Mean background [e⁻/px].
    emitters_per_frame : float
        Mean number of molecules that shine in a frame.
    structure : {"filaments", "rings", "grid", "uniform"}
        What the molecules sit on.
    on_frames, off_frames : float
        Mean length of a molecule's bright and dark times [frames]; `off_frames` 0: always bright.
    drift_nm_per_frame : (float, float)
        Drift of the sample, x and y.
    dark_frames : int
        Frames at the start before the laser is on.
    offset_adu, electrons_per_adu, read_noise_e : float
        The camera: reading in the dark, e⁻ per ADU (after EM gain), read noise [e⁻ rms].
    em_gain : float
        Gain of the EM register, 1 for none.
    sensor_maps : bool
        Give every pixel its own offset, variance and gain, as an sCMOS camera's.
    bit_depth : int
        The camera saturates at ``2**bit_depth - 1`` ADU.
    seed : int
        Source of all chance.

    Raises
    ------
    InvalidSettings
        If a value is out of range; `field` names it.
    """

    frames: int = 1000
    height_px: int = 256
    width_px: int = 256
    pixel_nm: float = 100.0
    sigma_px: float = 1.3
    photons: float = 1000.0
    photon_spread: float = 0.0
    background_photons: float = 20.0
    emitters_per_frame: float = 20.0
    structure: Structure = "filaments"
    on_frames: float = 3.0
    off_frames: float = 1000.0
    drift_nm_per_frame: tuple[float, float] = (0.0, 0.0)
    dark_frames: int = 0
    offset_adu: float = 100.0
    electrons_per_adu: float = 0.5
    read_noise_e: float = 1.6
    em_gain: float = 1.0
    sensor_maps: bool = False
    bit_depth: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.structure not in get_args(Structure):
            raise InvalidSettings(
                "structure", f"must be one of {', '.join(get_args(Structure))}, not {self.structure!r}"
            )
        for name, (minimum, maximum) in _RANGES.items():
            if not minimum <= getattr(self, name) <= maximum:
                raise InvalidSettings(name, f"{getattr(self, name)} is not from {minimum:g} to {maximum:g}")
        for name in _WHOLE:
            if not isinstance(getattr(self, name), int):
                raise InvalidSettings(name, f"must be a whole number, not {getattr(self, name)!r}")
        if not all(map(math.isfinite, self.drift_nm_per_frame)):
            raise InvalidSettings("drift_nm_per_frame", f"{self.drift_nm_per_frame} is not finite")

    @property
    def noise_factor(self) -> float:
        """Excess noise of the EM register: √2, or 1 without one."""
        return math.sqrt(2) if self.em_gain > 1 else 1.0


_RANGES: dict[str, tuple[float, float]] = {
    "frames": (1, 10_000_000),
    "height_px": (1, 16_384),
    "width_px": (1, 16_384),
    "pixel_nm": (1, 10_000),
    "sigma_px": (0.1, 50),
    "photons": (0, 1e7),
    "photon_spread": (0, 10),
    "background_photons": (0, 1e6),
    "emitters_per_frame": (0, 1e5),
    "on_frames": (1, 1e6),
    "off_frames": (0, 1e6),
    "dark_frames": (0, 1_000_000),
    "offset_adu": (0, 60_000),
    "electrons_per_adu": (1e-3, 1e3),
    "read_noise_e": (0, 1000),
    "em_gain": (1, 2000),
    "bit_depth": (1, 16),
    "seed": (0, 2**63 - 1),
}
_WHOLE = ("frames", "height_px", "width_px", "dark_frames", "bit_depth", "seed")


def metadata(sim: Simulation) -> dict[str, object]:
    """Give the metadata that a microscope would have written, by PYME's keys."""
    keys: dict[str, object] = {
        "voxelsize.x": sim.pixel_nm / 1000,
        "voxelsize.y": sim.pixel_nm / 1000,
        "voxelsize.units": "um",
        "Camera.Name": "simulated",
        "Camera.ADOffset": sim.offset_adu,
        "Camera.ElectronsPerCount": sim.electrons_per_adu,
        "Camera.TrueEMGain": sim.em_gain,
        "Camera.NoiseFactor": sim.noise_factor,
        "Camera.ReadNoise": sim.read_noise_e,
        "Camera.ROIOriginX": 0,
        "Camera.ROIOriginY": 0,
        "Camera.ROIWidth": sim.width_px,
        "Camera.ROIHeight": sim.height_px,
        "Camera.CycleTime": 0.05,
        "Simulation.Seed": sim.seed,
        "Simulation.Structure": sim.structure,
        "Simulation.Photons": sim.photons,
        "Simulation.BackgroundPhotons": sim.background_photons,
        "Simulation.PSFSigma": sim.sigma_px * sim.pixel_nm,
    }
    if sim.dark_frames:
        keys["EstimatedLaserOnFrameNo"] = sim.dark_frames
        keys["Protocol.DarkFrameRange"] = [0, sim.dark_frames]
    return keys


@functools.lru_cache(maxsize=4)
def sensor_maps(sim: Simulation) -> dict[str, npt.NDArray[np.float32]]:
    """Give the camera's maps, under the names of the settings that take them; none for a uniform camera.

    Returns
    -------
    dict
        ``variance_map`` [e⁻²], ``dark_map`` [ADU] and ``flatfield_map`` [1], (h, w) each.
    """
    if not sim.sensor_maps:
        return {}
    rng = _generator(sim, _MAPS)
    shape = (sim.height_px, sim.width_px)
    spread = np.exp(rng.normal(0.0, 0.5, shape))
    hot = np.where(rng.random(shape) < 0.002, rng.uniform(10, 400, shape), 1.0)
    maps = {
        "variance_map": sim.read_noise_e**2 * spread * hot,
        "dark_map": sim.offset_adu + rng.normal(0.0, 2.0, shape),
        "flatfield_map": 1 + rng.normal(0.0, 0.02, shape).clip(-0.1, 0.1),
    }
    return {name: values.astype(np.float32) for name, values in maps.items()}


@functools.lru_cache(maxsize=2)
def truth(sim: Simulation) -> Truth:
    """Give every molecule in every frame in which it shines.

    Returns
    -------
    truth : structured array
        ``frame``, ``x_nm``, ``y_nm`` (the centre of pixel [0, 0] is the origin; drift included), ``photons``,
        ``molecule``; ordered by frame, then molecule; read-only, for it is kept.
    """
    rng = _generator(sim, _MOLECULES)
    count = _molecules(sim)
    field_nm = (sim.height_px * sim.pixel_nm, sim.width_px * sim.pixel_nm)
    positions = place(sim.structure, count, field_nm, rng) - sim.pixel_nm / 2
    frame, molecule = _bright_frames(sim, count, rng)
    rows = np.empty(len(frame), TRUTH_DTYPE)
    rows["frame"], rows["molecule"] = frame, molecule
    for axis, name in enumerate(("x_nm", "y_nm")):
        rows[name] = positions[molecule, axis] + frame * sim.drift_nm_per_frame[axis]
    rows["photons"] = _photons(sim, len(rows), rng)
    rows = rows[_in_field(sim, rows)]
    rows.flags.writeable = False
    return rows


def frames(sim: Simulation, start: int = 0, stop: int | None = None) -> npt.NDArray[np.uint16]:
    """Make a range of frames.

    Parameters
    ----------
    sim : Simulation
        What to simulate.
    start, stop : int
        First frame, frame after the last; all frames by default.

    Returns
    -------
    frames : (n, h, w) uint16 array
        Raw camera frames [ADU].

    Raises
    ------
    InvalidSettings
        If the range is not inside the series.
    """
    stop = sim.frames if stop is None else stop
    if not 0 <= start <= stop <= sim.frames:
        raise InvalidSettings("frames", f"{start} to {stop} is not inside the series of {sim.frames} frames")
    rows = truth(sim)
    edges = np.searchsorted(rows["frame"], np.arange(start, stop + 1))
    series = np.empty((stop - start, sim.height_px, sim.width_px), np.uint16)
    for image, frame, first, last in zip(series, range(start, stop), edges[:-1], edges[1:], strict=True):
        image[:] = _frame(sim, frame, rows[first:last])
    return series


def _generator(sim: Simulation, purpose: int, frame: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64((sim.seed, purpose, frame)))


def _molecules(sim: Simulation) -> int:
    cycle = 1 + sim.off_frames / sim.on_frames
    return math.ceil(sim.emitters_per_frame * cycle)


def _bright_frames(
    sim: Simulation, count: int, rng: np.random.Generator
) -> tuple[blinking.Frames, blinking.Frames]:
    lit = sim.frames - sim.dark_frames
    frame, molecule = blinking.bright_frames(count, lit, sim.on_frames, sim.off_frames, rng)
    return frame + sim.dark_frames, molecule


def _photons(sim: Simulation, count: int, rng: np.random.Generator) -> FloatArray:
    if sim.photon_spread == 0:
        return np.full(count, sim.photons)
    shape = sim.photon_spread**-2
    return rng.gamma(shape, sim.photons / shape, count)


def _in_field(sim: Simulation, rows: Truth) -> npt.NDArray[np.bool_]:
    x_px, y_px = rows["x_nm"] / sim.pixel_nm + 0.5, rows["y_nm"] / sim.pixel_nm + 0.5
    inside: npt.NDArray[np.bool_] = (x_px >= 0) & (x_px < sim.width_px) & (y_px >= 0) & (y_px < sim.height_px)
    return inside


def _frame(sim: Simulation, frame: int, rows: Truth) -> npt.NDArray[np.uint16]:
    rng = _generator(sim, _FRAMES, frame)
    electrons = _background(sim, rng) if frame >= sim.dark_frames else np.zeros(_pixels(sim), np.int64)
    if len(rows):
        _add_molecules(sim, electrons, rows, rng)
    return _read_out(sim, electrons.reshape(sim.height_px, sim.width_px), rng)


def _pixels(sim: Simulation) -> int:
    return sim.height_px * sim.width_px


def _background(sim: Simulation, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Poisson numbers of one mean for all pixels, from a table: five times as fast as asking for them one by one."""
    if sim.background_photons > _ALIAS_LIMIT:
        return rng.poisson(sim.background_photons, _pixels(sim))
    threshold, alias = _alias_table(sim.background_photons)
    draw = rng.integers(0, 2**32, _pixels(sim), dtype=np.uint32)
    column = (draw & ((1 << _ALIAS_BITS) - 1)).astype(np.intp)
    return np.where(draw >> _ALIAS_BITS < threshold[column], column, alias[column])


@functools.lru_cache(maxsize=8)
def _alias_table(mean: float) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Walker's alias table of the Poisson distribution.

    References
    ----------
    A. J. Walker, ACM Trans. Math. Softw. 3, 253 (1977). https://doi.org/10.1145/355744.355749
    """
    size = 1 << _ALIAS_BITS
    weight = poisson.pmf(np.arange(size), mean)
    weight *= size / weight.sum()
    alias = np.arange(size)
    small, large = (list(np.flatnonzero(chosen)) for chosen in (weight < 1, weight >= 1))
    while small and large:
        low, high = small.pop(), large[-1]
        alias[low] = high
        weight[high] -= 1 - weight[low]
        if weight[high] < 1:
            small.append(large.pop())
    scaled = np.rint(weight.clip(0, 1) * 2.0 ** (32 - _ALIAS_BITS))
    return scaled.astype(np.uint32), alias


def _add_molecules(
    sim: Simulation, electrons: npt.NDArray[np.int64], rows: Truth, rng: np.random.Generator
) -> None:
    """Add the photons of molecules, drawn only where they fall: a sum of Poisson numbers is a Poisson number."""
    x_px, y_px = rows["x_nm"] / sim.pixel_nm, rows["y_nm"] / sim.pixel_nm
    reach = math.ceil(_PSF_REACH * sim.sigma_px) + 1
    near = np.arange(-reach, reach + 1)
    columns = np.rint(x_px).astype(np.int64)[:, np.newaxis] + near
    lines = np.rint(y_px).astype(np.int64)[:, np.newaxis] + near
    share_x = _share(columns - x_px[:, np.newaxis], sim.sigma_px) * (
        (columns >= 0) & (columns < sim.width_px)
    )
    share_y = _share(lines - y_px[:, np.newaxis], sim.sigma_px) * ((lines >= 0) & (lines < sim.height_px))
    expected = (
        rows["photons"][:, np.newaxis, np.newaxis] * share_y[:, :, np.newaxis] * share_x[:, np.newaxis, :]
    )
    arrived = rng.poisson(expected)
    hit = np.nonzero(arrived)
    pixel = lines[hit[0], hit[1]] * sim.width_px + columns[hit[0], hit[2]]
    np.add.at(electrons, pixel, arrived[hit])


def _share(u: FloatArray, sigma: float) -> FloatArray:
    """Fraction of a unit 1-D Gaussian that falls on a pixel centred `u` away."""
    s = math.sqrt(2) * sigma
    share: FloatArray = 0.5 * (erf((u + 0.5) / s) - erf((u - 0.5) / s))
    return share


def _read_out(
    sim: Simulation, electrons: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.uint16]:
    charge = electrons.astype(np.float32)
    if sim.em_gain > 1:
        charge = rng.standard_gamma(charge).astype(np.float32) * np.float32(sim.em_gain)
    maps = sensor_maps(sim)
    read_noise = np.sqrt(maps["variance_map"]) if maps else np.float32(sim.read_noise_e)
    noise = rng.standard_normal(charge.shape, dtype=np.float32)
    charge += noise * read_noise
    adu = charge / np.float32(sim.electrons_per_adu)
    adu = adu / maps["flatfield_map"] + maps["dark_map"] if maps else adu + np.float32(sim.offset_adu)
    counts: npt.NDArray[np.uint16] = np.rint(adu).clip(0, 2**sim.bit_depth - 1).astype(np.uint16)
    return counts
