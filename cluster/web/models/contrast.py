"""From a camera frame to a picture: which values are black and white, and in which colours."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
from PIL import Image

Frame = np.ndarray[Any, Any]
AUTO_PERCENT: Final = (0.5, 99.8)

# black to white by way of colours whose lightness rises evenly, so that they are right for readers who see fewer colours
_ANCHORS: Final = {
    "grey": ("000000", "ffffff"),
    "inverted": ("ffffff", "000000"),
    "fire": ("000004", "4a0c6b", "a52c60", "ed6925", "f7d13d", "fcffa4"),
    "viridis": ("440154", "3b528b", "21918c", "5ec962", "fde725"),
}
COLOUR_MAPS: Final = tuple(_ANCHORS)


def limits_of(frame: Frame, percent: tuple[float, float] = AUTO_PERCENT) -> tuple[float, float]:
    """Return which values [ADU] of an (h, w) frame are the darkest and the brightest shown, by percentiles; never the same."""
    known = frame[np.isfinite(frame)]
    if known.size == 0:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(known, percent))
    return low, max(high, low + 1.0)


def png_of(frame: Frame, limits: tuple[float, float], colours: str = "grey") -> bytes:
    """Return an (h, w) frame as a PNG of its size; what is beyond the limits has the colour of its end."""
    low, high = limits
    scaled = np.nan_to_num((frame.astype(np.float32) - low) / max(high - low, 1e-9) * 255)
    levels = scaled.clip(0, 255).astype(np.uint8)
    image = Image.fromarray(levels)
    if colours != "grey":
        image = image.convert("P")
        image.putpalette(palette(colours).tobytes())
    return _encoded(image)


def thumbnail(frame: Frame, side_px: int) -> bytes:
    """Return an (h, w) frame as a small PNG, `side_px` at most."""
    low, high = limits_of(frame)
    levels = np.nan_to_num((frame.astype(np.float32) - low) / (high - low) * 255).clip(0, 255)
    image = Image.fromarray(levels.astype(np.uint8))
    image.thumbnail((side_px, side_px))
    return _encoded(image)


def palette(colours: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a colour map, (256, 3) red, green, blue."""
    anchors = np.array(
        [[int(one[at : at + 2], 16) for at in (0, 2, 4)] for one in _ANCHORS[colours]], np.float64
    )
    place = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(place, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def value_at(frame: Frame, x_px: float, y_px: float) -> tuple[int, int, float] | None:
    """Return (x, y, value) of the pixel under a point of the picture, whose pixel 0 reaches from 0 to 1; None outside."""
    x, y = int(np.floor(x_px)), int(np.floor(y_px))
    if not (0 <= y < frame.shape[0] and 0 <= x < frame.shape[1]):
        return None
    return x, y, float(frame[y, x])


def _encoded(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()
