"""From beads to one PSF: cut, align against the growing mean, average, without background, blurred, the bead's size taken out.

The steps are functions of arrays; `mean_of_beads` and `finished` are what the calibration calls.

References
----------
.. [1] Y. Li et al., Nature Methods 15, 367 (2018), https://doi.org/10.1038/nmeth.4661 (averaging of aligned beads).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter1d

from fitting.calibrated import MeasuredPsf
from fitting.calibration.alignment import Offset, align, coarse_z, noise_variance, straightened
from fitting.calibration.beads import MARGIN_PX, Bead, Stack
from fitting.calibration.spot_widths import fit_spots
from fitting.errors import InvalidFrames

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[str, int, int], None]

_PASSES = 8
_ARRIVED_PX = 0.003
_ARRIVED_NM = 0.5
_LEAVE_ONE_OUT = 3  # from so many beads on, each is aligned to the mean of the others
_IN_COMMON = 0.6  # share of the planes that all beads must have
_MAY_DIFFER = 0.12  # what beads may differ from their mean beyond noise, of its rms ...
_MAY_EXCEED = 3.0  # ... or of the median bead's difference
_LEAST_PLANES = 4
_MAY_SPREAD = 0.1  # brightness of the border over the mean, up to which a plane's light counts as inside
_TOLD_BY = 0.3  # share of the planes that must tell how the light fades
_ROUNDS = 3  # of leaving out beads that do not fit
_NO_SHIFT = 0.1  # planes; costs no plane at the ends


@dataclass(frozen=True)
class MeanBead:
    """The mean of aligned beads.

    Attributes
    ----------
    volume : (c, z, y, x) array
        Mean of the beads, background free; the sum of each channel's sharpest plane is 1.
    first_plane : int
        Which plane of the stacks, of a bead at offset 0, is plane 0 of the volume.
    cuts : (n, c, z, y, x) array
        The beads as cut, all planes, not shifted [ADU].
    offsets : tuple of Offset
        Of each bead.
    beads : tuple of Bead
        Those used.
    dropped : tuple of Bead
        Those that turned out to differ.
    spread : (z, y, x) array
        Standard deviation between the beads, in channel 0, in units of the volume.
    differences : (n,) array
        Rms difference of each bead from the mean beyond noise, over the mean's rms.
    noise : float
        Standard deviation of the mean's noise in a pixel, in units of the volume.
    fading : float
        Share of the light lost from the first plane to the last, as an exponential.
    """

    volume: FloatArray
    first_plane: int
    cuts: FloatArray
    offsets: tuple[Offset, ...]
    beads: tuple[Bead, ...]
    dropped: tuple[Bead, ...]
    spread: FloatArray
    differences: FloatArray
    noise: float
    fading: float


def cut_bead(channels: Sequence[Stack], bead: Bead, half_size: int) -> FloatArray:
    """Cut a bead out of its stack: (c, z, y, x), with `MARGIN_PX` more to each side than will be kept."""
    reach = half_size + MARGIN_PX
    parts = [
        channel[:, y - reach : y + reach + 1, x - reach : x + reach + 1]
        for channel, (y, x) in zip(channels, bead.places, strict=True)
    ]
    return np.stack(parts).astype(np.float64)


def mean_of_beads(
    cuts: FloatArray,
    beads: Sequence[Bead],
    step_nm: float,
    *,
    bleaching: bool = True,
    progress: Progress | None = None,
) -> MeanBead:
    """Align beads, drop those that differ from the others, and average.

    Parameters
    ----------
    cuts : (n, c, z, y, x) array
        Beads as `cut_bead` gives them, brightest first [ADU].
    beads : sequence of Bead
        Which they are.
    step_nm : float
        Distance of planes.
    bleaching : bool
        Take a steady loss of light out of the mean.
    progress : callable, optional
        Hears what is being done, and how many of how many.

    Raises
    ------
    InvalidFrames
        If no planes are common to the beads.
    """
    tell = progress or (lambda *_: None)
    chosen = list(range(len(cuts)))
    reasons = [""] * len(cuts)
    offsets = _aligned(cuts, step_nm, tell)
    for _ in range(_ROUNDS):
        new = _misfits(cuts[chosen], offsets)
        if not any(new):
            break
        for k, reason in zip(chosen, new, strict=True):
            reasons[k] = reason
        chosen = [k for k in chosen if not reasons[k]]
        offsets = _aligned(cuts[chosen], step_nm, tell)
    kept = cuts[chosen]
    offsets = _centred(kept, offsets)
    first, stop = _common_planes(offsets, kept.shape[2])
    inner = slice(MARGIN_PX, -MARGIN_PX)
    straight = np.stack([straightened(cut, offset) for cut, offset in zip(kept, offsets, strict=True)])
    straight = straight[:, :, first:stop, inner, inner]
    mean, level, unit = _normalised(straight.mean(axis=0))
    course = _bleaching(mean)
    unit = unit * course if bleaching else unit
    straight = (straight - level) / unit
    mean = mean / course if bleaching else mean
    return MeanBead(
        volume=mean,
        first_plane=first,
        cuts=kept,
        offsets=tuple(offsets),
        beads=tuple(beads[k] for k in chosen),
        dropped=tuple(replace(beads[k], dropped=reason) for k, reason in enumerate(reasons) if reason),
        spread=straight[:, 0].std(axis=0),
        differences=_differences(straight, mean),
        noise=_noise_of_mean(straight[:, 0], mean[0]),
        fading=1 - float(course[0, -1, 0, 0] / course[0, 0, 0, 0]),
    )


def _aligned(cuts: FloatArray, step_nm: float, tell: Progress) -> list[Offset]:
    """Align the beads to the mean of those aligned so far, then several times to the mean of the others."""
    n, channels = cuts.shape[:2]
    first = replace(Offset.none(channels), background=_borders(cuts[0]))
    offsets = [first]
    total = straightened(cuts[0], first)
    for k in range(1, n):
        tell("aligning", k, n)
        start = replace(
            Offset.none(channels), z=float(coarse_z(total, cuts[k])), background=_borders(cuts[k])
        )
        offsets.append(align(total / k, cuts[k], start, step_nm))
        total = total + straightened(cuts[k], offsets[k])
    for number in range(_PASSES if n > 1 else 0):
        tell("aligning, again", number, _PASSES)
        before = offsets
        offsets = _realigned(cuts, before, step_nm)
        if _change(before, offsets, step_nm) < 1:
            break
    return offsets


def _realigned(cuts: FloatArray, offsets: Sequence[Offset], step_nm: float) -> list[Offset]:
    n = len(cuts)
    straight = [straightened(cut, offset) for cut, offset in zip(cuts, offsets, strict=True)]
    total = np.sum(straight, axis=0)
    result = []
    for k in range(n):
        mean = (total - straight[k]) / (n - 1) if n >= _LEAVE_ONE_OUT else total / n
        result.append(align(mean, cuts[k], offsets[k], step_nm))
    middle = Offset(
        float(np.mean([o.z for o in result])),
        np.mean([o.y for o in result], axis=0),
        np.mean([o.x for o in result], axis=0),
        np.mean([o.scale for o in result], axis=0),
        np.zeros(cuts.shape[1]),
    )
    return [
        replace(o, z=o.z - middle.z, y=o.y - middle.y, x=o.x - middle.x, scale=o.scale / middle.scale)
        for o in result
    ]


def _change(before: Sequence[Offset], after: Sequence[Offset], step_nm: float) -> float:
    """How far beads moved relative to each other, in units of what does not matter."""
    lateral = [np.concatenate([a.y - b.y, a.x - b.x]) for a, b in zip(after, before, strict=True)]
    lateral = list(np.array(lateral) - np.mean(lateral, axis=0))
    axial = np.array([a.z - b.z for a, b in zip(after, before, strict=True)])
    axial -= axial.mean()
    return max(float(np.abs(lateral).max()) / _ARRIVED_PX, float(np.abs(axial).max()) * step_nm / _ARRIVED_NM)


def _borders(cut: FloatArray) -> FloatArray:
    """Background of a bead in each channel: the median along the border, where the bead is sharpest."""
    levels = []
    for volume in cut:
        sharp = _sharpest(volume - np.median(volume))
        levels.append(float(np.median(_border(volume[sharp]))))
    return np.array(levels)


def _border(planes: FloatArray) -> FloatArray:
    rim = np.ones(planes.shape[1:], bool)
    rim[2:-2, 2:-2] = False
    return planes[:, rim]


def _sharpest(volume: FloatArray) -> slice:
    """The third of the planes around the sharpest: light spreads least into the border there."""
    third = max(1, len(volume) // 6)
    middle = sharpest_plane(volume)
    return slice(max(0, middle - third), middle + third + 1)


def sharpest_plane(volume: FloatArray) -> int:
    """The plane in which a (z, y, x) volume's light is most concentrated: its sum of squares is largest."""
    sharpness = gaussian_filter1d((volume**2).sum(axis=(1, 2)), max(1.0, len(volume) / 50))
    return int(np.argmax(sharpness))


def _misfits(cuts: FloatArray, offsets: Sequence[Offset]) -> list[str]:
    """Say of each bead why it does not belong to the others, or nothing."""
    n = len(cuts)
    reasons = _out_of_depth([offset.z for offset in offsets], cuts.shape[2])
    if n < _LEAVE_ONE_OUT:
        return reasons
    inner = slice(MARGIN_PX, -MARGIN_PX)
    straight = np.stack([straightened(c, o) for c, o in zip(cuts, offsets, strict=True)])[..., inner, inner]
    differences = _differences(straight, np.median(straight, axis=0))
    usual = float(np.median(differences))
    for k, offset in enumerate(offsets):
        beside = float(np.abs([offset.y, offset.x]).max())
        if reasons[k]:
            continue
        if beside > MARGIN_PX:
            reasons[k] = f"lopsided: its light lies {beside:.1f} px from its peak"
        elif not (offset.scale > 0).all() or differences[k] > max(_MAY_DIFFER, _MAY_EXCEED * usual):
            reasons[k] = (
                f"unlike the others: differs by {differences[k]:.0%} where the others do by {usual:.0%}"
            )
    return reasons if not all(reasons) else [""] * n


def _out_of_depth(heights: Sequence[float], planes: int) -> list[str]:
    """Drop the farthest in z, one after the other, until those left have most planes in common."""
    reasons = [""] * len(heights)
    left = list(range(len(heights)))
    while len(left) > 1:
        z = [0.0, *(heights[k] for k in left)]
        if planes - (max(z) - min(z)) >= max(_LEAST_PLANES, _IN_COMMON * planes):
            break
        middle = float(np.median(z[1:]))
        farthest = max(left, key=lambda k: (abs(heights[k] - middle), k))
        away = abs(heights[farthest] - middle)
        reasons[farthest] = f"out of depth: {away:.1f} planes from the others in z"
        left.remove(farthest)
    return reasons


def _differences(straight: FloatArray, mean: FloatArray) -> FloatArray:
    """Rms of each bead's difference from the mean, without what noise explains, over the mean's rms."""
    rms = float(np.sqrt((mean[0] ** 2).mean()))
    result = []
    for one in straight:
        left = one[0] - mean[0]
        noise = noise_variance(left)
        excess = float((left**2).mean()) - (noise if np.isfinite(noise) else 0.0)
        result.append(math.sqrt(max(0.0, excess)) / rms)
    return np.array(result)


def _noise_of_mean(straight: FloatArray, mean: FloatArray) -> float:
    """Standard deviation of the mean's noise; of beads together from their differences, which flickering light does not make."""
    n = len(straight)
    if n == 1:
        return math.sqrt(noise_variance(straight[0]))
    left = np.mean([noise_variance(one - mean) for one in straight])
    return math.sqrt(float(left) / (n - 1))  # a difference has the share 1 - 1/n of a bead's noise


def _centred(cuts: FloatArray, offsets: Sequence[Offset]) -> list[Offset]:
    """Put each channel's centre, in its sharpest planes, into the middle pixel; the centre is that of a Gaussian."""
    straight = np.mean([straightened(c, o) for c, o in zip(cuts, offsets, strict=True)], axis=0)
    centre = np.array([_centre(volume) for volume in straight])
    return [replace(o, y=o.y + centre[:, 1], x=o.x + centre[:, 0]) for o in offsets]


def _centre(volume: FloatArray) -> tuple[float, float]:
    """x, y of the light in the sharpest plane, from the middle pixel [px]."""
    planes = volume[_sharpest(volume)]
    half = min(8, volume.shape[1] // 2 - MARGIN_PX)
    middle = volume.shape[1] // 2
    window = slice(middle - half, middle + half + 1)
    spots = fit_spots(planes[:, window, window], photons=2000.0, background_photons=20.0)
    if not spots.good.any():
        return 0.0, 0.0
    return float(np.median(spots.x_px[spots.good])), float(np.median(spots.y_px[spots.good]))


def _common_planes(offsets: Sequence[Offset], planes: int) -> tuple[int, int]:
    """Planes of the mean in which all beads have data."""
    shifts = [offset.z for offset in offsets]
    first = max(0, math.ceil(-min(shifts) - _NO_SHIFT))
    stop = planes - max(0, math.ceil(max(shifts) - _NO_SHIFT))
    if stop - first < _LEAST_PLANES:
        raise InvalidFrames(
            f"the beads have only {max(0, stop - first)} planes in common: they lie at heights too different, or the "
            f"stack, {planes} planes, is too short"
        )
    return first, stop


def _normalised(mean: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Take each channel's background off and make the sum of its sharpest plane 1; also what was taken off, and the unit."""
    level = np.array([float(np.median(_border(volume[_sharpest(volume)]))) for volume in mean])[
        :, np.newaxis, np.newaxis, np.newaxis
    ]
    free = mean - level
    unit = np.array([float(volume[_sharpest(volume)].sum(axis=(1, 2)).mean()) for volume in free])[
        :, np.newaxis, np.newaxis, np.newaxis
    ]
    if not (unit > 0).all():
        raise InvalidFrames("the mean of the beads holds no light above its border")
    return free / unit, level, unit


def _bleaching(volume: FloatArray) -> FloatArray:
    """Light of each plane of each channel, (c, z, 1, 1), as an exponential that is 1 in the sharpest plane.

    From planes whose light is inside: what spreads beyond the border is not lost. Beyond these it is not continued, and where they are few
    there is no telling.
    """
    courses = []
    for one in volume:
        totals = one.sum(axis=(1, 2))
        plane = np.arange(len(totals))
        at_border = _border(one).mean(axis=1) * one[0].size
        told = (totals > 0.2 * max(float(np.median(totals)), 1e-6)) & (at_border < _MAY_SPREAD * totals)
        enough = told.sum() >= max(_LEAST_PLANES, _TOLD_BY * len(totals))
        slope = np.polyfit(plane[told], np.log(totals[told]), 1)[0] if enough else 0.0
        inside = np.clip(plane, *np.flatnonzero(told)[[0, -1]]) if enough else plane
        courses.append(np.exp(slope * (inside - sharpest_plane(one))))
    return np.array(courses)[:, :, np.newaxis, np.newaxis]


def finished(mean: MeanBead, focus_plane: float, options: Mapping[str, Any]) -> MeasuredPsf:
    """Blur the mean, take the bead's size out, and lay the channels side by side.

    Parameters
    ----------
    mean : MeanBead
    focus_plane : float
        Plane of z = 0 in `mean.volume`.
    options : mapping
        Resolved options of the calibration.
    """
    volume = mean.volume
    sigma_z = options["blur_nm"] / options["step_nm"]
    for axis, sigma in ((1, sigma_z), (2, options["blur_px"]), (3, options["blur_px"])):
        if sigma > 0.05:
            volume = gaussian_filter1d(volume, sigma, axis=axis, mode="reflect")
    if options["bead_diameter_nm"] is not None:
        pitch = (options["step_nm"], options["pixel_nm"], options["pixel_nm"])
        volume = np.stack(
            [
                without_bead(one, options["bead_diameter_nm"], pitch, options["regularisation"])
                for one in volume
            ]
        )
    return MeasuredPsf(
        np.concatenate(list(volume), axis=2).astype(np.float32),
        options["pixel_nm"],
        options["step_nm"],
        focus_plane,
        channels=len(volume),
    )


def without_bead(
    volume: FloatArray, diameter_nm: float, pitch_nm: tuple[float, float, float], regularisation: float
) -> FloatArray:
    r"""Take the size of a bead out of its image, by Wiener's filter.

    The image of a ball of radius R is the PSF convolved with it; its transfer function is that of the PSF times

    .. math::

        H(q) = 3 \frac{\sin q - q \cos q}{q^3}, \quad q = 2 \pi R |k|, \qquad
        \text{taken out by} \quad (1 + \varepsilon) \frac{H}{H^2 + \varepsilon}

    whose value at k = 0 is 1: no light is added or lost. Below :math:`H^2 \approx \varepsilon` nothing is gained any more.

    Parameters
    ----------
    volume : (z, y, x) array
    diameter_nm : float
        Of the bead.
    pitch_nm : (float, float, float)
        Pitch of the volume along z, y, x.
    regularisation : float
        :math:`\varepsilon`.
    """
    # continued along z by its point reflection, so that it goes on with the slope it ends with: a kink there would ring
    more = min(math.ceil(2 * diameter_nm / pitch_nm[0]) + 2, len(volume) - 1)
    longer = np.pad(volume, ((more, more), (0, 0), (0, 0)), mode="reflect", reflect_type="odd")
    # a symmetric kernel, on a volume continued by its mirror image, is a product in the cosine transform
    squares = [(np.arange(n) / (2 * n * pitch)) ** 2 for n, pitch in zip(longer.shape, pitch_nm, strict=True)]
    k = np.sqrt(squares[0][:, np.newaxis, np.newaxis] + squares[1][:, np.newaxis] + squares[2])
    q = np.maximum(np.pi * diameter_nm * k, 1e-3)
    h = 3 * (np.sin(q) - q * np.cos(q)) / q**3
    gain = (1 + regularisation) * h / (h**2 + regularisation)
    result: FloatArray = idctn(dctn(longer, type=2) * gain, type=2)[more:-more]
    return result
