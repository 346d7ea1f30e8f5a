"""The camera's offset, estimated from frames taken in the dark, where the metadata say which these are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cluster.protocol import MetadataValue
from cluster.scheduler.dataservers import Located, SeriesSource
from fitting import fits

OFFSET_KEY: Final = "Camera.ADOffset"
_MOST_FRAMES: Final = 100
_MOST_BYTES: Final = 64 << 20
_LEAST_ADU: Final = 2.0
_BLOCK_PX: Final = 16
Frames = np.ndarray[Any, Any]


def dark_frames(metadata: Mapping[str, Any], frames: int) -> tuple[int, int, str] | None:
    """Return (first, after last, what they are) of the frames that were taken in the dark, None if nobody says."""
    said = metadata.get("Protocol.DarkFrameRange")
    if isinstance(said, list | tuple) and len(said) == 2 and all(_is_frame(bound) for bound in said):
        start, stop = int(said[0]), min(int(said[1]), frames)
        if start < stop:
            return start, stop, "dark frames"
    laser_on = min(fits.laser_on(metadata), frames)
    return (0, laser_on, "frames before the laser") if laser_on > 0 else None


@dataclass(frozen=True)
class Estimate:
    """The offset [ADU] with where it comes from, and why it might be wrong."""

    value: MetadataValue
    doubts: tuple[str, ...] = ()


async def estimated_offset(
    source: SeriesSource, located: Located, metadata: Mapping[str, Any]
) -> Estimate | None:
    """Return the median of the dark frames; None where there are none."""
    facts = located.facts
    found = dark_frames(metadata, facts.frames)
    if found is None:
        return None
    start, after, what = found
    frame_bytes = facts.height * facts.width * np.dtype(facts.dtype).itemsize
    stop = min(after, start + max(1, min(_MOST_FRAMES, _MOST_BYTES // frame_bytes)))
    dark = await source.frames(located, start, stop)
    lit_at = (after + facts.frames) // 2
    lit = await source.frames(located, lit_at, lit_at + 1) if after <= lit_at < facts.frames else None
    value = MetadataValue(
        value=float(np.median(dark)), source=f"estimated: median of the {what} {start} to {stop - 1}"
    )
    return Estimate(value, tuple(doubts(dark, lit)))


def doubts(dark: Frames, lit: Frames | None) -> Iterator[str]:
    """Say why frames may not have been taken in the dark.

    Parameters
    ----------
    dark : (n, h, w) array
        Frames taken to be dark [ADU].
    lit : (1, h, w) array or None
        A frame of the analysed part [ADU].
    """
    level = float(np.median(dark))
    levels = np.median(dark.reshape(len(dark), -1), axis=1)
    third = len(dark) // 3
    if third >= 2:
        drift = float(np.mean(levels[-third:]) - np.mean(levels[:third]))
        if abs(drift) > max(_LEAST_ADU, 5 * float(np.std(levels[:third])) / third**0.5):
            yield f"the dark level drifts by {drift:+.1f} ADU over its frames"
    side = min(_BLOCK_PX, *dark.shape[1:])
    height, width = (length - length % side for length in dark.shape[1:])
    blocks = dark[:, :height, :width].mean(axis=0).reshape(height // side, side, width // side, side)
    spread = float(np.ptp(np.median(blocks, axis=(1, 3))))
    if spread > max(5 * _LEAST_ADU, 0.1 * level):
        yield f"it is {spread:.0f} ADU brighter in some places than in others: room light, or molecules"
    if lit is not None and float(np.quantile(lit, 0.1)) < level - _LEAST_ADU:
        yield f"a tenth of the pixels of the analysed frames are darker than these {level:g} ADU: were the frames dark?"


def _is_frame(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and value == int(value)
    )
