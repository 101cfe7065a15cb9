"""Products of two tensors of activations: MatMul, Einsum, and what else comes to matrices multiplied batch by batch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..ir import Conv2D, MatMul, Shape
from .affine import Source, Value
from .call import Call, Regrouped
from .support import Unsupported

_MATRICES = ((0,), (1,), (2,))


def matmul(x: Value, y: Value, call: Call) -> Value | Regrouped:
    """`x @ y` over the last two axes, the others broadcast."""
    if len(x.dims) < 2 or len(y.dims) < 2 or x.dims[-1] != y.dims[-2]:
        raise Unsupported(f"it multiplies tensors of shapes {x.dims} and {y.dims}, which are no matrices that fit")
    batch = np.broadcast_shapes(x.dims[:-2], y.dims[:-2])
    left, right = (
        np.broadcast_to(places(each), (*batch, *each.dims[-2:])).reshape(-1, *each.dims[-2:]) for each in (x, y)
    )
    return multiplied(x, left, y, right, (*batch, x.dims[-2], y.dims[-1]), call)


def multiplied(x: Value, left: np.ndarray, y: Value, right: np.ndarray, dims: Shape, call: Call) -> Value | Regrouped:
    """The matrices (B, M, K) and (B, K, N) at the positions `left` of x and `right` of y, multiplied; as a tensor."""
    first = x.placed_as(left, left.shape, _MATRICES)
    second = y.placed_as(right, right.shape, _MATRICES)
    shape = (*left.shape[:2], right.shape[2])
    product = call.sent(Source(MatMul(left.shape, right.shape), shape, first, call.layer, second), _MATRICES)
    return _viewed(product, dims, call)


def turned(x: Value) -> Value:
    """The last two axes in the other order."""
    order = tuple(range(len(x.dims)))
    return x.transposed((*order[:-2], order[-1], order[-2]))


def einsum(call: Call) -> Value | Regrouped:
    """Sums of products, of one tensor of activations with a constant, or of two."""
    terms, _, result = call.text("equation", "").replace(" ", "").partition("->")
    labels = terms.split(",")
    if len(labels) != 2 or not result.isalpha() or any(len(set(label)) < len(label) for label in (*labels, result)):
        raise Unsupported(f"it computes {call.text('equation', '')!r}; products of two tensors are supported")
    match call.inputs:
        case (Value() as x, np.ndarray() as weight):
            return _weighted(x, labels[0], weight, labels[1], result, call)
        case (np.ndarray() as weight, Value() as x):
            return _weighted(x, labels[1], weight, labels[0], result, call)
    x, y = call.value(0), call.value(1)
    first, second = labels
    batch = [label for label in result if label in first and label in second]
    inner = [label for label in first if label in second and label not in result]
    rows, columns = ([label for label in result if label in own and label not in batch] for own in labels)
    if len(batch) + len(inner) + len(rows) != len(first) or len(batch) + len(inner) + len(columns) != len(second):
        raise Unsupported(f"it sums over an axis of one tensor alone: {call.text('equation', '')!r}")
    sizes = dict(zip(first + second, x.dims + y.dims, strict=True))
    matrices = [
        places(each)
        .transpose([own.index(label) for label in (*one, *two, *three)])
        .reshape(_sizes(sizes, one, two, three))
        for each, own, one, two, three in ((x, first, batch, rows, inner), (y, second, batch, inner, columns))
    ]
    order = [*batch, *rows, *columns]
    product = multiplied(x, matrices[0], y, matrices[1], tuple(sizes[label] for label in order), call)
    return _ordered(product, order, result, call)


def _weighted(x: Value, own: str, weight: np.ndarray, others: str, result: str, call: Call) -> Value | Regrouped:
    """A tensor times a constant matrix, summed over the axes that only these two have."""
    inner = [label for label in own if label in others and label not in result]
    rows = [label for label in own if label in result and label not in others]
    columns = [label for label in others if label in result and label not in own]
    if len(inner) + len(rows) != len(own) or len(inner) + len(columns) != len(others):
        raise Unsupported(f"it computes {call.text('equation', '')!r} with a constant, which is no product of matrices")
    sizes = dict(zip(own + others, x.dims + weight.shape, strict=True))
    table = places(x).transpose([own.index(label) for label in (*rows, *inner)])
    table = table.reshape(*_sizes(sizes, rows, inner))
    matrix = weight.transpose([others.index(label) for label in (*inner, *columns)])
    placed = x.placed_as(table[:, None], (len(table), 1, table.shape[1]), _MATRICES)
    product = placed.then(Conv2D(matrix.reshape(1, 1, table.shape[1], -1)), layers=call.layers)
    order = [*rows, *columns]
    return _ordered(_viewed(product, tuple(sizes[label] for label in order), call), order, result, call)


def places(x: Value) -> np.ndarray:
    """The positions of a tensor's numbers, in its own dimensions."""
    return np.arange(math.prod(x.dims)).reshape(x.dims)


def _sizes(sizes: dict[str, int], *groups: list[str]) -> tuple[int, ...]:
    return tuple(math.prod(sizes[label] for label in group) for group in groups)


def _viewed(x: Value, dims: Shape, call: Call) -> Value | Regrouped:
    """A tensor with other dimensions, as a table of positions where its axes are taken apart."""
    try:
        return x.viewed(dims, call.layers)
    except Unsupported:
        return Regrouped(x, np.arange(math.prod(dims)).reshape(dims), call.layers[-1])


def _ordered(x: Value | Regrouped, order: list[str], result: str, call: Call) -> Value | Regrouped:
    axes = tuple(order.index(label) for label in result)
    if isinstance(x, Regrouped):
        return replace(x, positions=x.positions.transpose(axes))
    return x.transposed(axes)
