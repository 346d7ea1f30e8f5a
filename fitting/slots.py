"""Which parameter of a linked fit each parameter of each channel is, and what is added up for that."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fitting.lanes import LANES

_Sum = tuple[int, int, int]

POSITION, SHAPE, PHOTONS, BACKGROUND = 0, 1, 2, 3
"""Roles of parameters."""
BY_N, BY_RATIO, BY_ONE = 0, 1, 2
"""Factors of derivatives."""
PRODUCTS = {
    (BY_N, BY_N): 3,
    (BY_N, BY_RATIO): 4,
    (BY_N, BY_ONE): 0,
    (BY_RATIO, BY_N): 4,
    (BY_RATIO, BY_RATIO): 5,
    (BY_RATIO, BY_ONE): 1,
    (BY_ONE, BY_N): 0,
    (BY_ONE, BY_RATIO): 1,
    (BY_ONE, BY_ONE): 2,
}
"""The factor that is the product of two."""
FACTORS = 6
"""How many factors there are."""


class Slots(NamedTuple):
    """Where the parameters of the channels are among those of the fit.

    Attributes
    ----------
    size, shapes : int
        Number of parameters, and of shape parameters among them (numbers 2 to 1 + shapes).
    roles : (size,) int64 array
    photons, backgrounds, moves : (channels,) int64 arrays
        Number of N, b and dx in the fit (dy comes next); -1 where the fit has none.
    ratios : (channels,) float32 array
        The channel's N over the N of the fit.
    gradient : (sums, 3) int64 array
        What is added up to g: offset in the channel's gradient, offset in g, number of the factor (`BY_N`, …).
    gradient_begins : (channels + 1,) int64 array
        Where each channel begins in it.
    fisher, fisher_begins : likewise
        The upper triangle of H.
    """

    size: int
    shapes: int
    roles: Any
    photons: Any
    backgrounds: Any
    moves: Any
    ratios: Any
    gradient: Any
    gradient_begins: Any
    fisher: Any
    fisher_begins: Any


@lru_cache(maxsize=32)
def make_slots(
    shapes: int,
    size: int,
    channels: int,
    shares: tuple[float, ...] | None,
    free_background: bool,
    free_shift: bool,
) -> Slots:
    """The slots of a link, in the order of `fitting.linked.parameter_names`.

    Parameters
    ----------
    shapes, size, channels : int
        Number of shape parameters, of all parameters, of channels.
    shares : tuple of float, optional
        Shares of one N.
    free_background, free_shift : bool
        See `fitting.linked.Link`.
    """
    ratios = np.array(shares or (1.0,) * channels, np.float32)
    tied = shares is not None
    number = np.arange(channels)
    one = np.zeros(channels, np.int64)
    photons = one + 2 + shapes + (0 if tied else number)
    after = 2 + shapes + (1 if tied else channels)
    backgrounds = one + (after + number if free_background else -1)
    after += channels if free_background else 0
    moves = np.where((number > 0) & free_shift, after + 2 * (number - 1), -1).astype(np.int64)
    roles = np.full(size, POSITION, np.int64)
    roles[2 : 2 + shapes] = SHAPE
    roles[photons] = PHOTONS
    if free_background:
        roles[backgrounds] = BACKGROUND
    sums = [_sums(shapes, size, int(photons[c]), int(backgrounds[c]), int(moves[c])) for c in range(channels)]
    gradient, fisher = ([channel[k] for channel in sums] for k in range(2))
    return Slots(
        size, shapes, roles, photons, backgrounds, moves, ratios, *_joined(gradient), *_joined(fisher)
    )


def _sums(shapes: int, size: int, photons: int, background: int, move: int) -> tuple[list[_Sum], list[_Sum]]:
    """What a channel adds to Jᵀ g and to Jᵀ H J; see `Slots`."""
    own = 4 + shapes
    entries = [(k, k, BY_N) for k in range(2 + shapes)] + [(2 + shapes, photons, BY_RATIO)]
    if background >= 0:
        entries.append((3 + shapes, background, BY_ONE))
    if move >= 0:
        entries += [(0, move, BY_N), (1, move + 1, BY_N)]
    gradient = [(k * LANES, to * LANES, by) for k, to, by in entries]
    fisher = [
        ((min(k, m) * own + max(k, m)) * LANES, (to * size + at) * LANES, PRODUCTS[by, factor])
        for number, (k, to, by) in enumerate(entries)
        for m, at, factor in entries[number:]
    ]
    return gradient, fisher


def _joined(sums: list[list[_Sum]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """One list of all channels, and where each begins in it."""
    begins = np.cumsum([0] + [len(channel) for channel in sums], dtype=np.int64)
    return np.array([entry for channel in sums for entry in channel], np.int64), begins
