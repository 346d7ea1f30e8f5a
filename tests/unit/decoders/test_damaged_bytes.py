"""Each decoder by itself: sound bytes with a few of them changed, and bytes of any kind, are decoded or refused by its own error."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.arrays import FrameRange, TaskResult, decode_frames, decode_result, encode_frames, encode_result
from cluster.blocks import crc32c, packed, unpacked
from cluster.dataserver.readers.huffman import HuffmanFault, decode_huffman
from cluster.dataserver.readers.ome import read_notes
from cluster.dataserver.readers.pzf import PzfFault, decode_pzf
from cluster.dataserver.sidecars import parse_sidecar
from cluster.errors import CallerError, ClusterError
from cluster.stored_frames import StoredRange, decode, encode_stored

MOST_BYTES = 1 << 20
FRAMES = np.random.default_rng(1).integers(90, 900, (3, 5, 7)).astype(np.uint16)
BYTES = (b"abacabad" * 12)[:90]
OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0"><Pixels ID="Pixels:0"
 DimensionOrder="XYCZT" Type="uint16" SizeX="7" SizeY="5" SizeC="1" SizeZ="1" SizeT="3" PhysicalSizeX="0.1" PhysicalSizeXUnit="µm">
<TiffData IFD="0" PlaneCount="2" FirstT="0"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>
<TiffData IFD="0" PlaneCount="1" FirstT="2"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>
<Plane TheC="0" TheT="0" TheZ="0" ExposureTime="10" ExposureTimeUnit="ms"/></Pixels></Image></OME>"""


def huffman_stream() -> bytes:
    """Of BYTES: a has the code 0, b 10, c 110, d 111."""
    tree = "01{:08b}01{:08b}01{:08b}1{:08b}".format(*b"abcd")
    codes = dict(zip(b"abcd", ("0", "10", "110", "111"), strict=True))
    bits = tree + "".join(codes[byte] for byte in BYTES)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def pzf(compression: int, quantised: bool, pixels: bytes) -> bytes:
    header = struct.pack(
        "<2sBBBBcxqIIIIQffI12x",
        b"BD",
        3,
        1,
        compression,
        int(quantised),
        b"C",
        0,
        0,
        9,
        10,
        1,
        0,
        100.0,
        2.0,
        64,
    )
    return header + pixels


def joined(parts: list[Any]) -> bytes:
    return b"".join(bytes(part) for part in parts)


def result() -> bytes:
    rows = np.zeros(4, [("tIndex", "<i4"), ("x", "<f4")])
    return bytes(encode_result(TaskResult(0, 3, rows, np.zeros(3, np.uint8), reasons={2: "dark"})))


def block(data: bytes) -> bytes:
    """Bytes as one who knows the format would damage them: the checksum fits again."""
    return unpacked(data[:-4] + crc32c(data[:-4]), FRAMES.nbytes, "a block")


def body(data: bytes) -> FrameRange:
    return decode(data, limit_bytes=MOST_BYTES)


@dataclass(frozen=True)
class Decoder:
    decode: Callable[[bytes], Any]
    sound: bytes
    refuses: type[Exception]


STORED = StoredRange(0, 3, 5, 7, np.dtype(np.uint16), 3, ((0, joined(packed(FRAMES))),))
DECODERS = {
    "Huffman": Decoder(lambda data: decode_huffman(data, len(BYTES)), huffman_stream(), HuffmanFault),
    "PZF raw": Decoder(decode_pzf, pzf(0, False, bytes(180)), PzfFault),
    "PZF roots": Decoder(decode_pzf, pzf(1, True, huffman_stream()), PzfFault),
    "OME-XML": Decoder(lambda data: read_notes(data.decode("latin-1"), "a.ome.tif"), OME.encode("latin-1"), CallerError),
    "block": Decoder(block, joined(packed(FRAMES)), CallerError),
    "frames": Decoder(lambda data: decode_frames(data, limit_bytes=MOST_BYTES), joined(encode_frames(FrameRange(0, FRAMES))), ClusterError),
    "stored frames": Decoder(body, joined(encode_stored(STORED)), ClusterError),
    "md": Decoder(lambda data: parse_sidecar("a.md", data.decode("latin-1")), b"md['Camera.ReadNoise'] = 1.5\nmd['y'] = (1, 2)\n", CallerError),
    "json": Decoder(lambda data: parse_sidecar("a.json", data.decode("latin-1")), b'{"Camera": {"ADOffset": 100.5, "Name": "a"}, "x": [1, 2]}', CallerError),
    "result": Decoder(decode_result, result(), ClusterError),
}  # fmt: skip

changes = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from(["write", "insert", "cut"]),
        st.one_of(
            st.sampled_from([b"\0", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"9" * 19, b"<", b"("]),
            st.binary(min_size=1, max_size=6),
        ),
    ),
    min_size=1,
    max_size=5,
)


def damaged(sound: bytes, how: list[tuple[float, str, bytes]]) -> bytes:
    data = bytearray(sound)
    for place, does, with_what in how:
        at = int(place * len(data))
        if does == "cut":
            del data[at:]
        else:
            data[at : at + (len(with_what) if does == "write" else 0)] = with_what
    return bytes(data)


@pytest.mark.parametrize("name", DECODERS)
def test_sound_bytes_are_decoded(name: str) -> None:
    DECODERS[name].decode(DECODERS[name].sound)


@pytest.mark.parametrize("name", DECODERS)
@given(how=changes)
def test_damaged_bytes_are_decoded_or_refused(name: str, how: list[tuple[float, str, bytes]]) -> None:
    _decoded_or_refused(DECODERS[name], damaged(DECODERS[name].sound, how))


@pytest.mark.parametrize("name", DECODERS)
@given(noise=st.binary(max_size=300))
def test_bytes_of_any_kind_are_decoded_or_refused(name: str, noise: bytes) -> None:
    _decoded_or_refused(DECODERS[name], noise)


def _decoded_or_refused(decoder: Decoder, data: bytes) -> None:
    with contextlib.suppress(decoder.refuses):
        decoder.decode(data)
