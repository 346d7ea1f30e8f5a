"""Sixteen numbers moved or added up across lanes.

Everything in `fitting.lanes` keeps lanes apart; here one lane's result comes from others, for kernels that put the pixels of *one* ROI into the lanes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

from fitting.lanes import FLAGS, LANES, address_of, is_flat, lanes_type

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)


@intrinsic
def next_lane(typing: Any, value: Any) -> Any:
    """Every lane's number from the lane after it; the last from the first."""
    del typing, value

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        del context, sig
        places = ir.Constant(_INTS, [(k + 1) % LANES for k in range(LANES)])
        return builder.shuffle_vector(args[0], ir.Constant(_FLOATS, ir.Undefined), places)

    return lanes_type(lanes_type), emit


@intrinsic
def totals(typing: Any, array: Any, offset: Any) -> Any:
    """Lane k is the sum of ``array[offset + 16 k : offset + 16 (k + 1)]`` of a flat float32 array, unchecked.

    Halves are added to halves, always in that order. Pairs of vectors are halved together, four times over: a quarter of the work of sixteen sums.
    """
    del typing, offset
    if not is_flat(array, types.float32):
        return None

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vectors = []
        for k in range(LANES):
            at = builder.add(args[1], ir.Constant(args[1].type, k * LANES))
            place = address_of(context, builder, sig.args[0], args[0], at, ir.FloatType(), LANES)
            vectors.append(builder.load(place, align=4))
        width = LANES  # of what is left of each sum; a vector holds LANES // width of them
        while width > 1:
            half = len(vectors) // 2
            vectors = [_halved(builder, vectors[k], vectors[k + half], width) for k in range(half)]
            width //= 2
        return vectors[0]

    return lanes_type(array, types.intp), emit


def _halved(builder: Any, one: Any, other: Any, width: int) -> Any:
    """Groups of `width` lanes of two vectors, each added up to half its width: in turn a group of `one` and one of `other`."""
    low, high = [], []
    for first in range(0, LANES, width):
        for source in (0, LANES):
            low += [source + first + k for k in range(width // 2)]
            high += [source + first + width // 2 + k for k in range(width // 2)]
    one, other = (builder.shuffle_vector(one, other, ir.Constant(_INTS, places)) for places in (low, high))
    return builder.fadd(one, other, flags=FLAGS)
