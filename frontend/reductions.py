"""Operators that make one number of those along some axes: means, sums, products, the largest."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..ir import MaxPool2D, Relu
from .affine import Value
from .call import Activation, Call
from .support import Unsupported

_WIDEST = 256  # positions of a window that one neuron looks at; of more, halves are compared


def reduce_mean(call: Call) -> Value:
    x, axes = call.value(), reduced_axes(call)
    return without(x.reduced(axes, call.layers), axes, call)


def reduce_sum(call: Call) -> Value:
    x, axes = call.value(), reduced_axes(call)
    return without(x.total(axes, call.layers), axes, call)


def reduce_prod(call: Call) -> Value:
    """Product by product: the numbers of one half with those of the other, until one is left."""
    x, axes = call.value(), reduced_axes(call)
    x.within(axes)
    rows, dims = _rows(x, axes)
    product, left = x.placed(rows), []
    while (count := product.dims[1]) > 1:
        half, own = count // 2, product.places
        left += [product.placed(own[:, -1:])] if count % 2 else []
        product = call.product(product.placed(own[:, :half]), product.placed(own[:, half : 2 * half]), "product")
    for single in left:
        product = call.product(product, single, "product")
    return without(product.placed(product.places.reshape(dims)), axes, call)


def reduced_axes(call: Call) -> tuple[int, ...]:
    """The axes that a node works along. Raises Unsupported for all of them, where those of a batch are among them."""
    x = call.value()
    axes = call.axes(1, len(x.dims))
    if axes or call.attributes.get("noop_with_empty_axes", 0):
        return axes or ()
    if not x.layout[0]:
        raise Unsupported(f"{call.node.op_type} works along all axes, those of a batch included; name the others")
    return tuple(range(len(x.dims)))


def without(x: Value, axes: tuple[int, ...], call: Call) -> Value:
    """A reduced tensor without the axes that are reduced, unless they are to stay."""
    if call.attributes.get("keepdims", 1):
        return x
    return x.viewed(tuple(dim for axis, dim in enumerate(x.dims) if axis not in axes), ())


def reduce_max(call: Call) -> Activation | Value:
    return _reduced(call.value(), call)


def reduce_min(call: Call) -> Activation | Value:
    """`−max(−x)`."""

    def negated(x: Value) -> Value:
        return x.scaled(np.array(-1.0), call.layers)

    found = _reduced(negated(call.value()), call)
    if isinstance(found, Value):
        return negated(found)
    first = found.finish
    return replace(found, finish=lambda output: negated(first(output)))


def _reduced(x: Value, call: Call) -> Activation | Value:
    axes = reduced_axes(call)
    found = largest(x, axes, call)
    if isinstance(found, Value):
        return without(found, axes, call)
    first = found.finish
    return replace(found, finish=lambda output: without(first(output), axes, call))


def largest(x: Value, axes: tuple[int, ...], call: Call) -> Activation | Value:
    """The largest number along ONNX axes, which stay with size 1: a neuron that pools, or many that rectify."""
    over = x.within(axes)
    if not over:
        return x
    if math.prod(x.dims[axis] for axis in axes) > _WIDEST:
        return compared(x, axes, call)
    if not x.is_image or (2 in over and x.shape[2] > 1):
        return _pooled(x, axes)
    height, width = (x.shape[axis] if axis in over else 1 for axis in (0, 1))
    size = (height, width)
    return Activation(MaxPool2D(x.shape, size, size), x)


def compared(x: Value, axes: tuple[int, ...], call: Call) -> Value:
    """The largest number along any axes: one half is compared with the other, and so on."""
    found = _table(x, _rows(x, axes)[0])
    while (count := found.shape[1]) > 1:
        half, own = -(-count // 2), found.places.reshape(found.shape[:2])  # of odd numbers one is in both
        first, second = (_table(found, part) for part in (own[:, :half], own[:, -half:]))
        found = first.plus(call.population(Relu(), second.minus(first, call.layers), "larger"), call.layers)
    return _back(found, x, axes)


def _pooled(x: Value, axes: tuple[int, ...]) -> Activation:
    """The largest number along any axes: these become one axis of space, and all others another."""
    table = _table(x, _rows(x, axes)[0])
    window = (1, table.shape[1])
    return Activation(MaxPool2D(table.shape, window, window), table, lambda output: _back(output, x, axes))


def _back(found: Value, x: Value, axes: tuple[int, ...]) -> Value:
    """What was found of each row, where `x` has it, all of the axes being of size 1."""
    rows, dims = _rows(x, axes)
    over = x.within(axes)
    shape = tuple(1 if axis in over else size for axis, size in enumerate(x.shape))
    return found.placed_as(np.arange(len(rows)).reshape(dims), shape, x.layout)


def _table(x: Value, positions: np.ndarray) -> Value:
    """The numbers at positions (rows, columns), as an image of one channel."""
    return x.placed_as(positions[..., None], (*positions.shape, 1), ((0,), (1,), (2,)))


def _rows(x: Value, axes: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    """The positions along ONNX axes, a row for each of the others; and the dimensions with those axes of size 1."""
    kept = tuple(axis for axis in range(len(x.dims)) if axis not in axes)
    dims = tuple(1 if axis in axes else dim for axis, dim in enumerate(x.dims))
    return x.places.transpose((*kept, *axes)).reshape(math.prod(dims), -1), dims
