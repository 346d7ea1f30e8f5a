"""A first guess of a region's emitters: one for each candidate, its photons by expectation maximisation.

References
----------
L. A. Shepp and Y. Vardi, IEEE Trans. Med. Imaging 1, 113 (1982), https://doi.org/10.1109/TMI.1982.4307558.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fitting.joint_model import share_of_pixel
from fitting.kernel import borrower, device
from fitting.poisson import UNKNOWN

_PIXELS = 4  # of nine that must be known to tell the background
_EXPECTATIONS = 12


@device
def start(place: Any, guess: Any, chosen: Any, y0: int, x0: int, aspect: Any, region: Any) -> None:
    """Emitters where there are candidates, their photons by expectation maximisation."""
    background = _darkest(region)
    for t in range(len(region.background)):
        region.background[t] = background
    count = 0
    for q in range(len(chosen)):
        i = chosen[q]
        twin = False
        for p in range(q):
            j = chosen[p]
            twin |= abs(place[i, 1] - place[j, 1]) <= 1 and abs(place[i, 2] - place[j, 2]) <= 1
        if not twin:
            region.x[count] = place[i, 2] - x0 + min(max(guess[i, 0], -1.0), 1.0)
            region.y[count] = place[i, 1] - y0 + min(max(guess[i, 1], -1.0), 1.0)
            region.alive[count] = True
            count += 1
    region.count[0] = count
    _expect_photons(region, count, background, aspect)


@borrower
def _darkest(region: Any) -> Any:
    """The least mean of three by three known pixels beyond the known background [e⁻]."""
    height, width = region.data.shape
    darkest, least = np.inf, np.float64(UNKNOWN)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            shown, number = 0.0, 0
            for v in range(y - 1, y + 2):
                for u in range(x - 1, x + 2):
                    if region.extra[v, u] < UNKNOWN:
                        shown += region.data[v, u] - region.extra[v, u]
                        least = min(least, region.extra[v, u])
                        number += 1
            if number > _PIXELS and shown / number < darkest:
                darkest = shown / number
    return max(darkest, 0.1 - least) if darkest < np.inf else 0.0


@device
def _expect_photons(region: Any, count: int, background: Any, aspect: Any) -> None:
    """Photons of emitters whose places are known: N grows by the mean of x/μ over its light, which never makes a fit worse."""
    height, width = region.data.shape
    s = region.width_px
    span_x, span_y = 2 * math.ceil(3 * s) + 1, 2 * math.ceil(3 * s * aspect) + 1
    along_x, along_y = np.zeros((count, span_x)), np.zeros((count, span_y))
    for k in range(count):
        for i in range(span_x):
            along_x[k, i] = share_of_pixel(i - span_x // 2 + round(region.x[k]) - region.x[k], s)
        for i in range(span_y):
            along_y[k, i] = share_of_pixel(i - span_y // 2 + round(region.y[k]) - region.y[k], s * aspect)
    light = np.empty((height, width))
    for k in range(count):
        region.n[k] = _brightest(region, k, background) * 2 * math.pi * s * s * aspect
    for _ in range(_EXPECTATIONS):
        for y in range(height):
            for x in range(width):
                light[y, x] = background
        for k in range(count):
            _spread_light(region, k, along_x[k], along_y[k], light)
        for k in range(count):
            region.n[k] = max(region.n[k] * _missing(region, k, along_x[k], along_y[k], light), 2.0)


@borrower
def _spread_light(region: Any, k: int, along_x: Any, along_y: Any, light: Any) -> None:
    height, width = region.data.shape
    y0, x0 = round(region.y[k]) - len(along_y) // 2, round(region.x[k]) - len(along_x) // 2
    for y in range(max(y0, 0), min(y0 + len(along_y), height)):
        part = region.n[k] * along_y[y - y0]
        for x in range(max(x0, 0), min(x0 + len(along_x), width)):
            light[y, x] += part * along_x[x - x0]


@borrower
def _missing(region: Any, k: int, along_x: Any, along_y: Any, light: Any) -> Any:
    """The mean of x/μ over the light of emitter k."""
    height, width = region.data.shape
    y0, x0 = round(region.y[k]) - len(along_y) // 2, round(region.x[k]) - len(along_x) // 2
    seen, total = 0.0, 1e-9
    for y in range(max(y0, 0), min(y0 + len(along_y), height)):
        for x in range(max(x0, 0), min(x0 + len(along_x), width)):
            if region.extra[y, x] < UNKNOWN:
                share = along_y[y - y0] * along_x[x - x0]
                seen += share * region.data[y, x] / max(region.extra[y, x] + light[y, x], 0.01)
                total += share
    return seen / total


@borrower
def _brightest(region: Any, k: int, background: Any) -> Any:
    """What the pixel of emitter k shows beyond the background [e⁻], at least one."""
    height, width = region.data.shape
    y, x = min(max(round(region.y[k]), 0), height - 1), min(max(round(region.x[k]), 0), width - 1)
    return max(region.data[y, x] - region.extra[y, x] - background, 1.0)
