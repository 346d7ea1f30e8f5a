"""Where channels lie: whole pixels, no off-by-one, whatever part of the chip was read out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitting.errors import InvalidMetadata, InvalidSettings
from fitting.fits import find, resolve
from fitting.geometry import Rectangle, chip_origin, place, rectangles

METADATA: dict[str, object] = {"voxelsize.x": 0.1, "voxelsize.y": 0.1}
SHAPE = (64, 48)


def boxes(
    analysis: dict[str, Any], metadata: dict[str, object] | None = None, shape: tuple[int, int] = SHAPE
) -> Any:
    given = METADATA | (metadata or {})
    fit = find(analysis["fit"])
    return rectangles(fit, resolve(analysis, given), given, shape)


def test_without_a_word_the_channels_are_the_halves_of_the_frame_the_lower_upside_down() -> None:
    assert boxes({"fit": "two-colour"}) == (Rectangle(0, 0, 48, 32), Rectangle(0, 32, 48, 32, flipped=True))


def test_where_the_chip_is_known_its_halves_count_and_not_those_of_the_frame() -> None:
    metadata = {
        "Camera.SensorWidth": 100,
        "Camera.SensorHeight": 80,
        "Camera.ROIOriginX": 10,
        "Camera.ROIOriginY": 4,
    }

    first, second = boxes({"fit": "two-colour"}, metadata)

    assert (first, second) == (Rectangle(0, 0, 100, 40), Rectangle(0, 40, 100, 40, flipped=True))
    placed = place((first, second), SHAPE, chip_origin(metadata))
    # rows 4 to 67 of the chip were read out: of channel 0 rows 4 to 39, of which channel 1 shows 12 to 39, upside down
    assert placed.bounds.tolist() == [[8, 36, 0, 48], [36, 64, 0, 48]]


@pytest.mark.parametrize(
    ("flip", "row_of_channel_1"), [(True, {0: 63, 5: 58, 31: 32}), (False, {0: 32, 5: 37, 31: 63})]
)
def test_a_row_of_channel_0_has_one_counterpart(flip: bool, row_of_channel_1: dict[int, int]) -> None:
    placed = place(boxes({"fit": "two-colour", "flip": flip}), SHAPE, (0, 0))

    found = {row: int(placed.start[1, 0] + placed.sign[1, 0] * row) for row in row_of_channel_1}

    assert found == row_of_channel_1


def test_the_older_key_of_the_origin_counts_from_one() -> None:
    assert chip_origin({"Camera.ROIPosX": 1, "Camera.ROIPosY": 33}) == (0, 32)
    with pytest.raises(InvalidMetadata):
        chip_origin({"Camera.ROIOriginX": -3})


def test_channels_of_an_n_channel_fit_are_strips_unless_they_are_named() -> None:
    strips = boxes({"fit": "linked"}, {"Multiview.NumROIs": 4})
    named = boxes(
        {"fit": "linked", "options": {"channels": [[0, 0, 9, 9], [20, 3, 9, 9]], "flips": [False, True]}}
    )

    assert [(r.x, r.y, r.width, r.height) for r in strips] == [(12 * k, 0, 12, 64) for k in range(4)]
    assert named[1] == Rectangle(20, 3, 9, 9, flipped=True)


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        ([Rectangle(0, 0, 10, 10), Rectangle(0, 20, 10, 12)], "one size"),
        ([Rectangle(0, 0, 10, 10), Rectangle(0, 64, 10, 10)], "no common part"),
        ([Rectangle(0, 0, 10, 10, True), Rectangle(0, 20, 10, 10)], "channel 0 cannot"),
    ],
)
def test_channels_that_cannot_be_are_refused(channels: list[Rectangle], said: str) -> None:
    with pytest.raises(InvalidSettings, match=said):
        place(channels, SHAPE, (0, 0))


SIDES = st.integers(1, 40)
PLACES = st.integers(0, 60)


@given(
    width=SIDES, height=SIDES, first=st.tuples(PLACES, PLACES), second=st.tuples(PLACES, PLACES), flipped=st.booleans(),
    chip=st.tuples(st.integers(0, 30), st.integers(0, 30)),
)  # fmt: skip
def test_channels_show_the_same_field_and_stay_in_the_frame(
    width: int,
    height: int,
    first: tuple[int, int],
    second: tuple[int, int],
    flipped: bool,
    chip: tuple[int, int],
) -> None:
    channels = [Rectangle(*first, width, height), Rectangle(*second, width, height, flipped)]
    try:
        placed = place(channels, SHAPE, chip)
    except InvalidSettings:
        return  # nothing of one of them was read out

    top, bottom, left, right = placed.bounds[0]
    assert (placed.bounds[:, [1, 3]] <= SHAPE).all()
    assert (placed.bounds >= 0).all()
    corners = np.array([[top, left], [bottom - 1, right - 1]])
    seen = placed.start[1] + placed.sign[1] * corners
    assert (seen.min(axis=0) == placed.bounds[1, [0, 2]]).all()
    assert (seen.max(axis=0) + 1 == placed.bounds[1, [1, 3]]).all()
    # on the chip: the same offset from the first row of the rectangle, counted from the other end where it is upside down
    origin = np.array(chip[::-1])
    on_chip = seen + origin - second[::-1]
    wanted = corners + origin - first[::-1]
    wanted[:, 0] = height - 1 - wanted[:, 0] if flipped else wanted[:, 0]
    assert (on_chip == wanted).all()


def test_a_part_of_the_frame_is_a_part_of_channel_0() -> None:
    placed = place(boxes({"fit": "two-colour"}), SHAPE, (0, 0), (10, 4, 30, 20))

    assert placed.bounds.tolist() == [[4, 20, 10, 30], [44, 60, 10, 30]]
