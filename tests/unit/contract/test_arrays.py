"""Frames and results on the wire."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cluster.arrays import (
    CODECS,
    FrameRange,
    TaskResult,
    decode_frames,
    decode_result,
    encode_frames,
    encode_result,
)
from cluster.errors import ChecksumMismatch, ClusterError, Invalid, TooLarge

ROWS = np.zeros(3, np.dtype([("tIndex", "<i4"), ("fitResults", [("A", "<f4"), ("x0", "<f4")])]))


def body_of(frames: FrameRange, codec: str) -> bytes:
    return b"".join(bytes(part) for part in encode_frames(frames, codec))


@given(
    frames=st.sampled_from(["uint8", "uint16", "float32"]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=9))
    ),
    codec=st.sampled_from(CODECS),
    start=st.integers(0, 2**31),
)
def test_frames_arrive_as_they_were_sent(frames: np.ndarray, codec: str, start: int) -> None:
    back = decode_frames(body_of(FrameRange(start, frames, missing=(start,)), codec))

    assert back.start == start
    assert back.missing == (start,)
    assert back.frames.dtype == frames.dtype
    np.testing.assert_array_equal(back.frames, frames)


def test_a_view_that_is_not_contiguous_arrives_too() -> None:
    frames = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)[:, ::2, ::-1]

    np.testing.assert_array_equal(decode_frames(body_of(FrameRange(0, frames), "none")).frames, frames)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("position", [20, -1])
def test_one_changed_byte_is_noticed(codec: str, position: int) -> None:
    body = bytearray(body_of(FrameRange(0, np.full((2, 8, 8), 7, np.uint16)), codec))

    body[position] ^= 0x40

    with pytest.raises(ClusterError):
        decode_frames(bytes(body))


def test_a_short_body_is_noticed() -> None:
    body = body_of(FrameRange(0, np.full((2, 8, 8), 7, np.uint16)), "none")

    with pytest.raises(ChecksumMismatch, match="arrived"):
        decode_frames(body[:-1])


def packed(header: dict[str, object], payload: bytes = b"") -> bytes:
    head = msgpack.packb(header)
    return struct.pack("<4sI", b"C1FR", len(head)) + head + payload


@pytest.mark.parametrize("shape", [[2**31, 2**31, 2**31], [1, 2**40, 1]])
def test_a_header_that_promises_too_much_is_refused_before_allocating(shape: list[int]) -> None:
    header = {
        "start": 0,
        "shape": shape,
        "dtype": "uint16",
        "codec": "none",
        "bytes": 0,
        "crc32": 0,
        "missing": [],
    }

    with pytest.raises(TooLarge):
        decode_frames(packed(header))


def test_a_bomb_is_refused_before_it_unpacks() -> None:
    small = np.zeros((1, 4, 4), np.uint16)
    head_and_bomb = encode_frames(FrameRange(0, np.zeros((64, 512, 512), np.uint16)), "blosc-lz4")
    bomb = bytes(head_and_bomb[1])
    header = {
        "start": 0,
        "shape": list(small.shape),
        "dtype": "uint16",
        "codec": "blosc-lz4",
        "bytes": len(bomb),
        "crc32": zlib.crc32(bomb),
        "missing": [],
    }

    with pytest.raises(Invalid, match="unpack"):
        decode_frames(packed(header, bomb))


def nested(depth: int, opening: bytes, innermost: bytes) -> bytes:
    return opening * depth + innermost


HOSTILE = {
    "lists within lists": b"\x81\xa1a" + nested(100_000, b"\x91", b"\xc0"),
    "maps within maps": nested(100_000, b"\x81\xa1a", b"\xc0"),
    "a list of four billion": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "a map of four billion": b"\xdf\xff\xff\xff\xff",
    "a text of four billion": b"\x81\xa1a\xdb\xff\xff\xff\xffx",
    "bytes of four billion": b"\x81\xa1a\xc6\xff\xff\xff\xffx",
    "a type of its own": b"\x81\xa1a\xc7\x01\x05x",
    "a time": b"\x81\xa1a\xd6\xff\x00\x00\x00\x01",
    "a key that is a number": b"\x81\x01\xa1a",
    "a key that is a list": b"\x81\x91\x01\xa1a",
    "text that is no UTF-8": b"\x81\xa1a\xa2\xff\xfe",
    "a list": b"\x91\x01",
    "more than one": b"\x80\x80",
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_header_or_a_table_of_arrays_that_is_hostile_is_refused_and_takes_no_memory(name: str) -> None:
    hostile = HOSTILE[name]
    sound = msgpack.packb({"start": 0, "stop": 1, "bytes": len(hostile), "crc32": zlib.crc32(hostile)})
    in_header = struct.pack("<4sI", b"C1FR", len(hostile)) + hostile
    in_payload = struct.pack("<4sI", b"C1RS", len(sound)) + sound + hostile
    tracemalloc.start()

    with pytest.raises(Invalid):
        decode_frames(in_header)
    with pytest.raises(Invalid):
        decode_result(in_payload)

    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20 * len(hostile) + 100_000


@given(st.binary(max_size=400))
def test_noise_is_refused_and_never_crashes(noise: bytes) -> None:
    for decode in (decode_frames, decode_result):
        with pytest.raises(ClusterError):
            decode(noise)


@given(st.binary(max_size=200), st.integers(0, 60))
def test_a_damaged_result_is_refused_and_never_crashes(noise: bytes, cut: int) -> None:
    body = encode_result(TaskResult(0, 3, ROWS, np.ones(3, np.uint8)))
    with pytest.raises(ClusterError):
        decode_result(body[:cut] + noise + body[cut + 1 + len(noise) :] + b"x")


def test_results_arrive_as_they_were_sent() -> None:
    rows = ROWS.copy()
    rows["tIndex"] = [5, 5, 6]
    sent = TaskResult(5, 8, rows, np.array([1, 1, 3], np.uint8), reasons={7: "cannot be read"}, seconds=1.5)

    back = decode_result(encode_result(sent))

    assert back.rows.tobytes() == rows.tobytes()
    assert back.rows.dtype == rows.dtype
    assert back.reasons == {7: "cannot be read"}
    assert back.frame_status.tolist() == [1, 1, 3]
    assert back.fiducials is None


def test_a_result_without_a_status_for_every_frame_is_refused() -> None:
    with pytest.raises(Invalid, match="status"):
        decode_result(encode_result(TaskResult(0, 4, ROWS, np.ones(3, np.uint8))))


def test_objects_cannot_travel() -> None:
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        encode_result(TaskResult(0, 1, np.array([object()]), np.ones(1, np.uint8)))


@given(
    st.sampled_from(
        [ROWS.dtype, np.dtype("<f4"), np.dtype(">i2"), np.dtype([("a", "<u2", (2, 3)), ("b", "S5")])]
    ).flatmap(lambda dtype: hnp.arrays(dtype, st.integers(0, 1200).map(lambda n: (n,))))
)
def test_rows_of_any_type_arrive_as_numpy_would_read_them(rows: np.ndarray) -> None:
    back = decode_result(encode_result(TaskResult(0, 1, rows, np.ones(1, np.uint8)))).rows

    assert back.dtype == rows.dtype
    assert back.tobytes() == rows.tobytes()
    assert back.flags.writeable


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        (b"'<i4'", b"'|O8'"),  # objects, which only pickle could read
        (b"(3,)", b"(9,)"),  # more rows than there are bytes
    ],
)
def test_a_table_whose_header_lies_is_refused(said: bytes, instead: bytes) -> None:
    arrays = {"rows": npy(ROWS), "frame_status": npy(np.ones(1, np.uint8))}
    assert said in arrays["rows"]
    arrays["rows"] = arrays["rows"].replace(said, instead)
    payload = msgpack.packb(arrays)
    header = {"start": 0, "stop": 1, "bytes": len(payload), "crc32": zlib.crc32(payload)}
    head = msgpack.packb(header)

    with pytest.raises(Invalid):
        decode_result(b"C1RS" + struct.pack("<I", len(head)) + head + payload)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
