"""Which localisations a picture or a histogram takes: a range of each quantity, as somebody brushed over its histogram."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from cluster.errors import Invalid
from cluster.results.columns import MEASURES, Columns

__all__ = ["Filters"]

_NUMBER: Final = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_ONE: Final = re.compile(rf"(?P<name>[a-z_]+)=(?P<low>{_NUMBER})?\.\.(?P<high>{_NUMBER})?")
_NAMES: Final = tuple(measure.name for measure in MEASURES)


@dataclass(frozen=True)
class Filters:
    """Ranges by the name of the measure, both ends included; None is an open end. A row that lacks a measure is not chosen by it."""

    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Read "photons=300..5000,precision_nm=..20"; raises `Invalid` where it is not like that."""
        ranges: dict[str, tuple[float | None, float | None]] = {}
        for part in (text or "").split(",") if text else ():
            found = _ONE.fullmatch(part.strip())
            if found is None or found["name"] not in _NAMES:
                raise Invalid(
                    f"filters: {part[:80]!r} is not NAME=LOW..HIGH, such as photons=300..5000; the names are {', '.join(_NAMES)}",
                    field="filters",
                )
            low, high = (None if found[end] is None else float(found[end]) for end in ("low", "high"))
            if low is not None and high is not None and low > high:
                raise Invalid(f"filters: {part[:80]!r}: the second must not be smaller", field="filters")
            ranges[found["name"]] = (low, high)
        return cls(ranges)

    def without(self, name: str) -> Filters:
        """Return the other filters: what the histogram of one measure is brushed in."""
        return Filters({one: ends for one, ends in self.ranges.items() if one != name})

    def chosen(self, columns: Columns) -> npt.NDArray[np.bool_] | None:
        """Return which rows are chosen, None for all.

        Raises
        ------
        Invalid
            If the fit does not know a measure.
        """
        mask: npt.NDArray[np.bool_] | None = None
        for name, (low, high) in self.ranges.items():
            values = columns.measure(name)
            if values is None:
                raise Invalid(
                    f"these localisations have no {name}, so they cannot be chosen by it", field="filters"
                )
            for passed in (
                None if low is None else values >= low,
                None if high is None else values <= high,
            ):
                mask = passed if mask is None else mask if passed is None else mask & passed
        return mask

    def apply(self, columns: Columns) -> Columns:
        """Return the rows that are chosen; raises as `chosen` does."""
        mask = self.chosen(columns)
        return columns if mask is None else columns.select(mask)
