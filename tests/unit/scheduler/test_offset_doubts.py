"""An offset that was estimated from frames which were not dark is called into question."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.scheduler.offset import doubts

RNG = np.random.default_rng(4)
DARK = RNG.normal(100, 3, (30, 64, 48)).round().astype(np.uint16)
LIT = RNG.poisson(60, (1, 64, 48)).astype(np.uint16) + 100


def test_dark_frames_before_bright_ones_raise_no_doubt() -> None:
    assert list(doubts(DARK, LIT)) == []
    assert list(doubts(DARK[:1], None)) == []


@pytest.mark.parametrize("noise", [1.0, 10.0])
def test_noise_alone_raises_none(noise: float) -> None:
    frames = RNG.normal(400, noise, (20, 32, 32)).round().astype(np.uint16)

    assert list(doubts(frames, LIT + 400)) == []


def test_a_dark_level_that_drifts_is_told_with_how_far() -> None:
    drifting = DARK + np.linspace(0, 30, len(DARK))[:, None, None].astype(np.uint16)

    (doubt,) = doubts(drifting, LIT + 200)

    assert "drifts by +2" in doubt


def test_room_light_is_told() -> None:
    lamp = (40 * np.exp(-((np.mgrid[:64, :48][0] - 20) ** 2) / 200)).astype(np.uint16)

    (doubt,) = doubts(DARK + lamp, LIT + 100)

    assert "brighter in some places than in others" in doubt


def test_dark_frames_that_are_brighter_than_the_analysed_ones_were_not_dark() -> None:
    (doubt,) = doubts(DARK + 200, LIT)

    assert "were the frames dark?" in doubt
