"""When simulated molecules shine.

Bright and dark times are geometric, hence without memory: a molecule that is in its stationary state at frame 0 needs
no time before the series to get there.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.int64]


def bright_frames(
    molecules: int, frames: int, on_frames: float, off_frames: float, rng: np.random.Generator
) -> tuple[Frames, Frames]:
    """Draw the frames in which molecules shine.

    Parameters
    ----------
    molecules, frames : int
        How many of each.
    on_frames, off_frames : float
        Mean length of a bright time (at least 1) and of a dark time; 0: never dark.
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    frame, molecule : int arrays
        One entry for each molecule in each frame, ordered by frame, then molecule.
    """
    if molecules == 0 or frames <= 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if off_frames == 0:
        frame, molecule = np.indices((frames, molecules)).reshape(2, -1)
        return frame, molecule
    begin, end = _bright_times(molecules, frames, on_frames, max(1.0, off_frames), rng)
    length = (end - begin).ravel()
    ends = np.cumsum(length)
    frame = np.arange(ends[-1]) - np.repeat(ends - length - begin.ravel(), length)
    owner = np.repeat(np.repeat(np.arange(molecules), begin.shape[1]), length)
    order = np.lexsort((owner, frame))
    return frame[order], owner[order]


def _bright_times(
    molecules: int, frames: int, on_frames: float, off_frames: float, rng: np.random.Generator
) -> tuple[Frames, Frames]:
    """First frame of each bright time and frame after its last, inside the series, (molecules, cycles) each."""
    cycles = math.ceil(1.2 * frames / (on_frames + off_frames)) + 4
    bright, dark = _cycles((molecules, cycles), on_frames, off_frames, rng)
    bright_first = rng.random(molecules) < on_frames / (on_frames + off_frames)
    dark[:, 0] = np.where(bright_first, 0, dark[:, 0])
    while ((bright + dark).sum(axis=1) < frames).any():
        more = _cycles((molecules, cycles), on_frames, off_frames, rng)
        bright, dark = np.hstack([bright, more[0]]), np.hstack([dark, more[1]])
    end = np.cumsum(bright + dark, axis=1)
    return (end - bright).clip(0, frames), end.clip(0, frames)


def _cycles(
    shape: tuple[int, int], on_frames: float, off_frames: float, rng: np.random.Generator
) -> tuple[Frames, Frames]:
    return rng.geometric(1 / on_frames, shape), rng.geometric(1 / off_frames, shape)
