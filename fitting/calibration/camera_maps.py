"""Maps of a camera: offset, read-noise variance, gain and flat field of every pixel, from dark frames and evenly lit ones.

They are what the settings `dark_map`, `variance_map` and `flatfield_map` expect (`fitting.camera`). Frames are summed up by
`fitting.calibration.pixel_sums`, gains worked out by `fitting.calibration.photon_transfer`; here is what they mean for a camera, and what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fitting.calibration.photon_transfer import (
    Gains,
    against_the_dark,
    gains,
    mended,
    neighbourhood_median,
    response,
)
from fitting.calibration.pixel_sums import PixelStatistics
from fitting.errors import InvalidCalibration

FloatArray = npt.NDArray[np.float64]
FloatMap = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_UNRESPONSIVE = 0.2  # of its neighbours' response: a pixel that sees no more is dead
_HOT = 10.0  # times the median variance
_FEW_FRAMES = 200  # a variance of so many frames is known to 10 %
_STUCK_SHARE = 0.01  # more constant pixels than this are the camera's way, not its faults
_DRIFT = 0.1  # of a pixel's noise
_DISAGREE = 0.1
_LIT = 0.3  # correlation of a pixel's variance with its neighbour's; chips in the dark give a few hundredths, series of molecules 0.48 and more
_EVEN = 0.25  # of a pixel's variance: what neighbours share is less in the dark; in series of molecules it is a half to thousands
_LEAST_SIDE = 16  # of a frame that says anything of that [px]
_UNKNOWN_WORTH = (
    "What an ADU is worth is not known: the variance is in ADU² and no variance_map yet. "
    "Give electrons per ADU, or flat series."
)


@dataclass(frozen=True)
class CameraMaps:
    """What a camera's pixels are like.

    Attributes
    ----------
    dark_adu : (h, w) float32 array
        Offset [ADU].
    variance : (h, w) float32 array
        Read-noise variance, in `variance_unit`; infinite for a dead pixel, which then counts in no fit.
    variance_unit : {"e-^2", "ADU^2"}
        ADU² only as long as nobody knows what an ADU is worth.
    electrons_per_adu : float or None
        As given, else from the flat series.
    gains : Gains or None
        As measured, with flat series.
    gain_adu_per_e : (h, w) float32 array or None
        With what cannot be a gain replaced.
    flatfield : (h, w) float32 array or None
        Factor that evens out the pixels' responses, mean 1.
    dead, replaced : (h, w) bool arrays
        Pixels that say nothing; pixels whose gain was replaced.
    notes : tuple of str
        What a person should know, in sentences.
    warnings : tuple of str
        What makes the maps doubtful.
    """

    dark_adu: FloatMap
    variance: FloatMap
    variance_unit: Literal["e-^2", "ADU^2"]
    electrons_per_adu: float | None
    gains: Gains | None
    gain_adu_per_e: FloatMap | None
    flatfield: FloatMap | None
    dead: Mask
    replaced: Mask
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def numbers(self) -> dict[str, object]:
        """What the maps amount to, as plain numbers."""
        alive = self.variance[~self.dead]
        found: dict[str, object] = {
            "height_px": self.dark_adu.shape[0],
            "width_px": self.dark_adu.shape[1],
            "offset_adu": _summary(self.dark_adu),
            "variance_unit": self.variance_unit,
            "variance": _summary(alive),
            "read_noise": {"median": float(np.sqrt(np.median(alive))), "rms": float(np.sqrt(np.mean(alive)))},
            "electrons_per_adu": self.electrons_per_adu,
            "dead_pixels": int(self.dead.sum()),
            "hot_pixels": int((alive > _HOT * np.median(alive)).sum()),
        }
        if self.gains is not None and self.gain_adu_per_e is not None and self.flatfield is not None:
            found |= {
                "gain_adu_per_e": _summary(self.gain_adu_per_e),
                "gain_error_adu_per_e": float(np.nanmedian(self.gains.error_adu_per_e)),
                "camera_gain_adu_per_e": self.gains.camera_adu_per_e,
                "gains_replaced": int(self.replaced.sum()),
                "flatfield": _summary(self.flatfield),
                "photon_transfer": {
                    "signal_adu": self.gains.curve_adu.tolist(),
                    "variance_adu2": self.gains.curve_adu2.tolist(),
                },
            }
        return found


def camera_maps(
    dark: PixelStatistics,
    flats: Sequence[PixelStatistics] = (),
    *,
    electrons_per_adu: float | None = None,
    even_light: bool = False,
    full_adu: float | None = None,
) -> CameraMaps:
    """Make the maps of a camera.

    Parameters
    ----------
    dark : PixelStatistics
        A series without light.
    flats : sequence of PixelStatistics
        Series with light, each at one level; several levels make gains surer.
    electrons_per_adu : float, optional
        What an ADU is worth, where it is known.
    even_light : bool
        The sensor was lit evenly, so that what varies slowly in the flat series is the sensor's too.
    full_adu : float, optional
        Reading at which a pixel is full; by default the largest that the frames' type can hold [ADU].

    Raises
    ------
    InvalidCalibration
        If the series contradict each other or say nothing; the sentence says how.
    """
    if electrons_per_adu is not None and not (np.isfinite(electrons_per_adu) and electrons_per_adu > 0):
        raise InvalidCalibration(f"electrons per ADU must be over 0, not {electrons_per_adu:g}")
    own = np.maximum(dark.variance_adu2 - dark.common_variance_adu2, 0)
    if not own.any():
        raise InvalidCalibration("no pixel of the dark series ever changes; that is no camera's dark")
    dead = _stuck(dark.variance_adu2)
    notes = [*_about_dark(dark), *_about_stuck(dark.variance_adu2, dead)]
    found = gain = flat = None
    replaced = np.zeros(dead.shape, np.bool_)
    if flats:
        light = against_the_dark(dark, flats, full_adu)
        found, relative = gains(dark, light), response(light, even_light=even_light)
        dim = ~(relative > _UNRESPONSIVE)
        notes += [*_about_flats(flats, light.saturated), *_about_dim(dim & ~dead)]
        dead = dead | dim
        gain, replaced = mended(found.pixel_adu_per_e, dead, found.error_adu_per_e)
        flat = _flatfield(relative, dead)
        notes += _about_gains(found, replaced & ~dead)
    worth, more = _worth(electrons_per_adu, found)
    variance = np.where(dead, np.inf, own * (1.0 if worth is None else worth**2))
    return CameraMaps(
        dark_adu=dark.mean_adu.astype(np.float32),
        variance=variance.astype(np.float32),
        variance_unit="ADU^2" if worth is None else "e-^2",
        electrons_per_adu=worth,
        gains=found,
        gain_adu_per_e=None if gain is None else gain.astype(np.float32),
        flatfield=None if flat is None else flat.astype(np.float32),
        dead=dead,
        replaced=replaced,
        notes=(*notes, *_about_hot(own, dead), *more),
        warnings=tuple(_about_light(dark)),
    )


def _stuck(variance: FloatArray) -> Mask:
    constant = variance == 0
    return constant if constant.mean() <= _STUCK_SHARE else np.zeros_like(constant)


def _flatfield(relative: FloatArray, dead: Mask) -> FloatArray:
    with np.errstate(divide="ignore"):
        flat = neighbourhood_median(1 / relative, dead, 1.0)
    result: FloatArray = flat / flat[~dead].mean()
    return result


def _worth(given: float | None, found: Gains | None) -> tuple[float | None, list[str]]:
    """Electrons for each ADU, and what to say about it."""
    if found is None:
        if given is None:
            return None, [_UNKNOWN_WORTH]
        return given, []
    measured = 1 / found.camera_adu_per_e
    if given is None:
        return measured, []
    if abs(measured / given - 1) <= _DISAGREE:
        return given, []
    told = f"{given:.4g} electrons per ADU were given, but by photon transfer they are {measured:.4g}"
    return given, [f"{told}; the variance map uses what was given."]


def _about_dark(dark: PixelStatistics) -> Iterator[str]:
    share = np.sqrt(2 / (dark.frames - 1))
    if dark.frames < _FEW_FRAMES:
        yield (
            f"Of {dark.frames} dark frames a pixel's variance is known to {100 * share:.0f} % only; "
            f"take {_FEW_FRAMES} or more, better thousands."
        )
    yield from _about_left_out(dark, "dark")
    noise = float(np.sqrt(np.median(dark.variance_adu2)))
    change = _change(dark)
    if abs(change) > _DRIFT * noise:
        yield (
            f"The offset drifts: in the last tenth of the frames it is {abs(change):.2f} ADU "
            f"{'higher' if change > 0 else 'lower'} than in the first (a pixel's noise is {noise:.2f} ADU). "
            "Let the camera warm up and take the dark series again."
        )
    common = np.sqrt(dark.common_variance_adu2)
    if common > _DRIFT * noise:
        yield f"All pixels of a frame go up and down together, by {common:.2f} ADU rms; the variance map is without it."


def _about_light(dark: PixelStatistics) -> Iterator[str]:
    together = _together(dark.variance_adu2)
    if together > _LIT:
        yield (
            f"The dark series looks lit: neighbouring pixels are noisy together (correlation {together:.2f}), as light makes them and a "
            "camera in the dark does not. Was the shutter closed, and is this the dark series?"
        )


def _together(variance: FloatArray) -> float:
    """How much pixels are as noisy as their neighbours: a correlation along both diagonals, of which rows and columns of a chip are no part.

    0 where what neighbours share is little: two amplifiers of a chip, which are a little different, share all that varies.
    """
    if min(variance.shape) < _LEAST_SIDE:
        return 0.0
    low, high = np.quantile(variance, [0.01, 0.99])
    clipped = np.clip(variance, low, high) if high > low else variance
    centred = clipped - clipped.mean()
    falling = (centred[1:, 1:] * centred[:-1, :-1]).mean()
    rising = (centred[1:, :-1] * centred[:-1, 1:]).mean()
    shared, spread = float(min(falling, rising)), float((centred**2).mean())
    is_even = shared <= (_EVEN * float(np.median(clipped))) ** 2
    return 0.0 if is_even or spread == 0 else shared / spread


def _change(series: PixelStatistics) -> float:
    """How much higher the last tenth of the levels is than the first [ADU]; 0 where chance may explain it."""
    levels = series.counted
    few = max(1, len(levels) // 10)
    change = float(levels[-few:].mean() - levels[:few].mean())
    chance = np.sqrt(2 * float(series.variance_adu2.mean()) / series.variance_adu2.size / few)
    return change if abs(change) > 4 * chance else 0.0


def _about_left_out(series: PixelStatistics, name: str) -> Iterator[str]:
    if series.left_out:
        named = ", ".join(map(str, series.left_out[:10])) + (", …" if len(series.left_out) > 10 else "")
        yield (
            f"Frames of the {name} series whose level is not that of the others (light leak?), left out: "
            f"{len(series.left_out)} (number {named})."
        )


def _about_stuck(variance: FloatArray, dead: Mask) -> Iterator[str]:
    constant = variance == 0
    if dead.any():
        yield f"Pixels that never change in the dark, and count as dead: {dead.sum()}."
    elif constant.any():
        yield (
            f"{100 * constant.mean():.0f} % of the pixels never change in the dark: is the offset so low that "
            "readings are cut off at zero?"
        )


def _about_hot(own: FloatArray, dead: Mask) -> Iterator[str]:
    hot = (own > _HOT * np.median(own[~dead])) & ~dead
    if hot.any():
        yield f"Pixels more than {_HOT:.0f} times as noisy as the median, of which the variance map tells fits: {hot.sum()}."


def _about_dim(dim: Mask) -> Iterator[str]:
    if dim.any():
        yield f"Pixels that hardly respond to light, and count as dead: {dim.sum()}."


def _about_flats(flats: Sequence[PixelStatistics], saturated: Sequence[int]) -> Iterator[str]:
    for number, flat in enumerate(flats, 1):
        if number - 1 in saturated:
            yield f"Flat series {number} is saturated and left out."
        yield from _about_left_out(flat, f"flat {number}")


def _about_gains(found: Gains, replaced: Mask) -> Iterator[str]:
    pixel = found.pixel_adu_per_e
    if replaced.any():
        with np.errstate(invalid="ignore"):
            negative = int((replaced & (pixel <= 0)).sum())
        yield (
            f"Pixels whose measured gain cannot be, and that get the median of their neighbours: {replaced.sum()} "
            f"({negative} of them below zero)."
        )
    doubt = float(np.nanmedian(found.error_adu_per_e)) / found.camera_adu_per_e
    if doubt > _DISAGREE:
        yield (
            f"A single pixel's gain is known to {100 * doubt:.0f} % only; the flat field, which is surer, is what fits use. "
            "More frames or more light would help."
        )


def _summary(values: npt.NDArray[np.floating]) -> dict[str, float]:
    known = values[np.isfinite(values)].astype(np.float64)
    low, middle, high = np.quantile(known, [0.01, 0.5, 0.99])
    return {
        "median": float(middle), "mean": float(known.mean()), "std": float(known.std()),
        "p01": float(low), "p99": float(high), "min": float(known.min()), "max": float(known.max()),
    }  # fmt: skip
