"""What every reader must do, asked of all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.dataserver.readers.interface import SeriesReader
from cluster.dataserver.readers.registry import file_on_disk, open_series
from cluster.errors import Invalid

Array = np.ndarray[Any, Any]
RANGES = [(0, 13), (0, 1), (12, 13), (3, 9), (5, 6), (7, 13)]


@pytest.fixture
def opened() -> Any:
    readers: list[SeriesReader] = []

    def open_it(path: Path) -> SeriesReader:
        readers.append(open_series(path))
        return readers[-1]

    yield open_it
    for reader in readers:
        reader.close()


Opened = Callable[[Path], SeriesReader]


def test_frames_are_those_that_were_written_row_by_row(
    kind: Any, frames_of: Any, tmp_path: Path, opened: Opened
) -> None:
    written = frames_of()
    reader = opened(kind.write(tmp_path, written))

    frames, missing = reader.read(0, len(written))

    np.testing.assert_array_equal(frames, written)
    assert missing == ()


@pytest.mark.parametrize(("start", "stop"), RANGES)
def test_any_range_is_the_same_as_that_part_of_the_whole(
    kind: Any, frames_of: Any, tmp_path: Path, opened: Opened, start: int, stop: int
) -> None:
    written = frames_of()
    reader = opened(kind.write(tmp_path, written))

    frames, _ = reader.read(start, stop)

    np.testing.assert_array_equal(frames, written[start:stop])


def test_shape_says_what_is_there(kind: Any, frames_of: Any, tmp_path: Path, opened: Opened) -> None:
    written = frames_of()

    shape = opened(kind.write(tmp_path, written)).shape

    assert (shape.frames, shape.height, shape.width) == written.shape
    assert shape.dtype == np.dtype("uint16")
    assert shape.missing == ()


def test_frames_are_contiguous_in_the_promised_type_and_native_order(
    kind: Any, frames_of: Any, tmp_path: Path, opened: Opened
) -> None:
    reader = opened(kind.write(tmp_path, frames_of()))

    frames, _ = reader.read(2, 5)

    assert frames.dtype == reader.shape.dtype
    assert frames.dtype.isnative
    assert frames.flags.c_contiguous


def test_every_pixel_type_the_format_can_hold_is_served_exactly(
    kind: Any, frames_of: Any, tmp_path: Path, opened: Opened
) -> None:
    for dtype in kind.dtypes:
        folder = tmp_path / dtype
        folder.mkdir()
        written = frames_of(dtype=dtype)
        frames, _ = opened(kind.write(folder, written)).read(0, len(written))
        np.testing.assert_array_equal(frames, written)
        assert frames.dtype == np.dtype(dtype)


def test_a_series_of_one_frame_is_a_series(kind: Any, frames_of: Any, tmp_path: Path, opened: Opened) -> None:
    written = frames_of(frames=1)
    reader = opened(kind.write(tmp_path, written))

    frames, missing = reader.read(0, 1)

    np.testing.assert_array_equal(frames, written)
    assert (reader.shape.frames, missing) == (1, ())


@pytest.mark.parametrize("kept", [0.45, 0.7, 0.85])
def test_a_file_cut_short_gives_its_whole_frames_and_names_the_rest(
    kind: Any, frames_of: Any, tmp_path: Path, opened: Opened, kept: float
) -> None:
    written = frames_of()
    path = kind.write(tmp_path, written)
    if kind.cut is None:
        path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
        with pytest.raises(Invalid, match=f"{path.name} is cut short"):
            open_series(path)
        return
    kind.cut(path, kept)

    reader = opened(path)
    frames, missing = reader.read(0, reader.shape.frames)

    absent = {n for start, stop in reader.shape.missing for n in range(start, stop)}
    assert absent
    assert set(missing) <= absent
    present = sorted(set(range(len(frames))) - absent)
    assert present
    np.testing.assert_array_equal(frames[present], written[present])
    assert not frames[sorted(absent)].any()


def test_threads_that_read_at_once_get_each_their_own_frames(
    kind: Any, frames_of: Any, tmp_path: Path, opened: Opened
) -> None:
    written = frames_of()
    reader = opened(kind.write(tmp_path, written))
    wrong: list[int] = []

    def read(frame: int) -> None:
        for _ in range(20):
            frames, _missing = reader.read(frame, frame + 1)
            if not np.array_equal(frames[0], written[frame]):
                wrong.append(frame)

    threads = [threading.Thread(target=read, args=(frame,)) for frame in (0, 4, 8, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_the_first_file_is_the_one_that_was_opened_and_all_exist(
    kind: Any, frames_of: Any, tmp_path: Path, opened: Opened
) -> None:
    path = kind.write(tmp_path, frames_of())

    files = opened(path).files

    assert files[0] == file_on_disk(path)
    assert all(file.exists() for file in files)


def test_a_closed_series_lets_go_of_its_files(kind: Any, frames_of: Any, tmp_path: Path) -> None:
    path = kind.write(tmp_path, frames_of())
    reader = open_series(path)

    reader.close()

    for file in reversed(reader.files):
        file.rename(file.with_name(f"moved {file.name}"))


def test_events_are_as_many_as_the_shape_says(
    kind: Any, frames_of: Any, tmp_path: Path, opened: Opened
) -> None:
    reader = opened(kind.write(tmp_path, frames_of()))

    events = reader.events()

    assert len(events) == reader.shape.events
