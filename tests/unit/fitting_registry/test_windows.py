"""Which frames a task needs: rules that must not depend on how a series is cut."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fitting.fits import (
    analysed_range,
    background_limits,
    context_range,
    resolve,
    window_for,
    windows_for,
)


def settings(**analysis: object) -> dict[str, object]:
    return resolve(analysis, {})


@pytest.mark.parametrize(
    ("frame", "window", "limits", "used"),
    [
        (100, (-30, 0), (0, 500), (70, 100)),
        (30, (-30, 0), (0, 500), (0, 30)),
        (29, (-30, 0), (0, 500), (0, 30)),
        (0, (-30, 0), (0, 500), (0, 30)),
        (40, (-30, 0), (20, 500), (20, 50)),
        (499, (1, 31), (0, 500), (470, 500)),
        (100, (-15, 15), (0, 500), (85, 115)),
        (3, (-30, 0), (0, 10), (0, 10)),
        (0, (-30, 0), (0, 2), (0, 2)),
        (0, (-30, 0), (0, 1), (0, 0)),
        (7, (-30, 0), (7, 7), (0, 0)),
        (5, None, (0, 500), (0, 0)),
        (5, (-30, 0), (20, 500), (20, 50)),
    ],
)
def test_the_window_slides_inwards_and_keeps_its_length(
    frame: int, window: tuple[int, int] | None, limits: tuple[int, int], used: tuple[int, int]
) -> None:
    assert window_for(frame, window, limits) == used


@given(
    frame=st.integers(-50, 300),
    a=st.integers(-60, 60),
    length=st.integers(1, 60),
    first=st.integers(0, 100),
    count=st.integers(2, 150),
)
def test_a_window_keeps_inside_the_limits_and_as_long_as_they_allow(
    frame: int, a: int, length: int, first: int, count: int
) -> None:
    limits = (first, first + count)

    start, stop = window_for(frame, (a, a + length), limits)

    assert first <= start < stop <= first + count
    assert stop - start == min(length, count)
    if limits[0] <= frame + a and frame + a + length <= limits[1]:
        assert (start, stop) == (frame + a, frame + a + length)


@pytest.mark.parametrize(
    ("analysis", "frames", "expected"),
    [
        ({}, 100, (0, 100)),
        ({"start_at": 30}, 100, (30, 100)),
        ({"start_at": 30, "stop_at": 50}, 100, (30, 50)),
        ({"start_at": 30, "stop_at": 500}, 100, (30, 100)),
        ({"start_at": 130}, 100, (100, 100)),
        ({}, 0, (0, 0)),
    ],
)
def test_the_analysed_range_stays_inside_the_series(
    analysis: dict[str, object], frames: int, expected: tuple[int, int]
) -> None:
    assert analysed_range(settings(**analysis), {}, frames) == expected


@pytest.mark.parametrize(
    ("analysis", "metadata", "expected"),
    [
        ({}, {}, (0, 200)),
        ({"start_at": 10}, {}, (10, 200)),
        ({"start_at": 10}, {"EstimatedLaserOnFrameNo": 40}, (40, 200)),
        ({"start_at": 50}, {"EstimatedLaserOnFrameNo": 40}, (50, 200)),
        ({"start_at": 0}, {"Protocol.DataStartsAt": 40}, (40, 200)),
        ({"start_at": 0, "stop_at": 30}, {"EstimatedLaserOnFrameNo": 40}, (30, 30)),
        ({"stop_at": 150}, {}, (0, 150)),
    ],
)
def test_backgrounds_come_from_frames_with_the_light_on(
    analysis: dict[str, object], metadata: dict[str, object], expected: tuple[int, int]
) -> None:
    assert background_limits(settings(**analysis), metadata, (0, 200)) == expected


def test_a_task_at_the_start_needs_the_frames_after_it() -> None:
    assert context_range(settings(), {}, (0, 200), 0, 10) == (0, 30)
    assert context_range(settings(), {}, (0, 200), 100, 110) == (70, 110)


def test_fiducials_reach_ten_frames_either_way() -> None:
    assert context_range(settings(background=None, track_fiducials=True), {}, (0, 200), 100, 110) == (90, 120)
    assert context_range(settings(background=None, track_fiducials=True), {}, (0, 200), 195, 200) == (
        185,
        200,
    )


def test_frames_that_are_not_analysed_need_no_context() -> None:
    assert context_range(settings(start_at=50), {}, (0, 200), 0, 50) == (0, 50)


SERIES = st.fixed_dictionaries(
    {
        "frames": st.integers(1, 200),
        "start_at": st.integers(0, 60),
        "laser_on": st.integers(0, 60),
        "stop_at": st.one_of(st.none(), st.integers(61, 250)),
        "background": st.sampled_from([None, "-30:0", "-5:0", "-15:15", "1:21", "-40:-20"]),
        "fiducials": st.booleans(),
        "percentile": st.sampled_from([None, 0.25]),
    }
)


def facts_of(series: dict[str, Any]) -> tuple[dict[str, object], dict[str, object], tuple[int, int]]:
    analysis = settings(
        start_at=series["start_at"],
        stop_at=series["stop_at"],
        background=series["background"],
        track_fiducials=series["fiducials"],
        background_percentile=series["percentile"],
    )
    return analysis, {"EstimatedLaserOnFrameNo": series["laser_on"]}, (0, series["frames"])


@given(series=SERIES, cuts=st.sets(st.integers(1, 199), max_size=6))
def test_the_context_of_a_series_is_the_union_over_any_split(series: dict[str, Any], cuts: set[int]) -> None:
    analysis, metadata, whole = facts_of(series)
    edges = [0, *sorted(cut for cut in cuts if cut < whole[1]), whole[1]]

    parts = [context_range(analysis, metadata, whole, a, b) for a, b in itertools.pairwise(edges)]

    union = (min(a for a, _ in parts), max(b for _, b in parts))
    assert union == context_range(analysis, metadata, whole, *whole)
    assert whole[0] <= union[0] < union[1] <= whole[1]


@given(series=SERIES, bounds=st.tuples(st.integers(0, 199), st.integers(1, 200)))
def test_the_context_holds_the_window_of_every_analysed_frame_and_no_spare_one(
    series: dict[str, Any], bounds: tuple[int, int]
) -> None:
    analysis, metadata, whole = facts_of(series)
    start, stop = bounds[0], min(bounds[1], whole[1])
    assume(start < stop and not series["fiducials"])
    analysed = analysed_range(analysis, metadata, whole[1])

    a, b = context_range(analysis, metadata, whole, start, stop)

    frames = range(max(start, analysed[0]), min(stop, analysed[1]))
    used = windows_for(frames, analysis, metadata, whole)
    held = [(start, stop), *(one for one in used if one[0] < one[1])]
    assert (a, b) == (min(first for first, _ in held), max(last for _, last in held))


def test_a_mean_has_a_window_for_every_frame() -> None:
    used = windows_for(range(100, 103), settings(background_percentile=None), {}, (0, 500))

    assert used == [(70, 100), (71, 101), (72, 102)]


@pytest.mark.parametrize(("background", "every"), [("-30:0", 10), ("-12:0", 4), ("-15:15", 10), ("-2:0", 1)])
def test_a_percentile_is_renewed_on_a_grid_of_absolute_frame_numbers(background: str, every: int) -> None:
    analysis = settings(background=background, background_percentile=0.25)
    mean = settings(background=background, background_percentile=None)

    used = windows_for(range(203, 260), analysis, {"Protocol.DataStartsAt": 5}, (0, 500))

    on_grid = [frame - frame % every for frame in range(203, 260)]
    assert used == [windows_for(range(g, g + 1), mean, {}, (0, 500))[0] for g in on_grid]
