"""The Huffman code inside PZF, decoded by array arithmetic.

A stream is a tree, pre-order (bit 1 and eight bits: a leaf; bit 0: a node, first the branch of code 0), then the
codes, most significant bit first. Where a code ends is known only when it is decoded, which is why it is usually done
one by one. Here the length of the code that would begin at each bit is looked up for all bits at once; the true
beginnings are then a chain through that table, which is doubled until few steps are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

_PEEK_BITS: Final = 16
_MAX_CODE_BITS: Final = 48  # a code this long needs more symbols than a frame has bytes
_MAX_TREE_BITS: Final = 256 * 9 + 255
_DOUBLINGS: Final = 3
_BATCH_BYTES: Final = 1 << 18
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Integers = np.ndarray[Any, np.dtype[np.int64]]


class HuffmanFault(ValueError):
    """A stream that does not decode to as many symbols as it should."""


@dataclass(frozen=True)
class _Codes:
    """By the next 16 bits: the symbol and its code's length; length 0 where the code is longer than that.

    The longer ones in order, each as the 48 bits with which it begins.
    """

    symbol: Bytes
    length: Bytes
    long_start: Integers
    long_symbol: Bytes
    long_length: Bytes


def decode_huffman(stream: bytes, count: int) -> Bytes:
    """Return the first `count` symbols of a stream.

    Raises
    ------
    HuffmanFault
        If its tree is none, or it ends before them.
    """
    codes, start_bit = _read_tree(stream)
    out = np.empty(count, np.uint8)
    done, at_bit = 0, start_bit
    while done < count:
        first_byte = at_bit >> 3
        batch = stream[first_byte : first_byte + _BATCH_BYTES]
        is_last = first_byte + len(batch) >= len(stream)
        usable_bits = 8 * len(batch) if is_last else 8 * (len(batch) - 64)
        symbols, used = _decode_batch(batch, codes, at_bit & 7, usable_bits, count - done)
        if not len(symbols):
            raise HuffmanFault(f"it ends after {done} of {count} bytes")
        out[done : done + len(symbols)] = symbols
        done += len(symbols)
        at_bit = 8 * first_byte + used
    return out


def _read_tree(stream: bytes) -> tuple[_Codes, int]:
    bits = np.unpackbits(np.frombuffer(stream[: _MAX_TREE_BITS // 8 + 2], np.uint8)).tolist()
    leaves: list[tuple[int, int, int]] = []  # (code, its length, symbol), ascending when aligned left
    at = 0
    waiting = [(0, 0)]  # (code, its length) of the branches still to be read
    while waiting:
        code, depth = waiting.pop()
        if at + 9 > len(bits) or len(leaves) == 256 or depth > _MAX_CODE_BITS:
            raise HuffmanFault("its Huffman tree is damaged")
        if bits[at]:
            leaf = int("".join(map(str, bits[at + 1 : at + 9])), 2)
            leaves.append((code, depth or 1, leaf))  # a single symbol still has a code of one bit
            at += 9
        else:
            waiting += [(2 * code + 1, depth + 1), (2 * code, depth + 1)]
            at += 1
    return _tabulated(leaves), at


def _tabulated(leaves: list[tuple[int, int, int]]) -> _Codes:
    symbol = np.zeros(1 << _PEEK_BITS, np.uint8)
    length = np.zeros(1 << _PEEK_BITS, np.uint8)
    long = [leaf for leaf in leaves if leaf[1] > _PEEK_BITS]
    for code, depth, leaf in leaves:
        if depth <= _PEEK_BITS:
            first, last = code << (_PEEK_BITS - depth), (code + 1) << (_PEEK_BITS - depth)
            symbol[first:last], length[first:last] = leaf, depth
    return _Codes(
        symbol,
        length,
        long_start=np.array([code << (_MAX_CODE_BITS - depth) for code, depth, _ in long], np.int64),
        long_symbol=np.array([leaf for _, _, leaf in long], np.uint8),
        long_length=np.array([depth for _, depth, _ in long], np.uint8),
    )


def _decode_batch(batch: bytes, codes: _Codes, first_bit: int, bits: int, most: int) -> tuple[Bytes, int]:
    """Return up to `most` symbols whose codes lie within the first `bits` of a batch, and the bit after them."""
    peeks = _peeks(batch, bits)
    following = np.arange(bits + 1, dtype=np.int32)
    lengths = codes.length[peeks]
    long_at = np.flatnonzero(lengths == 0) if len(codes.long_start) else np.empty(0, np.int64)
    long_codes = _long_codes(batch, codes, long_at)
    lengths[long_at] = codes.long_length[long_codes]
    following[:bits] += lengths
    np.minimum(following, bits + 1, out=following)
    following = np.append(following, np.int32(bits + 1))  # beyond the end one stays there
    following[bits] = bits + 1
    starts = _chain(following, first_bit, most)
    ends = following[starts]
    whole = (ends <= bits) & (ends > starts)
    kept = len(starts) if whole.all() else int(np.argmin(whole))
    if not kept:
        return np.empty(0, np.uint8), first_bit
    starts = starts[:kept]
    symbols = codes.symbol[peeks[starts]]
    long_starts = np.flatnonzero(lengths[starts] > _PEEK_BITS)
    symbols[long_starts] = codes.long_symbol[_long_codes(batch, codes, starts[long_starts])]
    return symbols, int(ends[kept - 1])


def _peeks(batch: bytes, bits: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Return the 16 bits that begin at each bit."""
    padded = np.frombuffer(batch + b"\0\0", np.uint8).astype(np.uint32)
    words = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]
    peeks = np.empty((len(words), 8), np.uint16)
    for shift in range(8):
        peeks[:, shift] = words >> (8 - shift)
    return peeks.reshape(-1)[:bits]


def _chain(following: np.ndarray[Any, np.dtype[np.int32]], start: int, most: int) -> Integers:
    """Return where the first `most` codes begin, one after the other from `start`."""
    leap = following
    for _ in range(_DOUBLINGS):
        leap = leap[leap]
    stride, end = 1 << _DOUBLINGS, len(following) - 1
    leaps, at, anchors = leap.data, start, list[int]()
    for _ in range(-(-most // stride)):
        anchors.append(at)
        at = leaps[at]
        if at >= end or at == anchors[-1]:
            break
    starts = np.empty((len(anchors), stride), np.int64)
    starts[:, 0] = anchors
    for step in range(1, stride):
        starts[:, step] = following[starts[:, step - 1]]
    return starts.reshape(-1)[:most]


def _long_codes(batch: bytes, codes: _Codes, starts: Integers) -> Integers:
    """Return which of the long codes begin at these bits."""
    padded = np.frombuffer(batch + bytes(8), np.uint8)
    first = starts >> 3
    words = np.zeros(len(starts), np.uint64)
    for byte in range(7):
        words = words << np.uint64(8) | padded[first + byte]
    peeks = words >> (8 - (starts & 7)).astype(np.uint64) & np.uint64((1 << _MAX_CODE_BITS) - 1)
    return np.searchsorted(codes.long_start, peeks.astype(np.int64), side="right") - 1
