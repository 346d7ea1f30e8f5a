"""The frames of one analysis, in one array of a type that the kernels take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fitting.background import has_content
from fitting.errors import InvalidFrames

Range = tuple[int, int]
_EXACT = 2**24  # float32 holds every integer up to here


@dataclass(frozen=True)
class Stack:
    """Frames that follow each other.

    Attributes
    ----------
    pixels : (n, h, w) uint16 or float32 array
        Raw frames [ADU].
    first : int
        Absolute number of the first.
    missing : (n,) bool array
        Frames that do not exist; their pixels mean nothing.
    present : (n,) uint8 array
        Frames that exist and are not all zero.
    full_adu : float
        Full scale of the type they came in, infinite for floats.
    """

    pixels: npt.NDArray[np.uint16] | npt.NDArray[np.float32]
    first: int
    missing: npt.NDArray[np.bool_]
    present: npt.NDArray[np.uint8]
    full_adu: float

    @property
    def is_integer(self) -> bool:
        """Whether sums of frames are exact."""
        return self.pixels.dtype == np.uint16


def make_stack(
    frames: npt.NDArray[np.generic],
    first_frame: int,
    context: tuple[int, npt.NDArray[np.generic]] | None,
    needed: Range,
    missing: Iterable[int],
    box: tuple[int, int, int, int] | None,
) -> Stack:
    """Bring frames and context together.

    Parameters
    ----------
    frames : (n, h, w) array
        The frames to localise, from number `first_frame` on.
    context : (int, (m, h, w) array), optional
        Number of the first context frame, and the frames.
    needed : (int, int)
        Frames that must be there, in one of the two.
    missing : iterable of int
        Frames that are there as a place only.
    box : (x0, y0, x1, y1), optional
        The part of the frames to keep [px].

    Raises
    ------
    InvalidFrames
        If the arrays are not frames of one shape and type, or a needed frame is not among them.
    """
    check_frames(frames, "frames")
    parts = [(first_frame, frames)]
    if context is not None:
        check_frames(context[1], "context frames")
        if context[1].shape[1:] != frames.shape[1:] or context[1].dtype != frames.dtype:
            raise InvalidFrames(
                f"context frames are {context[1].dtype} {context[1].shape[1:]}, the frames {frames.dtype} {frames.shape[1:]}"
            )
        parts.append(context)
    raw = _joined(parts, needed)
    if box is not None:
        x0, y0, x1, y1 = box
        raw = raw[:, y0:y1, x0:x1]
    pixels = _as_kernel_type(raw)
    gone = np.zeros(len(pixels), np.bool_)
    for frame in missing:
        if needed[0] <= frame < needed[1]:
            gone[frame - needed[0]] = True
    present = (~gone).astype(np.uint8)
    has_content(pixels, present)
    full = float(np.iinfo(str(frames.dtype)).max) if frames.dtype.kind in "ui" else np.inf
    return Stack(pixels, needed[0], gone, present, full)


def check_frames(frames: npt.NDArray[np.generic], what: str) -> None:
    """Refuse what is not a series of grey images."""
    if not isinstance(frames, np.ndarray) or frames.ndim != 3:
        shape = getattr(frames, "shape", type(frames).__name__)
        raise InvalidFrames(f"{what} must be an array of shape (n, h, w), not {shape}")
    if frames.dtype.kind not in "uif" or frames.dtype.itemsize > 8:
        raise InvalidFrames(f"{what} must be integers or floats, not {frames.dtype}")
    if 0 in frames.shape[1:]:
        raise InvalidFrames(f"{what} have no pixels: their shape is {frames.shape}")


def _joined(parts: list[tuple[int, npt.NDArray[np.generic]]], needed: Range) -> npt.NDArray[np.generic]:
    for first, array in parts:
        if first <= needed[0] and needed[1] <= first + len(array):
            return array[needed[0] - first : needed[1] - first]
    covered = np.zeros(needed[1] - needed[0], np.bool_)
    joined = np.zeros((len(covered), *parts[0][1].shape[1:]), parts[0][1].dtype)
    for first, array in parts:
        start, stop = max(first, needed[0]), min(first + len(array), needed[1])
        if start < stop:
            joined[start - needed[0] : stop - needed[0]] = array[start - first : stop - first]
            covered[start - needed[0] : stop - needed[0]] = True
    if not covered.all():
        absent = np.flatnonzero(~covered) + needed[0]
        raise InvalidFrames(
            f"localising needs frames {needed[0]} to {needed[1] - 1}; {len(absent)} of them, from {absent[0]} to {absent[-1]}, are not in the context"
        )
    return joined


def _as_kernel_type(raw: npt.NDArray[np.generic]) -> npt.NDArray[np.uint16] | npt.NDArray[np.float32]:
    """Decided by the type alone, never by what is in the frames, so that every task of a series does the same."""
    if raw.dtype.kind == "u" and raw.dtype.itemsize <= 2:
        return np.ascontiguousarray(raw, np.uint16)
    if raw.dtype.kind in "ui" and raw.dtype.itemsize > 2 and raw.size:
        low, high = int(raw.min()), int(raw.max())
        if low < -_EXACT or high > _EXACT:
            raise InvalidFrames(
                f"frames of {raw.dtype} hold {low if low < -_EXACT else high} ADU; at most {_EXACT} can be used"
            )
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(raw, np.float32)
