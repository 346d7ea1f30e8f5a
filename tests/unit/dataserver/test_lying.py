"""Where the frames of a range lie, and their checksum, against the same frames read one by one."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from cluster.dataserver import lying
from cluster.dataserver.readers.interface import Run

LARGE, SMALL = 1 << 20, 1 << 10


def test_a_range_across_files_is_a_piece_of_each() -> None:
    runs = [Run(0, 4, 0, 10, LARGE), Run(4, 6, 1, 20, LARGE)]

    found = lying.places_of(runs, LARGE, 2, 7)

    assert found == [lying.Place(0, 10 + 2 * LARGE, 2 * LARGE), lying.Place(1, 20, 3 * LARGE)]


def test_large_frames_with_something_between_them_are_a_piece_each() -> None:
    found = lying.places_of([Run(0, 3, 0, 0, LARGE + 7)], LARGE, 1, 3)

    assert found == [lying.Place(0, LARGE + 7, LARGE), lying.Place(0, 2 * (LARGE + 7), LARGE)]


@pytest.mark.parametrize(
    ("runs", "start", "stop"),
    [
        ([Run(0, 5000, 0, 0, SMALL + 1)], 0, 5000),  # scattered
        ([Run(0, 8, 0, 0, SMALL)], 0, 8),  # little
        ([Run(0, 2000, 0, 0, SMALL), Run(2001, 3000, 0, 0, SMALL)], 0, 4000),  # one lies nowhere
        ([Run(0, 2000, 0, 0, SMALL)], 100, 2001),  # the last lies nowhere
        ([], 0, 1),
    ],
)
def test_what_is_not_worth_it_or_not_there_is_no_piece(runs: list[Run], start: int, stop: int) -> None:
    assert lying.places_of(runs, SMALL, start, stop) is None


def test_the_checksum_is_that_of_the_bytes_and_none_of_a_file_that_ends(tmp_path: Path) -> None:
    content = np.random.default_rng(5).bytes(3 * LARGE)
    files = [tmp_path / "0", tmp_path / "1"]
    files[0].write_bytes(content)
    files[1].write_bytes(content[: LARGE + 5])
    kept = lying.KeptSums()
    whole = lying.opened([lying.Place(0, 3, 2 * LARGE + 11), lying.Place(1, 1, LARGE)], files, kept)
    short = lying.opened([lying.Place(1, 6, LARGE)], files, kept)

    assert lying.checksum(whole) == zlib.crc32(content[3 : 2 * LARGE + 14] + content[1 : LARGE + 1])
    assert lying.checksum(short) is None

    lying.close([*whole, *short])
    assert all(piece.file.closed for piece in [*whole, *short])


def test_a_file_that_cannot_be_opened_leaves_none_open(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b"x")

    with pytest.raises(FileNotFoundError):
        lying.opened(
            [lying.Place(0, 0, 1), lying.Place(1, 0, 1)],
            [tmp_path / "0", tmp_path / "gone"],
            lying.KeptSums(),
        )


def test_a_block_is_read_once_and_any_range_of_it_has_the_sum_of_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = np.random.default_rng(6).bytes(5 * LARGE + 77)
    (tmp_path / "0").write_bytes(content)
    kept, really, read = lying.KeptSums(), lying.read_at, []

    def counted(handle: int, offset: int, target: memoryview) -> int:
        read.append(len(target))
        return really(handle, offset, target)

    monkeypatch.setattr(lying, "read_at", counted)
    for first, count in [
        (0, 5 * LARGE + 77),
        (3, 4 * LARGE),
        (LARGE, 2 * LARGE),
        (LARGE - 1, 4 * LARGE + 78),
        (5, 9),
    ]:
        pieces = lying.opened([lying.Place(0, first, count)], [tmp_path / "0"], kept)
        assert lying.checksum(pieces) == zlib.crc32(content[first : first + count])
        lying.close(pieces)

    ends = (LARGE // 2 - 3) + 3 + 1 + 77 + 9  # the rest lies in blocks that were read whole before
    assert sum(read) == len(content) + ends


def test_bytes_that_change_behind_the_files_time_are_not_those_of_the_kept_sum(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(bytes(2 * LARGE))
    kept = lying.KeptSums()
    before = lying.opened([lying.Place(0, 0, 2 * LARGE)], [tmp_path / "0"], kept)
    sums = [lying.checksum(before)]
    (tmp_path / "0").write_bytes(b"\1" * (2 * LARGE))
    sums.append(lying.checksum(before))
    lying.close(before)

    assert sums == [zlib.crc32(bytes(2 * LARGE))] * 2
