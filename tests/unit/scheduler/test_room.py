"""What a job's results take is forecast from the field, the frames and the fit; the disks decide."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import OutOfSpace
from cluster.scheduler.room import Forecast, Place, Room, forecast, verdict

STATE, DATA = Path("/state"), Path("/data/analysis")
WANTED = Forecast(sparse_bytes=100_000_000, dense_bytes=5_000_000_000)


def on(folder: Path, device: int, free: int) -> Place:
    return Place(folder, device, free)


def test_rows_are_one_a_frame_at_least_and_one_in_two_hundred_pixels_at_most() -> None:
    empty, found = forecast(0, 256 * 256, 100), forecast(50_000, 256 * 256, 100)

    each_frame = 50_000 * 16  # beside the rows
    assert found.sparse_bytes - empty.sparse_bytes == 50_000 * 1 * 100 + each_frame
    assert found.dense_bytes - empty.dense_bytes == 50_000 * 327 * 100 + each_frame


@given(st.integers(0, 10**7), st.integers(1, 10**8), st.integers(1, 10**4))
def test_dense_is_never_less_than_sparse_and_more_frames_take_no_less(frames: int, px: int, row: int) -> None:
    less, more = forecast(frames, px, row), forecast(frames + 1, px, row)

    assert 0 < less.sparse_bytes <= less.dense_bytes
    assert less.sparse_bytes < more.sparse_bytes


def test_nothing_is_said_where_there_is_room() -> None:
    assert verdict(WANTED, [on(DATA, 1, 5_000_000_000), on(STATE, 2, 6_000_000_000)]) is None


def test_a_disk_that_a_dense_sample_would_fill_is_named_with_both_figures() -> None:
    note = verdict(WANTED, [on(DATA, 1, 9_000_000_000), on(STATE, 2, 4_900_000_000)])

    assert note is not None
    assert str(STATE) in note
    assert "4.9 GB are free" in note
    assert "take 5.0 GB" in note


def test_a_disk_that_cannot_even_hold_sparse_results_refuses_with_folder_needed_and_free() -> None:
    with pytest.raises(OutOfSpace, match="one localisation a frame") as refusal:
        verdict(WANTED, [on(DATA, 1, 99_999_999), on(STATE, 2, 10**12)])

    assert refusal.value.facts == {
        "folder": str(DATA),
        "needed_bytes": 100_000_000,
        "free_bytes": 99_999_999,
    }


def test_a_tight_disk_does_not_hide_that_the_other_one_is_full() -> None:
    with pytest.raises(OutOfSpace) as refusal:
        verdict(WANTED, [on(DATA, 1, 200_000_000), on(STATE, 2, 0)])

    assert refusal.value.facts["folder"] == str(STATE)


def test_on_one_disk_what_workers_hand_in_and_the_file_need_their_room_together() -> None:
    with pytest.raises(OutOfSpace) as refusal:
        verdict(WANTED, [on(DATA, 1, 199_999_999), on(STATE, 1, 199_999_999)])

    assert refusal.value.facts["needed_bytes"] == 200_000_000
    assert verdict(WANTED, [on(DATA, 1, 10_000_000_000), on(STATE, 1, 10_000_000_000)]) is None


def test_a_folder_that_does_not_answer_refuses_nothing(tmp_path: Path) -> None:
    def broken(_: Path) -> int:
        raise OSError("stale file handle")

    assert Room(tmp_path, broken).check(WANTED, tmp_path / "cells.h5r") is None
    assert Room(tmp_path / "gone", lambda _: 10**12).check(WANTED, tmp_path / "cells.h5r") is None
