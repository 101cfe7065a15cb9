"""Products of two tensors of activations: MatMul, Einsum, and what else comes to matrices multiplied batch by batch."""

from __future__ import annotations

import math
import string
from dataclasses import replace

import numpy as np

from ..ir import Conv2D, MatMul, Shape
from .affine import Source, Value, bounded
from .call import Argument, Call, Regrouped, Tensor, places, whole
from .support import Unsupported

_MATRICES = ((0,), (1,), (2,))


def matmul(x: Tensor, y: Tensor, call: Call) -> Tensor:
    """`x @ y` over the last two axes, the others broadcast."""
    (*above, rows, inner), (*other, shared, columns) = ((1,) * (2 - len(_dims(each))) + _dims(each) for each in (x, y))
    if min(len(_dims(x)), len(_dims(y))) < 2 or inner != shared:
        raise Unsupported(f"it multiplies tensors of shapes {_dims(x)} and {_dims(y)}, which are no matrices that fit")
    batch = np.broadcast_shapes(tuple(above), tuple(other))
    left = np.broadcast_to(places(x), (*batch, rows, inner)).reshape(-1, rows, inner)
    right = np.broadcast_to(places(y), (*batch, inner, columns)).reshape(-1, inner, columns)
    return _multiplied(x, left, y, right, (*batch, rows, columns), call)


def _multiplied(x: Tensor, left: np.ndarray, y: Tensor, right: np.ndarray, dims: Shape, call: Call) -> Tensor:
    """The matrices (B, M, K) and (B, K, N) at the positions `left` of x and `right` of y, multiplied; as a tensor."""
    first = whole(x).placed_as(left, left.shape, _MATRICES)
    second = whole(y).placed_as(right, right.shape, _MATRICES)
    shape = (*left.shape[:2], right.shape[2])
    product = call.sent(Source(MatMul(left.shape, right.shape), shape, first, call.layer, second), _MATRICES)
    return _viewed(product, dims, call)


def einsum(call: Call) -> Tensor:
    """Sums of products: of one tensor of activations, of one with a constant, or of two."""
    equation = call.text("equation", "")
    labels, result = _labels(equation, [len(_dims(argument)) for argument in call.inputs])
    operands: list[Argument] = []
    for index, argument in enumerate(call.inputs):
        elsewhere = set(result).union(*labels[:index], *labels[index + 1 :])
        operand, labels[index] = _trimmed(argument, labels[index], elsewhere, call)
        operands.append(operand)
    match operands:
        case [Value() | Regrouped() as x]:
            return _ordered(x, labels[0], result)
        case [Value() | Regrouped() as x, np.ndarray() as weight]:
            return _weighted(x, labels[0], weight, labels[1], result, call)
        case [np.ndarray() as weight, Value() | Regrouped() as x]:
            return _weighted(x, labels[1], weight, labels[0], result, call)
        case [Value() | Regrouped() as x, Value() | Regrouped() as y]:
            return _contracted(x, labels[0], y, labels[1], result, call)
    raise Unsupported(f"it computes {equation!r}; products of two tensors are supported")


def stacked(x: Tensor, weight: np.ndarray, call: Call, *, weight_first: bool = False) -> Tensor:
    """`x @ weight`, or `weight @ x`, for a constant of any number of axes."""
    ranks = (weight.ndim, len(_dims(x))) if weight_first else (len(_dims(x)), weight.ndim)
    *labels, result = _matrix_labels(*ranks)
    others, own = labels if weight_first else labels[::-1]
    for label in set(own).intersection(others, result):  # axes of size one are repeated
        axis = own.index(label)
        size, length = _dims(x)[axis], weight.shape[others.index(label)]
        if size > length == 1:
            weight, others = weight.squeeze(others.index(label)), others.replace(label, "")
        elif length > size == 1:
            if axis == 0:
                raise Unsupported(f"it combines each image of a batch with another part of a constant, {weight.shape}")
            x, own = Regrouped(whole(x), places(x).squeeze(axis), call.layers[-1]), own.replace(label, "")
    return _weighted(x, own, weight, others, result, call)


def cumulated(call: Call) -> Tensor:
    """ONNX's CumSum: a triangular matrix along one axis."""
    x, axis = call.inputs[0], int(call.weight(1).reshape(-1)[0])
    assert isinstance(x, (Value, Regrouped))
    labels = string.ascii_lowercase[: len(_dims(x))]
    axis %= len(labels)
    whole(x).within(() if isinstance(x, Regrouped) else (axis,))
    sizes, own = _dims(x), labels[axis]
    bounded((sizes[axis], sizes[axis]))
    summed = np.triu(np.ones((sizes[axis],) * 2, np.float32), 1 if call.attributes.get("exclusive", 0) else 0)
    matrix = summed.T if call.attributes.get("reverse", 0) else summed
    total = _weighted(x, labels, matrix, f"{own}z", labels.replace(own, "z"), call)
    return whole(total).placed_as(places(total), x.shape, x.layout) if isinstance(x, Value) else total


def _weighted(x: Tensor, own: str, weight: np.ndarray, others: str, result: str, call: Call) -> Tensor:
    """A tensor times a constant, by the labels of their axes: each matrix of a batch is a group of channels."""
    batch = [label for label in own if label in others and label in result]
    inner = [label for label in own if label in others and label not in result]
    rows, columns = [label for label in own if label not in others], [label for label in others if label not in own]
    sizes = _sizes(own + others, _dims(x) + weight.shape)
    table = _joined(places(x), own, sizes, rows, [*batch, *inner])[:, None]
    kernel = _joined(weight, others, sizes, inner, [*batch, *columns])[None, None]
    placed = whole(x).placed_as(table, table.shape, _MATRICES)
    groups = math.prod(sizes[label] for label in batch)
    product = placed.then(Conv2D(kernel, groups=groups), layers=call.layers)
    order = "".join([*rows, *batch, *columns])
    return _ordered(_viewed(product, tuple(sizes[label] for label in order), call), order, result)


def _contracted(x: Tensor, first: str, y: Tensor, second: str, result: str, call: Call) -> Tensor:
    """Two tensors of activations, by the labels of their axes: matrices multiplied, batch by batch."""
    batch = [label for label in first if label in second and label in result]
    inner = [label for label in first if label in second and label not in result]
    rows, columns = ([label for label in own if label not in (*batch, *inner)] for own in (first, second))
    sizes = _sizes(first + second, _dims(x) + _dims(y))
    left = _joined(places(x), first, sizes, batch, rows, inner)
    right = _joined(places(y), second, sizes, batch, inner, columns)
    order = "".join([*batch, *rows, *columns])
    product = _multiplied(x, left, y, right, tuple(sizes[label] for label in order), call)
    return _ordered(product, order, result)


def _labels(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """What an equation calls the axes of its operands and of the result, `...` and what it leaves out spelt out."""
    terms, arrow, result = equation.replace(" ", "").partition("->")
    free = [letter for letter in string.ascii_letters if letter not in terms]
    labels = []
    for term, rank in zip(terms.split(","), ranks, strict=True):
        more = rank - len(term.replace("...", ""))
        labels.append(term.replace("...", "".join(free[-more:] if more else [])))
    rest = max((rank - len(term.replace("...", "")) for term, rank in zip(terms.split(","), ranks, strict=True)))
    ellipsis = "".join(free[-rest:] if rest else [])
    if not arrow:
        once = [label for label in sorted(set(terms) - set(",.")) if terms.count(label) == 1]
        return labels, ellipsis + "".join(once)
    return labels, result.replace("...", ellipsis)


def _matrix_labels(first: int, second: int) -> tuple[str, str, str]:
    """What MatMul would be as an equation, by how many axes there are: z is summed over, y and x are the matrices'."""
    batch = string.ascii_lowercase[: max(first, second, 2) - 2]
    left, right = ("".join(batch[len(batch) - max(rank - 2, 0) :]) for rank in (first, second))
    rows, columns = "y" if first > 1 else "", "x" if second > 1 else ""
    return f"{left}{rows}z", f"{right}z{columns}", f"{batch}{rows}{columns}"


def _trimmed(argument: Argument, own: str, wanted: set[str], call: Call) -> tuple[Argument, str]:
    """An operand without the axes that only it has: diagonals are taken, and what is not wanted is summed."""
    unique = "".join(dict.fromkeys(own))
    kept = "".join(label for label in unique if label in wanted)
    if isinstance(argument, np.ndarray):
        return np.einsum(f"{own}->{kept}", argument), kept
    assert isinstance(argument, (Value, Regrouped))
    if kept == own:
        return argument, kept
    x = whole(argument).placed(np.einsum(f"{own}->{unique}", places(argument)))
    alone = [axis for axis, label in enumerate(unique) if label not in wanted]
    return x.total(alone, call.layers).viewed(
        tuple(size for axis, size in enumerate(x.dims) if axis not in alone), ()
    ), kept


def _dims(argument: Argument) -> Shape:
    if isinstance(argument, Regrouped):
        return argument.positions.shape
    return argument.dims if isinstance(argument, Value) else np.shape(argument)  # type: ignore[arg-type]


def _sizes(labels: str, sizes: Shape) -> dict[str, int]:
    found = dict(zip(labels, sizes, strict=True))
    if any(found[label] != size for label, size in zip(labels, sizes, strict=True)):
        raise Unsupported(f"it multiplies tensors whose axes {labels} have sizes that do not fit, {sizes}")
    return found


def _joined(array: np.ndarray, labels: str, sizes: dict[str, int], *groups: list[str]) -> np.ndarray:
    """An array with its axes in groups, each of which becomes one axis."""
    ordered = array.transpose([labels.index(label) for group in groups for label in group])
    return ordered.reshape([math.prod(sizes[label] for label in group) for group in groups])


def _viewed(x: Value, dims: Shape, call: Call) -> Tensor:
    """A tensor with other dimensions, as a table of positions where its axes are taken apart."""
    try:
        return x.viewed(dims, call.layers)
    except Unsupported:
        return Regrouped(x, np.arange(math.prod(dims)).reshape(dims), call.layers[-1])


def _ordered(x: Tensor, order: str, result: str) -> Tensor:
    axes = tuple(order.index(label) for label in result)
    if isinstance(x, Regrouped):
        return replace(x, positions=x.positions.transpose(axes))
    return x.transposed(axes)
