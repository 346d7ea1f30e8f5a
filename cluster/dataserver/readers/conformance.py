"""What every reader must do, as tests that pytest runs for any format, those of other packages included.

    class TestMine(ReaderConformance):
        @pytest.fixture
        def kind(self) -> Format:
            return Format("mine", write_mine)

`write_mine(folder, stack)` writes a (n, h, w) array as one series and returns its path. The series is opened as the data
server opens it, so the reader must be registered or installed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.dataserver.readers.interface import Grows, LiesInFiles, SeriesReader
from cluster.dataserver.readers.registry import file_on_disk, open_series
from cluster.errors import Invalid

Array = np.ndarray[Any, Any]
Writer = Callable[[Path, Array], Path]
FRAMES, HEIGHT, WIDTH = 13, 24, 36
_RANGES: Final = ((0, 13), (0, 1), (12, 13), (3, 9), (5, 6), (7, 13))
_KEPT: Final = (0.45, 0.7, 0.85)


def cut_short(path: Path, kept: float) -> None:
    """Leave the first part of a file: a full disk, a copy that broke off."""
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])


@dataclass(frozen=True)
class Format:
    """How to write one format, which pixel types it can hold, and how it loses frames."""

    name: str
    write: Writer
    dtypes: tuple[str, ...] = ("uint16", "uint8", "float32")
    cut: Callable[[Path, float], None] | None = cut_short  # None: refused when cut short


def camera_frames(frames: int = FRAMES, dtype: str = "uint16") -> Array:
    """Return frames like a camera's: smooth, noisy, no two alike, and none the same when transposed or flipped."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mean = 90 + x + 0.3 * y + 2.0 * np.arange(frames)[:, None, None]
    series: Array = rng.poisson(mean).clip(1, 255).astype(dtype)
    return series


class ReaderConformance:
    """The tests. A subclass has a fixture `kind`, a `Format`."""

    def open(self, path: Path) -> SeriesReader:
        """Return the reader of a series; a subclass may get it otherwise."""
        return open_series(path)

    @contextmanager
    def _opened(self, path: Path) -> Iterator[SeriesReader]:
        reader = self.open(path)
        try:
            yield reader
        finally:
            reader.close()

    def _refusal(self, path: Path) -> str:
        try:
            self.open(path).close()
        except Invalid as error:
            return error.detail
        return "it was opened"

    def test_frames_are_those_that_were_written_row_by_row(self, kind: Format, tmp_path: Path) -> None:
        """Frame by frame, y before x, row 0 at the top."""
        written = camera_frames()
        with self._opened(kind.write(tmp_path, written)) as reader:
            frames, missing = reader.read(0, len(written))

        np.testing.assert_array_equal(frames, written)
        assert missing == ()

    def test_any_range_is_the_same_as_that_part_of_the_whole(self, kind: Format, tmp_path: Path) -> None:
        """Whatever was read before."""
        written = camera_frames()
        with self._opened(kind.write(tmp_path, written)) as reader:
            for start, stop in _RANGES:
                np.testing.assert_array_equal(reader.read(start, stop)[0], written[start:stop])

    def test_shape_says_what_is_there(self, kind: Format, tmp_path: Path) -> None:
        """Frames, size, type, and that none is missing."""
        written = camera_frames()
        with self._opened(kind.write(tmp_path, written)) as reader:
            shape = reader.shape

        assert (shape.frames, shape.height, shape.width) == written.shape
        assert shape.dtype == np.dtype("uint16")
        assert shape.missing == ()

    def test_frames_are_contiguous_in_the_promised_type_and_native_order(
        self, kind: Format, tmp_path: Path
    ) -> None:
        """So that they can be sent as they are."""
        with self._opened(kind.write(tmp_path, camera_frames())) as reader:
            frames, _ = reader.read(2, 5)

        assert frames.dtype == reader.shape.dtype
        assert frames.dtype.isnative
        assert frames.flags.c_contiguous

    def test_every_pixel_type_the_format_can_hold_is_served_exactly(
        self, kind: Format, tmp_path: Path
    ) -> None:
        """No value is scaled or cut."""
        for dtype in kind.dtypes:
            folder = tmp_path / dtype
            folder.mkdir()
            written = camera_frames(dtype=dtype)
            with self._opened(kind.write(folder, written)) as reader:
                frames, _ = reader.read(0, len(written))
            np.testing.assert_array_equal(frames, written)
            assert frames.dtype == np.dtype(dtype)

    def test_a_series_of_one_frame_is_a_series(self, kind: Format, tmp_path: Path) -> None:
        """As camera maps are."""
        written = camera_frames(frames=1)
        with self._opened(kind.write(tmp_path, written)) as reader:
            frames, missing = reader.read(0, 1)
            shape = reader.shape

        np.testing.assert_array_equal(frames, written)
        assert (shape.frames, missing) == (1, ())

    def test_a_file_cut_short_gives_its_whole_frames_and_names_the_rest(
        self, kind: Format, tmp_path: Path
    ) -> None:
        """What is missing is black and listed, or the file is refused in words."""
        for kept in _KEPT:
            folder = tmp_path / str(kept)
            folder.mkdir()
            written = camera_frames()
            path = kind.write(folder, written)
            if kind.cut is None:
                cut_short(path, kept)
                assert f"{path.name} is cut short" in self._refusal(path)
                continue
            kind.cut(path, kept)
            with self._opened(path) as reader:
                _check_cut(reader, written)

    def test_threads_that_read_at_once_get_each_their_own_frames(self, kind: Format, tmp_path: Path) -> None:
        """A data server reads from several threads."""
        written = camera_frames()
        wrong: list[int] = []
        with self._opened(kind.write(tmp_path, written)) as reader:

            def read(frame: int) -> None:
                read_now = (reader.read(frame, frame + 1)[0][0] for _ in range(20))
                wrong.extend(frame for pixels in read_now if not np.array_equal(pixels, written[frame]))

            threads = [threading.Thread(target=read, args=(frame,)) for frame in (0, 4, 8, 12)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        assert wrong == []

    def test_the_first_file_is_the_one_that_was_opened_and_all_exist(
        self, kind: Format, tmp_path: Path
    ) -> None:
        """The files tell whether the series has changed."""
        path = kind.write(tmp_path, camera_frames())
        with self._opened(path) as reader:
            files = reader.files

        assert files[0] == file_on_disk(path)
        assert all(file.exists() for file in files)

    def test_a_closed_series_lets_go_of_its_files(self, kind: Format, tmp_path: Path) -> None:
        """Windows lets nobody move a file that is open."""
        path = kind.write(tmp_path, camera_frames())
        with self._opened(path) as reader:
            pass

        for file in reversed(reader.files):
            file.rename(file.with_name(f"moved {file.name}"))

    def test_events_are_as_many_as_the_shape_says(self, kind: Format, tmp_path: Path) -> None:
        """None, for most formats."""
        with self._opened(kind.write(tmp_path, camera_frames())) as reader:
            assert len(reader.events()) == reader.shape.events

    def test_what_is_said_to_lie_in_files_lies_there(self, kind: Format, tmp_path: Path) -> None:
        """Workers read it there by themselves, if the reader says where."""
        written = camera_frames()
        with self._opened(kind.write(tmp_path, written)) as reader:
            runs = (reader.runs() if isinstance(reader, LiesInFiles) else None) or ()
            for run in runs:
                data = reader.files[run.file].read_bytes()
                for number in range(run.count):
                    frame = written[run.frame + number]
                    at = run.offset + number * run.stride
                    assert data[at : at + frame.nbytes] == frame.tobytes()

    def test_what_is_counted_of_a_series_that_grows_is_there_and_nothing_is_counted_early(
        self, kind: Format, tmp_path: Path
    ) -> None:
        """A reader may say how far a file has come that another program writes."""
        written = camera_frames()
        path = kind.write(tmp_path, written)
        with self._opened(path) as reader:
            if not isinstance(reader, Grows):
                return
            assert len(written) - 4 <= reader.progress(0).whole <= len(written)
        if kind.cut is None:
            return
        kind.cut(path, 0.7)
        with self._opened(path) as reader:
            progress = reader.progress(0) if isinstance(reader, Grows) else None
            assert progress is not None
            frames, missing = reader.read(0, max(1, progress.whole))
            assert not progress.ended
            if progress.whole:
                assert missing == ()
                np.testing.assert_array_equal(frames, written[: progress.whole])


def _check_cut(reader: SeriesReader, written: Array) -> None:
    frames, missing = reader.read(0, reader.shape.frames)
    absent = {n for start, stop in reader.shape.missing for n in range(start, stop)}
    assert absent
    assert set(missing) <= absent
    present = sorted(set(range(len(frames))) - absent)
    assert present
    np.testing.assert_array_equal(frames[present], written[present])
    assert not frames[sorted(absent)].any()
