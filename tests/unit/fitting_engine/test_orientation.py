"""Which candidates are kept does not depend on the order in which the frame's pixels are looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fitting import analyse

SIDE = 129  # odd, so that a mirrored frame keeps its every second row
LAST = SIDE - 1
WAYS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], tuple[Any, Any]]]] = {
    "mirrored in x": (lambda frame: frame[:, ::-1], lambda x, y: (LAST - x, y)),
    "mirrored in y": (lambda frame: frame[::-1], lambda x, y: (x, LAST - y)),
    "transposed": (lambda frame: frame.T, lambda x, y: (y, x)),
}


def _candidates(frame: Any, metadata: dict[str, object]) -> Any:
    settings = {"background": None, "debounce_radius": 9.0}
    return analyse(np.ascontiguousarray(frame)[np.newaxis], settings, metadata).candidates


def _sorted(x: Any, y: Any, fitted: Any) -> Any:
    table = np.column_stack([x, y, fitted])
    return table[np.lexsort((table[:, 0].round(2), table[:, 1].round(2)))]


@pytest.mark.parametrize("way", WAYS)
def test_the_same_candidates_are_kept_whichever_way_the_frame_is_turned(
    way: str, film: Callable[..., Any], metadata: dict[str, object]
) -> None:
    turn, place = WAYS[way]
    for frame in film(4, SIDE, SIDE, 300, seed=6):
        straight = _candidates(frame, metadata)
        turned = _candidates(turn(frame), metadata)

        x, y = place(turned["x_px"], turned["y_px"])
        expected = _sorted(straight["x_px"], straight["y_px"], straight["fitted"])
        assert straight["fitted"].mean() < 0.7, "the debounce has something to decide"
        np.testing.assert_allclose(_sorted(x, y, turned["fitted"]), expected, atol=1e-3)
