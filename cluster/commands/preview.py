"""The Test button's answer for people: a table, and a picture of the frames with what was found drawn over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw
from rich.table import Table

from cluster.client import Client
from cluster.protocol import ChannelBox, Preview, PreviewFrame

_TILE_PX: Final = 320
_COLUMNS: Final = 4
_FITTED: Final = (70, 240, 90)
_DEBOUNCED: Final = (255, 70, 255)
_CHANNEL: Final = (90, 170, 255)
_CAPTION_PX: Final = 18
_CONTRAST_PERCENT: Final = (0.5, 99.9)


def table(preview: Preview) -> Table:
    """Return one line a frame."""
    shown = Table(box=None, pad_edge=False)
    for heading in (
        "frame",
        "status",
        "candidates",
        "fitted",
        "median photons",
        "median σ \\[px]",
        "median error \\[nm]",
    ):
        shown.add_column(heading, justify="right")
    for frame in preview.frames:
        shown.add_row(
            str(frame.frame),
            frame.reason or frame.status,
            str(len(frame.candidates)),
            str(len(frame.rows)),
            *_medians(frame),
        )
    return shown


def picture(client: Client, preview: Preview, target: Path) -> None:
    """Draw the frames in a grid: green circles were fitted, magenta squares gave way to a brighter neighbour.

    Of a beam splitter's channels the outlines are drawn, with their numbers, upside down where the channel is.
    """
    columns = min(_COLUMNS, len(preview.frames))
    lines = -(-len(preview.frames) // columns)
    sheet = Image.new("RGB", (columns * _TILE_PX, lines * (_TILE_PX + _CAPTION_PX)))
    for number, frame in enumerate(preview.frames):
        pixels = client.frames(preview.series, frame.frame, frame.frame + 1).frames[0]
        tile = _tile(pixels, frame, preview.channels)
        sheet.paste(tile, (number % columns * _TILE_PX, number // columns * (_TILE_PX + _CAPTION_PX)))
    sheet.save(target)


def _tile(pixels: np.ndarray[Any, Any], frame: PreviewFrame, channels: list[ChannelBox]) -> Image.Image:
    low, high = np.percentile(pixels, _CONTRAST_PERCENT)
    grey = np.clip((pixels - low) / max(high - low, 1.0) * 255, 0, 255)
    raw = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    scale = _TILE_PX / max(raw.size)
    tile = Image.new("RGB", (_TILE_PX, _TILE_PX + _CAPTION_PX))
    tile.paste(
        raw.resize((round(raw.width * scale), round(raw.height * scale)), Image.Resampling.NEAREST),
        (0, _CAPTION_PX),
    )
    draw = ImageDraw.Draw(tile)
    draw.text(
        (4, 3),
        f"frame {frame.frame}: {len(frame.rows)} fitted of {len(frame.candidates)}",
        fill=(255, 255, 255),
    )
    for number, channel in enumerate(channels):
        _outline(draw, number, channel, scale)
    for candidate in frame.candidates:
        x, y, r = (candidate.x_px + 0.5) * scale, (candidate.y_px + 0.5) * scale + _CAPTION_PX, 4.0 * scale
        box = (x - r, y - r, x + r, y + r)
        if candidate.fitted:
            draw.ellipse(box, outline=_FITTED)
        else:
            draw.rectangle(box, outline=_DEBOUNCED)
    return tile


def _outline(draw: ImageDraw.ImageDraw, number: int, box: ChannelBox, scale: float) -> None:
    """The channel's border, and its number at the corner where its first pixel is."""
    left, right = box.left * scale, box.right * scale - 1
    top, bottom = box.top * scale + _CAPTION_PX, box.bottom * scale - 1 + _CAPTION_PX
    draw.rectangle((left, top, right, bottom), outline=_CHANNEL)
    corner = bottom - 14 if box.flipped else top + 2
    draw.text((left + 3, corner), f"channel {number}", fill=_CHANNEL)


def _medians(frame: PreviewFrame) -> tuple[str, str, str]:
    return (
        _median([row.photons for row in frame.rows], ".0f"),
        _median([row.sigma_px for row in frame.rows], ".2f"),
        _median([row.error_x_nm for row in frame.rows], ".1f"),
    )


def _median(values: list[float | None], form: str) -> str:
    known = sorted(value for value in values if value is not None)
    return format(known[len(known) // 2], form) if known else ""
