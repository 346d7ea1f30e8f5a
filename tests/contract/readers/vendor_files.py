"""Files of cameras' and microscopes' makers, as small as their readers take them; written by the formats' descriptions."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# --- DCIMG (Hamamatsu): a header, a session's header, frames; four pixels of a row stand elsewhere ---

_HEADER_BYTES, _TO_PIXELS, _CROP_AT, _ROW_APART, _FIRST_ROW = 100, 760, 712, 1023, 1018


def dcimg(folder: Path, stack: Array) -> Path:
    """Version 1.0: behind each frame its number, its time, and the four pixels of the chip's row 1023; rows are padded."""
    path, (frames, height, width), depth = folder / "series.dcimg", stack.shape, stack.dtype.itemsize
    row_bytes = width * depth + 8
    size = _HEADER_BYTES + _TO_PIXELS + frames * (height * row_bytes + 32)
    header = _dcimg_header(0x1000000, frames, size)
    struct.pack_into(
        "<Q52xIIIIIII8xQ", header, _HEADER_BYTES,
        size - _HEADER_BYTES, frames, depth, 0, width, height, row_bytes, height * row_bytes, _TO_PIXELS,
    )  # fmt: skip
    struct.pack_into("<4H", header, _HEADER_BYTES + _CROP_AT, 0, width, _FIRST_ROW, height)
    with path.open("wb") as file:
        file.write(header)
        for number, frame in enumerate(stack):
            four = frame[_ROW_APART - _FIRST_ROW, :4].tobytes().ljust(8, b"\0")
            file.write(_without_four(frame, _ROW_APART - _FIRST_ROW, row_bytes))
            file.write(struct.pack("<III", number, 1_700_000_000, number) + four + bytes(12))
    return path


def dcimg_old(folder: Path, stack: Array) -> Path:
    """Version 0.7: the four pixels are those of row 0, in a table at the end."""
    path, (frames, height, width), depth = folder / "series.dcimg", stack.shape, stack.dtype.itemsize
    data_bytes = _TO_PIXELS + stack.nbytes
    to_second, to_four = 300, 500
    footer = bytearray(to_four)
    struct.pack_into("<8xQ24xI", footer, 0, to_second, to_four + 4 * depth * frames)
    struct.pack_into("<88xQ4xI", footer, to_second, to_four, 0)
    header = _dcimg_header(0x7, frames, _HEADER_BYTES + data_bytes + to_four + 4 * depth * frames)
    struct.pack_into(
        "<32xIIIIIII8xIQ", header, _HEADER_BYTES,
        frames, depth, 0, width, width * depth, height, height * width * depth, _TO_PIXELS, data_bytes,
    )  # fmt: skip
    pixels = b"".join(_without_four(frame, 0, width * depth) for frame in stack)
    path.write_bytes(bytes(header) + pixels + bytes(footer) + stack[:, 0, :4].tobytes())
    return path


def _dcimg_header(version: int, frames: int, size: int) -> bytearray:
    header = bytearray(_HEADER_BYTES + _TO_PIXELS)
    struct.pack_into("<8sI20xIIIIQ8xQ", header, 0, b"DCIMG", version, 1, frames, _HEADER_BYTES, 0, size, size)
    return header


def _without_four(frame: Array, row: int, row_bytes: int) -> bytes:
    stored = np.zeros((len(frame), row_bytes), np.uint8)
    pixels = frame.copy()
    pixels[row, :4] = 0
    stored[:, : frame.shape[1] * frame.itemsize] = pixels.view(np.uint8)
    return stored.tobytes()


# --- CZI (Zeiss), by Zeiss' own writer ---


def czi(folder: Path, stack: Array) -> Path:
    from pylibCZIrw import czi as library

    path = folder / "series.czi"
    with library.create_czi(str(path)) as file:
        for number, frame in enumerate(stack):
            file.write(data=frame[..., None], plane={"T": number, "C": 0})
    return path


# --- ND2 (Nikon), version 3: named chunks, of which a map at the end says where they are; notes are "lite variants" ---

_CHUNK, _FRAME_NAME_BYTES = 0x0ABECEDA, 4072
_CODES = {bool: (1, "<B"), int: (3, "<I"), float: (6, "<d")}


def nd2(folder: Path, stack: Array, **notes: Any) -> Path:
    """A time series of one channel; `notes` go to what is said of the channel."""
    path, (frames, height, width) = folder / "series.nd2", stack.shape
    bits = 8 * stack.dtype.itemsize
    attributes = {
        "uiWidth": width, "uiWidthBytes": width * stack.dtype.itemsize, "uiHeight": height, "uiComp": 1,
        "uiBpcInMemory": bits, "uiBpcSignificant": bits, "uiSequenceCount": frames, "uiTileWidth": width,
        "uiTileHeight": height, "eCompression": 2, "uiQuality": 0, "dCompressionParam": 0.0, "uiVirtualComponents": 1,
    }  # fmt: skip
    loop = {
        "eType": 1,
        "uLoopPars": {"uiCount": frames, "dStart": 0.0, "dPeriod": 50.0, "dDuration": 50.0 * frames},
    }
    plane = {"uiCompCount": 1, "uiSampleIndex": 0, "sDescription": "Mono", "uiColor": 0xFFFFFF, **notes}
    picture = {
        "dCalibration": 0.1, "bCalibrated": True, "dAspect": 1.0, "dTimeMSec": 0.0,
        "sPicturePlanes": {"uiCount": 1, "uiCompCount": 1, "sPlaneNew": {"a0": plane}},
    }  # fmt: skip
    chunks = [(b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0".ljust(64, b"\0"), 0)]
    for number, frame in enumerate(stack):
        chunks.append(
            (f"ImageDataSeq|{number}!".encode(), struct.pack("<d", 50.0 * number) + frame.tobytes(), 1)
        )
    times = (50.0 * np.arange(frames)).tobytes()
    chunks += [
        (b"ImageAttributesLV!", _level("SLxImageAttributes", attributes), 0),
        (b"ImageMetadataLV!", _level("SLxExperiment", loop), 0),
        (b"ImageMetadataSeqLV|0!", _level("SLxPictureMetadata", picture), 0),
        (b"CustomData|AcqTimesCache!", times, 0),
    ]
    with path.open("wb") as file:
        index = b""
        for name, data, is_frame in chunks:
            index += name + struct.pack("<QQ", file.tell(), len(data))
            # the pixels begin 8 bytes into the data, 4096 after the chunk
            padded = name.ljust(_FRAME_NAME_BYTES if is_frame else len(name), b"\0")
            file.write(struct.pack("<IIQ", _CHUNK, len(padded), len(data)) + padded + data)
        at, name = file.tell(), b"ND2 FILEMAP SIGNATURE NAME 0001!"
        index += name + struct.pack("<QQ", at, 0)
        index += b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", at)
        file.write(struct.pack("<IIQ", _CHUNK, len(name), len(index)) + name + index)
    return path


def _level(name: str, values: dict[str, Any]) -> bytes:
    content = b"".join(_variant(key, value) for key, value in values.items())
    head = _name(11, name)
    length = len(head) + 12 + len(content)
    return head + struct.pack("<IQ", len(values), length) + content + bytes(8 * len(values))


def _variant(name: str, value: Any) -> bytes:
    match value:
        case dict():
            return _level(name, value)
        case str():
            return _name(8, name) + value.encode("utf-16-le") + b"\0\0"
        case _:
            code, form = _CODES[type(value)]
            return _name(code, name) + struct.pack(form, value)


def _name(code: int, name: str) -> bytes:
    return struct.pack("<BB", code, len(name) + 1) + name.encode("utf-16-le") + b"\0\0"
