"""Frames that travel as they lie: what arrives, and what becomes of bytes that are not what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.arrays import FrameRange
from cluster.blocks import packed
from cluster.errors import ChecksumMismatch, ClusterError, Invalid, TooLarge
from cluster.stored_frames import StoredRange, decode, encode_stored

STACK = np.random.default_rng(3).poisson(100, (12, 5, 7)).astype(np.uint16)


def stored(start: int, stop: int, **others: Any) -> StoredRange:
    """Frames of `STACK` in blocks of four."""
    first = range(start // 4 * 4, stop, 4)
    blocks = tuple((begin, b"".join(packed(STACK[begin : begin + 4]))) for begin in first)
    return replace(StoredRange(start, stop, 5, 7, STACK.dtype, 4, blocks), **others)


def body(of: StoredRange) -> bytes:
    return b"".join(bytes(part) for part in encode_stored(of))


@given(start=st.integers(0, 11), length=st.integers(1, 12))
def test_any_range_arrives(start: int, length: int) -> None:
    stop = min(12, start + length)

    found = decode(body(stored(start, stop, missing=(start,))))

    assert (found.start, found.stop, found.missing) == (start, stop, (start,))
    np.testing.assert_array_equal(found.frames, STACK[start:stop])


def test_a_block_that_was_damaged_on_the_disk_is_missing_and_no_other() -> None:
    whole = stored(2, 11)
    blocks = list(whole.blocks)
    blocks[1] = (4, blocks[1][1][:-6] + b"??" + blocks[1][1][-4:])

    found = decode(body(replace(whole, blocks=tuple(blocks))))

    assert found.missing == (4, 5, 6, 7)
    np.testing.assert_array_equal(found.frames[:2], STACK[2:4])
    np.testing.assert_array_equal(found.frames[6:], STACK[8:11])
    assert not found.frames[2:6].any()


def test_frames_that_no_block_holds_are_black() -> None:
    whole = stored(0, 12)

    found = decode(body(replace(whole, blocks=whole.blocks[:1])))

    assert not found.frames[4:].any()
    np.testing.assert_array_equal(found.frames[:4], STACK[:4])


def test_what_changed_on_the_way_is_refused() -> None:
    sent = bytearray(body(stored(0, 12)))
    sent[-5] ^= 1

    with pytest.raises(ChecksumMismatch):
        decode(bytes(sent))
    with pytest.raises(ChecksumMismatch):
        decode(body(stored(0, 12))[:-1])


def test_a_range_beyond_the_limit_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(TooLarge):
        decode(body(stored(0, 12)), limit_bytes=12 * 35 * 2 - 1)


@pytest.mark.parametrize(
    "lie",
    [
        {"block_frames": 0},
        {"block_frames": 2**40},
        {"lengths": [1]},
        {"first": []},
        {"first": [-1, 4, 8]},
        {"first": [1, 2, 9999999]},
        {"shape": [12, 5]},
    ],
    ids=str,
)
def test_a_header_that_lies_is_refused_or_its_blocks_are_missing(lie: dict[str, Any]) -> None:
    whole = body(stored(0, 12))
    length = int.from_bytes(whole[4:8], "little")
    header = msgpack.packb({**msgpack.unpackb(whole[8 : 8 + length]), **lie})
    sent = whole[:4] + len(header).to_bytes(4, "little") + header + whole[8 + length :]

    try:
        found = decode(sent)
    except Invalid:
        return
    assert found.frames.shape == (12, 5, 7)


@given(st.data())
def test_no_bytes_bring_down_the_decoder(data: st.DataObject) -> None:
    whole = bytearray(body(stored(1, 9)))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(4, len(whole) - 1))] = data.draw(st.integers(0, 255))

    try:
        found = decode(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except ClusterError:
        return
    assert isinstance(found, FrameRange)
