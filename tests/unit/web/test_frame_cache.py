"""Frames that are looked at again are not fetched again."""

from __future__ import annotations

import numpy as np

from cluster.arrays import FrameRange
from cluster.web.frame_cache import FrameCache


class Counted:
    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def frames(self, path: str, start: int, stop: int) -> FrameRange:
        self.asked.append((path, start))
        return FrameRange(start, np.full((stop - start, 10, 10), start, np.uint16))


def test_a_frame_is_fetched_once_and_the_longest_unseen_goes_first() -> None:
    source = Counted()
    cache = FrameCache(source, most_bytes=450)

    for number in (0, 1, 0, 2, 0, 1):
        assert cache.get("a", number)[0, 0] == number

    assert source.asked == [("a", 0), ("a", 1), ("a", 2), ("a", 1)]
    assert cache.peek("a", 1) is not None
    assert cache.peek("b", 1) is None


def test_one_frame_is_kept_however_large() -> None:
    cache = FrameCache(Counted(), most_bytes=10)

    cache.get("a", 5)

    assert cache.peek("a", 5) is not None
