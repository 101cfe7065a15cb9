"""How many synapses operators have, from shapes alone: even of a connection that no memory would hold.

What an operator of images connects is separable: which rows meet, which columns and which channels are three
questions. So a sequence of them is three small matrices, and what is picked afterwards is a count per position.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np

from ...ir import AveragePool2D, BackendError, Conv2D, Dense, Flatten, Operator, Pad, Pick, Scale, Shape, output_shape


def fan_out(operators: tuple[Operator, ...], shape: Shape) -> np.ndarray:
    """For each neuron of a source of `shape`, flat, how many neurons of the target it meets.

    Paths that end in the same neuron are one synapse. A weight of zero is a synapse, one in the padding is none. A
    matrix counts in full, whatever stands before or after it.
    """
    if any(isinstance(operator, Dense) for operator in operators):
        return np.full(math.prod(shape), math.prod(output_shape(operators, shape)))
    flat = next((i for i, operator in enumerate(operators) if len(shape) == 1 or _flattens(operator)), len(operators))
    axes: list[np.ndarray] = []
    for operator in operators[:flat]:
        steps = _axes(operator, shape)
        axes = [(axis @ step > 0).astype(np.float32) for axis, step in zip(axes, steps, strict=True)] if axes else steps
        shape = operator.output_shape(shape)
    rows = kept = _kept(operators[flat:], shape)
    if axes and (kept == 1).all():
        rows = reduce(np.multiply.outer, [axis.sum(1) for axis in axes])
    elif axes:
        rows = np.einsum("ha,wb,cd,abd->hwc", *axes, kept, optimize=True)
    return rows.reshape(-1).astype(np.int64)


def windows_along(
    size: int, count: int, kernel: int, stride: int, before: int, dilation: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which tap joins which position and which window along one axis: three arrays, without the padding."""
    targets, taps = np.divmod(np.arange(count * kernel, dtype=np.int32), np.int32(kernel))
    sources = targets * stride + taps * dilation - before
    inside = (sources >= 0) & (sources < size)
    return taps[inside], sources[inside], targets[inside]


def _flattens(operator: Operator) -> bool:
    return isinstance(operator, (Flatten, Pick))


def _kept(operators: tuple[Operator, ...], shape: Shape) -> np.ndarray:
    """How often each number of an input of `shape` occurs after `operators`, none of which sums."""
    numbered = np.arange(1, math.prod(shape) + 1).reshape(1, *shape)
    for operator in operators:
        numbered = numbered if isinstance(operator, Scale) else operator.apply(numbered)
    return np.bincount(numbered.reshape(-1), minlength=math.prod(shape) + 1)[1:].reshape(shape)


def _axes(operator: Operator, shape: Shape) -> list[np.ndarray]:
    """Which rows, columns and channels of an input of `shape` meet which of the output: three matrices."""
    output = operator.output_shape(shape)
    match operator:
        case Conv2D(weight, strides, padding, dilation, groups):
            kernel, depth = weight.shape[:2], weight.shape[2]
            channels = np.kron(np.eye(groups), np.ones((depth, output[2] // groups)))
        case AveragePool2D(kernel, strides, padding):
            dilation, channels = (1, 1), np.eye(shape[2])
        case Pad(amounts):
            return [np.eye(n, after, before) for n, after, (before, _) in zip(shape, output, amounts, strict=True)]
        case Scale():
            return [np.eye(size) for size in shape]
        case _:
            raise BackendError(f"the mlgenn backend does not know the operator {type(operator).__name__}")
    axes = [np.zeros(ends, np.float32) for ends in zip(shape[:2], output[:2], strict=True)]
    for i, axis in enumerate(axes):
        _, sources, targets = windows_along(*axis.shape, kernel[i], strides[i], padding[i][0], dilation[i])
        axis[sources, targets] = 1
    return [*axes, channels]
