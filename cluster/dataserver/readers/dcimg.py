"""Hamamatsu's `.dcimg`, of both versions that cameras wrote: frames at even distances, but for four pixels of each.

The camera's software stores the first four pixels of one row of a frame elsewhere: of row 1023 of the chip behind the frame (version
1.0), of the row that the file names in a table at its end (version 0.7).
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.dataserver.readers.flat import read_into
from cluster.dataserver.readers.interface import Frames, Ranges, SeriesShape
from cluster.dataserver.readers.one_file import SingleFrames
from cluster.errors import Invalid

_FILE: Final = struct.Struct("<8sI20xIII")  # magic, version, sessions, frames, header bytes
_OLD: Final = 0x7
_NEW: Final = 0x1000000
_OLD_SESSION: Final = struct.Struct(
    "<32xIIxxxxIIII8xI"
)  # frames, depth, width, row bytes, height, frame bytes, to pixels
_OLD_DATA_BYTES: Final = 72
_NEW_SESSION: Final = struct.Struct(
    "<60xIIxxxxIIII8xQ"
)  # frames, depth, width, height, row bytes, frame bytes, to pixels
_CROP: Final = struct.Struct("<HHHH")  # x0, width, y0, height on the chip
_CROP_AT: Final = 712
_AFTER_FRAME_BYTES: Final = 32
_FOUR_AT: Final = 12
_ROW_APART: Final = 1023
_FOUR: Final = 4


@dataclass(frozen=True)
class _Layout:
    """Frame n begins at `offset` + n × `stride`, its rows `row_bytes` apart; bytes all.

    The four pixels of row `row` of frame n stand at `four_at` + n × `four_stride`; no row: all stand where they belong.
    """

    offset: int
    stride: int
    row_bytes: int
    height: int
    width: int
    dtype: np.dtype[Any]
    frames: int
    row: int | None = None
    four_at: int = 0
    four_stride: int = 0


class Dcimg(SingleFrames):
    """An open `.dcimg`.

    Raises
    ------
    Invalid
        If its headers are cut short or make no sense, or it holds several sessions.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._reading = threading.Lock()
        self._file = path.open("rb", buffering=0)
        try:
            file_bytes = path.stat().st_size
            self._layout = layout = _layout(self._file, path.name, file_bytes)
        except BaseException:
            self._file.close()
            raise
        self._shape = SeriesShape(
            "dcimg", layout.height, layout.width, layout.dtype, layout.frames, _missing(layout, file_bytes)
        )

    def _frame(self, number: int) -> Frames | None:
        layout = self._layout
        stored = np.empty((layout.height, layout.row_bytes), np.uint8)
        four = self._four(number)
        if four is None or not self._fill(stored, layout.offset + number * layout.stride):
            return None
        frame: Frames = np.ascontiguousarray(stored[:, : layout.width * layout.dtype.itemsize]).view(
            layout.dtype
        )
        if layout.row is not None:
            frame[layout.row, :_FOUR] = four[: layout.width]
        return frame

    def _four(self, number: int) -> Frames | None:
        """Return the pixels of a frame that stand elsewhere, or None if the file ends before them."""
        layout = self._layout
        four = np.zeros(_FOUR, layout.dtype)
        if layout.row is None:
            return four
        found = self._fill(four.view(np.uint8), layout.four_at + number * layout.four_stride)
        return four if found else None

    def _fill(self, target: np.ndarray[Any, np.dtype[np.uint8]], at: int) -> bool:
        with self._reading:
            return read_into(self._file, at, target.reshape(-1).data) == target.nbytes

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _layout(file: FileIO, name: str, file_bytes: int) -> _Layout:
    magic, version, sessions, _, header_bytes = _unpacked(_FILE, file, 0, name)
    if magic.rstrip(b"\0") != b"DCIMG" or version not in {_OLD, _NEW}:
        raise Invalid(f"{name} is no DCIMG file of version 0.7 or 1.0")
    if sessions > 1:
        raise Invalid(f"{name} holds {sessions} sessions; a series is of one")
    layout = (_new if version == _NEW else _old)(file, name, header_bytes)
    pixels = layout.width * layout.dtype.itemsize
    if min(layout.height, layout.width, layout.frames) < 1 or not pixels <= layout.row_bytes <= pixels + (
        1 << 16
    ):
        raise Invalid(
            f"{name} says that it holds {layout.frames} frames of {layout.width} × {layout.height} px, rows {layout.row_bytes} bytes apart"
        )
    if layout.offset + layout.stride > file_bytes:
        raise Invalid(f"{name} is cut short: it holds no whole frame of {layout.width} × {layout.height} px")
    return layout


def _new(file: FileIO, name: str, header_bytes: int) -> _Layout:
    frames, depth, width, height, row_bytes, frame_bytes, to_pixels = _unpacked(
        _NEW_SESSION, file, header_bytes, name
    )
    dtype = _dtype(depth, name)
    _, chip_width, first_row, chip_height = _unpacked(_CROP, file, header_bytes + _CROP_AT, name)
    binning = chip_width // width if width else 0
    if binning < 1 or (height and chip_height // height != binning) or frame_bytes != row_bytes * height:
        raise Invalid(f"{name} contradicts itself about the size of its frames")
    row, stride = (_ROW_APART - first_row) // binning, frame_bytes + _AFTER_FRAME_BYTES
    offset = header_bytes + to_pixels
    return _Layout(
        offset, stride, row_bytes, height, width, dtype, frames,
        row if 0 <= row < height else None, offset + frame_bytes + _FOUR_AT, stride,
    )  # fmt: skip


def _old(file: FileIO, name: str, header_bytes: int) -> _Layout:
    frames, depth, width, row_bytes, height, frame_bytes, to_pixels = _unpacked(
        _OLD_SESSION, file, header_bytes, name
    )
    dtype = _dtype(depth, name)
    if frame_bytes != row_bytes * height:
        raise Invalid(f"{name} contradicts itself about the size of its frames")
    (data_bytes,) = _unpacked(struct.Struct("<Q"), file, header_bytes + _OLD_DATA_BYTES, name)
    row, four_at = _old_four(file, name, header_bytes + data_bytes, row_bytes, _FOUR * depth * frames)
    return _Layout(
        header_bytes + to_pixels, frame_bytes, row_bytes, height, width, dtype, frames,
        row if row is not None and row < height else None, four_at, _FOUR * depth,
    )  # fmt: skip


def _old_four(
    file: FileIO, name: str, footer_at: int, row_bytes: int, table_bytes: int
) -> tuple[int | None, int]:
    """Return the row whose first four pixels stand in the footer, and where these begin; no row if there are none.

    Without its end a file of this version is refused: four pixels of each frame would be wrong, without a word.
    """
    to_second, footer_bytes = _unpacked(struct.Struct("<8xQ24xI"), file, footer_at, name)
    to_four, place = _unpacked(struct.Struct("<88xQ4xI"), file, footer_at + to_second, name)
    if footer_bytes != to_four + table_bytes or not row_bytes:
        return None, 0
    return place // row_bytes, footer_at + to_four


def _dtype(depth: int, name: str) -> np.dtype[Any]:
    if depth not in {1, 2}:
        raise Invalid(f"{name} says that its pixels take {depth} bytes; cameras write 1 or 2")
    return np.dtype("<u1" if depth == 1 else "<u2")


def _unpacked(form: struct.Struct, file: FileIO, at: int, name: str) -> tuple[Any, ...]:
    data = bytearray(form.size)
    if at >= 1 << 62 or read_into(file, at, memoryview(data)) < form.size:
        raise Invalid(f"{name} is cut short: what describes its frames is not there")
    return form.unpack(data)


def _missing(layout: _Layout, file_bytes: int) -> Ranges:
    whole = max(0, min(layout.frames, (file_bytes - layout.offset) // layout.stride))
    return ((whole, layout.frames),) if whole < layout.frames else ()
