"""The camera's offset, estimated from frames taken in the dark, where the metadata say which these are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from cluster.protocol import MetadataValue
from cluster.scheduler.dataservers import Located, SeriesSource
from fitting import fits

OFFSET_KEY: Final = "Camera.ADOffset"
_MOST_FRAMES: Final = 100
_MOST_BYTES: Final = 64 << 20


def dark_frames(metadata: Mapping[str, Any], frames: int) -> tuple[int, int, str] | None:
    """Return (first, after last, what they are) of the frames that were taken in the dark, None if nobody says."""
    said = metadata.get("Protocol.DarkFrameRange")
    if isinstance(said, list | tuple) and len(said) == 2 and all(_is_frame(bound) for bound in said):
        start, stop = int(said[0]), min(int(said[1]), frames)
        if start < stop:
            return start, stop, "dark frames"
    laser_on = min(fits.laser_on(metadata), frames)
    return (0, laser_on, "frames before the laser") if laser_on > 0 else None


async def estimated_offset(
    source: SeriesSource, located: Located, metadata: Mapping[str, Any]
) -> MetadataValue | None:
    """Return the median of the dark frames [ADU] and where it comes from; None where there are none."""
    facts = located.facts
    found = dark_frames(metadata, facts.frames)
    if found is None:
        return None
    start, stop, what = found
    frame_bytes = facts.height * facts.width * np.dtype(facts.dtype).itemsize
    stop = min(stop, start + max(1, min(_MOST_FRAMES, _MOST_BYTES // frame_bytes)))
    frames = await source.frames(located, start, stop)
    return MetadataValue(
        value=float(np.median(frames)), source=f"estimated: median of the {what} {start} to {stop - 1}"
    )


def _is_frame(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and value == int(value)
    )
