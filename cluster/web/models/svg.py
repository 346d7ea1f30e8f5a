"""Small drawings as SVG text: everything in them is a number or was escaped here."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from cluster.protocol import Histogram

# of the palette of Okabe and Ito, and the second is dashed
_LINES: Final = (("#0072b2", ""), ("#d55e00", ' stroke-dasharray="6 4"'))


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
    said = f"{title}: median {figure(middle)} {unit}".rstrip()
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(said, quote=True)}" style="width:100%;max-width:{width}px">'
        f'<g fill="currentColor" opacity=".55">{bars}</g>'
        f'<line x1="{at_middle:.1f}" x2="{at_middle:.1f}" y1="{top}" y2="{bottom}" stroke="#e69f00" stroke-width="2"/>'
        f'<g fill="currentColor" font-size="12"><text x="{left}" y="14">{html.escape(said)}</text>'
        f'<text x="{left}" y="{height - 5}">{figure(low)}</text>'
        f'<text x="{width - left}" y="{height - 5}" text-anchor="end">{figure(high)} {html.escape(unit)}</text></g></svg>'
    )


def brushed_histogram(
    counted: Histogram, chosen: tuple[float | None, float | None], *, width: int = 250, height: int = 72
) -> str:
    """Return a histogram of all in pale, of those that the other filters choose in full, with the chosen range marked.

    It is stretched to the width it is given, so there is no text in it.
    """
    tallest = max(1, *counted.all)
    step, room = width / len(counted.all), height - 4.0
    parts = []
    for counts, opacity in ((counted.all, 0.28), (counted.chosen, 0.7)):
        bars = "".join(
            f'<rect x="{at * step:.2f}" y="{height - room * count / tallest:.2f}" width="{max(step - 0.6, 0.4):.2f}" height="{room * count / tallest:.2f}"/>'
            for at, count in enumerate(counts)
            if count
        )
        parts.append(f'<g fill="currentColor" opacity="{opacity}">{bars}</g>')
    if chosen != (None, None):
        ends = (
            width * min(max((end - counted.low) / (counted.high - counted.low), 0.0), 1.0)
            if end is not None
            else beyond
            for end, beyond in zip(chosen, (0.0, float(width)), strict=True)
        )
        left, right = ends
        parts.append(
            f'<rect x="{left:.1f}" y="0" width="{max(right - left, 1):.1f}" height="{height}" fill="#e69f00" opacity=".22"/>'
            f'<path d="M{left:.1f} 0V{height}M{right:.1f} 0V{height}" stroke="#e69f00" stroke-width="2" vector-effect="non-scaling-stroke"/>'
        )
    return (
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true" style="width:100%;height:{height}px;display:block">'
        f"{''.join(parts)}</svg>"
    )


def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    unit: str,
    width: int = 640,
    height: int = 150,
) -> str:
    """Return curves over frames as an SVG, with the range of each axis; the colours and dashes of the lines differ."""
    left, top, bottom, right = 8.0, 20.0, height - 20.0, width - 8.0
    every = [value for line in lines.values() for value in line]
    low, high = min([0.0, *every]), max([0.0, *every])
    high = high if high > low else low + 1.0
    first, last = x[0], max(x[-1], x[0] + 1e-9)

    def place(at: float, value: float) -> str:
        across = left + (right - left) * (at - first) / (last - first)
        return f"{across:.1f} {bottom - (bottom - top) * (value - low) / (high - low):.1f}"

    drawn = "".join(
        f'<polyline points="{",".join(place(at, value) for at, value in zip(x, line, strict=True))}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
        for line, (colour, dash) in zip(lines.values(), _LINES, strict=False)
    )
    names = "".join(
        f'<tspan fill="{colour}" font-weight="600" dx="{10 if number else 0}">{"– –" if dash else "——"}</tspan><tspan fill="currentColor"> {html.escape(name)}</tspan>'
        for number, (name, (colour, dash)) in enumerate(zip(lines, _LINES, strict=False))
    )
    zero = place(first, 0.0).split()[1]
    said = f"{', '.join(lines)} from {figure(low)} to {figure(high)} {unit}"
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(said, quote=True)}" style="width:100%">'
        f'<line x1="{left}" x2="{right}" y1="{zero}" y2="{zero}" stroke="currentColor" opacity=".3"/>{drawn}'
        f'<g fill="currentColor" font-size="12"><text x="{left}" y="12">{figure(high)} {html.escape(unit)}</text>'
        f'<text x="{left}" y="{height - 4}">{"" if low == 0 else f"{figure(low)} {html.escape(unit)} · "}frame {figure(first)}</text><text x="{right}" y="{height - 4}" text-anchor="end">{figure(last)}</text>'
        f'<text x="{right}" y="12" text-anchor="end">{names}</text></g></svg>'
    )


def rectangle(x0: float, y0: float, x1: float, y1: float, colour: str) -> str:
    """Return an outline that stays one screen pixel wide however far one zooms, in pixels of the picture."""
    left, top, width, height = min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)
    return (
        f'<rect x="{left:.2f}" y="{top:.2f}" width="{width:.2f}" height="{height:.2f}" fill="none" stroke="{colour}" '
        'stroke-width="2" stroke-dasharray="6 3" vector-effect="non-scaling-stroke"/>'
    )


def figure(value: float) -> str:
    """Return a number with three figures, and no power of ten before a million."""
    return f"{value:,.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"
