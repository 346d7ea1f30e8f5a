"""Frames of a series that grows are settled once nothing that comes later can change them."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fitting import fits
from fitting.windows import context_range, settled_until, windows_for

WINDOWS = st.one_of(
    st.just("0:0"), st.tuples(st.integers(-40, 20), st.integers(1, 30)).map(lambda w: f"{w[0]}:{w[0] + w[1]}")
)


def resolved(window: str, percentile: float | None, fiducials: bool, stop_at: int | None) -> dict[str, Any]:
    given = {"background": window, "background_percentile": percentile, "track_fiducials": fiducials}
    return dict(fits.resolve({**given, "stop_at": stop_at}, {}))


@settings(max_examples=400)
@given(
    window=WINDOWS,
    percentile=st.sampled_from([None, 0.3]),
    fiducials=st.booleans(),
    stop_at=st.one_of(st.none(), st.integers(1, 90)),
    laser_on=st.integers(0, 40),
    frames=st.integers(0, 80),
    more=st.integers(0, 60),
)
def test_what_is_settled_is_the_same_whatever_follows_and_takes_only_what_is_there(
    window: str,
    percentile: float | None,
    fiducials: bool,
    stop_at: int | None,
    laser_on: int,
    frames: int,
    more: int,
) -> None:
    chosen = resolved(window, percentile, fiducials, stop_at)
    metadata = {"Protocol.DataStartsAt": laser_on}

    settled = settled_until(chosen, metadata, frames)

    assert 0 <= settled <= frames
    start, stop = fits.analysed_range(chosen, metadata, frames)
    for frame in range(start, min(settled, stop)):
        now = windows_for(range(frame, frame + 1), chosen, metadata, (0, frames))
        then = windows_for(range(frame, frame + 1), chosen, metadata, (0, frames + more))
        assert now == then
        assert context_range(chosen, metadata, (0, frames + more), frame, frame + 1)[1] <= frames


def test_with_the_usual_background_all_but_the_first_frames_are_settled_as_they_come() -> None:
    usual = resolved("-30:0", None, False, None)

    assert [settled_until(usual, {}, frames) for frames in (0, 29, 30, 31, 500)] == [0, 0, 30, 31, 500]


def test_frames_after_the_window_are_waited_for() -> None:
    ahead = resolved("-5:11", None, False, None)

    assert settled_until(ahead, {}, 100) == 90


def test_a_job_with_a_last_frame_need_not_wait_for_the_end() -> None:
    assert settled_until(resolved("-5:11", None, False, 60), {}, 60) == 60
