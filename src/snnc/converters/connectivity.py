"""Edges under the names that mlGeNN has for them, with synapses from the mlGeNN backend.

mlGeNN's own classes cannot be built by every pygenn, pad even kernels otherwise than Keras, and need procedural
synapses for strides; an edge of this module is one of them by `isinstance` and by its attributes, `weight` included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from ml_genn import connectivity as mlgenn
from ml_genn.compilers.compiler import SupportedMatrixType

from ..backend.mlgenn.compiler import IN_MEMORY
from ..backend.mlgenn.connectivity import LARGEST_BLOCK, choose
from ..backend.mlgenn.genn import backend_modules
from ..backend.mlgenn.machine import describe
from ..backend.mlgenn.options import MatrixType
from ..backend.mlgenn.snippets import connectivity_of
from ..ir import (
    NO_PADDING,
    AveragePool2D,
    Connection,
    Conv2D,
    CurrentInput,
    Dense,
    Flatten,
    Integrate,
    Network,
    Operator,
    Padding,
    Population,
    Scale,
    Shape,
    SpikeInput,
)
from .compilers import Matrices


class Emitted:
    """The backend's connectivity for `operators`, which gives the edge's operators for a weight."""

    weight: Any
    delay: Any
    operators: Callable[[Any], tuple[Operator, ...]]

    def connect(self, source: Any, target: Any) -> None:
        """Nothing: the shapes of both populations are known."""

    def get_snippet(self, connection: Any, supported_matrix_type: Any) -> Any:
        """The synapses, for the weight as it now is."""
        source, target = connection.source(), connection.target()
        matrices = supported_matrix_type
        forced: dict[str, MatrixType] = {}
        if not isinstance(matrices, Matrices):  # of one of mlGeNN's compilers, in which a spike counts as 1
            matrices = Matrices([], describe(next(iter(backend_modules))), lambda population: False)
            few = math.prod(target.shape) <= LARGEST_BLOCK
            if few and matrices.machine.on_gpu:  # right without `by_spike`, too
                forced["source -> target"] = "DENSE"
        # a network of this edge alone, whose spikes count as 1, or as values
        spikes = CurrentInput() if matrices.reads_values(source) else SpikeInput()
        ends = [Population("source", source.shape, spikes), Population("target", target.shape, Integrate())]
        edge = Connection("source", "target", self.operators(self.weight), self.delay)
        network = Network(ends, [edge], ["source"], ["target"], 1)
        chosen = choose(network, matrices.machine, forced)[0]
        matrices.take(chosen.host_bytes)
        emitted = connectivity_of(chosen)
        emitted.connect(source, target)
        return emitted.get_snippet(connection, SupportedMatrixType(IN_MEMORY))


class LinearMap(Emitted, mlgenn.connectivity.Connectivity):
    """What mlGeNN has no name for: `weight` is a factor that the whole map is multiplied with."""


class ToeplitzOrSparse(Emitted, mlgenn.Conv2D):
    """A convolution."""


class Pooling(Emitted, mlgenn.AvgPool2D):
    """Average pooling; `weight` is the share of each of a window's inputs."""


class PoolingThenConvolution(Emitted, mlgenn.AvgPoolConv2D):
    """Average pooling, then a convolution."""


class PoolingThenDense(Emitted, mlgenn.AvgPoolDense2D):
    """Average pooling, then a dense layer."""


class DenseMatrix(Emitted, mlgenn.Dense):
    """A dense layer, also after a population of shape (H, W, C)."""


def connect(operators: tuple[Operator, ...], shape: Shape, delay: int) -> mlgenn.Connectivity:
    """Connectivity that applies `operators` to a source of `shape`, `delay` steps later than GeNN does anyway."""
    flatten = bool(operators) and isinstance(operators[-1], Flatten)
    end: tuple[Operator, ...] = (Flatten(),) if flatten else ()
    match operators[:-1] if flatten else operators:
        case () if not flatten:
            return mlgenn.OneToOne(1.0, delay)
        case (Dense(weight),):
            return _emitted(DenseMatrix(weight, delay), lambda w: (Dense(w),))
        case (Conv2D() as conv,) if padding := _padding(conv, shape):
            edge = ToeplitzOrSparse(**_convolution(conv), conv_padding=padding, flatten=flatten, delay=delay)
            return _emitted(edge, lambda w: (replace(conv, weight=w), *end))
        case (AveragePool2D() as pool, *rest) if _is_plain(pool):
            named = _pooled(pool, tuple(rest), shape, flatten, delay)
            if named is not None:
                return named
    return _emitted(LinearMap(1.0, delay), partial(_scaled, operators, shape))


def _pooled(
    pool: AveragePool2D, rest: tuple[Operator, ...], shape: Shape, flatten: bool, delay: int
) -> mlgenn.Connectivity | None:
    """Connectivity of `pool` and what follows it, on a source of `shape`, if mlGeNN has a name for it."""
    end: tuple[Operator, ...] = (Flatten(),) if flatten else ()
    sizes: dict[str, Any] = {"pool_size": pool.pool_size, "pool_strides": pool.strides, "delay": delay}
    match rest:
        case ():
            area = np.float32(pool.pool_size[0] * pool.pool_size[1])
            edge = Pooling(flatten=flatten, **sizes)
            return _emitted(edge, lambda w: _scaled((pool, *end), shape, w * area))
        case (Dense(weight),):
            return _emitted(PoolingThenDense(weight, **sizes), lambda w: (pool, Dense(w)))
        case (Conv2D(strides=(1, 1)) as conv,) if padding := _padding(conv, pool.output_shape(shape)):
            edge = PoolingThenConvolution(**_convolution(conv), conv_padding=padding, flatten=flatten, **sizes)
            return _emitted(edge, lambda w: (pool, replace(conv, weight=w), *end))
    return None


def _emitted(edge: Any, operators: Callable[[Any], tuple[Operator, ...]]) -> Any:
    edge.operators = operators
    return edge


def _scaled(operators: tuple[Operator, ...], shape: Shape, factor: float) -> tuple[Operator, ...]:
    return (Scale(np.full(shape[-1:], factor, np.float32)), *operators) if factor != 1 else operators


def _convolution(conv: Conv2D) -> dict[str, Any]:
    height, width, _, filters = conv.weight.shape
    return {
        "weight": conv.weight,
        "filters": filters,
        "conv_size": (height, width),
        "conv_strides": conv.strides,
    }


def _padding(conv: Conv2D, shape: Shape) -> str | None:
    """What Keras calls the padding of a convolution without groups or dilation, if it has a name."""
    if conv.groups != 1 or conv.dilation != (1, 1):
        return None
    if conv.padding == NO_PADDING:
        return "valid"
    return "same" if conv.padding == _same(conv, shape) else None


def _same(conv: Conv2D, shape: Shape) -> Padding:
    totals = [
        max(((size - 1) // stride) * stride + kernel - size, 0)
        for size, kernel, stride in zip(shape[:2], conv.weight.shape[:2], conv.strides, strict=True)
    ]
    vertical, horizontal = [(total // 2, total - total // 2) for total in totals]
    return vertical, horizontal


def _is_plain(pool: AveragePool2D) -> bool:
    """Whether mlGeNN's classes can say it: no padding, no overlap."""
    return pool.padding == NO_PADDING and all(s >= p for s, p in zip(pool.strides, pool.pool_size, strict=True))
