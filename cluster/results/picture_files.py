"""Pictures as files: PNG to look at, TIFF to measure in."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from cluster.errors import Invalid
from cluster.results.drift_table import Correct, corrected
from cluster.results.h5r import Advance, Reader
from cluster.results.publish import writing
from cluster.results.render import Field, Mode, Picture, field_of, nice_above, render
from cluster.results.tints import By, Tint, scale, tint_of

# lightness rises evenly from black to near white, by way of purple, red and orange: also right in black and white,
# and for readers who see fewer colours
_COLOURS = (
    "000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06", "f7d13d", "fcffa4",
)  # fmt: skip
_LEAST_SIDE_FOR_BAR = 64
LEAST_WHITE: Final = 1e-6
MOST_WHITE: Final = 1e9  # more than float32 tells apart would be infinite
_BRIGHT = 0.99
_LEAST_SIDE_FOR_LEGEND = 256


@dataclass(frozen=True)
class Tones:
    """How bright a pixel of a picture is.

    `white` localisations in a pixel are as bright as can be; None: so that the share `brightest` of the pixels with light in
    them is not saturated. `gamma` below 1 lifts what is dim, which is much of what there is to see.
    """

    gamma: float = 0.5
    brightest: float = 0.99
    white: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 10:
            raise Invalid(f"gamma must be over 0 and at most 10, not {self.gamma:g}", field="gamma")
        if not 0 < self.brightest <= 1:
            raise Invalid(f"brightest is a share from 0 to 1, not {self.brightest:g}", field="brightest")
        if self.white is not None and not LEAST_WHITE <= self.white <= MOST_WHITE:
            raise Invalid(
                f"white must be from {LEAST_WHITE:g} to {MOST_WHITE:g}, not {self.white:g}", field="white"
            )

    def of(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return brightness from 0 to 1."""
        white = self._white_of(image) if self.white is None else self.white
        if white is None:
            return np.zeros(image.shape, np.float32)
        relative: npt.NDArray[np.float32] = np.clip(image / np.float32(white), 0, 1)
        return relative**self.gamma

    def _white_of(self, image: npt.NDArray[np.float32]) -> float | None:
        """What a Gaussian leaves far out is no light that one could see, and one bead is no measure for the rest."""
        light = image[image > 0]
        if light.size == 0:
            return None
        lit = light[light > 1e-2 * np.quantile(light, _BRIGHT)]
        return float(np.quantile(lit, self.brightest))


@dataclass(frozen=True)
class Look:
    """What of the results a picture shows and how: `region` is a part of the field, by default all of it."""

    pixel_nm: float | None = None
    mode: Mode = "gaussian"
    region: Field | None = None
    colour_by: By | None = None
    colour_range: tuple[float, float] | None = None
    tones: Tones = Tones()

    def __post_init__(self) -> None:
        if self.colour_range is not None and self.colour_by is None:
            raise Invalid(
                "a range of colours says nothing without colour_by (frame or z)", field="colour_range"
            )


def render_file(
    source: Path,
    out: Path,
    *,
    look: Look | None = None,
    replace: bool = False,
    advance: Advance | None = None,
    correct: Correct | None = None,
) -> Picture:
    """Draw a results file, corrected if asked, into a `.png` or `.tif`; `advance` hears how many rows of how many are drawn.

    Raises
    ------
    Invalid
        If the picture is of another kind, the source is not a results file, its field cannot be known, or there is no z to
        be coloured by.
    Conflict
        If the picture exists and is not to be replaced.
    OutOfSpace
        If the disk is full.
    """
    save = _SAVERS.get(out.suffix.lower())
    if save is None:
        raise Invalid(f"{out}: pictures are .png, .tif or .tiff", field="out")
    look = look or Look()
    if look.colour_by is not None and save is save_tiff:
        raise Invalid(f"{out}: a TIFF holds counts to measure in; colours go into a .png", field="out")
    with Reader(source) as reader:
        field = field_of(reader.metadata(), reader.blocks()).part(look.region)
        tint = look.colour_by and tint_of(look.colour_by, reader.blocks(), look.colour_range)
        rows = corrected(reader, correct, advance)
        picture = render(rows, field, pixel_nm=look.pixel_nm, mode=look.mode, tint=tint)
    with writing(out, replace=replace) as temporary:
        save(picture, temporary, look.tones)
    return picture


def png(picture: Picture, tones: Tones | None = None, *, scale_bar: bool = True) -> bytes:
    """Return an 8-bit colour PNG."""
    image = Image.fromarray(_coloured(picture, (tones or Tones()).of(picture.image)))
    if scale_bar and min(image.size) >= _LEAST_SIDE_FOR_BAR:
        _draw_scale_bar(image, picture.pixel_nm)
    if scale_bar and picture.tint is not None and min(image.size) >= _LEAST_SIDE_FOR_LEGEND:
        _draw_legend(image, picture.tint)
    facts = PngImagePlugin.PngInfo()
    facts.add_text("Software", "clusterofone")
    facts.add_text("pixel_nm", f"{picture.pixel_nm:g}")
    facts.add_text("localisations", str(picture.shown))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=facts)
    return buffer.getvalue()


def before_and_after(mean_frame: npt.NDArray[Any], picture: Picture) -> bytes:
    """Return a PNG of what the camera saw, in grey, beside what the localisations show of the same field.

    Parameters
    ----------
    mean_frame
        The mean of the frames, (h, w); its field is the picture's.
    picture
        The localisations.
    """
    low, high = np.quantile(mean_frame, [0.01, 0.9995])
    grey = np.rint(255 * np.clip((mean_frame - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)
    after = Image.open(io.BytesIO(png(picture)))
    before = Image.fromarray(grey).resize(after.size, Image.Resampling.NEAREST)
    gap = max(2, after.width // 100)
    both = Image.new("RGB", (2 * after.width + gap, after.height), "white")
    both.paste(before, (0, 0))
    both.paste(after, (after.width + gap, 0))
    buffer = io.BytesIO()
    both.save(buffer, format="PNG")
    return buffer.getvalue()


def save_png(picture: Picture, path: Path, tones: Tones | None = None) -> None:
    """Write an 8-bit colour PNG."""
    path.write_bytes(png(picture, tones))


def save_tiff(picture: Picture, path: Path | io.BytesIO, tones: Tones | None = None) -> None:  # noqa: ARG001 - counts have none
    """Write a 16-bit TIFF that ImageJ opens with its pixel size; grey values are proportional to localisations.

    Counts are kept as they are; what is not whole, or too large, is scaled, and `localisations_per_grey` in the
    description says by how much.
    """
    import tifffile  # not needed to serve pictures, and slow to load

    peak = float(picture.image.max(initial=0.0))
    whole = bool((picture.image == np.rint(picture.image)).all()) and peak <= 65535
    scale = 1.0 if whole or peak == 0 else 65535 / peak
    pixels_per_um = 1000 / picture.pixel_nm
    tifffile.imwrite(
        path,
        np.rint(picture.image * np.float32(scale)).astype(np.uint16),
        imagej=True,
        resolution=(pixels_per_um, pixels_per_um),
        metadata={
            "axes": "YX",
            "unit": "um",
            "max": peak * scale,
            "min": 0.0,
            "Info": f"localisations_per_grey = {1 / scale:.9g}\npixel_nm = {picture.pixel_nm:g}",
        },
    )


def colours() -> npt.NDArray[np.uint8]:
    """Return the colour map, (256, 3) red, green, blue."""
    anchors = np.array([[int(colour[at : at + 2], 16) for at in (0, 2, 4)] for colour in _COLOURS])
    position = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(position, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    table: npt.NDArray[np.uint8] = np.rint(np.stack(channels, axis=1)).astype(np.uint8)
    return table


def _coloured(picture: Picture, brightness: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Colours by how many there are, or with a tint by what it says of those in a pixel, on average."""
    if picture.light is None:
        by_count: npt.NDArray[np.uint8] = colours()[np.rint(255 * brightness).astype(np.uint8)]
        return by_count
    there = np.maximum(picture.image, np.float32(1e-12))
    coloured = np.rint(255 * brightness * (picture.light / there).clip(0, 1)).astype(np.uint8)
    return np.ascontiguousarray(coloured.transpose(1, 2, 0))


def _draw_scale_bar(image: Image.Image, pixel_nm: float) -> None:
    width, height = image.size
    length_nm = nice_above(width * pixel_nm / 12)
    length, unit = round(length_nm / pixel_nm), max(1, round(min(width, height) / 150))
    right, bottom = width - 4 * unit, height - 4 * unit
    draw = ImageDraw.Draw(image)
    draw.rectangle((right - length, bottom - unit, right, bottom), fill="white")
    font: Any = ImageFont.load_default(max(10, 5 * unit))
    number, micro = (f"{length_nm / 1000:g} ", True) if length_nm >= 1000 else (f"{length_nm:g} ", False)
    label = f"{number}{'um' if micro else 'nm'}"
    label_width = draw.textlength(label, font=font)
    left = min(right - (length + label_width) / 2, width - unit - label_width)
    draw.text((left, bottom - 2 * unit), label, fill="white", font=font, anchor="ls")
    if micro:
        _add_tail(draw, (left + draw.textlength(number, font=font), bottom - 2 * unit), font)


def _draw_legend(image: Image.Image, tint: Tint) -> None:
    """The scale of colours, and what its ends mean."""
    width, height = image.size
    unit = max(1, round(min(width, height) / 150))
    left, bottom = 4 * unit, height - 4 * unit
    draw = ImageDraw.Draw(image)
    font: Any = ImageFont.load_default(max(10, 4 * unit))
    low, high = tint.labels
    length = max(width // 4, math.ceil(draw.textlength(f"{low}     {high}", font=font)))
    bar = np.rint(255 * scale()).astype(np.uint8)[np.newaxis].repeat(unit, axis=0)
    image.paste(Image.fromarray(bar).resize((length, unit)), (left, bottom - unit))
    draw.text((left, bottom - 2 * unit), low, fill="white", font=font, anchor="ls")
    draw.text((left + length, bottom - 2 * unit), high, fill="white", font=font, anchor="rs")


def _add_tail(draw: ImageDraw.ImageDraw, at: tuple[float, float], font: Any) -> None:
    """Make the letter u at a place into a µ, which the font that comes with Pillow lacks."""
    size = round(font.size)
    sheet = Image.new("L", (3 * size, 3 * size))
    ImageDraw.Draw(sheet).text((size, 2 * size), "u", fill=255, font=font, anchor="ls")
    ink = sheet.getbbox() or (size, size, 2 * size, 2 * size)
    x, top = round(at[0]) + ink[0] - size, round(at[1]) + ink[1] - 2 * size
    draw.rectangle((x, top, x + max(1, round(size / 13)) - 1, round(at[1] + size / 4)), fill="white")


_SAVERS = {".png": save_png, ".tif": save_tiff, ".tiff": save_tiff}
