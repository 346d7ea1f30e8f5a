"""Where the channels of a beam splitter lie on the camera's chip, as settings and metadata say.

Import-light on purpose: whoever shows the channels over a frame needs no kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fitting.errors import InvalidMetadata, InvalidSettings
from fitting.fit_types import Fit


@dataclass(frozen=True)
class Rectangle:
    """Where a channel lies [px of the chip], and whether it is upside down."""

    x: int
    y: int
    width: int
    height: int
    flipped: bool = False


def rectangles(
    fit: Fit, settings: Mapping[str, Any], metadata: Mapping[str, object], shape: tuple[int, int]
) -> tuple[Rectangle, ...]:
    """Where the channels of a fit lie; one that fills the frame for a fit of one channel.

    Parameters
    ----------
    settings : mapping
        Complete settings.
    shape : (int, int)
        Height and width of the frames [px].
    """
    chip = chip_origin(metadata)
    if fit.channels == 1:
        return (Rectangle(*chip, shape[1], shape[0]),)
    if fit.channels == 2:
        return _two(settings, chip_shape(metadata, shape))
    options = settings["options"]
    if options["channels"] is None:
        return _strips(options["views"], shape, chip)
    flips = options["flips"] or [False] * len(options["channels"])
    return tuple(_rectangle(box, flip) for box, flip in zip(options["channels"], flips, strict=True))


def _two(settings: Mapping[str, Any], chip: tuple[int, int]) -> tuple[Rectangle, ...]:
    """As set, else the upper and the lower half of the chip, (h, w)."""
    height, width = chip
    half = height // 2
    first = settings["channel0_roi"] or [0, 0, width, half]
    second = settings["channel1_roi"] or [0, height - half, width, half]
    return _rectangle(first, False), _rectangle(second, settings["flip"])


def _rectangle(box: Sequence[int], flipped: bool) -> Rectangle:
    x, y, width, height = box
    return Rectangle(x, y, width, height, flipped)


def _strips(number: int, shape: tuple[int, int], chip: tuple[int, int]) -> tuple[Rectangle, ...]:
    """Side by side along x, as PYME's multiview cameras store them."""
    width = shape[1] // number
    if width < 1:
        raise InvalidSettings(
            "options.views", f"{number} channels do not fit side by side into {shape[1]} px"
        )
    return tuple(Rectangle(chip[0] + k * width, chip[1], width, shape[0]) for k in range(number))


def chip_shape(metadata: Mapping[str, object], shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the chip [px]; where the metadata do not say, the frame is taken to lie at its end."""
    sides = [_side(metadata, f"Camera.Sensor{name}") for name in ("Height", "Width")]
    x, y = chip_origin(metadata)
    return sides[0] or y + shape[0], sides[1] or x + shape[1]


def _side(metadata: Mapping[str, object], key: str) -> int | None:
    value = metadata.get(key)
    return int(value) if isinstance(value, int | float | np.integer | np.floating) and value >= 1 else None


def chip_origin(metadata: Mapping[str, object]) -> tuple[int, int]:
    """x, y on the chip of the frames' first pixel [px]; (0, 0) where the metadata do not say.

    Raises
    ------
    InvalidMetadata
        If they say something that is no pixel.
    """
    return camera_origin(metadata, "X"), camera_origin(metadata, "Y")


def camera_origin(metadata: Mapping[str, object], axis: str) -> int:
    """The first pixel that was read out, along an axis; PYME's older key counts from 1."""
    key, offset = f"Camera.ROIOrigin{axis}", 0
    if metadata.get(key) is None:
        key, offset = f"Camera.ROIPos{axis}", 1
    value = metadata.get(key)
    if value is None:
        return 0
    if not isinstance(value, int | float | np.integer | np.floating) or value - offset < 0:
        raise InvalidMetadata((key,), f"{key} must be a pixel number, not {value!r}")
    return int(value) - offset
