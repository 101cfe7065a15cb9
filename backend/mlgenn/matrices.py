"""Sequences of linear operators as one sparse matrix, for the edges that no connectivity of mlGeNN expresses.

A matrix has shape (inputs, outputs), both flat with channels last: `apply(operators, x)` is `x @ matrix`.
It holds an entry for every synapse, also where the weight is zero, but none for inputs that lie in the padding.
"""

from __future__ import annotations

import math
from functools import reduce
from operator import matmul

import numpy as np
from scipy.sparse import coo_array, csr_array, eye_array, kron

from ...ir import (
    AveragePool2D,
    BackendError,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Flatten,
    Operator,
    Pad,
    Padding,
    Pair,
    Pick,
    Resample,
    Scale,
    Shape,
    output_shape,
)
from .fanout import windows_along

ONE = np.ones((), np.float32)


def matrix(operators: tuple[Operator, ...], shape: Shape) -> csr_array:
    """`operators`, applied in order to an input of `shape`, as a float32 matrix."""
    shapes = [output_shape(operators[:done], shape) for done in range(len(operators))]
    if not operators:
        return eye_array(math.prod(shape), dtype=np.float32, format="csr")
    return reduce(matmul, map(_operator_matrix, operators, shapes))


def _operator_matrix(operator: Operator, shape: Shape) -> csr_array:
    size = math.prod(shape)
    match operator:
        case Conv2D() | ConvTranspose2D():
            return _convolution(operator, shape)
        case AveragePool2D():
            return _average(operator, shape)
        case Dense(weight):
            return csr_array(weight)
        case Scale(factor):
            every = np.arange(size).reshape(shape)
            return _from_entries(factor, every, every, (size, size))
        case Pad(amounts):
            padded = operator.output_shape(shape)
            inside = tuple(slice(before, before + n) for (before, _), n in zip(amounts, shape, strict=True))
            positions = np.arange(math.prod(padded)).reshape(padded)[inside]
            return _from_entries(ONE, np.arange(size).reshape(shape), positions, (size, math.prod(padded)))
        case Pick(indices):
            return _from_entries(ONE, indices, np.arange(indices.size).reshape(indices.shape), (size, indices.size))
        case Resample(axis, indices, weight):
            taps = weight != 0
            ends = (shape[axis], indices.shape[1])
            along = _from_entries(weight[taps], indices[taps], np.nonzero(taps)[1], ends)
            outside, inside = (
                eye_array(math.prod(part), dtype=np.float32) for part in (shape[:axis], shape[axis + 1 :])
            )
            return kron(kron(outside, along), inside, format="csr")
        case Flatten():
            return eye_array(size, dtype=np.float32, format="csr")
    raise BackendError(f"the mlgenn backend does not know the operator {type(operator).__name__}")


def _convolution(conv: Conv2D | ConvTranspose2D, shape: Shape) -> csr_array:
    kernel_height, kernel_width, depth, filters = conv.weight.shape
    kernel, output = (kernel_height, kernel_width), conv.output_shape(shape)
    if isinstance(conv, Conv2D):
        taps, sources, targets = _windows(shape, output, kernel, conv.strides, conv.padding, conv.dilation)
    else:
        taps, targets, sources = _windows(output, shape, kernel, conv.strides, conv.cropping, conv.dilation)
    first_of_group = np.arange(filters, dtype=np.int32) // (filters // conv.groups) * depth
    channels = first_of_group + np.arange(depth, dtype=np.int32)[:, None]  # what each filter reads, (depth, filters)
    return _from_entries(
        conv.weight.reshape(-1, depth, filters)[taps],
        sources[:, None, None] * np.int32(shape[2]) + channels,
        targets[:, None, None] * np.int32(filters) + np.arange(filters, dtype=np.int32),
        (math.prod(shape), math.prod(output)),
    )


def _average(pool: AveragePool2D, shape: Shape) -> csr_array:
    output = pool.output_shape(shape)
    _, sources, targets = _windows(shape, output, pool.pool_size, pool.strides, pool.padding, (1, 1))
    share = (1 / np.bincount(targets)).astype(np.float32)  # of a window's inputs, without its padding
    pixels = _from_entries(share[targets], sources, targets, (math.prod(shape[:2]), math.prod(output[:2])))
    return kron(pixels, eye_array(shape[2], dtype=np.float32), format="csr")


def _windows(
    shape: Shape, output: Shape, kernel: Pair, strides: Pair, padding: Padding, dilation: Pair
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which pixel meets which: flat indices of tap, input pixel and output pixel, three of the same length."""
    befores = [before for before, _ in padding]
    axes = zip(shape[:2], output[:2], kernel, strides, befores, dilation, strict=True)
    vertical, horizontal = (windows_along(*axis) for axis in axes)
    widths = (kernel[1], shape[1], output[1])
    taps, sources, targets = (
        (y[:, None] * np.int32(width) + x).reshape(-1) for y, x, width in zip(vertical, horizontal, widths, strict=True)
    )
    return taps, sources, targets


def _from_entries(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> csr_array:
    flat = [part.reshape(-1) for part in np.broadcast_arrays(values, rows, columns)]
    return coo_array((flat[0], (flat[1], flat[2])), shape=shape).tocsr()
