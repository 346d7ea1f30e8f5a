"""Beads whose shifts are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fitting.calibration.shift_vectors import ShiftVectors

Array = np.ndarray[Any, Any]
WIDTH_NM, HEIGHT_NM = 40_000.0, 30_000.0


def plane(x: Array, y: Array) -> tuple[Array, Array]:
    u, v = x / 20_000 - 1, y / 20_000 - 0.75
    return 120 + 80 * u - 30 * v, -60 + 20 * u + 90 * v


def cubic(x: Array, y: Array) -> tuple[Array, Array]:
    u, v = x / 20_000 - 1, y / 20_000 - 0.75
    dx, dy = plane(x, y)
    return dx + 25 * u**3 - 20 * u * v**2 + 8 * v**2, dy + 30 * u**2 * v - 15 * v**3


def wavy(x: Array, y: Array) -> tuple[Array, Array]:
    dx, dy = plane(x, y)
    return dx + 30 * np.sin(x / 5000), dy + 20 * np.cos(x / 7000) * np.sin(y / 6000)


TRUTHS = {"affine": plane, "cubic": cubic, "spline": wavy}


@pytest.fixture
def make_beads() -> Callable[..., tuple[ShiftVectors, Array]]:
    """Vectors and which of them are wrong."""

    def make(
        count: int = 300,
        seed: int = 0,
        *,
        truth: str = "cubic",
        error_nm: float = 3.0,
        wrong: float = 0.1,
        right_nm: float = WIDTH_NM,
    ) -> tuple[ShiftVectors, Array]:
        rng = np.random.default_rng(seed)
        x, y = rng.uniform(0, right_nm, count), rng.uniform(0, HEIGHT_NM, count)
        errors = error_nm * rng.uniform(0.5, 1.5, (2, count))
        dx, dy = np.stack(TRUTHS[truth](x, y)) + errors * rng.normal(size=(2, count))
        bad = rng.random(count) < wrong
        off = rng.uniform(80, 400, count) * bad
        angle = rng.uniform(0, 2 * np.pi, count)
        return ShiftVectors(x, y, dx + off * np.cos(angle), dy + off * np.sin(angle), *errors), bad

    return make
