"""Operators that bend what they are given: bounds, leaky rectifiers, softmax, quantisation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..ir import Clip, LeakyRelu, LogSoftmax, Relu, Scale, Softmax
from .affine import Term, Value, merge, per_channel
from .call import Activation, Call, Quantized, Ranking, Result
from .support import Unsupported


@dataclass(frozen=True)
class _Clamped:
    """`min(max(inner, low), high)`, either of which may be infinite.

    `inner` is `offset − turned` where the model has turned a rectifier round.
    """

    inner: Value
    low: float = -np.inf
    high: float = np.inf
    turned: Value | None = None
    offset: float = 0.0


def relu(call: Call) -> Result:
    return _clamp(call.value(), call, low=0)


def clip(call: Call) -> Result:
    low, high = (
        default if bound is None else _number(bound)
        for bound, default in ((call.option(1, "min"), -np.inf), (call.option(2, "max"), np.inf))
    )
    return _clamp(call.value(), call, low, high)


def maximum(call: Call) -> Result:
    match call.inputs:
        case (Value() as x,):
            return x
        case (Value() as x, Value() as y):  # x + relu(y − x)
            return Activation(Relu(), _minus(y, x, call), lambda over: x.plus(over, call.layers))
    x, low = _with_bound(call)
    return _clamp(x, call, low=low)


def minimum(call: Call) -> Result:
    match call.inputs:
        case (Value() as x,):
            return x
        case (Value() as x, Value() as y):  # x − relu(x − y)
            return Activation(Relu(), _minus(x, y, call), lambda over: _minus(x, over, call))
    x, high = _with_bound(call)
    return _clamp(x, call, high=high)


def hard_sigmoid(call: Call) -> Result:
    alpha, beta = (np.array(call.attributes.get(name, default)) for name, default in (("alpha", 0.2), ("beta", 0.5)))
    return _clamp(call.value().scaled(alpha, call.layers).shifted(beta, call.layers), call, 0, 1)


def _with_bound(call: Call) -> tuple[Value, float]:
    match call.inputs:
        case (Value() as x, np.ndarray() as bound) | (np.ndarray() as bound, Value() as x):
            return x, _number(bound)
    raise Unsupported(f"{call.node.op_type} is supported of activations and one number, or of two activations")


def _minus(x: Value, y: Value, call: Call) -> Value:
    return x.plus(y.scaled(np.array(-1.0), call.layers), call.layers)


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
    if before.turned is not None and np.isfinite(high):  # the neuron rectifies what the rectifier before it did
        turned = _raised(before.turned, high - before.offset, layers)
        return Activation(neuron, turned, lambda output: _below(high, output, layers))
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
            turned = None if all(map(_is_turned, inner.terms)) else inner
            return _Clamped(_below(offset, inner, ()), offset - largest, offset, turned, offset)
    return _Clamped(x)


def _is_turned(term: Term) -> bool:
    """Whether a term has its sign from `_below`, which is how a value is bounded from above alone."""
    match term.operators:
        case (*_, Scale(factor)):
            return bool((factor == -1).all())
    return False


def _raised(x: Value, by: float, layers: tuple[str, ...]) -> Value:
    return x.shifted(np.array(by), layers) if by else x


def _below(bound: float, x: Value, layers: tuple[str, ...]) -> Value:
    """`bound − x`."""
    return _raised(x.scaled(np.array(-1.0), layers), bound, layers)


def leaky_relu(call: Call) -> Result:
    return _leaky(call.value(), np.array(call.attributes.get("alpha", 0.01)), call)


def prelu(call: Call) -> Result:
    return _leaky(call.value(), call.weight(1), call)


def _leaky(x: Value, slope: np.ndarray, call: Call) -> Result:
    x = x.settled()
    if _clamped(x).low >= 0:
        return x
    slopes = per_channel(x.arranged(slope))
    if not slopes.any():
        return _clamp(x, call, low=0)
    return Activation(LeakyRelu(float(slopes.flat[0]) if (slopes == slopes.flat[0]).all() else slopes), x)


def softmax(call: Call) -> Activation:
    x = call.value()
    axis = call.attributes.get("axis", -1 if call.opset >= 13 else 1) % len(x.dims)
    x = x.settled()
    if x.axis(axis) != len(x.shape) - 1 or (call.opset < 13 and len(x.dims) != 2):
        raise Unsupported("softmax is supported over the last axis only, the channels")
    return Activation(Softmax(), x)


def log_softmax(call: Call) -> Activation:
    return replace(softmax(call), neuron=LogSoftmax())


def arg_max(call: Call) -> Ranking:
    x = call.value()
    if x.settled().axis(call.attributes.get("axis", 0) % len(x.dims)) != len(x.settled().shape) - 1:
        raise Unsupported("ArgMax is supported over the last axis only, the channels")
    return Ranking(x)


# A QuantizeLinear with its DequantizeLinear bounds what passes through, and rounds it. The bounds are kept. Rounding is
# left to the spikes, as a spike count is a rounded activation already; the lowering says so to the user.


def quantize(call: Call) -> Result:
    scale, zero, kind = _grid(call)
    limits = np.iinfo(kind)
    low, high = ((bound - zero) * scale for bound in (limits.min, limits.max))
    clamped = _clamp(call.value(), call, low, high)
    match clamped:
        case Activation(finish=finish):
            return replace(clamped, finish=lambda output: Quantized(finish(output), scale, zero))
        case Value():
            return Quantized(clamped, scale, zero)
    return clamped


def dequantize(call: Call) -> Value:
    scale, zero, _ = _grid(call)
    quantized = call.inputs[0]
    if isinstance(quantized, Value):  # integers that the network is given
        return quantized.shifted(np.array(-float(zero)), call.layers).scaled(np.array(scale), call.layers)
    if not isinstance(quantized, Quantized) or (scale, zero) != (quantized.scale, quantized.zero):
        raise Unsupported("it does not undo a QuantizeLinear of the same scale and zero point")
    return quantized.value


def _grid(call: Call) -> tuple[float, int, np.dtype]:
    """The scale, the zero point and the type of the integers, which is that of the zero point."""
    scale, zero = call.weight(1), call.constant(2)
    zero = np.zeros(1, np.uint8) if zero is None else zero
    if zero.dtype.kind not in "iu" or (zero != zero.flat[0]).any() or "output_dtype" in call.attributes:
        raise Unsupported("activations can be quantised to 8 or 16 bit integers with one zero point only")
    return _number(scale), int(zero.flat[0]), zero.dtype
