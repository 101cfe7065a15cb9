"""Axes that are taken apart and put together anew, as in channel shuffles: nothing is computed, positions move.

Where a reshape leaves no axis of an image whole, what is left is a table of positions, on which the operators that move
things are evaluated as they are. As soon as the table can be said by picking along axes, it is a value again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import onnx

from .affine import FLAT, Value, concatenated
from .call import Activation, Argument, Call, Regrouped, Result, places, whole
from .constants import evaluate
from .support import AcrossImages, Unsupported

TO_THE_END = 2**31 - 1  # what exporters write for a slice without an end

MOVING = frozenset(
    {"Compress", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape"}
    | {"ReverseSequence", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)


def regrouped(call: Call) -> Result:
    """What a node that only moves things gives, for its first input; an empty constant where that is nothing."""
    table = call.inputs[0]
    if not isinstance(table, Regrouped):
        table = Regrouped(call.value(), call.value().places, call.layers[-1])
    if _takes_images(call, table.positions):
        raise AcrossImages("it takes some images of a batch and not others")
    constants = [call.constant(index) for index in range(1, len(call.inputs))]
    found: list[Value | Regrouped | np.ndarray] = []
    for positions in evaluate(call.node, [table.positions, *constants], call.opset):
        if not positions.size:  # as of a roll by 0
            found.append(np.zeros(positions.shape, np.float32))
            continue
        if len(positions) > 1 == len(table.positions) and call.node.op_type in ("Expand", "Tile"):
            raise AcrossImages("it repeats the images of a batch")
        found.append(_value(table.value, positions, call.layers) or replace(table, positions=positions))
    return tuple(found) if len(found) > 1 else found[0]


def scattered(call: Call) -> Result:
    """A tensor with other numbers at some of its positions, those of both in one table; ScatterND begins at axis 0."""
    if call.text("reduction", "none") != "none":
        raise Unsupported("it adds to a tensor at positions, or compares; only what replaces numbers is supported")
    data, updates = (_whole_or_constant(call, index) for index in (0, 2))
    if call.attributes.get("axis", 0) % data.positions.ndim == 0 and len(data.positions) == 1:
        raise AcrossImages("it writes to some images of a batch and not to others")
    vectors = [part.value.flat().viewed((1, math.prod(part.value.dims)), ()) for part in (data, updates)]
    both = concatenated(vectors, 1, call.layers)
    behind = updates.positions + math.prod(data.value.dims)
    (positions,) = evaluate(call.node, [data.positions, call.weight(1), behind], call.opset)
    return _value(both, positions, call.layers) or Regrouped(both, positions, call.layers[-1])


def _whole_or_constant(call: Call, index: int) -> Regrouped:
    argument = call.inputs[index]
    if isinstance(argument, np.ndarray):
        flat = np.asarray(argument, np.float64).reshape(-1)
        constant = Value((), flat, flat.shape, FLAT)
        return Regrouped(constant, np.arange(flat.size).reshape(argument.shape), call.layers[-1])
    assert isinstance(argument, (Value, Regrouped))
    return Regrouped(whole(argument), places(argument), call.layers[-1])


def gathered(call: Call) -> Call:
    """A call that computes with what was regrouped: its numbers are picked from where they are."""

    def value(argument: Argument) -> Argument:
        if not isinstance(argument, Regrouped):
            return argument
        try:
            return argument.value.placed(argument.positions, call.layers)
        except Unsupported as error:
            raise Unsupported(str(error), argument.layer) from None

    return replace(call, inputs=tuple(map(value, call.inputs)))


def is_too_deep(call: Call) -> bool:
    """Whether a table among the inputs has more axes than a population."""
    tables = [argument.positions for argument in call.inputs if isinstance(argument, Regrouped)]
    return any(sum(size > 1 for size in table.shape) > 3 for table in tables)


def beside(call: Call, apply: Callable[[Call], Result]) -> Result:
    """What an operator that works number by number gives for tables: all axes but the last are one while it works."""
    tables = [_table(argument) for argument in call.inputs]
    dims = np.broadcast_shapes(*(table.shape for table in tables if table is not None))

    def merged(argument: Argument, table: np.ndarray | None) -> Argument:
        if table is None:
            return argument
        rows = np.broadcast_to(table, dims).reshape(-1, dims[-1])
        return rows if isinstance(argument, np.ndarray) else whole(argument).placed(rows)

    inputs = tuple(merged(argument, table) for argument, table in zip(call.inputs, tables, strict=True))
    found = apply(replace(call, inputs=inputs))
    if isinstance(found, np.ndarray):
        return found.reshape(dims)
    return _apart(found, np.arange(math.prod(dims)).reshape(dims), call)


def along(call: Call, apply: Callable[[Call], Result]) -> Result:
    """What an operator that works along one axis gives for a table: that is the last while it works, of two."""
    table = _table(call.inputs[0])
    assert table is not None
    axis = call.attributes.get("axis", -1) % table.ndim
    is_over_several = call.node.op_type in ("LayerNormalization", "RMSNormalization") and axis < table.ndim - 1
    if is_over_several or (call.opset < 13 and axis < table.ndim - 1):
        return apply(gathered(call))
    moved = np.moveaxis(table, axis, -1)
    own = np.moveaxis(np.arange(moved.size).reshape(moved.shape), -1, axis)
    inner = _with_attributes(call, axis=1)
    first = whole(call.inputs[0]).placed(moved.reshape(-1, moved.shape[-1]))
    return _apart(apply(replace(inner, inputs=(first, *call.inputs[1:]), is_last=False)), own, call)


def in_a_row(call: Call, axis: int) -> Regrouped:
    """Tensors of any axes, one after the other along one of them: vectors in a row, and a table of their positions."""
    parts, tables, start = [], [], 0
    for argument in call.inputs:
        if isinstance(argument, np.ndarray):
            part = Value((), argument.reshape(-1).astype(np.float64), (argument.size,), FLAT)
            table = np.arange(argument.size).reshape(argument.shape)
        else:
            assert isinstance(argument, (Value, Regrouped))
            part, table = replace(whole(argument).flat(), layout=FLAT), places(argument)
        parts.append(part)
        tables.append(start + table)
        start += part.shape[0]
    return Regrouped(concatenated(parts, 1, call.layers), np.concatenate(tables, axis), call.layers[-1])


def _apart(found: Result, positions: np.ndarray, call: Call) -> Result:
    """What an operator gave in two axes, as a table; of several outputs the first."""
    match found:
        case Activation(finish=first):
            return replace(found, finish=lambda output: _apart(first(output), positions, call))
        case (Value() as output, *_) | (Value() as output):
            return Regrouped(output, positions, call.layers[-1])
    raise Unsupported(f"{call.node.op_type} is supported of tensors with three axes at most")


def reduced(call: Call, apply: Callable[[Call], Result]) -> Result:
    """What a reduction gives for a table: while it works, its axes are the last one, and all others the first."""
    table = call.inputs[0]
    assert isinstance(table, Regrouped)
    sizes = table.positions.shape
    axes = call.axes(1, len(sizes))
    if not axes:
        return apply(gathered(call))
    if 0 in axes and sizes[0] == 1:
        raise AcrossImages("it combines the images of a batch")
    kept = tuple(axis for axis in range(len(sizes)) if axis not in axes)
    rows = table.positions.transpose((*kept, *axes)).reshape(math.prod(sizes[axis] for axis in kept), -1)
    stay = call.attributes.get("keepdims", 1)
    dims = tuple(1 if axis in axes else size for axis, size in enumerate(sizes) if stay or axis in kept)
    inner = _with_attributes(call, axes=[1], keepdims=1)
    found = apply(replace(inner, inputs=(table.value.placed(rows),), is_last=False))
    positions = np.arange(len(rows)).reshape(dims)
    value = _value(found, positions, call.layers) if isinstance(found, Value) else None
    return value or _apart(found, positions, call)


def _with_attributes(call: Call, **attributes: Any) -> Call:
    """A call whose node has some attributes instead of its own."""
    node = onnx.helper.make_node(call.node.op_type, call.node.input, call.node.output, call.node.name)
    node.attribute.extend(attribute for attribute in call.node.attribute if attribute.name not in attributes)
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in attributes.items())
    return replace(call, node=node)


def _table(argument: Argument) -> np.ndarray | None:
    """The numbers of a constant, or the positions of activations."""
    match argument:
        case Value() | Regrouped() as x:
            return places(x)
        case np.ndarray() as array:
            return array
    return None


def _takes_images(call: Call, positions: np.ndarray) -> bool:
    """Whether a node picks along the first axis, where that is the batch."""
    match call.node.op_type:
        case "GatherND":
            axes: tuple[int, ...] = (0,)
        case "Compress" | "Gather" | "GatherElements":
            axes = (call.attributes.get("axis", 0) % positions.ndim,)
        case "ReverseSequence":
            axes = (call.attributes.get("time_axis", 0),)
        case "Slice":
            starts, ends = call.weight(1), call.weight(2)
            sliced = call.axes(3, positions.ndim) or range(positions.ndim)
            taken = zip(sliced, starts.tolist(), ends.tolist(), strict=False)
            axes = tuple(axis for axis, start, end in taken if start or end < TO_THE_END)
        case _:
            axes = ()
    return 0 in axes and len(positions) == 1


def _value(x: Value, positions: np.ndarray, layers: tuple[str, ...]) -> Value | None:
    """The table as a value: a vector, or an image of which each axis picks along one axis of x."""
    if positions.ndim == 2 and len(positions) == 1:
        return _picked(x, positions, layers)
    if not x.is_image:
        return None
    dims = [axis for axis, size in enumerate(x.dims) if size > 1]
    axes = [axis for axis, size in enumerate(positions.shape) if size > 1]
    if len(dims) != len(axes) or len(positions.shape) != len(x.dims):
        return None
    for order in permutations(dims):  # of three
        with suppress(Unsupported):  # of positions that are not evenly spaced
            found = _along(x, positions, dict(zip(axes, order, strict=True)), layers)
            if found is not None:
                return found
    return None


def _picked(x: Value, positions: np.ndarray, layers: tuple[str, ...]) -> Value:
    return x.flat().selected(len(x.layout) - 1, positions.reshape(-1), layers).viewed(positions.shape, ())


def _along(x: Value, positions: np.ndarray, source: dict[int, int], layers: tuple[str, ...]) -> Value | None:
    """The value whose axes are picked from the axes of x that `source` names; None if the table is another."""
    sizes = x.dims
    strides = {axis: math.prod(sizes[axis + 1 :]) for axis in source.values()}
    picks = {}
    for axis, of in source.items():
        line = positions[tuple(slice(None) if a == axis else 0 for a in range(positions.ndim))]
        picks[axis] = line // strides[of] % sizes[of]
    rebuilt = np.zeros(positions.shape, np.int64)
    for axis, pick in picks.items():
        shape = [-1 if a == axis else 1 for a in range(positions.ndim)]
        rebuilt += (pick * strides[source[axis]]).reshape(shape)
    if not np.array_equal(rebuilt, positions):
        return None
    for axis, pick in picks.items():
        x = x.selected(source[axis], pick, layers)
    rest = iter(axis for axis in range(len(sizes)) if axis not in source.values())
    return x.transposed(tuple(source[axis] if axis in source else next(rest) for axis in range(positions.ndim)))
