"""How many synapses operators have, from shapes alone: even of a connection that no memory would hold.

What an operator of images connects is separable: which rows meet, which columns and which channels are three
questions. So a sequence of them is three small matrices, and what is picked before or afterwards is a count per
position.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np

from ...ir import (
    AveragePool2D,
    BackendError,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Flatten,
    Operator,
    Pad,
    Pick,
    Resample,
    Scale,
    Shape,
    output_shape,
)


def fan_out(operators: tuple[Operator, ...], shape: Shape) -> np.ndarray:
    """For each neuron of a source of `shape`, flat, how many neurons of the target it meets.

    Paths that end in the same neuron are one synapse; but those that part before a Pick, or in it, and meet again in
    windows behind it count as several. A weight of zero is a synapse, unless it resamples; one in the padding is none.
    A matrix counts in full, whatever stands before or after it.
    """
    shapes = [output_shape(operators[:done], shape) for done in range(len(operators) + 1)]
    size = math.prod(shapes[-1])
    if any(isinstance(operator, Dense) for operator in operators):
        return np.full(math.prod(shape), size)
    met = np.ones(shapes[-1])  # by each number that the operators from some place on are given
    axes: list[np.ndarray] = []  # which ends of those right before that place meet
    for operator, given in zip(reversed(operators), reversed(shapes[:-1]), strict=True):
        if isinstance(operator, Scale):
            continue
        if len(given) == 3 and not isinstance(operator, (Flatten, Pick)):
            steps = _axes(operator, given)
            joined = zip(steps, axes, strict=True) if axes else ()
            axes = [(step @ axis > 0).astype(np.float32) for step, axis in joined] or steps
            continue
        met, axes = _moved(operator, _through(axes, met), given), []
    return np.minimum(_through(axes, met), size).reshape(-1).astype(np.int64)


def windows_along(
    size: int, count: int, kernel: int, stride: int, before: int, dilation: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which tap joins which position and which window along one axis: three arrays, without the padding."""
    targets, taps = np.divmod(np.arange(count * kernel, dtype=np.int32), np.int32(kernel))
    sources = targets * stride + taps * dilation - before
    inside = (sources >= 0) & (sources < size)
    return taps[inside], sources[inside], targets[inside]


def _through(axes: list[np.ndarray], met: np.ndarray) -> np.ndarray:
    """How many targets each number meets before operators of images, if it is `met` after them."""
    if axes and (met == 1).all():
        return reduce(np.multiply.outer, [axis.sum(1) for axis in axes])
    for place, axis in enumerate(axes):
        met = np.moveaxis(np.tensordot(axis, met, (1, place)), 0, place)
    return met


def _moved(operator: Operator, met: np.ndarray, shape: Shape) -> np.ndarray:
    """The same before an operator that only moves numbers, on an input of `shape`."""
    match operator:
        case Pick(indices):
            return np.bincount(indices.reshape(-1), met.reshape(-1), math.prod(shape)).reshape(shape)
        case Flatten():
            return met.reshape(shape)
        case Pad(((before, _),)):
            return met[before : before + shape[0]]
    raise BackendError(f"the mlgenn backend does not know the operator {type(operator).__name__}")


def _axes(operator: Operator, shape: Shape) -> list[np.ndarray]:
    """Which rows, columns and channels of an input of `shape` meet which of the output: three matrices."""
    output = operator.output_shape(shape)
    match operator:
        case Conv2D(weight, strides, padding, dilation, groups) | ConvTranspose2D(
            weight, strides, padding, dilation, groups
        ):
            kernel, depth = weight.shape[:2], weight.shape[2]
            channels = np.kron(np.eye(groups), np.ones((depth, output[2] // groups)))
        case AveragePool2D(kernel, strides, padding):
            dilation, channels = (1, 1), np.eye(shape[2])
        case Resample(along, indices, weight):
            axes = [np.eye(size, dtype=np.float32) for size in shape]
            axes[along] = np.zeros((shape[along], output[along]), np.float32)
            axes[along][indices[weight != 0], np.nonzero(weight)[1]] = 1
            return axes
        case Pad(amounts):
            return [np.eye(n, after, before) for n, after, (before, _) in zip(shape, output, amounts, strict=True)]
        case _:
            raise BackendError(f"the mlgenn backend does not know the operator {type(operator).__name__}")
    axes = [np.zeros(ends, np.float32) for ends in zip(shape[:2], output[:2], strict=True)]
    for i, axis in enumerate(axes):
        axis = axis.T if isinstance(operator, ConvTranspose2D) else axis
        _, sources, targets = windows_along(*axis.shape, kernel[i], strides[i], padding[i][0], dilation[i])
        axis[sources, targets] = 1
    return [*axes, channels]
