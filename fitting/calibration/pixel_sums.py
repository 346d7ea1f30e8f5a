"""Mean and variance of every pixel over any number of frames, in one pass, whatever the blocks they come in.

Each frame is added less the first one, so that sums stay small: of integer frames they are exact integers, of float frames float64
sums in the order of the frames. Either way the result depends on the frames alone, and a frame can be taken out again. Memory is four maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fitting.errors import InvalidCalibration, InvalidFrames
from fitting.kernel import kernel

FloatArray = npt.NDArray[np.float64]
_LEAK = 8.0  # standard deviations of the levels beyond which a frame is not like the others
_LEAST_LEAK = 0.1  # of a pixel's noise: a smaller difference changes no map
_MOST_LEFT_OUT = 0.1
_FEWEST_TO_JUDGE = 8
MAD = 1.4826  # median absolute deviation to standard deviation, of a Gaussian


@dataclass(frozen=True)
class PixelStatistics:
    """What the pixels of a series did.

    Attributes
    ----------
    frames : int
        Frames that count, n.
    mean_adu, variance_adu2 : (h, w) float64 arrays
        Mean, and variance with n - 1, of each pixel; what all pixels of a frame do together is in the variance.
    levels_adu : (frames in all,) float64 array
        Mean of each frame, of those left out too.
    left_out : tuple of int
        Frames that do not count.
    full_adu : float
        Largest reading that the frames' type can hold; infinite for floats.
    """

    frames: int
    mean_adu: FloatArray
    variance_adu2: FloatArray
    levels_adu: FloatArray
    left_out: tuple[int, ...]
    full_adu: float

    @property
    def counted(self) -> FloatArray:
        """Levels of the frames that count [ADU]."""
        return np.delete(self.levels_adu, self.left_out)

    @property
    def common_variance_adu2(self) -> float:
        """Variance of what all pixels of a frame do together, drift or flicker [ADU²]; 0 where noise explains it.

        The mean of N independent pixels varies by a mean pixel's variance / N all the same, which is taken off.
        """
        pixels = self.variance_adu2.size
        own = float(np.var(self.counted, ddof=1))
        return (
            max(0.0, (own - float(self.variance_adu2.mean()) / pixels) / (1 - 1 / pixels))
            if pixels > 1
            else 0.0
        )


class PixelSums:
    """Sums of the frames of one series, block by block.

    Raises
    ------
    InvalidFrames
        When a block is no stack of images of numbers, or of another size than those before it.
    """

    def __init__(self) -> None:
        self._first: npt.NDArray[Any] | None = None
        self._sum: npt.NDArray[Any] = np.zeros(0)
        self._squares: npt.NDArray[Any] = np.zeros(0)
        self._levels: list[FloatArray] = []
        self._out: set[int] = set()
        self._frames = 0

    @property
    def frames(self) -> int:
        """Frames added so far, with those taken out again."""
        return self._frames

    def add(self, frames: npt.NDArray[Any]) -> None:
        """Add the next frames, an (n, h, w) array [ADU]."""
        block = self._checked(frames)
        if not len(block):
            return
        if self._first is None:
            self._begin(block[0])
        levels = np.empty(len(block))
        _accumulate(block, self._first, self._sum, self._squares, 1, levels)
        self._levels.append(levels)
        self._frames += len(block)

    def take_out(self, number: int, frame: npt.NDArray[Any]) -> None:
        """Undo the addition of a frame: its number, counted from 0, and the (h, w) frame as it was added."""
        block = self._checked(np.asarray(frame)[np.newaxis])
        if not 0 <= number < self._frames or number in self._out:
            raise InvalidFrames(f"frame {number} is not among those that were added")
        _accumulate(block, self._first, self._sum, self._squares, -1, np.empty(1))
        self._out.add(number)

    def unlike_the_others(self) -> list[int]:
        """Numbers of the frames whose level is not that of the rest, such as by a light leak.

        A level more than eight robust standard deviations from the median counts as such, if the difference is
        a tenth of a pixel's noise or more. None are named where more than a tenth would be: the series is unsteady then, and its
        drift says so.
        """
        if self._frames < _FEWEST_TO_JUDGE:
            return []
        levels = np.concatenate(self._levels)
        noise = float(np.sqrt(np.median(self._variance(self._sum, self._squares, self._frames))))
        away = np.abs(levels - np.median(levels))
        spread = max(MAD * float(np.median(away)), noise / np.sqrt(self._sum.size))
        named = np.flatnonzero(away > max(_LEAK * spread, _LEAST_LEAK * noise))
        return [] if len(named) > _MOST_LEFT_OUT * self._frames else named.tolist()

    def statistics(self) -> PixelStatistics:
        """Mean and variance of each pixel.

        Raises
        ------
        InvalidCalibration
            If fewer than two frames count.
        """
        counted = self._frames - len(self._out)
        if self._first is None or counted < 2:
            raise InvalidCalibration(f"a variance needs two frames or more, and {counted} count")
        return PixelStatistics(
            frames=counted,
            mean_adu=self._first + self._sum / counted,
            variance_adu2=self._variance(self._sum, self._squares, counted),
            levels_adu=np.concatenate(self._levels),
            left_out=tuple(sorted(self._out)),
            full_adu=float(np.iinfo(self._kind).max) if self._kind.kind in "ui" else np.inf,
        )

    @staticmethod
    def _variance(total: npt.NDArray[Any], squares: npt.NDArray[Any], frames: int) -> FloatArray:
        mean = total / frames
        result: FloatArray = np.maximum(squares - mean * total, 0) / (frames - 1)
        return result

    def _begin(self, first: npt.NDArray[Any]) -> None:
        self._kind = first.dtype
        exact = np.int64 if first.dtype.kind in "ui" else np.float64
        self._first = first.astype(exact)
        self._sum, self._squares = np.zeros(first.shape, exact), np.zeros(first.shape, exact)

    def _checked(self, frames: npt.NDArray[Any]) -> npt.NDArray[Any]:
        block = np.asarray(frames)
        if block.ndim != 3 or block.dtype.kind not in "uif" or 0 in block.shape[1:]:
            raise InvalidFrames(
                f"frames must be a stack (n, h, w) of numbers, not {block.dtype} {block.shape}"
            )
        if block.dtype.kind == "f" and not np.isfinite(block).all():
            raise InvalidFrames("frames for camera maps hold NaN or infinite values")
        if self._first is not None and (block.shape[1:] != self._first.shape or block.dtype != self._kind):
            height, width = self._first.shape
            raise InvalidFrames(
                f"frames of {block.shape[2]} × {block.shape[1]} px ({block.dtype}) do not go with those before them, "
                f"{width} × {height} px ({self._kind})"
            )
        return np.ascontiguousarray(block)


@kernel
def _accumulate(block: Any, first: Any, total: Any, squares: Any, sign: int, levels: Any) -> None:
    """Add frames to the sums of their pixels, or take them out again.

    Parameters
    ----------
    block : (n, h, w) array
        Frames [ADU].
    first : (h, w) array
        Subtracted from every frame, so that sums stay small; int64 for integer frames, else float64.
    total, squares : (h, w) arrays
        Of that type; changed: the sums of what is left, and of its squares.
    sign : int
        1 to add, -1 to take out.
    levels : (n,) float64 array
        Written: the mean of each frame [ADU].
    """
    frames, height, width = block.shape
    for t in range(frames):
        level = 0.0
        for y in range(height):
            row = first[y, 0] - first[y, 0]  # a zero of the sums' own type
            for x in range(width):
                d = block[t, y, x] - first[y, x]
                total[y, x] += sign * d
                squares[y, x] += sign * d * d
                row += block[t, y, x]
            level += row
        levels[t] = level / (height * width)
