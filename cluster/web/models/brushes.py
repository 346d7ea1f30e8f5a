"""Ranges that somebody brushed over histograms, and how they are said to the cluster and to people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.protocol import Histogram
from cluster.web.models.svg import figure

Range = tuple[float | None, float | None]
_EDGE = 0.01  # of a histogram's width: who brushes to the end means everything beyond it, too


@dataclass(frozen=True)
class Brushes:
    """Ranges by the name of the measure; None is an open end."""

    ranges: Mapping[str, Range] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return whether anything is left out."""
        return bool(self.ranges)

    @property
    def query(self) -> str | None:
        """Return the filters as the cluster takes them."""
        parts = (f"{name}={_end(low)}..{_end(high)}" for name, (low, high) in sorted(self.ranges.items()))
        return ",".join(parts) or None

    def of(self, name: str) -> Range:
        """Return the range of a measure."""
        return self.ranges.get(name, (None, None))

    def brushed(self, histogram: Histogram, first: float, second: float) -> Brushes:
        """Return the brushes after a drag over a histogram, from and to fractions of its width."""
        low, high = sorted((first, second))
        width = histogram.high - histogram.low
        ends = (
            None if low <= _EDGE else histogram.low + low * width,
            None if high >= 1 - _EDGE else histogram.low + high * width,
        )
        return self.ranged(histogram.name, *ends)

    def ranged(self, name: str, low: float | None, high: float | None) -> Brushes:
        """Return the brushes with another range of a measure; turned round if it is the wrong way."""
        others = {one: ends for one, ends in self.ranges.items() if one != name}
        if low is None and high is None:
            return Brushes(others)
        if low is not None and high is not None and low > high:
            low, high = high, low
        return Brushes({**others, name: (low, high)})

    def said(self, name: str) -> str:
        """Return the range of a measure as people read it."""
        low, high = self.of(name)
        if low is None and high is None:
            return "all"
        if high is None:
            return f"from {figure(low or 0.0)}"
        return f"up to {figure(high)}" if low is None else f"{figure(low)} to {figure(high)}"


def _end(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
