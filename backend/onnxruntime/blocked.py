"""Operators on onnxruntime's own layout for images: channels in blocks, (C / block, H, W, block).

Its convolutions work on blocks. Given another layout it rearranges what goes into each graph and what comes out of it,
which takes a fifth of its time; networks that are run layer by layer would pay for that at each. How wide a block is
depends on the processor, and is found out by asking.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir import AveragePool2D, BackendError, Conv2D, Dense, MaxPool2D, Operator, Scale, Shape
from .emit import GraphBuilder, emit_max_pool, emit_operators, emit_windows, pads

DOMAIN = "com.microsoft.nchwc"
_PROBE = 64  # channels, a multiple of every block


@functools.cache
def block_size() -> int:
    """How many channels onnxruntime keeps side by side on this processor; 1 if it has no such layout."""
    graph = GraphBuilder()
    graph.output(graph.node("ReorderInput", [graph.input("x", (_PROBE, 1, 2))], domain=DOMAIN), "y", (_PROBE, 1, 2))
    channels_first = np.arange(2 * _PROBE, dtype=np.float32).reshape(1, _PROBE, 1, 2)
    try:
        found = graph.session(1).run(None, {"x": channels_first})[0].reshape(-1)
    except BackendError:
        return 1
    return int(np.flatnonzero(found == 1)[0])  # where the second number of the first channel went


@dataclass(frozen=True)
class Tensor:
    """A value in a graph, and whether its channels are in blocks."""

    value: str
    blocked: bool


def arranged(graph: GraphBuilder, tensor: Tensor, shape: Shape, blocked: bool) -> str:
    """A tensor of `shape` (H, W, C) with its channels in blocks or first, as wanted."""
    if tensor.blocked == blocked:
        return tensor.value
    if blocked:
        return graph.node("ReorderInput", [tensor.value], domain=DOMAIN)
    return graph.node("ReorderOutput", [tensor.value], domain=DOMAIN, channels=shape[2])


def emit(graph: GraphBuilder, tensor: Tensor, operators: tuple[Operator, ...], shape: Shape, block: int) -> Tensor:
    """Apply `operators` in order to a tensor of `shape` in the IR, in blocks where possible and `block` is not 1."""
    for operator in operators:
        found = _emitted(graph, tensor, operator, shape, block) if block > 1 else None
        if found is None:
            value = arranged(graph, tensor, shape, blocked=False)
            found = Tensor(emit_operators(graph, value, (operator,), shape), False)
        tensor, shape = found, operator.output_shape(shape)
    return tensor


def emit_pooled(graph: GraphBuilder, tensor: Tensor, pool: MaxPool2D) -> Tensor:
    """The largest number of each window."""
    if not tensor.blocked:
        return Tensor(emit_max_pool(graph, tensor.value, pool), False)
    return Tensor(emit_windows(graph, "MaxPool", tensor.value, pool, DOMAIN), True)


def in_blocks(x: np.ndarray, block: int) -> np.ndarray:
    """(…, H, W, C) in the order of blocks, as onnxruntime calls it: (…, C, H, W)."""
    *others, height, width, channels = x.shape
    blocks = np.moveaxis(x.reshape(*others, height, width, channels // block, block), -2, -4)
    return np.ascontiguousarray(blocks).reshape(*others, channels, height, width)


def out_of_blocks(x: np.ndarray, block: int) -> np.ndarray:
    """The inverse of `in_blocks`."""
    *others, channels, height, width = x.shape
    blocks = np.moveaxis(x.reshape(*others, channels // block, height, width, block), -4, -2)
    return np.ascontiguousarray(blocks).reshape(*others, height, width, channels)


def _emitted(graph: GraphBuilder, tensor: Tensor, operator: Operator, shape: Shape, block: int) -> Tensor | None:
    """An operator applied in blocks; None where it cannot be."""
    match operator:
        case Conv2D(weight, strides, padding, dilation, 1) if not weight.shape[3] % block and (
            tensor.blocked or shape[2] < block
        ):
            height, width, depth, filters = weight.shape
            inner = block if tensor.blocked else 1
            kernel = weight.reshape(height, width, depth // inner, inner, filters // block, block)
            kernel = kernel.transpose(4, 2, 0, 1, 3, 5).reshape(filters, depth, height, width)
            attributes: dict[str, Any] = {"kernel_shape": (height, width), "strides": strides, "pads": pads(padding)}
            attributes |= {"dilations": dilation, "group": 1}
            inputs = [tensor.value, graph.array(kernel)]
            return Tensor(graph.node("Conv", inputs, domain=DOMAIN, **attributes), True)
        case AveragePool2D() if tensor.blocked:
            return Tensor(emit_windows(graph, "AveragePool", tensor.value, operator, DOMAIN), True)
        case Scale(factor) if tensor.blocked:
            factors = in_blocks(np.broadcast_to(factor, shape), block)
            return Tensor(graph.node("Mul", [tensor.value, graph.array(factors)]), True)
        case Dense(weight) if tensor.blocked:
            positions = in_blocks(np.arange(len(weight)).reshape(shape), block).reshape(-1)
            flat = graph.node("Flatten", [tensor.value])
            return Tensor(graph.node("MatMul", [flat, graph.array(weight[positions])]), False)
    return None
