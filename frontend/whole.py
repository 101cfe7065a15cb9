"""Inputs of whole numbers: cast to real ones, as the bytes of images are, or looked up in a table, as tokens are.

Between the input and either they may only move. What is looked up has an input of its own in the network: of vectors,
the rows of the table, and with the table beside it, so that images are given as the model takes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import onnx

from ..ir import Conv2D, Input, Shape, apply, only_moves
from .affine import Source, Value, as_tensor, bounded
from .call import Call, Regrouped, Result, Tensor, Whole, places, whole
from .regrouping import MOVING
from .support import Unsupported

_INTEGERS = "it computes in integers with an input of the model; cast it to float first, or only look it up"
_VECTORS = ((), (0, 1), (2,))


def computed(call: Call, rule: Callable[[Call], Result]) -> Result:
    """What a node gives that takes whole numbers; `rule` is what it does with real ones."""
    match call.node.op_type, call.inputs:
        case "Gather", (np.ndarray() as table, Whole() as numbers):
            if call.attributes.get("axis", 0):
                raise Unsupported("it looks up columns of a table; only rows are supported")
            return _looked_up(numbers, table, call)
        case "OneHot", (Whole() as numbers, np.ndarray() as depth, np.ndarray() as values):
            if call.attributes.get("axis", -1) != -1:
                raise Unsupported("it puts the classes on another axis than the last")
            off, on = values.tolist()
            return _looked_up(numbers, off + (on - off) * np.eye(int(depth.reshape(-1)[0])), call)
        case "Cast", (Whole() as numbers,):
            return _cast(numbers, call)
        case "DequantizeLinear", (Whole(offset=0, rounded=False) as numbers, *_):
            return rule(replace(call, inputs=(numbers.value, *call.inputs[1:])))
        case ("Add" | "Sub") as operator, (Whole() as numbers, np.ndarray() as number) if number.size == 1:
            by = int(number.reshape(-1)[0])
            return replace(numbers, offset=numbers.offset + (by if operator == "Add" else -by))
        case "Less", (Whole() as numbers, np.ndarray() as bound) if bound.size == 1 and bound <= numbers.offset:
            return np.zeros(_dims(numbers.value), bool)  # no number that is given is negative
        case "Mul", (Whole() as numbers, np.ndarray() as factor) if _is_switch(factor):
            return numbers if factor.any() else factor
        case "Add", (Whole() as numbers, np.ndarray() as nothing) if nothing.size and not nothing.any():
            return numbers
        case (("Add" | "Mul"), (np.ndarray() as array, Whole() as numbers)):
            return computed(replace(call, inputs=(numbers, array)), rule)
        case "Where", (np.ndarray() as chosen, Whole() as upper, Whole() as lower) if (chosen == chosen.flat[0]).all():
            return upper if chosen.flat[0] else lower
        case operator, (Whole() as numbers, *others) if operator in MOVING:
            return _moved(numbers, rule(replace(call, inputs=(numbers.value, *others))))
    raise Unsupported(_INTEGERS)


def _is_switch(factor: np.ndarray) -> bool:
    """Whether a factor takes all numbers, or none: so TensorFlow's exporter writes a choice between two tensors."""
    return bool(factor.size and ((factor == 0).all() or (factor == 1).all()))


def cut(x: Value) -> Whole | None:
    """Numbers of an input that the model turns into whole ones, if they are not yet; None for other activations."""
    if len(x.terms) != 1 or x.bias is not None:
        return None
    source, operators = x.terms[0].source, x.terms[0].operators
    moved = all(only_moves((each,)) or (isinstance(each, Conv2D) and _only_ones(each.weight)) for each in operators)
    gain = moved and _only_ones(x.terms[0].gain)
    return Whole(x, rounded=not source.whole) if source.neuron.is_input and gain else None


def _only_ones(array: np.ndarray) -> bool:
    return bool(((array == 0) | (array == 1)).all())


def _cast(numbers: Whole, call: Call) -> Result:
    kind = onnx.helper.tensor_dtype_to_np_dtype(call.attributes["to"]).kind
    if kind in "iu":
        return numbers
    if numbers.rounded or numbers.offset or kind == "b":
        raise Unsupported("it turns an input into integers, which networks take only to look them up")
    return numbers.value


def _moved(numbers: Whole, found: Result) -> Result:
    """What a node that moves numbers gives, as whole numbers again."""
    match found:
        case Value() | Regrouped():
            return replace(numbers, value=found)
        case (*parts,):
            return tuple(replace(numbers, value=part) for part in parts if isinstance(part, (Value, Regrouped)))
    return found


def _looked_up(numbers: Whole, table: np.ndarray, call: Call) -> Tensor:
    """The rows of a table at whole numbers, in axes behind those of the numbers."""
    if numbers.offset < 0:
        raise Unsupported("it looks up numbers that are less than those that are given")
    rows = np.asarray(table, np.float32)[numbers.offset :].reshape(len(table) - numbers.offset, -1)
    value = whole(numbers.value)
    term = value.terms[0]
    count = math.prod(term.source.shape)
    order = apply(term.operators, np.arange(count, dtype=np.float64).reshape(1, *term.source.shape))
    own = as_tensor(order, value.layout)
    own = own.reshape(-1)[places(numbers.value)] if isinstance(numbers.value, Regrouped) else own
    shape = (count, 1, rows.shape[1])
    bounded(shape)
    vectors = Source(Input(), shape, None, term.source.layer, table=rows).value(_VECTORS)
    positions = own.astype(np.int64)[..., None] * rows.shape[1] + np.arange(rows.shape[1])
    dims = (*own.shape, *table.shape[1:])
    if np.array_equal(positions.reshape(-1), vectors.places.reshape(-1)):
        with suppress(Unsupported):
            return vectors.viewed(dims, call.layers)
    return Regrouped(vectors, positions.reshape(dims), call.layers[-1])


def _dims(x: Tensor) -> Shape:
    return x.positions.shape if isinstance(x, Regrouped) else x.dims
