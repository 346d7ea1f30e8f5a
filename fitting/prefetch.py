"""Asking for memory before it is needed, so that it comes while something else is computed."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic

from fitting.background import Background, RunningSum, StillLevel
from fitting.kernel import only_in_kernels, provides

_INT = ir.IntType(32)
_BYTES = ir.IntType(8).as_pointer()
_TO_READ, _SECOND_LEVEL, _DATA = 0, 2, 1
"""How LLVM is told; the first level of the cache holds what is being worked on, and is too small for more."""
_LINE_BYTES = 64  # of a cache; where lines are longer, they are asked for twice


@intrinsic(prefer_literal=True)
def prefetch(typing: Any, array: Any, offset: Any, number: Any) -> Any:
    """Have cache lines of ``array[offset : offset + number]``, of a flat array, brought to the second-level cache: all, if the first begins there.

    Beyond the array's end nothing happens. `number` is a constant.
    """
    del typing, offset
    flat = isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C"
    if not flat or not isinstance(number, types.IntegerLiteral):
        return None

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        first = builder.bitcast(builder.gep(data, [args[1]]), _BYTES)
        kind = ir.FunctionType(ir.VoidType(), [_BYTES, _INT, _INT, _INT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        how = [ir.Constant(_INT, number) for number in (_TO_READ, _SECOND_LEVEL, _DATA)]
        for line in range(0, number.literal_value * sig.args[0].dtype.bitwidth // 8, _LINE_BYTES):
            builder.call(function, [builder.gep(first, [ir.Constant(_INT, line)]), *how])
        return context.get_dummy_value()

    return types.void(array, types.intp, number), emit


def ask_for_signal(background: Background, frame: Any, y: int, coming: Any, leaving: Any, x: int) -> None:
    """Ask for what `fitting.pixel_rows.put_signal` will read for the 64 pixels of row y from x on."""
    only_in_kernels(background, frame, y, coming, leaving, x)


@provides(ask_for_signal, StillLevel)
def _ask_for_level(background: Any, frame: Any, y: int, _coming: Any, _leaving: Any, x: int) -> None:
    prefetch(frame[y], x, 64)
    prefetch(background.level[y], x, 64)


@provides(ask_for_signal, RunningSum)
def _ask_for_sum(background: Any, frame: Any, y: int, coming: Any, leaving: Any, x: int) -> None:
    prefetch(frame[y], x, 64)
    prefetch(background.level[y], x, 64)
    prefetch(coming[y], x, 64)
    prefetch(leaving[y], x, 64)
