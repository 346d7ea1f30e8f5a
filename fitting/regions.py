"""Connected regions of a frame: ROIs that overlap, put together again, cut into windows and fitted.

A region that fits into a window is one patch. A larger one is cut into cores on a grid that starts at its corner; the window of a core
reaches a margin beyond it. All emitters of a window are fitted together, and the light of those outside is known from the round before;
those in the core are taken from that fit. Window after window in raster order, round after round, overlapping windows bring all
emitters to the maximum of the likelihood of the whole region (Schwarz's alternating method). Nothing but the frame's own ROIs has a say.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fitting.first_guess import start
from fitting.joint_model import BACKGROUND, EACH, FIRST, WIDTH, N, X, Y, share_of_pixel
from fitting.kernel import borrower, device, kernel
from fitting.lanes import LANES
from fitting.patches import explain, finish
from fitting.poisson import LEAST_PHOTONS, UNKNOWN

GROWING, SETTLING = 2, 4
"""Rounds over the windows of a cut region in which emitters come and go, and rounds after them in which they only move."""
COLUMNS = 10
"""Columns of what comes out: y, x [px of the frame], N, s; variances of x, y, N, s and the covariance of N and s; b."""
_PIXELS_EACH = 4  # a region has no more emitters than a quarter of its pixels
_LIGHT = 5.0  # [sigma] from which light is reckoned with


class Cut(NamedTuple):
    """How regions are cut: side of a core and margin [px], largest window that is not cut, most emitters of a window."""

    core: int
    margin: int
    whole: int
    most: int


class Found(NamedTuple):
    """Emitters of all regions: frame (m,) int32, values (m, COLUMNS), quality (m, 3): deviance over expectation, emitters, result code."""

    frame: Any
    values: Any
    quality: Any


class _Region(NamedTuple):
    """A region's pixels in its box, its emitters so far and the background of each window.

    x, y, n, s (m,): place, photons and width of each; alive (m,) bool; near (m,) int64: those that matter for a row of windows;
    count (2,) int64: emitters in the list, alive or not, and number of near ones; width_px: expected width.
    """

    data: Any
    extra: Any
    x: Any
    y: Any
    n: Any
    s: Any
    alive: Any
    near: Any
    count: Any
    background: Any
    width_px: Any


def cut_for(width_px: float, aspect: float, side: int, most: int) -> Cut:
    """Cores of six sigma with margins of three, and at least two ROIs' sides in one piece."""
    broad = width_px * max(aspect, 1.0)
    core, margin = max(math.ceil(6 * broad), 8), math.ceil(3 * broad)
    return Cut(core, margin, max(core + 2 * margin, 2 * side), most)


@kernel
def label_regions(place: Any, number: int, side: int, slack: int, label: Any) -> None:
    """Give ROIs of one frame that overlap, directly or through others, the number of the first of them.

    Parameters
    ----------
    place : (capacity, 4) int32 array
        See `fitting.rois.RoiBuffer`; within a frame y ascends to within `slack` px.
    label : (number,) int32 array
        Out.
    """
    for i in range(number):
        label[i] = i
        j = i - 1
        while j >= 0 and place[j, 0] == place[i, 0] and place[i, 1] - place[j, 1] < side + slack:
            if abs(place[i, 1] - place[j, 1]) < side and abs(place[i, 2] - place[j, 2]) < side:
                one, other = _root(label, i), _root(label, j)
                label[max(one, other)] = min(one, other)
            j -= 1
    for i in range(number):
        label[i] = label[label[i]]


@borrower
def _root(label: Any, i: int) -> int:
    while label[i] != i:
        label[i] = label[label[i]]
        i = label[i]
    return i


@kernel
def fit_regions(
    first: Any, members: Any, place: Any, data: Any, extra: Any, guess: Any, side: int,
    widths: Any, cut: Any, choice: Any, window: Any, trial: Any, found: Any,
) -> Any:  # fmt: skip
    """Fit regions one after the other.

    Parameters
    ----------
    first : (r + 1,) int64 array
        Where the members of each region begin.
    members : (m,) int64 array
        ROIs of the regions.
    place, data, extra
        The ROIs; see `fitting.rois.RoiBuffer`.
    guess : (n, 2) float32 array
        x and y of each ROI's molecule from its middle [px].
    widths : (n,) float64 array
        Width of the PSF at each ROI [px].

    Returns
    -------
    int
        Number of emitters found; if it is more than `found` has room for, the rest has been left out.
    """
    total: Any = np.int64(0)  # numba would compile a function once more for a literal 0
    for r in range(len(first) - 1):
        chosen = members[first[r] : first[r + 1]]
        y0, x0, height, width = _box(place, chosen, side)
        region = _make_region(height, width, len(chosen), cut, widths[chosen[0]])
        _paste(place, data, extra, chosen, side, y0, x0, region)
        start(place, guess, chosen, y0, x0, choice.aspect, region)
        before = total
        step, rounds = _course(height, width, cut)
        for sweep in range(rounds):
            number: Any = np.int64(0)
            grow, last = sweep < GROWING, sweep == rounds - 1
            for y in range(0, height, step):
                _gather(region, y, y + step, cut.margin, choice.aspect)
                for x in range(0, width, step):
                    core = (y, x, min(y + step, height), min(x + step, width))
                    total = _visit(region, core, number, cut, choice, grow, last, window, trial, found, total)
                    number += 1
        for i in range(before, min(total, len(found.frame))):
            found.frame[i] = place[chosen[0], 0]
            found.values[i, 0] += y0
            found.values[i, 1] += x0
    return total


@borrower
def _course(height: int, width: int, cut: Any) -> Any:
    """Side of a core, and how often all windows are visited."""
    if height <= cut.whole and width <= cut.whole:
        return max(height, width), 1
    return cut.core, GROWING + SETTLING


@borrower
def _box(place: Any, chosen: Any, side: int) -> Any:
    """First pixel and size of the smallest box around the ROIs."""
    y0, x0, y1, x1 = place[chosen[0], 1], place[chosen[0], 2], place[chosen[0], 1], place[chosen[0], 2]
    for i in chosen:
        y0, x0 = min(y0, place[i, 1]), min(x0, place[i, 2])
        y1, x1 = max(y1, place[i, 1]), max(x1, place[i, 2])
    half = side // 2
    return np.int64(y0 - half), np.int64(x0 - half), np.int64(y1 - y0 + side), np.int64(x1 - x0 + side)


@device
def _make_region(height: int, width: int, candidates: int, cut: Any, width_px: Any) -> Any:
    room = height * width // _PIXELS_EACH + candidates
    windows = (height // cut.core + 1) * (width // cut.core + 1)
    unknown = np.float64(UNKNOWN)
    return _Region(
        np.full((height, width), unknown), np.full((height, width), unknown),
        np.zeros(room), np.zeros(room), np.zeros(room), np.full(room, np.float64(width_px)), np.zeros(room, np.bool_),
        np.zeros(room, np.int64), np.zeros(2, np.int64), np.zeros(windows), np.float64(width_px),
    )  # fmt: skip


@borrower
def _paste(place: Any, data: Any, extra: Any, chosen: Any, side: int, y0: int, x0: int, region: Any) -> None:
    """Put the pixels of the ROIs where they belong; pixels that several ROIs show are the same in all."""
    half = side // 2
    for i in chosen:
        at = i // LANES * side * side * LANES + i % LANES
        for y in range(place[i, 1] - half - y0, place[i, 1] + half + 1 - y0):
            for x in range(place[i, 2] - half - x0, place[i, 2] + half + 1 - x0):
                region.data[y, x], region.extra[y, x] = data[at], extra[at]
                at += LANES


@borrower
def _visit(
    region: Any, core: Any, number: Any, cut: Any, choice: Any, grow: bool, last: bool,
    window: Any, trial: Any, found: Any, total: Any,
) -> Any:  # fmt: skip
    """Fit the window of a core; gives the number of emitters that have come out so far."""
    height, width = region.data.shape
    margin = cut.margin
    y0, x0 = max(core[0] - margin, 0), max(core[1] - margin, 0)
    box = (y0, x0, min(core[2] + margin, height), min(core[3] + margin, width))
    if not _load(region, core, box, window):
        return total
    count = _take_in(region, core, box, cut.most, choice.aspect, window, trial)
    if count == 0 and not grow:
        return total
    trial.theta[WIDTH], trial.theta[BACKGROUND] = region.width_px, region.background[number]
    if grow:
        count = explain(window, trial, choice, count, cut.most)
        _put_back(region, core, box, margin, trial, count)
    if last or not grow:
        ratio, code = finish(window, trial, choice, count)
        if last:
            total = _give(region, core, box, trial, count, ratio, code, found, total)
        else:
            _put_back(region, core, box, margin, trial, count)
    region.background[number] = trial.theta[BACKGROUND]
    return total


@borrower
def _load(region: Any, core: Any, box: Any, window: Any) -> bool:
    """Copy the pixels of a window; gives whether any in its core is known."""
    y0, x0, y1, x1 = box
    window.size[0], window.size[1] = y1 - y0, x1 - x0
    known = False
    for y in range(y0, y1):
        for x in range(x0, x1):
            window.data[y - y0, x - x0], window.extra[y - y0, x - x0] = region.data[y, x], region.extra[y, x]
            if region.extra[y, x] < UNKNOWN and core[0] <= y < core[2] and core[1] <= x < core[3]:
                known = True
    return known


@borrower
def _gather(region: Any, first: int, last: int, margin: int, aspect: Any) -> None:
    """List the emitters that shine into the windows of a row of cores, or may move there."""
    reach = 2 * margin + _LIGHT * region.width_px * aspect
    number = 0
    for j in range(region.count[0]):
        if region.alive[j] and first - reach <= region.y[j] < last + reach:
            region.near[number] = j
            number += 1
    region.count[1] = number


@borrower
def _is_in(region: Any, j: int, box: Any) -> Any:
    """Whether emitter j is in a box; what has moved beyond the region's edge counts as on it."""
    height, width = region.data.shape
    y, x = min(max(round(region.y[j]), 0), height - 1), min(max(round(region.x[j]), 0), width - 1)
    return box[0] <= y < box[2] and box[1] <= x < box[3]


@borrower
def _take_in(region: Any, core: Any, box: Any, most: int, aspect: Any, window: Any, trial: Any) -> Any:
    """List the emitters of a window, those of its core first, and add the light of the others; gives their number."""
    count = np.int64(0)
    while _own(region, core) > most:
        _drop_dimmest(region, core)
    for own in (True, False):
        for q in range(region.count[1]):
            j = region.near[q]
            if region.alive[j] and _is_in(region, j, core) == own:
                if count < most and _is_in(region, j, box):
                    i = FIRST + EACH * count
                    trial.theta[i + X], trial.theta[i + Y] = region.x[j] - box[1], region.y[j] - box[0]
                    trial.theta[i + N] = region.n[j]
                    trial.index[count] = j
                    count += 1
                else:
                    _add_light(region, j, box, aspect, window)
    return count


@borrower
def _own(region: Any, core: Any) -> int:
    """Number of emitters in a core."""
    number = 0
    for q in range(region.count[1]):
        j = region.near[q]
        if region.alive[j] and _is_in(region, j, core):
            number += 1
    return number


@borrower
def _drop_dimmest(region: Any, core: Any) -> None:
    dimmest, least = -1, np.inf
    for q in range(region.count[1]):
        j = region.near[q]
        if region.alive[j] and _is_in(region, j, core) and region.n[j] < least:
            dimmest, least = j, region.n[j]
    region.alive[dimmest] = False


@borrower
def _add_light(region: Any, j: int, box: Any, aspect: Any, window: Any) -> None:
    s = region.s[j]
    y0, x0, y1, x1 = box
    reach_x, reach_y = _LIGHT * s, _LIGHT * s * aspect
    first_y, last_y = (
        max(y0, math.ceil(region.y[j] - reach_y)),
        min(y1, math.floor(region.y[j] + reach_y) + 1),
    )
    first_x, last_x = (
        max(x0, math.ceil(region.x[j] - reach_x)),
        min(x1, math.floor(region.x[j] + reach_x) + 1),
    )
    for y in range(first_y, last_y):
        part = region.n[j] * share_of_pixel(y - region.y[j], s * aspect)
        for x in range(first_x, last_x):
            if window.extra[y - y0, x - x0] < UNKNOWN:
                window.extra[y - y0, x - x0] += part * share_of_pixel(x - region.x[j], s)


@borrower
def _put_back(region: Any, core: Any, box: Any, margin: int, trial: Any, count: int) -> None:
    """Bring the list up to date: what is in the core, or new."""
    grown = (core[0] - margin // 2, core[1] - margin // 2, core[2] + margin // 2, core[3] + margin // 2)
    for q in range(region.count[1]):
        j = region.near[q]
        if region.alive[j] and _is_in(region, j, core):
            region.alive[j] = False
    for k in range(count):
        i, j = FIRST + EACH * k, trial.index[k]
        new = j < 0
        if new and region.count[0] < len(region.x):
            j = region.count[0]
        if j >= 0 and (new or not region.alive[j]):
            region.x[j], region.y[j] = trial.theta[i + X] + box[1], trial.theta[i + Y] + box[0]
            region.n[j], region.s[j] = trial.theta[i + N], trial.theta[WIDTH]
            region.alive[j] = not new or _is_in(region, j, grown)
            if new and region.alive[j]:
                region.near[region.count[1]] = j
                region.count[0] += 1
                region.count[1] += 1
                trial.index[k] = j


@borrower
def _give(
    region: Any, core: Any, box: Any, trial: Any, count: int, ratio: Any, code: int, found: Any, total: Any
) -> Any:
    """Write the emitters of a core out."""
    for k in range(count):
        i = FIRST + EACH * k
        shines = trial.theta[i + N] > LEAST_PHOTONS
        if shines and trial.index[k] >= 0 and _is_in(region, trial.index[k], core):
            if total < len(found.frame):
                out = found.values[total]
                out[0], out[1] = trial.theta[i + Y] + box[0], trial.theta[i + X] + box[1]
                out[2], out[3] = trial.theta[i + N], trial.theta[WIDTH]
                for axis in range(5):
                    out[4 + axis] = trial.bound[k, axis]
                out[9] = trial.theta[BACKGROUND]
                quality = found.quality[total]
                quality[0], quality[1], quality[2] = ratio, count, code
            total += 1
    return total
