"""How a job's picture is looked at: which part, how fine, in which colours; and what the mouse makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal
from urllib.parse import urlencode

from cluster.protocol import DriftMethod

Style = Literal["gaussian", "histogram"]
MOST_PX: Final = 2000  # a side of the picture that is asked for
USUAL_PX: Final = 1000
LEAST_PX: Final = 400
LEAST_PIXEL_NM: Final = 0.5


@dataclass(frozen=True)
class PictureChoice:
    """A look at the localisations; the field is that of the whole frame [nm], from the corner of its first pixel."""

    field_nm: tuple[float, float, float, float]
    region_nm: tuple[float, float, float, float] | None = None
    pixel_nm: float | None = None
    style: Style = "gaussian"
    colour_by: Literal["frame", "z"] | None = None
    gamma: float = 0.5
    brightest: float = 0.99
    filters: str | None = None
    drift: DriftMethod | None = None
    side_px: int = USUAL_PX

    @property
    def shown_nm(self) -> tuple[float, float, float, float]:
        """Return what is shown, (x0, y0, x1, y1)."""
        return self.region_nm or self.field_nm

    @property
    def fine_nm(self) -> float:
        """Return the size of a pixel: the one chosen, unless the picture were too large; without a choice, as many pixels a side as are asked for."""
        x0, y0, x1, y1 = self.shown_nm
        side = max(x1 - x0, y1 - y0)
        return max(self.pixel_nm or side / self.side_px, side / MOST_PX, LEAST_PIXEL_NM)

    def in_window(self, width_px: float, height_px: float) -> PictureChoice:
        """Return the look whose pixels are those of the screen, in a window of so many of them."""
        x0, y0, x1, y1 = self.shown_nm
        shape = (x1 - x0) / (y1 - y0)
        width = min(width_px, height_px * shape)
        return replace(self, side_px=round(min(max(width, width / shape, LEAST_PX), MOST_PX)))

    def to_keep(self) -> PictureChoice:
        """Return the look as a file, which is not coarser for being shown in a small window."""
        return replace(self, side_px=max(self.side_px, USUAL_PX))

    def query(self) -> str:
        """Return the query of `render.png`."""
        asked: dict[str, str | float] = {"pixel_nm": round(self.fine_nm, 4), "style": self.style}
        if self.region_nm is not None:
            asked["region"] = ",".join(f"{value:.1f}" for value in self.region_nm)
        if self.colour_by is not None:
            asked["colour_by"] = self.colour_by
        if self.filters is not None:
            asked["filters"] = self.filters
        if self.drift is not None:
            asked["drift"] = self.drift
        asked |= {"gamma": self.gamma, "brightest": self.brightest}
        return urlencode(asked)

    def counted(self) -> str:
        """Return the query of `render.tif`: the same as grey values, which have neither colours nor a contrast."""
        return replace(self, colour_by=None).query()

    def zoomed(self, x: float, y: float, factor: float) -> PictureChoice:
        """Return the look after zooming by a factor (over 1: nearer) about a point, as fractions of the picture."""
        x0, y0, x1, y1 = self.shown_nm
        width, height = (x1 - x0) / factor, (y1 - y0) / factor
        left, top = x0 + x * ((x1 - x0) - width), y0 + y * ((y1 - y0) - height)
        return self._at(left, top, width, height)

    def moved(self, dx: float, dy: float) -> PictureChoice:
        """Return the look after moving by fractions of the picture."""
        x0, y0, x1, y1 = self.shown_nm
        width, height = x1 - x0, y1 - y0
        return self._at(x0 + dx * width, y0 + dy * height, width, height)

    def whole(self) -> PictureChoice:
        """Return the look at everything."""
        return replace(self, region_nm=None)

    def place_nm(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the picture lies [nm]."""
        x0, y0, x1, y1 = self.shown_nm
        return x0 + x * (x1 - x0), y0 + y * (y1 - y0)

    def _at(self, left: float, top: float, width: float, height: float) -> PictureChoice:
        x0, y0, x1, y1 = self.field_nm
        if width >= x1 - x0 or height >= y1 - y0:
            return self.whole()
        least = 50 * LEAST_PIXEL_NM
        width, height = max(width, least), max(height, least)
        left = min(max(left, x0), x1 - width)
        top = min(max(top, y0), y1 - height)
        return replace(self, region_nm=(left, top, left + width, top + height))


def field_of(
    height: int, width: int, pixel_x_nm: float, pixel_y_nm: float
) -> tuple[float, float, float, float]:
    """Return the field of a frame [nm]: pixel 0 has its centre at 0."""
    return (
        -pixel_x_nm / 2,
        -pixel_y_nm / 2,
        (width - 0.5) * pixel_x_nm,
        (height - 0.5) * pixel_y_nm,
    )
