"""Small drawings as SVG text: everything in them is a number or was escaped here."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np


def histogram(
    values: Sequence[float], *, title: str, unit: str, bins: int = 30, width: int = 300, height: int = 130
) -> str:
    """Return a histogram of values as an SVG: from its 1st to its 99th percentile, with the median marked.

    It takes the colour of the text around it, so that it suits a dark page and a light one.
    """
    known = np.asarray([value for value in values if np.isfinite(value)], np.float64)
    if known.size == 0:
        return f'<svg viewBox="0 0 {width} {height}" role="img"><text x="8" y="20" fill="currentColor">no {html.escape(title)}</text></svg>'
    low, middle, high = (float(value) for value in np.percentile(known, (1, 50, 99)))
    if high <= low:
        low, high = low - 0.5 * abs(low) - 0.5, high + 0.5 * abs(high) + 0.5
    counts, _ = np.histogram(known.clip(low, high), bins=bins, range=(low, high))
    left, top, bottom = 8.0, 22.0, height - 20.0
    step = (width - 2 * left) / bins
    tallest = max(1, int(counts.max()))
    bars = "".join(
        f'<rect x="{left + at * step:.1f}" y="{bottom - (bottom - top) * number / tallest:.1f}" width="{step - 1:.1f}" '
        f'height="{(bottom - top) * number / tallest:.1f}"/>'
        for at, number in enumerate(counts.tolist())
    )
    at_middle = left + (width - 2 * left) * (middle - low) / (high - low)
    said = f"{title}: median {_figure(middle)} {unit}".rstrip()
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(said, quote=True)}" style="width:100%;max-width:{width}px">'
        f'<g fill="currentColor" opacity=".55">{bars}</g>'
        f'<line x1="{at_middle:.1f}" x2="{at_middle:.1f}" y1="{top}" y2="{bottom}" stroke="#e69f00" stroke-width="2"/>'
        f'<g fill="currentColor" font-size="12"><text x="{left}" y="14">{html.escape(said)}</text>'
        f'<text x="{left}" y="{height - 5}">{_figure(low)}</text>'
        f'<text x="{width - left}" y="{height - 5}" text-anchor="end">{_figure(high)} {html.escape(unit)}</text></g></svg>'
    )


def rectangle(x0: float, y0: float, x1: float, y1: float, colour: str) -> str:
    """Return an outline that stays one screen pixel wide however far one zooms, in pixels of the picture."""
    left, top, width, height = min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)
    return (
        f'<rect x="{left:.2f}" y="{top:.2f}" width="{width:.2f}" height="{height:.2f}" fill="none" stroke="{colour}" '
        'stroke-width="2" stroke-dasharray="6 3" vector-effect="non-scaling-stroke"/>'
    )


def _figure(value: float) -> str:
    """Return a number with three figures, and no power of ten before a million."""
    return f"{value:,.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"
