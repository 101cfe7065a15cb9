"""What the kernels need and numba does not offer, in LLVM's terms: vectors in registers, and products rounded once.

LLVM makes of them what the machine has: a vector of sixteen numbers is one register of AVX-512, or two of AVX2.
Numba's cache does not notice a change in this file: after one, remove the modules' `__pycache__`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from llvmlite import ir as llvm
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16  # numbers in a vector

_SIZE, _NUMBER = llvm.IntType(64), llvm.FloatType()
_NUMBERS, _INTEGERS = llvm.VectorType(_NUMBER, LANES), llvm.VectorType(llvm.IntType(32), LANES)


def _fused_typed(_: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c in single precision, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


def _listed_typed(_: Any, spikes: Any, at: Any, count: Any, first: Any, listed: Any, found: Any) -> Any:
    """List which of the numbers spikes[at : at + min(count, LANES)] are positive; the first of them is called `first`.

    LANES numbers are written to listed[found:], of which those that count come first. Returns where the next may go.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, at, count, first, _, found = arguments
        element = functools.partial(_element, context, builder, signature, arguments)
        integer, flag = llvm.IntType(32), llvm.IntType(1)
        lanes = llvm.Constant(_INTEGERS, list(range(LANES)))
        inside = builder.icmp_signed("<", lanes, _spread(builder, builder.trunc(count, integer)))
        values = _masked_load(builder, element(0, at), inside)
        fired = builder.fcmp_ordered(">", values, llvm.Constant(_NUMBERS, None))
        names = builder.add(_spread(builder, builder.trunc(first, integer)), lanes)
        kind = llvm.FunctionType(_INTEGERS, [_INTEGERS, llvm.VectorType(flag, LANES), _INTEGERS])
        compress = f"llvm.experimental.vector.compress.v{LANES}i32"
        compress = cgutils.get_or_insert_function(builder.module, kind, compress)
        _store(builder, builder.call(compress, [names, fired, llvm.Constant(_INTEGERS, None)]), element(4, found))
        fires = builder.ctpop(builder.bitcast(fired, llvm.IntType(LANES)))
        return builder.add(found, builder.zext(fires, _SIZE))

    return types.intp(spikes, types.intp, types.intp, types.intp, listed, types.intp), generate


def _added_typed(
    width: int, current: Any, at: Any, block: Any, row: Any, step: Any, listed: Any, starts: Any, first: Any, span: Any,
    turns: Any, across: Any, fresh: Any,
) -> Any:  # fmt: skip
    """current[at:] (+)= Σ block[row + spike] over the listed spikes of `span` positions from `first` on.

    This is done `turns` times, each `step` rows and `across` positions further. The `width` sums stay in registers,
    where numba would keep them in memory. `fresh` tells to set, not to add.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, at, _, row, step, _, _, first, span, turns, across, fresh = arguments
        element = functools.partial(_element, context, builder, signature, arguments)

        def parts(address: Any) -> list[Any]:
            return [builder.gep(address, [llvm.Constant(_SIZE, k)]) for k in range(0, width, LANES)]

        def integer(array: int, index: Any) -> Any:
            return builder.sext(builder.load(element(array, index)), _SIZE)

        here = parts(element(0, at))
        before = [builder.select(fresh, llvm.Constant(_NUMBERS, None), _loaded(builder, p, _NUMBERS)) for p in here]
        sums = [cgutils.alloca_once_value(builder, value) for value in before]
        with cgutils.for_range(builder, turns) as turn:
            begin = builder.add(first, builder.mul(turn.index, across))
            end = integer(6, builder.add(begin, span))
            with cgutils.for_range_slice(builder, integer(6, begin), end, llvm.Constant(_SIZE, 1)) as (index, _):
                weights = builder.add(builder.add(row, builder.mul(turn.index, step)), integer(5, index))
                weights = builder.mul(weights, llvm.Constant(_SIZE, width))
                for total, part in zip(sums, parts(element(2, weights)), strict=True):
                    builder.store(builder.fadd(builder.load(total), _loaded(builder, part, _NUMBERS)), total)
        for total, part in zip(sums, here, strict=True):
            _store(builder, builder.load(total), part)
        return context.get_dummy_value()

    size = types.intp
    arguments = (current, size, block, size, size, listed, starts, size, size, size, size, types.boolean)
    return types.void(*arguments), generate


def _adding(width: int) -> Callable[..., Any]:
    def typed(
        _: Any, current: Any, at: Any, block: Any, row: Any, step: Any, listed: Any, starts: Any, first: Any, span: Any,
        turns: Any, across: Any, fresh: Any,
    ) -> Any:  # fmt: skip
        return _added_typed(width, current, at, block, row, step, listed, starts, first, span, turns, across, fresh)

    return typed


def _element(context: Any, builder: Any, signature: Any, arguments: Any, which: int, index: Any) -> Any:
    """The address of an element of an array among the arguments."""
    array = context.make_array(signature.args[which])(context, builder, arguments[which])
    return builder.gep(array.data, [index])


def _spread(builder: Any, value: Any) -> Any:
    """An integer in every lane."""
    zeros = llvm.Constant(_INTEGERS, None)
    single = builder.insert_element(zeros, value, llvm.Constant(llvm.IntType(32), 0))
    return builder.shuffle_vector(single, zeros, zeros)


def _masked_load(builder: Any, address: Any, inside: Any) -> Any:
    """LANES numbers, of which only those inside are read; the others are 0."""
    pointer, alignment = _NUMBERS.as_pointer(), llvm.IntType(32)
    kind = llvm.FunctionType(_NUMBERS, [pointer, alignment, inside.type, _NUMBERS])
    load = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.load.v{LANES}f32.p0")
    zeros = llvm.Constant(_NUMBERS, None)
    return builder.call(load, [builder.bitcast(address, pointer), llvm.Constant(alignment, 4), inside, zeros])


def _loaded(builder: Any, address: Any, kind: Any) -> Any:
    value = builder.load(builder.bitcast(address, kind.as_pointer()))
    value.align = 4  # arrays begin anywhere
    return value


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.bitcast(address, value.type.as_pointer())).align = 4


fused: Any = intrinsic(_fused_typed)
listed_of: Any = intrinsic(_listed_typed)
added_64: Any = intrinsic(_adding(64))
added_32: Any = intrinsic(_adding(32))
added_16: Any = intrinsic(_adding(LANES))
