"""What a measured PSF is worth: numbers, and sentences that a person can act on.

`crlb_against_z` holds for any measured PSF; the rest judges a calibration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import spline_filter1d

from fitting.calibrated import MeasuredPsf, SigmaCurves
from fitting.calibration.beads import Bead, tally
from fitting.calibration.measure_psf import MeanBead, sharpest_plane
from fitting.calibration.width_curves import WidthFit, WidthPoints, defocus_parameters, monotonic_range_nm

FloatArray = npt.NDArray[np.float64]
Level = Literal["good", "note", "warning"]

_FEW_BEADS = 3
_LARGE_DIFFERENCE = 0.08
_LOW_SIGNAL = 30.0
_LARGE_TILT = 60.0  # nm per µm
_LARGE_FADING = 0.2
_SHORT_RANGE_NM = 400.0
_LARGE_ASYMMETRY = 0.15
_WAVELENGTH_NM = 600.0
_INDEX = 1.4
_PLAUSIBLE_DEPTH = (0.2, 2.0)  # of a Gaussian beam's of the same width


@dataclass(frozen=True)
class Finding:
    """One thing to know about the PSF: how serious, and a sentence."""

    level: Level
    text: str


@dataclass(frozen=True)
class Precision:
    """The least standard error of each coordinate against z, of a molecule of given photons (Cramér-Rao bound) [nm]."""

    at_z_nm: FloatArray
    x_nm: FloatArray
    y_nm: FloatArray
    z_nm: FloatArray
    photons: float
    background_photons: float


@dataclass(frozen=True)
class Quality:
    """Numbers behind the findings; NaN where there is none.

    Attributes
    ----------
    beads_found, beads_used : int
    difference : float
        Rms difference of a bead from the mean beyond noise, over the mean's rms; the median bead.
    signal_to_noise : float
        Highest pixel of the mean over its noise.
    tilt_x, tilt_y : float
        By how much the light moves sideways along z [nm/µm].
    fading : float
        Share of the light lost from the first plane to the last.
    z_range_nm : (float, float)
        Ends of the PSF, from the focus.
    fitted_range_nm : (float, float)
        Where the widths tell z; NaN where not astigmatic.
    asymmetry : float
        Difference of widths above and below the focus, over their mean.
    depth_over_expected : float
        Depth of focus over that of a Gaussian beam as wide; far from 1 if the step or the pixel size is wrong.
    width_in_focus_nm : (float, float)
        sigma_x, sigma_y at z = 0.
    """

    beads_found: int
    beads_used: int
    difference: float
    signal_to_noise: float
    tilt_x: float
    tilt_y: float
    fading: float
    z_range_nm: tuple[float, float]
    fitted_range_nm: tuple[float, float]
    asymmetry: float
    depth_over_expected: float
    width_in_focus_nm: tuple[float, float]


def crlb_against_z(psf: MeasuredPsf, photons: float, background_photons: float, half_size: int) -> Precision:
    r"""Least errors of x, y and z that an unbiased fit of x, y, z and each channel's photons and background can reach.

    .. math::

        I_{pq} = \sum_i \frac{1}{\mu_i} \frac{\partial \mu_i}{\partial \theta_p} \frac{\partial \mu_i}{\partial \theta_q}

    with the derivatives of the cubic B-spline through the PSF at its samples. Noise left in the PSF counts as detail: the bound then is
    too low.

    Parameters
    ----------
    psf : MeasuredPsf
    photons : float
        Of a molecule in focus, in each channel [e⁻].
    background_photons : float
        [e⁻/px]
    half_size : int
        The region of the fit has side 2h+1, around the middle of each channel.

    References
    ----------
    .. [1] R. J. Ober et al., Biophys. J. 86, 1185 (2004), https://doi.org/10.1016/S0006-3495(04)74193-4.
    """
    channels = np.split(psf.volume.astype(np.float64), psf.channels, axis=2)
    middle_y, middle_x = channels[0].shape[1] // 2, channels[0].shape[2] // 2
    half = min(half_size, middle_y - 1, middle_x - 1)
    window = (slice(middle_y - half, middle_y + half + 1), slice(middle_x - half, middle_x + half + 1))
    planes = len(psf.volume)
    size = 3 + 2 * psf.channels
    fisher = np.zeros((planes, size, size))
    for c, volume in enumerate(channels):
        sharp = volume[sharpest_plane(volume)]
        unit = photons / max(float(sharp.sum()), 1e-3 * float(np.abs(sharp).sum()), 1e-100)
        pitch = (psf.step_nm, psf.pixel_nm, psf.pixel_nm)
        gradients = [unit * _slope(volume, axis)[(slice(None), *window)] / pitch[axis] for axis in (2, 1, 0)]
        light = unit * volume[(slice(None), *window)]
        mu = np.maximum(light, 0) + background_photons
        columns = np.stack([*gradients, light / photons, np.ones_like(light)], axis=1)
        flat = columns.reshape(planes, 5, -1)
        part = (flat / mu.reshape(planes, 1, -1)) @ flat.transpose(0, 2, 1)
        index = [0, 1, 2, 3 + 2 * c, 4 + 2 * c]
        fisher[np.ix_(range(planes), index, index)] += part
    errors = np.sqrt(_inverse_diagonal(fisher))
    z: FloatArray = (np.arange(planes, dtype=np.float64) - psf.focus_plane) * psf.step_nm
    return Precision(z, errors[:, 0], errors[:, 1], errors[:, 2], photons, background_photons)


def _slope(volume: FloatArray, axis: int) -> FloatArray:
    """Derivative along an axis of the cubic B-spline through the samples, at the samples."""
    coefficients = np.moveaxis(spline_filter1d(volume, 3, axis=axis, mode="mirror"), axis, 0)
    mirrored = np.concatenate([coefficients[1:2], coefficients, coefficients[-2:-1]])
    slope = (mirrored[2:] - mirrored[:-2]) / 2
    samples = np.moveaxis(volume, axis, 0)
    slope[0], slope[-1] = (
        samples[1] - samples[0],
        samples[-1] - samples[-2],
    )  # a mirror image has no slope at its end
    return np.moveaxis(slope, 0, axis)


def _inverse_diagonal(fisher: FloatArray) -> FloatArray:
    scale = np.sqrt(np.maximum(np.einsum("kpp->kp", fisher), 1e-300))
    normal = fisher / (scale[:, :, np.newaxis] * scale[:, np.newaxis])
    inverse = np.linalg.pinv(normal, rcond=1e-12, hermitian=True)
    result: FloatArray = np.maximum(np.einsum("kpp->kp", inverse), 0) / scale**2
    return result


def measure_quality(
    psf: MeasuredPsf,
    mean: MeanBead,
    points: WidthPoints,
    fit: WidthFit | None,
    curves: SigmaCurves | None,
    beads_found: int,
) -> Quality:
    """Take the numbers of a calibration."""
    step = psf.step_nm
    tilt_x, tilt_y = _tilt(points, fit, step)
    planes = len(psf.volume)
    nowhere = (float("nan"), float("nan"))
    return Quality(
        beads_found=beads_found,
        beads_used=len(mean.beads),
        difference=float(np.median(mean.differences)) if len(mean.beads) > 1 else float("nan"),
        signal_to_noise=float(mean.volume[0].max() / mean.noise) if mean.noise > 0 else float("nan"),
        tilt_x=tilt_x,
        tilt_y=tilt_y,
        fading=mean.fading,
        z_range_nm=(-psf.focus_plane * step, (planes - 1 - psf.focus_plane) * step),
        fitted_range_nm=monotonic_range_nm(curves) if curves is not None else nowhere,
        asymmetry=_asymmetry(fit),
        depth_over_expected=_depth(points, fit, step),
        width_in_focus_nm=_in_focus(fit) if fit is not None else nowhere,
    )


def _tilt(points: WidthPoints, fit: WidthFit | None, step_nm: float) -> tuple[float, float]:
    """Slopes of the light's place along z, over the range in which widths could be fitted."""
    if fit is None:
        return float("nan"), float("nan")
    chosen = points.good & (points.plane >= fit.first_plane) & (points.plane <= fit.last_plane)
    z_um = points.plane[chosen] * step_nm / 1000
    slopes = [float(np.polyfit(z_um, values[chosen], 1)[0]) for values in (points.x_nm, points.y_nm)]
    return slopes[0], slopes[1]


def _in_focus(fit: WidthFit) -> tuple[float, float]:
    return float(fit.x_nm(fit.focus_plane)), float(fit.y_nm(fit.focus_plane))


def _asymmetry(fit: WidthFit | None) -> float:
    """Compare the geometric mean width at equal distances above and below the focus."""
    if fit is None:
        return float("nan")
    reach = min(fit.focus_plane - fit.first_plane, fit.last_plane - fit.focus_plane)
    if reach < 1:
        return float("nan")
    d = np.linspace(0, reach, 50)
    above, below = (
        np.sqrt(np.maximum(fit.x_nm(fit.focus_plane + s * d) * fit.y_nm(fit.focus_plane + s * d), 1))
        for s in (1, -1)
    )
    return float(np.sqrt((((above - below) / (above + below) * 2) ** 2).mean()))


def _depth(points: WidthPoints, fit: WidthFit | None, step_nm: float) -> float:
    """Fitted depth of focus over the Rayleigh length of a Gaussian beam of the same width, mean of x and y."""
    if fit is None:
        return float("nan")
    chosen = points.good & (points.plane >= fit.first_plane) & (points.plane <= fit.last_plane)
    z = (points.plane[chosen] - fit.focus_plane) * step_nm
    ratios = []
    for widths in (points.sigma_x_nm[chosen], points.sigma_y_nm[chosen]):
        form = defocus_parameters(z, widths)
        ratios.append(form["d"] / (4 * np.pi * _INDEX * form["w"] ** 2 / _WAVELENGTH_NM))
    return float(np.mean(ratios))


def findings(
    quality: Quality, dropped: Sequence[Bead], curves: SigmaCurves | None, *, bleaching: bool
) -> tuple[Finding, ...]:
    """Say what the numbers mean, warnings first."""
    lengths = [_of_tilt(quality), _of_range(quality), _of_widths(quality, curves)]
    if _is_of_another_step(quality):
        lengths = [_doubted(finding) for finding in lengths]
    told = [
        _of_beads(quality, dropped), _of_differences(quality), _of_signal(quality), _of_fading(quality, bleaching=bleaching),
        _of_shape(quality), _of_step(quality), *lengths,
    ]  # fmt: skip
    order: Mapping[Level, int] = {"warning": 0, "note": 1, "good": 2}
    return tuple(sorted((finding for finding in told if finding), key=lambda finding: order[finding.level]))


def _of_beads(q: Quality, dropped: Sequence[Bead]) -> Finding:
    left = f" Dropped: {tally(dropped)}." if dropped else ""
    if q.beads_used == 1:
        return Finding("warning", f"Made of a single bead: nothing to compare it with; use 5 or more.{left}")
    level: Level = "note" if q.beads_used < _FEW_BEADS else "good"
    return Finding(level, f"Made of {q.beads_used} of {q.beads_found} beads.{left}")


def _of_differences(q: Quality) -> Finding | None:
    if not np.isfinite(q.difference):
        return None
    if q.difference > _LARGE_DIFFERENCE:
        return Finding(
            "warning",
            f"The beads differ by {q.difference:.0%} from their mean beyond noise: the PSF changes over the field, some beads are clumps, or "
            "the stage drifted.",
        )
    return Finding("good", f"The beads agree: {q.difference:.1%} from their mean beyond noise.")


def _of_signal(q: Quality) -> Finding | None:
    if not np.isfinite(q.signal_to_noise):
        return None
    if q.signal_to_noise < _LOW_SIGNAL:
        return Finding(
            "warning",
            f"The PSF's peak is only {q.signal_to_noise:.0f} times its noise: more beads, brighter ones, longer exposure or a stronger blur.",
        )
    return Finding("good", f"The PSF's peak is {q.signal_to_noise:.0f} times its noise.")


def _of_tilt(q: Quality) -> Finding | None:
    tilt = float(np.hypot(q.tilt_x, q.tilt_y))
    if not np.isfinite(tilt):
        return None
    level: Level = "warning" if tilt > _LARGE_TILT else "good"
    advice = ": the light path is tilted, or the sample drifted sideways." if level == "warning" else "."
    return Finding(
        level, f"The light moves {q.tilt_x:+.0f} nm in x and {q.tilt_y:+.0f} nm in y per µm along z{advice}"
    )


def _of_fading(q: Quality, *, bleaching: bool) -> Finding:
    what = f"{abs(q.fading):.0%} of the light is {'lost' if q.fading > 0 else 'gained'} from the first plane to the last"
    if abs(q.fading) <= _LARGE_FADING:
        return Finding("good", f"{what}.")
    if bleaching:
        return Finding("note", f"{what} (beads bleach?); that is taken out, as an exponential.")
    return Finding("warning", f"{what}: do beads bleach?")


def _of_range(q: Quality) -> Finding:
    low, high = q.z_range_nm
    text = f"The PSF reaches from {low:+.0f} to {high:+.0f} nm around its focus"
    if min(-low, high) < _SHORT_RANGE_NM:
        return Finding("warning", f"{text}: record {_SHORT_RANGE_NM:.0f} nm or more to both sides.")
    return Finding("good", f"{text}.")


def _of_shape(q: Quality) -> Finding | None:
    if not np.isfinite(q.asymmetry):
        return None
    if q.asymmetry > _LARGE_ASYMMETRY:
        return Finding(
            "note",
            f"Above and below the focus the widths differ by {q.asymmetry:.0%}: spherical aberration (index mismatch, correction collar)?",
        )
    return Finding("good", f"Above and below the focus the widths differ by {q.asymmetry:.0%}.")


def _is_of_another_step(q: Quality) -> bool:
    low, high = _PLAUSIBLE_DEPTH
    return bool(np.isfinite(q.depth_over_expected)) and not low <= q.depth_over_expected <= high


def _doubted(finding: Finding | None) -> Finding | None:
    """Call no length good where the step or the pixel size is in doubt."""
    if finding is None or finding.level != "good":
        return finding
    return Finding("note", f"{finding.text.removesuffix('.')}, if step and pixel size are right.")


def _of_step(q: Quality) -> Finding | None:
    if not np.isfinite(q.depth_over_expected):
        return None
    if _is_of_another_step(q):
        return Finding(
            "warning",
            f"The depth of focus is {q.depth_over_expected:.2g} times what suits its width: check the step between planes and the pixel size.",
        )
    return Finding("good", "The depth of focus suits the width: step and pixel size are plausible.")


def _of_widths(q: Quality, curves: SigmaCurves | None) -> Finding | None:
    if curves is None:
        return (
            Finding("good", "No width curves: the widths do not tell z, or none were asked for.")
            if np.isfinite(q.asymmetry)
            else Finding("note", "No Gaussian fits the planes well enough for width curves.")
        )
    low, high = q.fitted_range_nm
    level: Level = "note" if high - low < _SHORT_RANGE_NM else "good"
    return Finding(level, f"The widths tell z from {low:+.0f} to {high:+.0f} nm.")
