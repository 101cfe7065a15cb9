"""What each ONNX operator does to values: one small function per operator, and the table that finds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from ..ir import (
    NO_PADDING,
    AnalogNeuron,
    AveragePool2D,
    Clip,
    Conv2D,
    Dense,
    MaxPool2D,
    Pad,
    Padding,
    Pair,
    Relu,
    Softmax,
)
from .affine import CHANNELS_FIRST, Value, concatenated
from .support import Unsupported, operator_refusal


@dataclass(frozen=True)
class Activation:
    """A nonlinearity on `summed`: becomes a population. `dims` are those of the ONNX tensor where they differ."""

    neuron: AnalogNeuron
    summed: Value
    dims: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Capped:
    """`min(value, cap)`, which is half of a clip: only `max(…, 0)` can follow."""

    value: Value
    cap: float


Argument = Value | Capped | np.ndarray | None
Result = Value | Capped | Activation


@dataclass(frozen=True)
class Call:
    """An ONNX node with its inputs: values, constants, or None where an optional one is left out."""

    node: onnx.NodeProto
    inputs: tuple[Argument, ...]
    opset: int
    layers: tuple[str, ...]

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The node's attributes, decoded."""
        return {a.name: onnx.helper.get_attribute_value(a) for a in self.node.attribute}

    def text(self, name: str, default: str) -> str:
        """An attribute that is a string."""
        return self.attributes.get(name, default.encode()).decode()

    def numbers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """An attribute that is a list of integers."""
        return tuple(self.attributes.get(name, default))

    def value(self, index: int = 0) -> Value:
        """An input that depends on the network's input."""
        argument = self.inputs[index]
        if not isinstance(argument, Value):
            raise Unsupported(f"{self.node.op_type} with a constant as operand {index + 1} is not supported")
        return argument

    def constant(self, index: int) -> np.ndarray | None:
        """An input that does not depend on the network's input; None where it is left out."""
        argument = self.inputs[index] if index < len(self.inputs) else None
        if argument is not None and not isinstance(argument, np.ndarray):
            raise Unsupported(f"{self.node.op_type} takes its operand {index + 1} from the network's activations")
        return argument

    def weight(self, index: int) -> np.ndarray:
        """A constant input that is required."""
        constant = self.constant(index)
        if constant is None:
            raise Unsupported(f"{self.node.op_type} lacks its operand {index + 1}")
        return constant

    def option(self, index: int, name: str) -> np.ndarray | None:
        """A parameter that is an input in newer opsets and an attribute in older ones."""
        constant = self.constant(index)
        return np.asarray(self.attributes[name]) if constant is None and name in self.attributes else constant

    def axes(self, index: int, rank: int) -> tuple[int, ...] | None:
        """The parameter `axes`, counted from the front; None where it is left out."""
        axes = self.option(index, "axes")
        return None if axes is None else tuple(int(axis) % rank for axis in axes.reshape(-1))


def apply(call: Call) -> Result:
    """What a node gives; raises Unsupported, or a ShapeError where operators do not fit together."""
    handler = _HANDLERS.get(call.node.op_type)
    if handler is None or call.node.domain not in ("", "ai.onnx"):
        raise Unsupported(operator_refusal(call.node.op_type))
    if any(isinstance(argument, Capped) for argument in call.inputs) and handler is not _max:
        raise Unsupported("it caps activations without a floor of zero; use ReLU(max_value=...)")
    return handler(call)


# Elementwise arithmetic.


def _add(call: Call) -> Value:
    values = [call.value(i) for i, argument in enumerate(call.inputs) if isinstance(argument, Value)]
    total = values[0]
    for value in values[1:]:
        total = total.plus(value, call.layers)
    for index, argument in enumerate(call.inputs):
        if not isinstance(argument, Value):
            total = total.shifted(call.weight(index), call.layers)
    return total


def _subtract(call: Call) -> Value:
    first, second = call.inputs
    if isinstance(second, Value):
        return _add(replace(call, inputs=(first, second.scaled(np.array(-1.0), call.layers))))
    return call.value().shifted(np.negative(call.weight(1)), call.layers)


def _negate(call: Call) -> Value:
    return call.value().scaled(np.array(-1.0), call.layers)


def _mean(call: Call) -> Value:
    return _add(call).scaled(np.array(1 / len(call.inputs)), call.layers)


def _multiply(call: Call) -> Value:
    first, second = call.inputs
    if isinstance(first, Value) and isinstance(second, Value):
        raise Unsupported("it multiplies activations with each other, which spikes cannot; add them instead")
    if isinstance(first, Value):
        return first.scaled(call.weight(1), call.layers)
    return call.value(1).scaled(call.weight(0), call.layers)


def _divide(call: Call) -> Value:
    return call.value().scaled(1 / call.weight(1).astype(np.float64), call.layers)


def _batch_normalization(call: Call) -> Value:
    x = call.value()
    scale, offset, mean, variance = (call.weight(i).astype(np.float64) for i in (1, 2, 3, 4))
    factor = scale / np.sqrt(variance + call.attributes.get("epsilon", 1e-5))
    along = (-1, *(1,) * (len(x.layout) - 2))  # the ONNX channel axis is the second
    scaled = x.scaled(factor.reshape(along), call.layers)
    return scaled.shifted((offset - mean * factor).reshape(along), call.layers)


# Matrices and windows.


def _matmul(call: Call) -> Value:
    return _times(call.value(), call.weight(1), call.layers)


def _times(x: Value, weight: np.ndarray, layers: tuple[str, ...]) -> Value:
    if weight.ndim != 2 or len(x.dims) < 2:
        raise Unsupported(f"it multiplies a tensor of shape {x.dims} by a constant of shape {weight.shape}")
    if x.is_vector:
        return x.flat().then(Dense(weight), layers=layers)
    if x.is_image and x.dims[-1] == x.shape[2] and 2 in x.layout[-1]:  # a matrix for each pixel
        return x.then(Conv2D(weight[None, None]), layers=layers)
    raise Unsupported(f"it multiplies the last axis of a tensor of shape {x.dims}, which is no channel axis")


def _gemm(call: Call) -> Value:
    if call.attributes.get("transA", 0):
        raise Unsupported("it multiplies a transposed activation")
    weight = call.weight(1).T if call.attributes.get("transB", 0) else call.weight(1)
    product = _times(call.value(), weight, call.layers)
    alpha, beta = (np.array(call.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    if alpha != 1:
        product = product.scaled(alpha, call.layers)
    match call.inputs[2:]:
        case (Value() as other,):
            return product.plus(other.scaled(beta, call.layers), call.layers)
        case (np.ndarray() as offset,):
            return product.shifted(offset * beta, call.layers)
    return product


def _conv(call: Call) -> Value:
    weight = call.weight(1)
    if weight.ndim != 4:
        raise Unsupported(f"only two-dimensional convolutions are supported, not a kernel of shape {weight.shape}")
    x = call.value().image(CHANNELS_FIRST, "a convolution")
    kernel, strides, dilation = _pair(weight.shape[2:]), _strides(call), _pair(call.numbers("dilations", (1, 1)))
    operator = Conv2D(
        weight.transpose(2, 3, 1, 0),
        strides,
        _padding(call, x, kernel, strides, dilation),
        dilation,
        call.attributes.get("group", 1),
    )
    y = x.then(operator, layers=call.layers)
    bias = call.constant(2)
    return y if bias is None else y.shifted(bias[:, None, None], call.layers)


def _average_pool(call: Call) -> Value:
    x, kernel, strides, padding = _pool(call)
    if not call.attributes.get("count_include_pad", 0):
        return x.then(AveragePool2D(kernel, strides, padding), layers=call.layers)
    return x.then(Pad((*padding, (0, 0))), AveragePool2D(kernel, strides), layers=call.layers)


def _max_pool(call: Call) -> Activation:
    x, kernel, strides, padding = _pool(call)
    return Activation(MaxPool2D(x.shape, kernel, strides, padding), x)


def _pool(call: Call) -> tuple[Value, Pair, Pair, Padding]:
    name = call.node.op_type
    kernel = call.numbers("kernel_shape", ())
    if len(kernel) != 2 or any(d != 1 for d in call.numbers("dilations", (1,))):
        raise Unsupported(f"{name}: only two-dimensional windows without dilation are supported, not {kernel}")
    x, strides = call.value().image(CHANNELS_FIRST, name), _strides(call)
    padding = _padding(call, x, _pair(kernel), strides, (1, 1))
    over = [(n + sum(p) - k) % s for n, p, k, s in zip(x.shape, padding, kernel, strides, strict=False)]
    if call.attributes.get("ceil_mode", 0) and any(over):
        raise Unsupported(f"{name}: ceil_mode adds incomplete windows; pad the image instead")
    return x, _pair(kernel), strides, padding


def _global_average_pool(call: Call) -> Value:
    x = call.value().image(CHANNELS_FIRST, call.node.op_type)
    size = _pair(x.shape[:2])
    return x.then(AveragePool2D(size, size), layers=call.layers)


def _global_max_pool(call: Call) -> Activation:
    x = call.value().image(CHANNELS_FIRST, call.node.op_type)
    size = _pair(x.shape[:2])
    return Activation(MaxPool2D(x.shape, size, size), x)


def _reduce_mean(call: Call) -> Value:
    x, size, dims = _reduction(call)
    return x.then(AveragePool2D(size, size), layers=call.layers).viewed(dims, ())


def _reduction(call: Call) -> tuple[Value, Pair, tuple[int, ...]]:
    """The image that is reduced, the window that this comes to, and the ONNX dimensions of the result."""
    x = call.value()
    axes = call.axes(1, len(x.layout))
    reduced = {axis for a in axes or () for axis in x.layout[a]}
    if not x.is_image or not axes or any(x.shape[axis] != 1 for axis in reduced - {0, 1}):
        raise Unsupported(f"{call.node.op_type} is supported over the height and width of images only")
    height, width = (x.shape[axis] if axis in reduced else 1 for axis in (0, 1))
    kept = call.attributes.get("keepdims", 1)
    dims = [1 if position in axes else dim for position, dim in enumerate(x.dims) if kept or position not in axes]
    return x, (height, width), tuple(dims)


def _pad(call: Call) -> Value:
    x = call.value()
    if call.text("mode", "constant") != "constant":
        raise Unsupported(f"only padding with a constant is supported, not mode {call.text('mode', '')!r}")
    axes = call.axes(3, len(x.layout)) or tuple(range(len(x.layout)))
    amounts = np.asarray(call.option(1, "pads")).reshape(2, len(axes))
    fill = call.option(2, "value")
    if amounts.min() < 0:
        raise Unsupported("cropping is not supported")
    x = x.settled()
    around = [(0, 0)] * len(x.shape)
    for position, (before, after) in zip(axes, amounts.T.tolist(), strict=True):
        if before or after:
            around[x.axis(position)] = (before, after)
    padded = x.then(Pad(tuple(around)), layers=call.layers)
    number = float(np.asarray(0 if fill is None else fill).reshape(-1)[0])
    if not number:
        return padded
    border = np.pad(np.zeros(x.shape), around, constant_values=number)
    return replace(padded, bias=border if padded.bias is None else padded.bias + border)


def _concat(call: Call) -> Value:
    values = [call.value(index) for index in range(len(call.inputs))]
    return concatenated(values, call.attributes["axis"], call.layers)


# Views: nothing moves.


def _same(call: Call) -> Value:
    return call.value()


def _cast(call: Call) -> Value:
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    if call.attributes["to"] not in floats:
        raise Unsupported("it turns activations into integers")
    return call.value()


def _transpose(call: Call) -> Value:
    x = call.value()
    return x.transposed(call.numbers("perm", tuple(reversed(range(len(x.layout))))))


def _reshape(call: Call) -> Value:
    x = call.value()
    wanted = [int(dim) for dim in np.asarray(call.option(1, "shape")).reshape(-1)]
    if not call.attributes.get("allowzero", 0):
        wanted = [dim or x.dims[position] for position, dim in enumerate(wanted)]
    if wanted.count(-1) == 1:
        known = int(np.prod([dim for dim in wanted if dim != -1]))
        wanted[wanted.index(-1)] = int(np.prod(x.dims)) // max(known, 1)
    return x.viewed(tuple(wanted), call.layers)


def _flatten(call: Call) -> Value:
    x = call.value()
    axis = call.attributes.get("axis", 1)
    axis += len(x.dims) if axis < 0 else 0
    return x.viewed((int(np.prod(x.dims[:axis])), int(np.prod(x.dims[axis:]))), call.layers)


def _squeeze(call: Call) -> Value:
    x = call.value()
    axes = call.axes(1, len(x.dims)) or tuple(axis for axis, dim in enumerate(x.dims) if dim == 1)
    return x.viewed(tuple(dim for axis, dim in enumerate(x.dims) if axis not in axes), ())


def _unsqueeze(call: Call) -> Value:
    x = call.value()
    added = np.asarray(call.option(1, "axes")).reshape(-1)
    rank = len(x.dims) + len(added)
    axes = {int(axis) % rank for axis in added}
    rest = iter(x.dims)
    return x.viewed(tuple(1 if axis in axes else next(rest) for axis in range(rank)), ())


# Nonlinearities.


def _relu(call: Call) -> Value | Activation:
    return _rectified(call.value(), call)


def _rectified(x: Value, call: Call) -> Value | Activation:
    if x.source and isinstance(x.source.neuron, (Relu, Clip)):
        return x  # not negative anyway
    return Activation(Relu(), x)


def _clip(call: Call) -> Value | Activation:
    low, high = call.option(1, "min"), call.option(2, "max")
    if low is None or low.size != 1 or low != 0:
        raise Unsupported("clipping is supported with a minimum of 0 only")
    if high is None or high >= np.finfo(np.float32).max:
        return _rectified(call.value(), call)
    return _clipped(call.value(), float(high), call)


def _clipped(x: Value, cap: float, call: Call) -> Activation:
    """`min(max(x, 0), cap)`. Where x is a rectified population already, the clip takes its place."""
    if cap <= 0:
        raise Unsupported(f"it caps activations at {cap:g}")
    inner = x.source
    summed = inner.summed if inner else None
    if inner and summed and isinstance(inner.neuron, (Relu, Clip)):
        cap = min(cap, getattr(inner.neuron, "max", cap))
        history = replace(summed, layers=(*summed.layers, inner.layer.path), layout=x.layout)
        return Activation(Clip(cap), history)
    return Activation(Clip(cap), x)


def _max(call: Call) -> Value | Activation:
    x, bound = _with_bound(call)
    if bound != 0:
        raise Unsupported(f"max(x, {bound:g}) is not an activation that is supported; use ReLU")
    return _clipped(x.value, x.cap, call) if isinstance(x, Capped) else _rectified(x, call)


def _min(call: Call) -> Capped | Activation:
    x, cap = _with_bound(call)
    assert isinstance(x, Value)
    if x.source and isinstance(x.source.neuron, (Relu, Clip)):
        return _clipped(x, cap, call)
    return Capped(x, cap)


def _with_bound(call: Call) -> tuple[Value | Capped, float]:
    match call.inputs:
        case (Value() | Capped() as x, np.ndarray() as bound) | (np.ndarray() as bound, Value() | Capped() as x):
            if bound.size and (bound == bound.flat[0]).all():
                return x, float(bound.flat[0])
    raise Unsupported(f"{call.node.op_type} is supported with one number only, as part of a ReLU")


def _reduce_max(call: Call) -> Activation:
    x, size, dims = _reduction(call)
    return Activation(MaxPool2D(x.shape, size, size), x, dims)


def _softmax(call: Call) -> Activation:
    x = call.value()
    axis = call.attributes.get("axis", -1 if call.opset >= 13 else 1) % len(x.dims)
    x = x.settled()
    if x.axis(axis) != len(x.shape) - 1 or (call.opset < 13 and len(x.dims) != 2):
        raise Unsupported("softmax is supported over the last axis only, the channels")
    return Activation(Softmax(), x)


# Geometry.


def _pair(numbers: tuple[int, ...]) -> Pair:
    first, second = numbers
    return first, second


def _strides(call: Call) -> Pair:
    return _pair(call.numbers("strides", (1, 1)))


def _padding(call: Call, x: Value, kernel: Pair, strides: Pair, dilation: Pair) -> Padding:
    """Explicit padding around the image, from `pads` or `auto_pad`."""
    automatic = call.text("auto_pad", "NOTSET")
    if automatic == "NOTSET":
        top, left, bottom, right = call.numbers("pads", (0, 0, 0, 0))
        return (top, bottom), (left, right)
    if automatic == "VALID":
        return NO_PADDING
    spare = [
        max((-(-size // stride) - 1) * stride + d * (k - 1) + 1 - size, 0)
        for size, k, stride, d in zip(x.shape, kernel, strides, dilation, strict=False)
    ]
    less, more = [total // 2 for total in spare], [total - total // 2 for total in spare]
    before, after = (less, more) if automatic == "SAME_UPPER" else (more, less)
    return (before[0], after[0]), (before[1], after[1])


_HANDLERS: dict[str, Callable[[Call], Result]] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _divide,
    "Dropout": _same,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "Identity": _same,
    "MatMul": _matmul,
    "Max": _max,
    "MaxPool": _max_pool,
    "Mean": _mean,
    "Min": _min,
    "Mul": _multiply,
    "Neg": _negate,
    "Pad": _pad,
    "ReduceMax": _reduce_max,
    "ReduceMean": _reduce_mean,
    "Relu": _relu,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _subtract,
    "Sum": _add,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
