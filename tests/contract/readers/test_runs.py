"""Where a reader says that its frames lie, there they lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.dataserver.readers.interface import LiesInFiles, Run, SeriesReader
from cluster.dataserver.readers.runs import runs_of

Opened = Callable[[Path], SeriesReader]
FLAT = {
    "tiff",
    "bigtiff",
    "tiff of plain pages",
    "tiff in strips",
    "ome-tiff",
    "ome-tiff of two files",
    "raw",
    "dax little-endian",
}


def by_hand(
    files: Any, runs: tuple[Run, ...], shape: tuple[int, int], dtype: np.dtype[Any], frames: int
) -> Any:
    found = np.zeros((frames, *shape), dtype)
    seen = set()
    for run in runs:
        for number in range(run.count):
            frame = run.frame + number
            content = files[run.file].read_bytes()[run.offset + number * run.stride :][: found[0].nbytes]
            found[frame] = np.frombuffer(content, dtype).reshape(shape)
            seen.add(frame)
    return found, seen


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_bytes_at_the_runs_are_the_frames(
    kind: Any, frames_of: Any, tmp_path: Path, dtype: str, open_it: Opened
) -> None:
    if dtype not in kind.dtypes:
        pytest.skip(f"{kind.name} cannot hold {dtype}")
    written = frames_of(dtype=dtype)
    reader = open_it(kind.write(tmp_path, written))
    runs = reader.runs() if isinstance(reader, LiesInFiles) else None
    if runs is not None:
        found, seen = by_hand(reader.files, runs, written.shape[1:], written.dtype, len(written))
        np.testing.assert_array_equal(found, written)
        assert seen == set(range(len(written)))
    reader.close()

    assert runs is not None or kind.name not in FLAT


@pytest.mark.parametrize("kept", [0.45, 0.85])
def test_frames_that_were_cut_off_are_in_no_run(
    kind: Any, frames_of: Any, tmp_path: Path, kept: float, open_it: Opened
) -> None:
    written = frames_of()
    path = kind.write(tmp_path, written)
    if kind.cut is not None:  # one that is refused when it is cut short lies in no files anyway
        kind.cut(path, kept)
    reader = open_it(path)
    runs = reader.runs() if isinstance(reader, LiesInFiles) else None
    assert kind.cut is not None or runs is None
    absent = {n for start, stop in reader.shape.missing for n in range(start, stop)}
    named = {run.frame + n for run in runs or () for n in range(run.count)}
    frames = reader.shape.frames
    reader.close()

    assert runs is None or named == set(range(frames)) - absent


@given(
    st.lists(st.tuples(st.integers(-1, 6), st.integers(0, 2)), max_size=60),
    st.integers(1, 5),
)
def test_any_arrangement_is_told_frame_for_frame(frames: list[tuple[int, int]], frame_bytes: int) -> None:
    offsets = np.array([offset for offset, _ in frames], np.int64)
    files = np.array([file for _, file in frames], np.int64)

    runs = runs_of(offsets, files, {0: 0, 1: 1, 2: 2}, frame_bytes)

    assert runs is not None
    told = {run.frame + n: (run.offset + n * run.stride, run.file) for run in runs for n in range(run.count)}
    assert told == {n: place for n, place in enumerate(frames) if place[0] >= 0}
    assert all(run.stride > 0 for run in runs)
