"""Large arrays from memory that was used before: fresh memory must be cleared by the system, page by page.

For ranges of 128 MiB that costs a good part of what reading them does. In pages of 2 MiB, where the system has them, that and every
read into it takes half of the time.
"""

from __future__ import annotations

import mmap
import sys
import threading
import weakref
from contextlib import suppress
from typing import Any, Final

import numpy as np

_KEPT: Final = 4  # one range being fitted, one ready, one being read, one to spare
_Block = bytearray | mmap.mmap


class Memory:
    """Hands out arrays, and takes their memory back when the last array that looks into it is gone."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._free: list[_Block] = []
        self._books = threading.Lock()

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """Return an array whose content is whatever was there before."""
        count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        block = self._block(count)
        whole = np.frombuffer(block, np.uint8)  # arrays cut from it keep it alive, and so the block theirs
        weakref.finalize(whole, self._give_back, block).atexit = False
        return whole[:count].view(dtype).reshape(shape)

    def _block(self, count: int) -> _Block:
        with self._books:
            fitting = [block for block in self._free if len(block) >= count]
            if fitting:
                smallest = min(fitting, key=len)
                self._free = [block for block in self._free if block is not smallest]
                return smallest
            if self._free:  # it would be outgrown for good: make room for a larger one
                self._free.remove(min(self._free, key=len))
        return _fresh(max(count, 1))

    def _give_back(self, block: _Block) -> None:
        with self._books:
            self._free.append(block)
            self._free.sort(key=len)
            del self._free[: -self._kept]


if sys.platform == "linux":

    def _fresh(count: int) -> _Block:
        block = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE)
        with suppress(OSError):  # a kernel without large pages
            block.madvise(mmap.MADV_HUGEPAGE)
        return block

else:

    def _fresh(count: int) -> _Block:
        return bytearray(count)
