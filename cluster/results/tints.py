"""Colours that say when a molecule shone, or how deep it lies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cluster.errors import Invalid
from cluster.results.columns import Columns, columns_of

__all__ = ["By", "Tint", "tint_of"]

By = Literal["frame", "z"]
Rows = npt.NDArray[np.void]

# equally light, so that brightness says how many there are and nothing else; from blue to orange, which nearly everybody tells apart
_COLOURS = ("4f8dff", "1fa3d4", "2bb08f", "86ab3a", "d0923b", "ff7a5c")
_DEEPEST_NM = 20_000
_SHARE_BEYOND = 0.01  # of the localisations, at either end of the range that is found


@dataclass(frozen=True)
class Tint:
    """Which quantity is coloured, and what the first and last colour mean [frames or nm]."""

    by: By
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise Invalid(
                f"colours from {self.low:g} to {self.high:g}: the second must be larger", field="colour_range"
            )

    @property
    def labels(self) -> tuple[str, str]:
        """What the ends of the scale are called."""
        unit = " nm" if self.by == "z" else ""
        name = "frame " if self.by == "frame" else "z "
        return f"{name}{self.low:g}{unit}", f"{self.high:g}{unit}"

    def places_of(self, columns: Columns) -> npt.NDArray[np.uint8]:
        """Return where on `scale` each localisation is, (n,); what lies beyond the range is at its end."""
        relative = (_values(columns, self.by) - np.float32(self.low)) / np.float32(self.high - self.low)
        return (255 * relative.clip(0, 1)).astype(np.uint8)

    def colours_of(self, block: Rows | Columns) -> npt.NDArray[np.float32]:
        """Return red, green and blue from 0 to 1, (n, 3)."""
        found: npt.NDArray[np.float32] = scale()[self.places_of(columns_of(block))]
        return found


def scale() -> npt.NDArray[np.float32]:
    """Return the colours from first to last, (256, 3), red, green and blue from 0 to 1."""
    anchors = np.array([[int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)] for colour in _COLOURS])
    place = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(place, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).astype(np.float32)


def tint_of(by: By, blocks: Iterable[Rows | Columns], limits: tuple[float, float] | None = None) -> Tint:
    """Return a tint with these limits, else from the first to the last frame, or over the depth of all but 1 % at either end.

    Raises
    ------
    Invalid
        If the rows have no z, there are none, or the limits are the wrong way round.
    """
    if limits is not None:
        return Tint(by, *limits)
    counts = np.zeros(2 * _DEEPEST_NM, np.int64)
    first, last = np.inf, -np.inf
    for block in blocks:
        values = _values(columns_of(block), by)
        if len(values):
            first, last = min(first, values.min()), max(last, values.max())
        if by == "z":
            at = (np.floor(values) + _DEEPEST_NM).clip(0, len(counts) - 1).astype(np.int64)
            counts += np.bincount(at, minlength=len(counts))
    if not np.isfinite(first):
        raise Invalid("there are no localisations to be coloured")
    if by == "frame":
        return Tint(by, float(first), float(max(last, first + 1)))
    share = np.cumsum(counts) / counts.sum()
    low = int(np.searchsorted(share, _SHARE_BEYOND)) - _DEEPEST_NM
    high = int(np.searchsorted(share, 1 - _SHARE_BEYOND)) + 1 - _DEEPEST_NM
    return Tint(by, float(low), float(high))


def _values(columns: Columns, by: By) -> npt.NDArray[np.float32]:
    if by == "frame":
        return columns.frame.astype(np.float32)
    if columns.z_nm is None:
        raise Invalid("these localisations have no z, so they cannot be coloured by it", field="colour_by")
    return columns.z_nm
