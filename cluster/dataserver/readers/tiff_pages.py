"""The pixels of one TIFF file's pages: read where they lie, decoded where they are compressed or cut in pieces."""

from __future__ import annotations

import importlib.util
import math
import threading
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile

from cluster.dataserver.readers import tiff_index
from cluster.dataserver.readers.flat import read_into
from cluster.dataserver.readers.interface import Frames
from cluster.errors import Invalid

_DEFLATE: Final = frozenset({8, 32946})
_DESCRIPTION_BYTES: Final = 4096
_BUILT_IN: Final = frozenset({1, 32773})
_DECODE_FAULTS: Final = (
    ValueError, TypeError, IndexError, RuntimeError, OverflowError, NotImplementedError, ImportError, zlib.error,
    tifffile.TiffFileError,
)  # fmt: skip


class TiffPages:
    """The pages of one file, all of the form of `key`, its first; `known` is the index of a file that has grown since.

    Raises
    ------
    Invalid
        If the pages differ, or their compression cannot be undone here; names the file.
    """

    def __init__(self, path: Path, key: tifffile.TiffPage, known: tiff_index.PageIndex | None = None) -> None:
        self._file = path.open("rb", buffering=0)
        self._path = path
        self._key = key
        self._reading = threading.Lock()
        try:
            self._check_codec()
            window = tiff_index.Window(self._file)
            self._dialect = tiff_index.read_dialect(window, path.name)
            self.index = tiff_index.walk(window, self._dialect, path.name, known)
        except BaseException:
            self._file.close()
            raise
        self.dtype: np.dtype[Any] = np.dtype(f"{self._dialect.order}{key.dtype.str[1:]}")
        self._frame_bytes = int(key.imagelength) * int(key.imagewidth) * self.dtype.itemsize
        file_bytes = path.stat().st_size
        self.whole = self._whole(file_bytes)
        self.is_torn = self._is_torn(file_bytes)

    def _check_codec(self) -> None:
        key = self._key
        code = int(key.compression)
        self._inflatable = (
            code in _DEFLATE
            and key.fillorder == 1
            and key.bitspersample == 8 * key.dtype.itemsize
            and (int(key.predictor) == 1 or (int(key.predictor) == 2 and key.dtype.kind in "iu"))
        )
        built_in = code in _BUILT_IN or self._inflatable
        if not built_in and importlib.util.find_spec("imagecodecs") is None:
            name = tifffile.COMPRESSION(code).name if code in set(tifffile.COMPRESSION) else str(code)
            raise Invalid(
                f"{self._path.name} is compressed with {name}, which needs: pip install clusterofone[formats]"
            )

    def _whole(self, file_bytes: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which pages the file holds all bytes of.

        The byte counts of unpacked pixels are often wrong; their size is known anyway.
        """
        first, end = np.array(self.index.first), np.array(self.index.end)
        if self._key.is_final:
            end = np.where(np.array(self.index.single, bool), first + self._frame_bytes, end)
        return np.logical_and(first > 0, end <= file_bytes)

    def _is_torn(self, file_bytes: int) -> bool:
        """Return whether the file shows a page that is not whole: in its chain, or as bytes after the last one's.

        A page that is written before it is linked leaves these; what is a few kB may be a description or a note.
        """
        if self.index.broken or not self.whole[-1:].all():
            return True
        last = max(self.index.end[-1], self.index.ifds[-1])
        return file_bytes - last > _DESCRIPTION_BYTES + self._frame_bytes // 4

    def flat_offsets(self) -> np.ndarray[Any, np.dtype[np.int64]] | None:
        """Return where each page's pixels begin, if every whole page lies flat; -1 where a page is not whole."""
        if not self._key.is_final or self._key.is_tiled:
            return None
        if not np.array(self.index.joined, bool)[self.whole].all():
            return None
        return np.where(self.whole, np.array(self.index.first, np.int64), -1)

    def read(self, page: int, out: Frames) -> int:
        """Fill `out` with pages from `page` on; return how many of them could be read before one that could not."""
        done = 0
        while done < len(out):
            run = self._run(page + done, len(out) - done)
            got = self._read_run(page + done, out[done : done + run])
            done += got
            if got < run:
                break
        return done

    def _run(self, page: int, at_most: int) -> int:
        """Return how many pages from `page` on lie one after the other without a gap."""
        first, run = self.index.first, 1
        while run < at_most and page + run < len(first) and self._lies_flat(page + run - 1):
            if first[page + run] != first[page + run - 1] + self._frame_bytes:
                break
            run += 1
        return run

    def _lies_flat(self, page: int) -> bool:
        return bool(self._key.is_final and not self._key.is_tiled and self.index.joined[page])

    def _read_run(self, page: int, out: Frames) -> int:
        if page >= len(self.index) or self.index.first[page] == 0:
            return 0
        if self._lies_flat(page):
            return (
                self._pull(self.index.first[page], out.reshape(-1).view(np.uint8).data) // self._frame_bytes
            )
        return int(self._decode(page, out[0]))

    def _pull(self, offset: int, target: memoryview) -> int:
        """Fill `target` from the file; decoding happens outside this lock, in parallel."""
        with self._reading:
            return read_into(self._file, offset, target)

    def _decode(self, page: int, out: Frames) -> bool:
        with self._reading:
            offsets, counts = tiff_index.segments(
                tiff_index.Window(self._file), self._dialect, self.index.ifds[page]
            )
        height, width = out.shape
        try:
            if offsets.size != math.prod(self._key.chunked) or not (counts > 0).all():
                return False
            for number, (offset, length) in enumerate(zip(offsets, counts, strict=True)):
                pixels, (y, x) = self._segment(number, int(offset), int(length))
                place = out[y : y + pixels.shape[0], x : x + pixels.shape[1]]
                place[...] = pixels[: height - y, : width - x]
        except _DECODE_FAULTS:
            return False
        return True

    def _segment(self, number: int, offset: int, length: int) -> tuple[Frames, tuple[int, int]]:
        if length > 2 * self._segment_bytes() + 4096:
            raise ValueError("a compressed segment longer than its pixels")
        data = bytearray(length)
        if self._pull(offset, memoryview(data)) < length:
            raise ValueError("a segment beyond the end of the file")
        if self._inflatable:
            return self._inflate(number, data)
        pixels, (_, _, y, x, _), shape = self._key.decode(bytes(data), number)
        if pixels is None:
            raise ValueError("an empty segment")
        return pixels.reshape(shape[1], shape[2]), (y, x)

    def _segment_bytes(self) -> int:
        rows, columns = self._segment_shape()
        return rows * columns * self.dtype.itemsize

    def _segment_shape(self) -> tuple[int, int]:
        key = self._key
        if key.is_tiled:
            return key.tilelength, key.tilewidth
        return min(key.rowsperstrip, key.imagelength), key.imagewidth

    def _inflate(self, number: int, data: bytearray) -> tuple[Frames, tuple[int, int]]:
        """Inflate no further than the pixels need: a few bytes can claim to be gigabytes."""
        rows, columns = self._segment_shape()
        across = -(-self._key.imagewidth // columns)
        y, x = number // across * rows, number % across * columns
        if not self._key.is_tiled:
            rows = min(rows, self._key.imagelength - y)
        raw = zlib.decompressobj().decompress(data, rows * columns * self.dtype.itemsize)
        pixels = np.frombuffer(raw, self.dtype).reshape(rows, columns)
        if int(self._key.predictor) == 2:
            pixels = np.cumsum(pixels, axis=1, dtype=self.dtype.newbyteorder("="))
        return pixels, (y, x)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
