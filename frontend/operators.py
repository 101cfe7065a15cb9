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
    LeakyRelu,
    MaxPool2D,
    Pad,
    Padding,
    Pair,
    Relu,
    Scale,
    Softmax,
)
from .affine import CHANNELS_FIRST, Value, concatenated, merge, per_channel
from .support import Unsupported, operator_refusal


def _unchanged(output: Value) -> Value:
    return output


@dataclass(frozen=True)
class Activation:
    """A nonlinearity on `summed`: becomes a population, and `finish` of its output is what the ONNX node gives."""

    neuron: AnalogNeuron
    summed: Value
    finish: Callable[[Value], Value] = _unchanged


Argument = Value | np.ndarray | None
Result = Value | np.ndarray | Activation


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


@dataclass(frozen=True)
class _Clamped:
    """`min(max(inner, low), high)`, either of which may be infinite."""

    inner: Value
    low: float = -np.inf
    high: float = np.inf


def _relu(call: Call) -> Result:
    return _clamp(call.value(), call, low=0)


def _clip(call: Call) -> Result:
    low, high = (
        default if bound is None else _number(bound)
        for bound, default in ((call.option(1, "min"), -np.inf), (call.option(2, "max"), np.inf))
    )
    return _clamp(call.value(), call, low, high)


def _max(call: Call) -> Result:
    x, low = _with_bound(call)
    return _clamp(x, call, low=low)


def _min(call: Call) -> Result:
    x, high = _with_bound(call)
    return _clamp(x, call, high=high)


def _hard_sigmoid(call: Call) -> Result:
    alpha, beta = (np.array(call.attributes.get(name, default)) for name, default in (("alpha", 0.2), ("beta", 0.5)))
    return _clamp(call.value().scaled(alpha, call.layers).shifted(beta, call.layers), call, 0, 1)


def _with_bound(call: Call) -> tuple[Value, float]:
    match call.inputs:
        case (Value() as x, np.ndarray() as bound) | (np.ndarray() as bound, Value() as x):
            return x, _number(bound)
    raise Unsupported(f"{call.node.op_type} is supported between activations and one number only")


def _number(bound: np.ndarray) -> float:
    """A bound, infinite if it is no bound in single precision."""
    if not bound.size or (bound != bound.flat[0]).any():
        raise Unsupported("activations can be clipped at one number only, the same for all of them")
    number = float(bound.flat[0])
    return number if abs(number) < np.finfo(np.float32).max else np.copysign(np.inf, number)


def _clamp(x: Value, call: Call, low: float = -np.inf, high: float = np.inf) -> Result:
    """`min(max(x, low), high)`. Where x is clamped already, one population does both."""
    before = _clamped(x)
    low = min(low, high)  # as ONNX has it
    low, high = (min(max(bound, low), high) for bound in (before.low, before.high))
    if (low, high) == (before.low, before.high):
        return x
    if low == high:
        return np.full(x.dims, low, np.float32)
    inner, layers = before.inner, call.layers
    if np.isinf(low):  # high − relu(high − inner)
        return Activation(Relu(), _below(high, inner, layers), lambda output: _below(high, output, layers))
    neuron = Relu() if np.isinf(high) else Clip(high - low)
    return Activation(neuron, _raised(inner, -low, layers), lambda output: _raised(output, low, layers))


def _clamped(x: Value) -> _Clamped:
    """What a value clamps, as far as its terms tell: ±a rectifier plus a number. Else itself, between no bounds."""
    offset = 0.0 if x.bias is None else float(x.bias.flat[0])
    if len(x.terms) != 1 or (x.bias is not None and (x.bias != offset).any()):
        return _Clamped(x)
    source, operators = x.terms[0].source, x.terms[0].operators
    if source.summed is None or not isinstance(source.neuron, (Relu, Clip)):
        return _Clamped(x)
    layers = merge(source.summed.layers, (source.layer.path, *x.layers))
    inner = replace(source.summed, layers=layers, layout=x.layout)
    largest = source.neuron.max if isinstance(source.neuron, Clip) else np.inf
    match operators:
        case ():
            return _Clamped(_raised(inner, offset, ()), offset, offset + largest)
        case (Scale(factor),) if (factor == -1).all():
            return _Clamped(_below(offset, inner, ()), offset - largest, offset)
    return _Clamped(x)


def _raised(x: Value, by: float, layers: tuple[str, ...]) -> Value:
    return x.shifted(np.array(by), layers) if by else x


def _below(bound: float, x: Value, layers: tuple[str, ...]) -> Value:
    """`bound − x`."""
    return _raised(x.scaled(np.array(-1.0), layers), bound, layers)


def _leaky_relu(call: Call) -> Result:
    return _leaky(call.value(), np.array(call.attributes.get("alpha", 0.01)), call)


def _prelu(call: Call) -> Result:
    return _leaky(call.value(), call.weight(1), call)


def _leaky(x: Value, slope: np.ndarray, call: Call) -> Result:
    x = x.settled()
    if _clamped(x).low >= 0:
        return x
    slopes = per_channel(x.arranged(slope))
    if not slopes.any():
        return _clamp(x, call, low=0)
    return Activation(LeakyRelu(float(slopes.flat[0]) if (slopes == slopes.flat[0]).all() else slopes), x)


def _reduce_max(call: Call) -> Activation:
    x, size, dims = _reduction(call)
    return Activation(MaxPool2D(x.shape, size, size), x, lambda output: output.viewed(dims, ()))


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
    "HardSigmoid": _hard_sigmoid,
    "Identity": _same,
    "LeakyRelu": _leaky_relu,
    "MatMul": _matmul,
    "Max": _max,
    "MaxPool": _max_pool,
    "Mean": _mean,
    "Min": _min,
    "Mul": _multiply,
    "Neg": _negate,
    "PRelu": _prelu,
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
