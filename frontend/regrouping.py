"""Axes that are taken apart and put together anew, as in channel shuffles: nothing is computed, positions move.

Where a reshape leaves no axis of an image whole, what is left is a table of positions, on which the operators that move
things are evaluated as they are. As soon as the table can be said by picking along axes, it is a value again.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import numpy as np

from .affine import LARGEST, NOT_FOLDED, Value
from .call import Call, Regrouped
from .constants import evaluate
from .support import Unsupported

MOVING = frozenset(
    {"DepthToSpace", "Flatten", "Gather", "GatherND", "Identity", "Reshape", "Slice", "SpaceToDepth", "Squeeze"}
    | {"Transpose", "Unsqueeze"}
)


def regrouped(call: Call) -> Value | Regrouped:
    """What a node that only moves things gives, for its first input; raises Unsupported for other nodes."""
    table = next(argument for argument in call.inputs if isinstance(argument, (Value, Regrouped)))
    if isinstance(table, Value):
        table = Regrouped(table, _positions(table), call.layers[-1])
    if call.node.op_type not in MOVING or table is not call.inputs[0] is not table.value:
        raise refused(table)
    if _takes_images(call, table.positions):
        raise Unsupported("it takes some images of a batch and not others, which networks see one by one")
    constants = [call.constant(index) for index in range(1, len(call.inputs))]
    (positions,) = evaluate(call.node, [table.positions, *constants], call.opset)
    found = _value(table.value, positions, call.layers)
    return replace(table, positions=positions) if found is None else found


def _takes_images(call: Call, positions: np.ndarray) -> bool:
    """Whether a node picks along the first axis, where that is the batch."""
    match call.node.op_type:
        case "GatherND":
            axes: tuple[int, ...] = (0,)
        case "Gather":
            axes = (call.attributes.get("axis", 0) % positions.ndim,)
        case "Slice":
            axes = call.axes(3, positions.ndim) or tuple(range(positions.ndim))
        case _:
            axes = ()
    return 0 in axes and len(positions) == 1


def _positions(x: Value) -> np.ndarray:
    if math.prod(x.dims) > LARGEST:
        raise Unsupported(f"it gives more than {LARGEST} numbers for an image")
    return np.arange(math.prod(x.dims)).reshape(x.dims)


def refused(table: Regrouped) -> Unsupported:
    """What to say where something else than moving is asked for: it is about the layer that began."""
    reason = f"it reshapes {table.value.dims[1:]} to {table.positions.shape[1:]}; {NOT_FOLDED}"
    return Unsupported(reason, table.layer)


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
