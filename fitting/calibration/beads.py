"""Beads in stacks of planes: bright, isolated, not saturated, away from the edges; what is dropped is told, with its reason.

Beads are looked for in the maximum projection of channel 0, band-passed by a difference of Gaussians. In a second channel each has its
image near the same place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.spatial import cKDTree

from fitting.errors import InvalidFrames

FloatArray = npt.NDArray[np.float64]
Stack = npt.NDArray[Any]

MARGIN_PX = 3  # cut more than is kept: a shift by a fraction of a pixel leaves the outermost pixels unsure
_SIGMA_NM = 250 / 2.35
_SPOILS = 0.15  # share of a bead's brightness from which a neighbour matters
_SEARCH_PX = 8  # how far the image in channel 1 may lie from where channel 0 has it
_PLATEAU_PX = 5  # so many pixels of a plane that share the highest value are clipped, not equal by chance
_PLATEAU_LEVELS = 50  # ... unless the whole image has few levels


@dataclass(frozen=True)
class Bead:
    """One bead: where it is, how bright, and why it was dropped.

    Attributes
    ----------
    stack : int
        Which stack it is in.
    places : tuple of (int, int)
        Its pixel (y, x) in each channel's part of the frame.
    brightness : float
        Height of its peak in the band-passed projection [ADU].
    dropped : str
        Why it is not used, in words; empty for one that is used.
    """

    stack: int
    places: tuple[tuple[int, int], ...]
    brightness: float
    dropped: str = ""


def channel_views(stack: Stack, options: Mapping[str, Any]) -> tuple[Stack, ...]:
    """Give each channel's part of a (plane, y, x) stack, channel 1 flipped as channel 0 is.

    Raises
    ------
    InvalidFrames
        If a channel's rectangle is not within the frame.
    """
    views = []
    for name in ("channel0", "channel1"):
        box = options[name]
        if box is None:
            continue
        x0, y0, x1, y1 = box
        height, width = stack.shape[1:]
        if x1 > width or y1 > height:
            raise InvalidFrames(f"{name} {box} reaches beyond the frame, {width} × {height} px (x × y)")
        views.append(stack[:, y0:y1, x0:x1])
    if len(views) == 2 and options["flip"]:
        views[1] = views[1][:, ::-1]
    return tuple(views) or (stack,)


def find_beads(stacks: Sequence[Sequence[Stack]], options: Mapping[str, Any]) -> tuple[Bead, ...]:
    """Find beads, brightest first; those not to be used say why in `dropped`.

    Parameters
    ----------
    stacks : sequence of sequences of (plane, y, x) arrays
        Of each stack its channels, as `channel_views` gives them.
    options : mapping
        Resolved options of the calibration.
    """
    found = [bead for number, channels in enumerate(stacks) for bead in _beads_of(number, channels, options)]
    found.sort(key=lambda bead: -bead.brightness)
    if not found:
        return ()
    used = [bead.brightness for bead in found if not bead.dropped]
    bright = float(np.percentile(used, 75)) if used else 0.0
    kept = 0
    result = []
    for bead in found:
        if not bead.dropped and bead.brightness < options["least_brightness"] * bright:
            bead = replace(
                bead, dropped=f"dim: less than {options['least_brightness']:.0%} of the bright ones"
            )
        elif not bead.dropped and kept >= options["most_beads"]:
            bead = replace(bead, dropped=f"not needed: {options['most_beads']} brighter ones are enough")
        kept += not bead.dropped
        result.append(bead)
    return tuple(result)


def tally(beads: Sequence[Bead]) -> str:
    """Say in a few words how many were dropped, and why."""
    counts = Counter(bead.dropped.split(":")[0] for bead in beads if bead.dropped)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _beads_of(number: int, channels: Sequence[Stack], options: Mapping[str, Any]) -> list[Bead]:
    bandpassed = [_bandpass(channel.max(axis=0), options["pixel_nm"]) for channel in channels]
    peaks, heights = _peaks(bandpassed[0], options)
    limit = [_saturation(channel, options) for channel in channels]
    beads = []
    for (y, x), height in zip(peaks.tolist(), heights.tolist(), strict=True):
        near = _too_near((y, x), height, peaks, heights, options["isolation_px"])
        places = ((y, x), *(_image_in(other, y, x) for other in bandpassed[1:]))
        bead = Bead(number, places, height)
        reason = _edge(places, channels, options) or near
        reason = reason or _clipped(channels, places, limit)
        reason = reason or _missing(places, bandpassed, options)
        beads.append(replace(bead, dropped=reason))
    return beads


def _bandpass(projection: Stack, pixel_nm: float) -> FloatArray:
    sigma = max(0.8, _SIGMA_NM / pixel_nm)
    image = projection.astype(np.float64)
    result: FloatArray = gaussian_filter(image, sigma) - gaussian_filter(image, 3 * sigma)
    return result


def _noise(bandpassed: FloatArray) -> float:
    middle = np.median(bandpassed)
    return float(1.4826 * np.median(np.abs(bandpassed - middle)))


def _peaks(bandpassed: FloatArray, options: Mapping[str, Any]) -> tuple[npt.NDArray[np.int64], FloatArray]:
    radius = 1 + round(2 * max(0.8, _SIGMA_NM / options["pixel_nm"]))
    highest = bandpassed == maximum_filter(bandpassed, 2 * radius + 1)
    least = max(options["threshold"] * _noise(bandpassed), 1e-6 * float(np.ptp(bandpassed)), 1e-12)
    peaks = np.argwhere(highest & (bandpassed > least))
    return peaks, bandpassed[tuple(peaks.T)]


def _image_in(bandpassed: FloatArray, y: int, x: int) -> tuple[int, int]:
    """The brightest pixel of another channel near a place."""
    y0, x0 = max(0, y - _SEARCH_PX), max(0, x - _SEARCH_PX)
    part = bandpassed[y0 : y + _SEARCH_PX + 1, x0 : x + _SEARCH_PX + 1]
    dy, dx = np.unravel_index(int(np.argmax(part)), part.shape)
    return y0 + int(dy), x0 + int(dx)


def _edge(places: Sequence[tuple[int, int]], channels: Sequence[Stack], options: Mapping[str, Any]) -> str:
    reach = options["half_size"] + MARGIN_PX
    height, width = channels[0].shape[1:]
    inside = all(reach <= y < height - reach and reach <= x < width - reach for y, x in places)
    return "" if inside else f"at the edge: {reach} px around it are not all in the frame"


def _too_near(
    place: tuple[int, int],
    height: float,
    peaks: npt.NDArray[np.int64],
    heights: FloatArray,
    isolation_px: float,
) -> str:
    others = cKDTree(peaks).query_ball_point(place, isolation_px)
    distances = [
        float(np.hypot(*(peaks[k] - np.array(place))))
        for k in others
        if heights[k] >= _SPOILS * height and tuple(peaks[k]) != place
    ]
    return f"too near to another: {min(distances):.0f} px" if distances else ""


def _saturation(channel: Stack, options: Mapping[str, Any]) -> float:
    """From which value on a pixel is saturated; infinity where nothing says."""
    if options["saturation_adu"] is not None:
        return float(options["saturation_adu"])
    if channel.dtype.kind in "ui":
        return float(np.iinfo(channel.dtype).max)
    return float("inf")


def _clipped(channels: Sequence[Stack], places: Sequence[tuple[int, int]], limits: Sequence[float]) -> str:
    for channel, (y, x), limit in zip(channels, places, limits, strict=True):
        core = channel[:, max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]
        highest = float(core.max())
        if highest >= limit:
            return f"saturated: {highest:g} ADU"
        alike = int((core == core.max()).sum(axis=(1, 2)).max())
        if alike >= _PLATEAU_PX and highest - float(np.median(core)) > _PLATEAU_LEVELS:
            return f"saturated: {alike} pixels of a plane stop at {highest:g} ADU"
    return ""


def _missing(
    places: Sequence[tuple[int, int]], bandpassed: Sequence[FloatArray], options: Mapping[str, Any]
) -> str:
    for place, image in zip(places[1:], bandpassed[1:], strict=True):
        if image[place] < options["threshold"] * _noise(image):
            return f"without an image in channel 1: none within {_SEARCH_PX} px (is flip right?)"
    return ""
