"""Drawing localisations: one by one, each as wide as it is uncertain; or very many at once.

A picture of millions is drawn from counts: those of about equal width are counted per pixel, and the counts are blurred by the mean of what such a localisation
leaves, wherever in its pixel it lies. That costs as much as counting, and differs from drawing each by less than half the noise of the counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve1d
from scipy.special import erf

from cluster.results.columns import Columns
from cluster.results.tints import Tint, scale

__all__ = ["Canvas", "Mode", "View"]

Mode = Literal["gaussian", "histogram"]
Floats = npt.NDArray[np.floating[Any]]
Image = npt.NDArray[np.float32]

_UNKNOWN_ERROR_NM: Final = 20.0  # how wide to draw what says nothing about its error
_NARROWEST_PX: Final = 0.6  # narrower, and a localisation would look like a hot pixel
_REACH: Final = 3.5  # sigmas that are drawn
_AT_ONCE: Final = 1 << 23  # values of Gaussians held at a time
_WIDTH_STEP: Final = 1.2  # widths that differ by less are drawn as one
_WIDEST_CLASS: Final = 30


@dataclass(frozen=True)
class View:
    """What is drawn: the corner of the first pixel [nm], the size of a pixel, and how many there are."""

    x0_nm: float
    y0_nm: float
    pixel_nm: float
    height: int
    width: int

    def x(self, columns: Columns) -> npt.NDArray[np.float64]:
        """Return x in the picture, whose first pixel is from 0 to 1."""
        return (columns.x_nm.astype(float) - self.x0_nm) / self.pixel_nm

    def y(self, columns: Columns) -> npt.NDArray[np.float64]:
        """Return y in the picture."""
        return (columns.y_nm.astype(float) - self.y0_nm) / self.pixel_nm

    def near(self, columns: Columns, margin_nm: float) -> npt.NDArray[np.bool_]:
        """Return which lie in the picture or less than so far from it."""
        x, y = columns.x_nm, columns.y_nm
        right, low = self.x0_nm + self.width * self.pixel_nm, self.y0_nm + self.height * self.pixel_nm
        return np.asarray(
            (x >= np.float32(self.x0_nm - margin_nm))
            & (x <= np.float32(right + margin_nm))
            & (y >= np.float32(self.y0_nm - margin_nm))
            & (y <= np.float32(low + margin_nm))
        )


class Canvas:
    """What is drawn on: a plane of counts, and with a tint three of colours. `finish` it before it is looked at."""

    def __init__(self, view: View, tint: Tint | None, quick_above: int | None = None) -> None:
        self.view = view
        shape = view.height, view.width
        self.image: Image = np.zeros(shape, np.float32)
        self.light: Image | None = None if tint is None else np.zeros((3, *shape), np.float32)
        self._tint = tint
        self._quick_above = quick_above
        self._waiting: list[Columns] = []

    def draw(self, columns: Columns, mode: Mode) -> None:
        """Draw localisations: each as one count, or as a Gaussian of volume one."""
        if mode == "histogram":
            self._count(columns)
        elif self._quick_above is None:
            self._draw_each(columns)
        else:  # how many there are to draw is known at the end
            self._waiting.append(columns.select(self.view.near(columns, _margin_nm(self.view.pixel_nm))))

    def finish(self) -> None:
        """Draw what has waited."""
        many = sum(map(len, self._waiting)) > (self._quick_above or 0)
        if many:
            self._draw_many(self._waiting)
        else:
            for columns in self._waiting:
                self._draw_each(columns)
        self._waiting = []

    def _add(self, columns: Columns, pixels: npt.NDArray[np.int64], shares: npt.NDArray[np.float32]) -> None:
        """Add rows' shares (n, …) to pixels (n, …), numbered line by line."""
        np.add.at(self.image.reshape(-1), pixels.ravel(), shares.ravel())
        if self._tint is None or self.light is None:
            return
        for plane, colour in zip(self.light, self._tint.colours_of(columns).T, strict=True):
            tinted = shares * colour.reshape(-1, *[1] * (shares.ndim - 1))
            np.add.at(plane.reshape(-1), pixels.ravel(), tinted.ravel())

    def _count(self, columns: Columns) -> None:
        inside, pixels = self._pixels(columns, margin=0)
        self._add_counts(self.image, pixels, None)
        if self._tint is not None and self.light is not None:
            places = self._tint.places_of(columns)[inside]
            for plane, colour in zip(self.light, scale().T, strict=True):
                self._add_counts(plane, pixels, colour[places])

    def _add_counts(
        self, plane: Image, pixels: npt.NDArray[np.int64], weights: npt.NDArray[np.float32] | None
    ) -> None:
        """Add one, or a weight, to the pixel of each; by a whole plane at once where that is less work."""
        if len(pixels) > plane.size // 8:
            counted = np.bincount(pixels, weights, minlength=plane.size)
            plane += counted.reshape(plane.shape).astype(np.float32)
        else:
            np.add.at(plane.reshape(-1), pixels, np.float32(1) if weights is None else weights)

    def _pixels(self, columns: Columns, margin: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Which are in the picture or the margin around it, and the number of the pixel of each that is."""
        view = self.view
        x = np.floor(view.x(columns)).astype(np.int64) + margin
        y = np.floor(view.y(columns)).astype(np.int64) + margin
        height, width = view.height + 2 * margin, view.width + 2 * margin
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        return inside, y[inside] * width + x[inside]

    def _draw_each(self, columns: Columns) -> None:
        """Draw rows in groups of about equal width, so that each group is one array operation."""
        view = self.view
        x, y = view.x(columns), view.y(columns)
        sigma_x, sigma_y = (
            _widths(errors, view.pixel_nm) for errors in (columns.error_x_nm, columns.error_y_nm)
        )
        reach = np.ceil(_REACH * np.maximum(sigma_x, sigma_y)).astype(np.int64)
        near = (x > -reach) & (x < view.width + reach) & (y > -reach) & (y < view.height + reach)
        for size in np.unique(reach[near]):
            group = np.flatnonzero(near & (reach == size))
            step = max(1, _AT_ONCE // (2 * int(size) + 1) ** 2)
            for some in (group[at : at + step] for at in range(0, len(group), step)):
                lines, share_y = _shares(y[some], sigma_y[some], int(size), view.height)
                places, share_x = _shares(x[some], sigma_x[some], int(size), view.width)
                pixels = lines[:, :, np.newaxis] * view.width + places[:, np.newaxis, :]
                shares = (share_y[:, :, np.newaxis] * share_x[:, np.newaxis, :]).astype(np.float32)
                self._add(columns.select(some), pixels, shares)

    def _draw_many(self, parts: list[Columns]) -> None:
        """Count those of each class of widths, and blur the counts."""
        places, classes, tints = [], [], []
        margin = _margin_px(self.view.pixel_nm)
        for columns in parts:
            inside, pixels = self._pixels(columns, margin)
            places.append(pixels.astype(np.int32))
            classes.append(_class_of(columns, self.view.pixel_nm)[inside])
            if self._tint is not None:
                tints.append(self._tint.places_of(columns)[inside])
        place, kind = np.concatenate(places), np.concatenate(classes)
        tint = np.concatenate(tints) if tints else None
        colours = scale().T.astype(float)  # as what is counted: else bincount makes it so, of each row
        names = np.flatnonzero(np.bincount(kind))
        for name in names:
            of_class = kind == name if len(names) > 1 else slice(None)
            kernel = _mean_share(_NARROWEST_PX * _WIDTH_STEP**name)
            here = place[of_class]
            self.image += self._blurred(here, None, kernel, margin)
            if tint is not None and self.light is not None:
                tints_here = tint[of_class]
                for plane, colour in zip(self.light, colours, strict=True):
                    plane += self._blurred(here, colour[tints_here], kernel, margin)

    def _blurred(
        self,
        place: npt.NDArray[np.int32],
        weights: npt.NDArray[np.float64] | None,
        kernel: npt.NDArray[np.float32],
        margin: int,
    ) -> Image:
        shape = self.view.height + 2 * margin, self.view.width + 2 * margin
        counted = np.bincount(place, weights, minlength=shape[0] * shape[1])
        blurred = counted.reshape(shape).astype(np.float32)
        for axis in (0, 1):
            blurred = convolve1d(blurred, kernel, axis=axis, mode="constant")
        return blurred[margin : margin + self.view.height, margin : margin + self.view.width]


def _widths(known: Floats, pixel_nm: float) -> npt.NDArray[np.float64]:
    widths: npt.NDArray[np.float64] = np.where(np.isnan(known), _UNKNOWN_ERROR_NM, known) / pixel_nm
    return np.maximum(widths, _NARROWEST_PX)


def _class_of(columns: Columns, pixel_nm: float) -> npt.NDArray[np.int8]:
    """The class of widths of each: how many steps over the narrowest, to the nearest."""
    product = columns.error_x_nm * columns.error_y_nm
    squares = np.where(np.isnan(product), np.float32(_UNKNOWN_ERROR_NM**2), product) / np.float32(pixel_nm**2)
    steps = np.log(np.maximum(squares, _NARROWEST_PX**2) / np.float32(_NARROWEST_PX**2)) / (
        2 * math.log(_WIDTH_STEP)
    )
    return np.rint(steps).clip(0, _WIDEST_CLASS).astype(np.int8)


def _margin_nm(pixel_nm: float) -> float:
    """How far beyond the picture's edge lies what may still leave light in it: nobody's error is over 100 nm."""
    return _REACH * max(100.0, _NARROWEST_PX * pixel_nm)


def _margin_px(pixel_nm: float) -> int:
    return min(64, math.ceil(_margin_nm(pixel_nm) / pixel_nm))


def _mean_share(sigma: float) -> npt.NDArray[np.float32]:
    """What a Gaussian leaves in the pixels around its own, on average over where in its pixel it lies."""
    reach = math.ceil(_REACH * sigma) + 1
    within = (np.arange(16) + 0.5) / 16
    edges = np.arange(-reach, reach + 2)[:, np.newaxis] - within
    shares = np.diff(0.5 * erf(edges / (math.sqrt(2) * sigma)), axis=0).mean(axis=1)
    normed: npt.NDArray[np.float32] = (shares / shares.sum()).astype(np.float32)
    return normed


def _shares(
    centre: npt.NDArray[np.float64], sigma: npt.NDArray[np.float64], reach: int, size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Pixels along one axis and the fraction of the Gaussian on each; none outside the picture."""
    first = np.floor(centre).astype(np.int64) - reach
    pixels = first[:, np.newaxis] + np.arange(2 * reach + 1)
    edges = first[:, np.newaxis] + np.arange(2 * reach + 2) - centre[:, np.newaxis]
    share = np.diff(0.5 * erf(edges / (math.sqrt(2) * sigma[:, np.newaxis])), axis=1)
    share *= (pixels >= 0) & (pixels < size)
    return pixels.clip(0, size - 1), share
