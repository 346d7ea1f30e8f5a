"""Where the channels of a beam splitter lie on the camera's chip, as settings and metadata say.

Import-light on purpose: whoever shows the channels over a frame needs no kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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


@dataclass(frozen=True)
class Placement:
    """Where channels are in a frame.

    Attributes
    ----------
    bounds : (C, 4) int64 array
        top, bottom, left, right of the part of each that all channels show [px].
    start, sign : (C, 2) int64 arrays
        y, x: what is at (y, x) of the frame in channel 0 is at start + sign · (y, x) in the channel, without a shift field.
    """

    bounds: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    sign: npt.NDArray[np.int64]


def place(
    rectangles: Sequence[Rectangle],
    shape: tuple[int, int],
    chip: tuple[int, int],
    part: tuple[int, int, int, int] | None = None,
) -> Placement:
    """Place channels in frames: of each the part whose counterpart is in the frame in every channel.

    Parameters
    ----------
    rectangles : sequence of Rectangle
        Of one size; the first is channel 0, which is not upside down.
    shape : (int, int)
        Height and width of the frames [px].
    chip : (int, int)
        x, y on the chip of the frames' first pixel [px].
    part : (x0, y0, x1, y1), optional
        Only what lies there in channel 0 [px of the frame].

    Raises
    ------
    InvalidSettings
        If the rectangles differ in size, or have no common part in the frame.
    """
    _check_sizes(rectangles)
    placed = [Rectangle(r.x - chip[0], r.y - chip[1], r.width, r.height, r.flipped) for r in rectangles]
    across = _common([(r.x, False) for r in placed], placed[0].width, shape[1])
    down = _common([(r.y, r.flipped) for r in placed], placed[0].height, shape[0])
    if part is not None:
        across = max(across[0], part[0] - placed[0].x), min(across[1], part[2] - placed[0].x)
        down = max(down[0], part[1] - placed[0].y), min(down[1], part[3] - placed[0].y)
    if across[0] >= across[1] or down[0] >= down[1]:
        raise InvalidSettings(
            "channel1_roi",
            f"the channels {_said(rectangles)} have no common part in the frame, {shape[1]} × {shape[0]} px at ({chip[0]}, {chip[1]}) of the chip",
        )
    sign = np.array([[-1 if r.flipped else 1, 1] for r in placed], np.int64)
    ends = np.array([[r.y + r.height - 1 if r.flipped else r.y, r.x] for r in placed], np.int64)
    start = ends - sign * np.array([placed[0].y, placed[0].x])
    bounds = [(*_span(down, r.y, r.height, r.flipped), *_span(across, r.x, r.width, False)) for r in placed]
    return Placement(np.array(bounds, np.int64), start, sign)


def _check_sizes(rectangles: Sequence[Rectangle]) -> None:
    if len({(r.width, r.height) for r in rectangles}) != 1:
        raise InvalidSettings("channel1_roi", f"the channels {_said(rectangles)} must have one size")
    if rectangles[0].flipped:
        raise InvalidSettings(
            "options.flips", "channel 0 cannot be upside down: the others are, relative to it"
        )


def _said(rectangles: Sequence[Rectangle]) -> str:
    return ", ".join(f"[{r.x}, {r.y}, {r.width}, {r.height}]" for r in rectangles)


def _common(firsts: list[tuple[int, bool]], length: int, limit: int) -> tuple[int, int]:
    """What part [from, to) of the field, along one axis, every channel has within [0, limit)."""
    low, high = 0, length
    for first, flipped in firsts:
        a, b = max(0, -first), min(length, limit - first)
        if flipped:
            a, b = length - b, length - a
        low, high = max(low, a), min(high, b)
    return low, high


def _span(part: tuple[int, int], first: int, length: int, flipped: bool) -> tuple[int, int]:
    """The pixels [from, to) in which a channel shows a part of the field."""
    a, b = (length - part[1], length - part[0]) if flipped else part
    return first + a, first + b


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


def map_start(
    name: str, covered: tuple[int, int], shape: tuple[int, int], metadata: Mapping[str, object]
) -> tuple[int, int]:
    """Return y, x in a camera map of the frames' first pixel: a map shows the whole sensor, or the frames' own part of it.

    Parameters
    ----------
    name : str
        The setting, for the message.
    covered, shape : (int, int)
        Height and width of the map and of the frames [px].

    Raises
    ------
    InvalidSettings
        If the map shows neither.
    """
    x, y = chip_origin(metadata)
    sides = [_side(metadata, f"Camera.Sensor{side}") for side in ("Height", "Width")]
    is_sensors = None in sides or list(covered) == sides
    if is_sensors and covered[0] >= y + shape[0] and covered[1] >= x + shape[1]:
        return y, x
    if covered == shape:
        return 0, 0
    sensor = "" if None in sides else f", which is {sides[1]} × {sides[0]} px"
    raise InvalidSettings(
        name,
        f"is {covered[1]} × {covered[0]} px and does not cover frames of {shape[1]} × {shape[0]} px at ({x}, {y}) of the sensor{sensor}; "
        "a map has the size of the sensor or of the frames",
    )


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
