"""Pictures of localisations: how many there are in each small pixel, or each drawn as wide as it is uncertain.

Rows are taken block by block, so that memory is the picture's, whatever the number of localisations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.errors import Invalid
from cluster.results.columns import Columns, columns_of
from cluster.results.drawing import Canvas, Mode, View
from cluster.results.quantities import worth_showing
from cluster.results.tints import Tint

__all__ = ["Field", "Mode", "Picture", "field_of", "finest_pixel_nm", "render"]

Rows = npt.NDArray[np.void]
Image = npt.NDArray[np.float32]

_MOST_PIXELS = 150_000_000
_USUAL_SIDE = 4096
_PREFERRED_NM = 10.0


@dataclass(frozen=True)
class Field:
    """The part of the sample that a picture shows [nm]; the centre of the camera's first pixel is the origin."""

    x0_nm: float
    y0_nm: float
    x1_nm: float
    y1_nm: float

    @classmethod
    def of_frame(cls, height_px: int, width_px: int, pixel_x_nm: float, pixel_y_nm: float) -> Field:
        """Return the field of a whole camera frame."""
        return cls(
            -pixel_x_nm / 2, -pixel_y_nm / 2, (width_px - 0.5) * pixel_x_nm, (height_px - 0.5) * pixel_y_nm
        )

    @classmethod
    def parse(cls, text: str) -> Field:
        """Read "x0,y0,x1,y1" [nm]; raises `Invalid` if it is no field."""
        try:
            x0, y0, x1, y1 = (float(part) for part in text.split(","))
        except ValueError:
            raise Invalid(
                f"region: {text[:80]!r} is not x0,y0,x1,y1 in nm, such as 4000,6000,5500,7500", field="region"
            ) from None
        if not (x0 < x1 and y0 < y1 and math.isfinite(x1 - x0) and math.isfinite(y1 - y0)):
            raise Invalid(
                f"region: {text[:80]!r} has no area; x0,y0 is its upper left corner", field="region"
            )
        return cls(x0, y0, x1, y1)

    def part(self, region: Field | None) -> Field:
        """Return a part of this field, which may reach beyond it, or all of it; raises `Invalid` if the two have nothing in common."""
        if region is None:
            return self
        apart_x = region.x1_nm <= self.x0_nm or region.x0_nm >= self.x1_nm
        if apart_x or region.y1_nm <= self.y0_nm or region.y0_nm >= self.y1_nm:
            raise Invalid(
                f"region: nothing lies there; the field is {self.x0_nm:g},{self.y0_nm:g},{self.x1_nm:g},{self.y1_nm:g} nm",
                field="region",
            )
        return region

    def shape(self, pixel_nm: float) -> tuple[int, int]:
        """Return height and width of the picture of it."""
        return tuple(
            max(1, math.ceil((stop - start) / pixel_nm - 1e-9))
            for start, stop in ((self.y0_nm, self.y1_nm), (self.x0_nm, self.x1_nm))
        )  # type: ignore[return-value]


@dataclass(frozen=True)
class Picture:
    """Localisations per pixel, (h, w) float32, and what a pixel is.

    `shown` and `hidden` count the rows that went into it and those that were left out. With a `tint`, `light` is the sum
    of their colours, (3, h, w) float32.
    """

    image: Image
    pixel_nm: float
    shown: int
    hidden: int
    tint: Tint | None = None
    light: Image | None = None


def field_of(metadata: Mapping[str, Any], blocks: Iterable[Rows] = ()) -> Field:
    """Find the field: the camera's frame where the metadata know it, else what the rows that are shown span.

    Raises
    ------
    Invalid
        If neither says anything.
    """
    keys = ("Camera.ROIHeight", "Camera.ROIWidth", "voxelsize.x", "voxelsize.y")
    known = [metadata.get(key) for key in keys]
    if all(isinstance(value, int | float | np.number) and value > 0 for value in known):
        height, width, x_um, y_um = (float(value) for value in known if value is not None)
        return Field.of_frame(int(height), int(width), 1000 * x_um, 1000 * y_um)
    corners = [_span(block[worth_showing(block)]["fitResults"]) for block in blocks]
    spans = np.array([corner for corner in corners if corner is not None])
    if len(spans) == 0:
        raise Invalid(
            "the field of view is not known: neither metadata nor localisations say how large it is"
        )
    low, high = spans[:, :2].min(axis=0), spans[:, 2:].max(axis=0)
    return Field(float(low[0]), float(low[1]), float(high[0]) + 1, float(high[1]) + 1)


def finest_pixel_nm(field: Field, preferred_nm: float = _PREFERRED_NM) -> float:
    """Return the preferred pixel, or a coarser one of the series 1, 2, 5 that keeps the picture viewable."""
    side = max(field.x1_nm - field.x0_nm, field.y1_nm - field.y0_nm)
    return max(preferred_nm, nice_above(side / _USUAL_SIDE))


def nice_above(value: float) -> float:
    """Return the next number of the series 1, 2, 5, 10, … that is not smaller.

    Examples
    --------
    >>> [nice_above(v) for v in (0.9, 1.0, 3.0, 60.0)]
    [1.0, 1.0, 5.0, 100.0]
    """
    decade = 10.0 ** math.floor(math.log10(value))
    return next(step * decade for step in (1.0, 2.0, 5.0, 10.0) if step * decade >= value * (1 - 1e-9))


def render(
    blocks: Iterable[Rows | Columns],
    field: Field,
    *,
    pixel_nm: float | None = None,
    mode: Mode = "gaussian",
    tint: Tint | None = None,
    quick_above: int | None = None,
) -> Picture:
    """Draw localisations.

    Fits that did not converge, or whose error is over 100 nm, are hidden.

    Parameters
    ----------
    blocks
        Rows, or the columns of some, block by block.
    field
        What to show.
    pixel_nm
        Size of a pixel of the picture; by default 10 nm or what keeps the picture viewable.
    mode
        "gaussian": each localisation is a Gaussian of volume one, as wide as its own error; "histogram": a count.
    tint
        What colours say; without it there are none.
    quick_above
        More Gaussians than this are drawn quickly: from the middle of a pixel, and as wide as others of nearly their width. Without it each is
        drawn by itself, however many there are.

    Raises
    ------
    Invalid
        If the pixel is no length, or so small that the picture would not fit into memory.
    """
    pixel_nm = finest_pixel_nm(field) if pixel_nm is None else pixel_nm
    if not pixel_nm > 0:
        raise Invalid(f"pixel_nm must be positive, not {pixel_nm}", field="pixel_nm")
    shape = field.shape(pixel_nm)
    if shape[0] * shape[1] > _MOST_PIXELS:
        least = math.sqrt(shape[0] * shape[1] / _MOST_PIXELS) * pixel_nm
        raise Invalid(
            f"a picture of {shape[1]} × {shape[0]} pixels is too large: pixel_nm must be at least {nice_above(least):g}",
            field="pixel_nm",
        )
    canvas = Canvas(View(field.x0_nm, field.y0_nm, pixel_nm, *shape), tint, quick_above)
    shown = hidden = 0
    for block in blocks:
        columns = columns_of(block)
        canvas.draw(columns, mode)
        shown, hidden = shown + len(columns), hidden + columns.hidden
    canvas.finish()
    return Picture(canvas.image, pixel_nm, shown, hidden, tint, canvas.light)


def _span(at: Rows) -> tuple[float, float, float, float] | None:
    if len(at) == 0:
        return None
    return at["x0"].min(), at["y0"].min(), at["x0"].max(), at["y0"].max()
