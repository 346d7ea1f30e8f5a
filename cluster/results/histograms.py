"""How localisations are distributed: counts of each measure, of all and of those that the other filters choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from cluster.protocol import Histogram, JobHistograms
from cluster.results.columns import MEASURES, Columns, Measure
from cluster.results.filters import Filters

__all__ = ["histograms"]

_MOST: Final = 1_000_000  # localisations that are looked at: a bar of 1 % of them is right to 1 %
_ENDS: Final = (0.5, 99.5)  # percentiles between which the bars lie
Counts = npt.NDArray[np.int64]


def histograms(blocks: Sequence[Columns], filters: Filters, *, bins: int = 60) -> JobHistograms:
    """Count the localisations of a result.

    Of more than a million one of so many is looked at, and counts are as of all. Each measure's bars reach from its 0.5th to its 99.5th percentile, those
    of the frames over all frames; what lies beyond is counted in the last bar.

    Raises
    ------
    Invalid
        If a filter is of a measure that the fit does not know.
    """
    total = sum(map(len, blocks))
    if total == 0:
        return JobHistograms(localisations=0, chosen=0, every=1, histograms=[])
    step = -(-total // _MOST)
    looked = Columns.joined([block.every(step) for block in blocks])
    share = total / len(looked)
    chosen = filters.apply(looked)
    found = [_histogram(measure, looked, chosen, filters, bins, share) for measure in MEASURES]
    return JobHistograms(
        localisations=total,
        chosen=total if len(chosen) == len(looked) else round(len(chosen) * share),
        every=step,
        histograms=[one for one in found if one is not None],
    )


def _histogram(
    measure: Measure, looked: Columns, chosen: Columns, filters: Filters, bins: int, share: float
) -> Histogram | None:
    values = looked.measure(measure.name)
    if values is None:
        return None
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    of_frames = measure.name == "frame"
    ends = (0.0, 100.0) if of_frames else _ENDS
    low, high = (float(end) for end in np.percentile(known, ends))
    if of_frames:
        low, high = 0.0, high + 1.0
        bins = min(bins, int(high))  # no bar without a frame
    elif high <= low:
        low, high = low - 0.5 * abs(low) - 0.5, high + 0.5 * abs(high) + 0.5
    mask = filters.without(measure.name).chosen(looked)
    others = values if mask is None else values[mask]
    return Histogram(
        name=measure.name,
        title=measure.title,
        unit=measure.unit,
        low=low,
        high=high,
        all=_scaled(_counts(values, low, high, bins), share),
        chosen=_scaled(_counts(others, low, high, bins), share),
        median=_median(chosen.measure(measure.name)),
    )


def _counts(values: npt.NDArray[np.float32], low: float, high: float, bins: int) -> Counts:
    """Counts in equal bins; much faster than numpy's, which looks after edges that nobody sees here."""
    known = values[np.isfinite(values)]
    at = ((known - np.float32(low)) * np.float32(bins / (high - low))).clip(0, bins - 1).astype(np.int64)
    return np.bincount(at, minlength=bins)


def _scaled(counts: Counts, share: float) -> list[int]:
    return counts.tolist() if share == 1 else [round(count * share) for count in counts.tolist()]


def _median(values: npt.NDArray[np.float32] | None) -> float | None:
    known = np.empty(0) if values is None else values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None
