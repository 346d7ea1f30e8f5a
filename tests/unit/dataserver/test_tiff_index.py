from __future__ import annotations

from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cluster.dataserver.readers.tiff_index import Window, read_dialect, walk


class CountingFile(FileIO):
    """Counts how often and how much it is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reads = 0
        self.bytes_read = 0

    def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
        got = super().read(-1 if size is None else size) or b""
        self.reads += 1
        self.bytes_read += len(got)
        return got


def _walked(path: Path) -> tuple[Any, CountingFile]:
    with CountingFile(path) as file:
        window = Window(file)
        return walk(window, read_dialect(window, path.name), path.name), file


def test_descriptions_that_lie_side_by_side_cost_few_reads(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((1000, 8, 8), np.uint16), photometric="minisblack")

    index, file = _walked(tmp_path / "a.tif")

    assert len(index) == 1000
    assert file.reads < 20


def test_descriptions_among_the_pixels_cost_little_beyond_themselves(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for _ in range(300):
            writer.write(np.zeros((128, 128), np.uint16), contiguous=False, metadata=None)

    index, file = _walked(tmp_path / "a.tif")

    assert len(index) == 300
    assert file.bytes_read < 300 * 1024


def test_every_page_is_found_where_tifffile_finds_it(tmp_path: Path) -> None:
    stack = np.zeros((50, 40, 30), np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", stack, photometric="minisblack", rowsperstrip=9, bigtiff=True, byteorder=">"
    )

    index, _ = _walked(tmp_path / "a.tif")

    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert list(index.first) == [page.dataoffsets[0] for page in tif.pages]
        assert list(index.ifds) == [page.offset for page in tif.pages]
        assert list(index.end) == [page.dataoffsets[-1] + page.databytecounts[-1] for page in tif.pages]
