"""Values rounded to steps below the noise, in the square-root scale in which the noise is the same everywhere.

Frames of such values compress better, with the same codecs, and any program reads them as they are.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from cluster.protocol import NoiseStep

Frames = np.ndarray[Any, np.dtype[Any]]


def rounded(frames: Frames, step: NoiseStep) -> Frames:
    """Return whole-numbered frames with each value moved to the nearest that is kept."""
    found: Frames = _kept_values(frames.dtype.name, step)[frames]
    return found


@functools.lru_cache(maxsize=8)
def _kept_values(dtype: str, step: NoiseStep) -> Frames:
    """Return, for each value, the one that is stored for it.

    The scale is y(v) = 2/g · sqrt(g (v - o) + r² + 3/8 g²), in units of the noise; below the offset it goes on straight.
    """
    top = np.iinfo(dtype).max
    gain = step.adu_per_e
    at_offset = step.read_noise_adu**2 + 0.375 * gain**2
    signal = np.arange(top + 1) - step.offset_adu
    scale = np.where(
        signal >= 0,
        2.0 / gain * np.sqrt(gain * np.maximum(signal, 0.0) + at_offset),
        2.0 / gain * np.sqrt(at_offset) + signal / np.sqrt(at_offset),
    )
    bins = np.round(scale / step.step_sigma).astype(np.int64)
    edges = np.flatnonzero(np.diff(bins, prepend=bins[0] - 1))
    middles = (edges + np.append(edges[1:], top + 1) - 1) // 2  # of the whole numbers that share a bin
    kept: Frames = middles[np.searchsorted(edges, np.arange(top + 1), side="right") - 1].astype(dtype)
    return kept
