"""Sixteen float32 numbers as one numba value, so that kernels read like scalar equations.

A kernel that fits sixteen ROIs at once keeps one number of each ROI in one *lane*: ``mu = n * ex * ey + b`` is then
sixteen model values. Numba's loop vectoriser could find such code in loops over arrays; it then keeps every
intermediate in memory and may treat a lane at the edge of a loop differently. Here the vector is a type of its own
(LLVM's ``<16 x float>``), so intermediates stay in registers and every lane sees exactly the same operations: what a
lane computes cannot depend on its neighbours. LLVM splits the vector where a processor's registers are narrower.

Only multiply-add contraction is allowed to the compiler (no reassociation, NaN is kept): the order written is the order computed.

Arithmetic and comparisons take lanes or numbers on either side. A comparison gives a mask; masks combine with
``&``, ``|`` and ``~``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16
"""Lanes in one value: a full register of AVX-512, two of AVX2, four of NEON."""

FLAGS = ("contract",)
"""What the compiler may do with sums and products."""
_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_FLOATS = ir.VectorType(_FLOAT, LANES)
_INTS = ir.VectorType(_INT, LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)


class LanesType(types.Type):
    """Sixteen float32."""

    def __init__(self) -> None:
        super().__init__(name="lanes")


class MaskType(types.Type):
    """Sixteen truth values."""

    def __init__(self) -> None:
        super().__init__(name="lane_mask")


lanes_type = LanesType()
mask_type = MaskType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS)


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _BITS)


def _spread(builder: Any, value: Any) -> Any:
    if value.type == _FLOATS:
        return value
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(one, ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_INTS, [0] * LANES))


def _is_operand(kind: Any) -> bool:
    return isinstance(kind, LanesType | types.Number)


def _as_operand(kind: Any) -> Any:
    return kind if isinstance(kind, LanesType) else types.float32


def _define_binary(symbol: Callable[..., Any], result: Any, emit: Callable[[Any, Any, Any], Any]) -> None:
    @infer_global(symbol)
    class _Typing(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) != 2 or not any(isinstance(kind, LanesType) for kind in args):
                return None
            if not all(_is_operand(kind) for kind in args):
                return None
            return signature(result, *(_as_operand(kind) for kind in args))

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        del context, sig
        return emit(builder, *(_spread(builder, value) for value in args))

    for left, right in ((LanesType, LanesType), (LanesType, types.Float), (types.Float, LanesType)):
        lower_builtin(symbol, left, right)(lower)


def _define_mask_operator(symbol: Callable[..., Any], emit: Callable[[Any, Any, Any], Any]) -> None:
    @infer_global(symbol)
    class _Typing(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            del kws
            both = len(args) == 2 and all(isinstance(kind, MaskType) for kind in args)
            return signature(mask_type, *args) if both else None

    @lower_builtin(symbol, MaskType, MaskType)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        del context, sig
        return emit(builder, *args)


def _define_unary(symbol: Callable[..., Any], operand: Any, emit: Callable[[Any, Any], Any]) -> None:
    @infer_global(symbol)
    class _Typing(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            del kws
            return signature(operand, operand) if args == (operand,) else None

    @lower_builtin(symbol, type(operand))
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        del context, sig
        return emit(builder, args[0])


def _compare(condition: str) -> Callable[[Any, Any, Any], Any]:
    return lambda builder, left, right: builder.fcmp_ordered(condition, left, right)


_define_binary(operator.add, lanes_type, lambda builder, a, b: builder.fadd(a, b, flags=FLAGS))
_define_binary(operator.sub, lanes_type, lambda builder, a, b: builder.fsub(a, b, flags=FLAGS))
_define_binary(operator.mul, lanes_type, lambda builder, a, b: builder.fmul(a, b, flags=FLAGS))
_define_binary(operator.truediv, lanes_type, lambda builder, a, b: builder.fdiv(a, b, flags=FLAGS))
_define_binary(operator.lt, mask_type, _compare("<"))
_define_binary(operator.le, mask_type, _compare("<="))
_define_binary(operator.gt, mask_type, _compare(">"))
_define_binary(operator.ge, mask_type, _compare(">="))
_define_mask_operator(operator.and_, lambda builder, a, b: builder.and_(a, b))
_define_mask_operator(operator.or_, lambda builder, a, b: builder.or_(a, b))
_define_unary(operator.neg, lanes_type, lambda builder, a: builder.fneg(a, flags=FLAGS))
_define_unary(operator.invert, mask_type, lambda builder, a: builder.not_(a))


def address_of(
    context: Any, builder: Any, array_type: Any, array: Any, offset: Any, element: Any, count: int
) -> Any:
    """The place of `count` elements of an array, for LLVM."""
    data = context.make_array(array_type)(context, builder, array).data
    place = builder.gep(data, [offset])
    return builder.bitcast(place, ir.VectorType(element, count).as_pointer())


def is_flat(kind: Any, *dtypes: Any) -> bool:
    """Whether a numba type is a flat array of one of the types."""
    return isinstance(kind, types.Array) and kind.ndim == 1 and kind.layout == "C" and kind.dtype in dtypes


@intrinsic
def load(typing: Any, array: Any, offset: Any) -> Any:
    """``array[offset : offset + 16]`` of a flat float32 array, unchecked."""
    del typing, offset
    if not is_flat(array, types.float32):
        return None

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = address_of(context, builder, sig.args[0], args[0], args[1], _FLOAT, LANES)
        return builder.load(place, align=4)

    return lanes_type(array, types.intp), emit


def _as_floats(builder: Any, dtype: Any, value: Any) -> Any:
    if dtype == types.float32:
        return value
    whole = builder.zext(value, _INTS) if dtype == types.uint16 else value
    return builder.sitofp(whole, _FLOATS)


_ELEMENTS = {types.float32: (_FLOAT, 4), types.uint16: (ir.IntType(16), 2), types.int32: (_INT, 4)}


@intrinsic
def load_numbers(typing: Any, array: Any, offset: Any) -> Any:
    """``array[offset : offset + 16]`` of a flat float32, uint16 or int32 array as float32, unchecked."""
    del typing, offset
    if not is_flat(array, *_ELEMENTS):
        return None

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        element, align = _ELEMENTS[sig.args[0].dtype]
        place = address_of(context, builder, sig.args[0], args[0], args[1], element, LANES)
        return _as_floats(builder, sig.args[0].dtype, builder.load(place, align=align))

    return lanes_type(array, types.intp), emit


@intrinsic
def slide_sum(typing: Any, total: Any, coming: Any, leaving: Any, offset: Any) -> Any:
    """``total[offset : offset + 16] += coming[…] - leaving[…]``, exact for integers; gives what is then in `total`, as float32."""
    del typing, offset
    if not (is_flat(total, types.int32, types.float32) and is_flat(coming, *_ELEMENTS) and leaving == coming):
        return None

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole = sig.args[0].dtype == types.int32 and sig.args[1].dtype == types.uint16
        places, values = [], []
        for kind, array in zip(sig.args[:3], args[:3], strict=True):
            element, align = _ELEMENTS[kind.dtype]
            places.append(address_of(context, builder, kind, array, args[3], element, LANES))
            value = builder.load(places[-1], align=align)
            if not whole:
                value = _as_floats(builder, kind.dtype, value)
            elif kind.dtype == types.uint16:
                value = builder.zext(value, _INTS)
            values.append(value)
        add, subtract = (builder.add, builder.sub) if whole else (builder.fadd, builder.fsub)
        moved = add(values[0], subtract(values[1], values[2]))
        if sig.args[0].dtype == types.int32 and not whole:
            moved = builder.fptosi(moved, _INTS)
        builder.store(moved, places[0], align=4)
        return _as_floats(builder, sig.args[0].dtype, moved)

    return lanes_type(total, coming, leaving, types.intp), emit


@intrinsic
def gather(typing: Any, array: Any, offset: Any, index: Any) -> Any:
    """``array[offset + index]`` of a flat float32 array, unchecked; `index` is lanes of whole numbers, one for each lane."""
    del typing, offset
    if not is_flat(array, types.float32) or not isinstance(index, LanesType):
        return None

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = builder.gep(context.make_array(sig.args[0])(context, builder, args[0]).data, [args[1]])
        whole = builder.fptosi(args[2], _INTS)
        value = ir.Constant(_FLOATS, ir.Undefined)
        for lane in range(LANES):
            place = ir.Constant(_INT, lane)
            number = builder.load(builder.gep(data, [builder.extract_element(whole, place)]))
            value = builder.insert_element(value, number, place)
        return value

    return lanes_type(array, types.intp, index), emit


@intrinsic
def store(typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """``array[offset : offset + 16] = value`` of a flat float32 array, unchecked."""
    del typing, offset
    if not is_flat(array, types.float32):
        return None

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = address_of(context, builder, sig.args[0], args[0], args[1], _FLOAT, LANES)
        builder.store(args[2], place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), emit


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """The same number in every lane."""
    del typing, value

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        del context, sig
        return _spread(builder, args[0])

    return lanes_type(types.float32), emit


@intrinsic
def select(typing: Any, mask: Any, chosen: Any, other: Any) -> Any:
    """`chosen` where the mask is true, else `other`."""
    del typing, mask

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        del context, sig
        return builder.select(args[0], _spread(builder, args[1]), _spread(builder, args[2]))

    return lanes_type(mask_type, _as_operand(chosen), _as_operand(other)), emit


@intrinsic
def lane_bits(typing: Any, mask: Any) -> Any:
    """The mask as an integer, lane 0 in bit 0; zero if no lane is true."""
    del typing, mask

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        del context, sig
        return builder.zext(builder.bitcast(args[0], ir.IntType(LANES)), ir.IntType(64))

    return types.int64(mask_type), emit


@intrinsic
def lowest_bit(typing: Any, bits: Any) -> Any:
    """Where the lowest bit that is set is, in an integer that is not zero."""
    del typing, bits

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        del context, sig
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), emit


def _shuffle(name: str, order: list[int], doc: str) -> Any:
    """A function that picks sixteen of the thirty-two lanes of two values."""

    @intrinsic
    def shuffle(typing: Any, first: Any, second: Any) -> Any:
        del typing, first, second

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            del context, sig
            return builder.shuffle_vector(args[0], args[1], ir.Constant(_INTS, order))

        return lanes_type(lanes_type, lanes_type), emit

    shuffle.__name__, shuffle.__doc__ = name, doc
    return shuffle


even_lanes = _shuffle("even_lanes", list(range(0, 2 * LANES, 2)), "Lanes 0, 2, 4 … of two values.")
odd_lanes = _shuffle("odd_lanes", list(range(1, 2 * LANES, 2)), "Lanes 1, 3, 5 … of two values.")
one_later = _shuffle(
    "one_later",
    [k + LANES - 1 for k in range(LANES)],
    "The last lane of the first value, then all but the last of the second.",
)
lower_woven = _shuffle(
    "lower_woven",
    [k // 2 + k % 2 * LANES for k in range(LANES)],
    "Lane 0 of both values, lane 1 of both, up to 7.",
)
upper_woven = _shuffle(
    "upper_woven",
    [(k + LANES) // 2 + k % 2 * LANES for k in range(LANES)],
    "Lane 8 of both values, up to 15.",
)


@intrinsic
def lane(typing: Any, value: Any, index: Any) -> Any:
    """The number in one lane."""
    del typing, value, index

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        del context, sig
        return builder.extract_element(args[0], builder.trunc(args[1], _INT))

    return types.float32(lanes_type, types.intp), emit


@intrinsic
def reversed_lanes(typing: Any, value: Any) -> Any:
    """The same numbers from the last lane to the first."""
    del typing, value

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        del context, sig
        order = ir.Constant(_INTS, list(range(LANES - 1, -1, -1)))
        return builder.shuffle_vector(args[0], ir.Constant(_FLOATS, ir.Undefined), order)

    return lanes_type(lanes_type), emit


def _call_llvm(builder: Any, name: str, *values: Any) -> Any:
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * len(values))
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32")
    return builder.call(function, values)


@intrinsic
def absolute(typing: Any, value: Any) -> Any:
    """Absolute value."""
    del typing, value

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        del context, sig
        return _call_llvm(builder, "fabs", args[0])

    return lanes_type(lanes_type), emit


@intrinsic
def square_root(typing: Any, value: Any) -> Any:
    """Square root; NaN below zero."""
    del typing, value

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        del context, sig
        return _call_llvm(builder, "sqrt", args[0])

    return lanes_type(lanes_type), emit


@intrinsic
def rounded(typing: Any, value: Any) -> Any:
    """The nearest integer, as a float."""
    del typing, value

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        del context, sig
        return _call_llvm(builder, "rint", args[0])

    return lanes_type(lanes_type), emit


@intrinsic
def power_of_two(typing: Any, exponent: Any) -> Any:
    """``2**exponent`` for whole exponents from -126 to 127, by writing the exponent bits."""
    del typing, exponent

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        del context, sig
        whole = builder.fptosi(args[0], _INTS)
        biased = builder.add(whole, ir.Constant(_INTS, [127] * LANES))
        return builder.bitcast(builder.shl(biased, ir.Constant(_INTS, [23] * LANES)), _FLOATS)

    return lanes_type(lanes_type), emit


@intrinsic
def binary_exponent(typing: Any, value: Any) -> Any:
    """``floor(log2(value))`` of a positive normal number, read from its exponent bits."""
    del typing, value

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        del context, sig
        biased = builder.lshr(builder.bitcast(args[0], _INTS), ir.Constant(_INTS, [23] * LANES))
        return builder.sitofp(builder.sub(biased, ir.Constant(_INTS, [127] * LANES)), _FLOATS)

    return lanes_type(lanes_type), emit
