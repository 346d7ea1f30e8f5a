"""Frames as pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cluster.web.models.contrast import COLOUR_MAPS, limits_of, palette, png_of, thumbnail, value_at


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def test_limits_are_percentiles_and_never_the_same() -> None:
    frame = np.arange(1000, dtype=np.uint16).reshape(20, 50)

    assert limits_of(frame, (10, 90)) == pytest.approx((99.9, 899.1))
    assert limits_of(np.full((4, 4), 7, np.uint16)) == (7.0, 8.0)
    assert limits_of(np.full((4, 4), np.nan, np.float32)) == (0.0, 1.0)


def test_a_frame_keeps_its_size_and_its_ends_are_black_and_white() -> None:
    frame = np.array([[0, 100], [150, 200]], np.uint16)

    picture = np.asarray(opened(png_of(frame, (100, 200))))

    assert picture.tolist() == [[0, 0], [127, 255]]


@pytest.mark.parametrize("colours", COLOUR_MAPS)
def test_every_colour_map_has_different_ends(colours: str) -> None:
    ends = palette(colours)[[0, -1]].astype(int)
    picture = opened(png_of(np.array([[0, 255]], np.uint8), (0, 255), colours)).convert("RGB")

    assert np.abs(ends[0] - ends[1]).max() > 150
    assert np.asarray(picture)[0].tolist() == ends.tolist()


def test_a_thumbnail_is_small_and_keeps_its_shape() -> None:
    assert opened(thumbnail(np.zeros((200, 400), np.uint16), 96)).size == (96, 48)


def test_the_value_under_the_cursor() -> None:
    frame = np.array([[1, 2, 3], [4, 5, 6]], np.uint16)

    assert value_at(frame, 2.9, 0.1) == (2, 0, 3.0)
    assert value_at(frame, 0.0, 1.99) == (0, 1, 4.0)
    assert value_at(frame, 3.0, 0.5) is None
    assert value_at(frame, -0.1, 0.5) is None
