"""The frames that somebody looks at, kept for a while, so that another contrast or a mouse move fetches nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Final, Protocol

import numpy as np

from cluster.arrays import FrameRange

Frame = np.ndarray[Any, Any]
_MOST_BYTES: Final = 128 << 20


class Frames(Protocol):
    """Who gives frames: `cluster.client.Client`."""

    def frames(self, path: str, start: int, stop: int) -> FrameRange:
        """Return frames [start, stop)."""
        ...


class FrameCache:
    """Single frames of series; safe to use from several threads."""

    def __init__(self, source: Frames, most_bytes: int = _MOST_BYTES) -> None:
        self._source = source
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[str, int], Frame] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, series: str, number: int) -> Frame:
        """Return a frame as (h, w) ADU; raises as the source."""
        key = (series, number)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        frame: Frame = self._source.frames(series, number, number + 1).frames[0]
        with self._lock:
            self._kept[key] = frame
            while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > self._most_bytes:
                self._kept.popitem(last=False)
        return frame

    def peek(self, series: str, number: int) -> Frame | None:
        """Return a frame if it is here."""
        return self._kept.get((series, number))
