"""Operators of PyTorch that its exporter has no ONNX form of, or a roundabout one, in operators of ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from .adaptive import places, shares


def translations() -> dict[Any, Callable[..., Any]]:
    """By PyTorch operator what gives its ONNX form, as the exporter takes it."""
    aten = torch.ops.aten
    return {
        aten.adaptive_avg_pool1d.default: _average,
        aten._adaptive_avg_pool2d.default: _average,
        aten.adaptive_avg_pool2d.default: _average,
        aten.adaptive_max_pool1d.default: _largest,
        aten.adaptive_max_pool2d.default: _largest,
    }


def _average(x: Any, sizes: Sequence[int]) -> Any:
    """Where windows differ in size, each axis of space times a matrix of shares."""
    from onnxscript import opset18 as op

    given = x.shape[2:]
    if not any(old % new for old, new in zip(given, sizes, strict=True)):
        kernel = [old // new for old, new in zip(given, sizes, strict=True)]
        return op.AveragePool(x, kernel_shape=kernel, strides=kernel)
    rank = len(x.shape)
    for axis, (old, new) in enumerate(zip(given, sizes, strict=True), 2):
        order = [*range(axis), *range(axis + 1, rank), axis]
        back = [order.index(place) for place in range(rank)]
        product = op.MatMul(op.Transpose(x, perm=order), op.Constant(value=_tensor(shares(old, new))))
        x = op.Transpose(product, perm=back)
    return x


def _largest(x: Any, sizes: Sequence[int]) -> tuple[Any, Any]:
    """All windows are made as long as the longest, one behind the other."""
    from onnxscript import opset18 as op

    kernel = []
    for axis, (old, new) in enumerate(zip(x.shape[2:], sizes, strict=True), 2):
        windows = places(old, new)
        kernel.append(windows.shape[1])
        if old % new:
            indices: Any = op.Constant(value=_tensor(windows.reshape(-1)))
            x = op.Gather(x, indices, axis=axis)
    pooled, where = op.MaxPool(x, kernel_shape=kernel, strides=kernel)
    return pooled, where


def _tensor(array: np.ndarray) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(array)
