"""Operators that bend what they are given: bounds, leaky rectifiers, softmax."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np

from ..ir import Clip, LeakyRelu, LogSoftmax, Relu, Softmax
from . import normalisation, rounding
from .affine import Value, per_channel
from .bounds import below, clamped, lowest, number, raised
from .call import Activation, Call, Ranking, Result
from .support import JUMP, AcrossImages, Unsupported


def relu(call: Call) -> Result:
    return clamp(call.value(), call, low=0)


def clip(call: Call) -> Result:
    low, high = (
        default if bound is None else number(bound)
        for bound, default in ((call.option(1, "min"), -np.inf), (call.option(2, "max"), np.inf))
    )
    return clamp(call.value(), call, low, high)


def maximum(call: Call) -> Result:
    match call.inputs:
        case (Value() as x,):
            return x
        case (Value() as x, Value() as y):  # x + relu(y − x)
            return Activation(Relu(), y.minus(x, call.layers), lambda over: x.plus(over, call.layers))
        case (Value() as x, Value() as y, *others):
            over = call.population(Relu(), y.minus(x, call.layers), "first")
            return maximum(replace(call, inputs=(x.plus(over, call.layers), *others)))
    x, low = _with_bound(call)
    return clamp(x, call, low=low)


def minimum(call: Call) -> Result:
    match call.inputs:
        case (Value() as x,):
            return x
        case (Value() as x, Value() as y):  # x − relu(x − y)
            return Activation(Relu(), x.minus(y, call.layers), lambda over: x.minus(over, call.layers))
        case (Value() as x, Value() as y, *others):
            over = call.population(Relu(), x.minus(y, call.layers), "first")
            return minimum(replace(call, inputs=(x.minus(over, call.layers), *others)))
    x, high = _with_bound(call)
    return clamp(x, call, high=high)


def hard_sigmoid(call: Call) -> Result:
    alpha, beta = (np.array(call.attributes.get(name, default)) for name, default in (("alpha", 0.2), ("beta", 0.5)))
    return clamp(call.value().scaled(alpha, call.layers).shifted(beta, call.layers), call, 0, 1)


def _with_bound(call: Call) -> tuple[Value, float]:
    match call.inputs:
        case (Value() as x, np.ndarray() as bound) | (np.ndarray() as bound, Value() as x):
            return x, number(bound)
    raise Unsupported(f"{call.node.op_type} is supported of activations and one number, or of two activations")


def clamp(x: Value, call: Call, low: float = -np.inf, high: float = np.inf) -> Result:
    """`min(max(x, low), high)`. Where x is clamped or rounded already, one population does both."""
    low = min(low, high)  # as ONNX has it
    stepped = rounding.clamp(x, low, high, call.layers)
    if stepped is not None:
        return stepped
    before = clamped(x, turned_only=True)
    low, high = (min(max(bound, low), high) for bound in (before.low, before.high))
    if (low, high) == (before.low, before.high):
        return x
    if low == high:
        return np.full(x.dims, low, np.float32)
    inner, layers = before.inner, call.layers
    low = max(low, min(lowest(inner), high))  # the difference from a large bound would round a small number away
    if np.isinf(low):  # high − relu(high − inner)
        return Activation(Relu(), below(high, inner, layers), lambda output: below(high, output, layers))
    neuron = Relu() if np.isinf(high) else Clip(high - low)
    if before.turned is not None and np.isfinite(high):  # the neuron rectifies what the rectifier before it did
        turned = raised(before.turned, high - before.offset, layers)
        return Activation(neuron, turned, lambda output: below(high, output, layers))
    return Activation(neuron, raised(inner, -low, layers), lambda output: raised(output, low, layers))


def absolute(call: Call) -> Result:
    """`|x| = 2 · relu(x) − x`."""
    x = call.value()
    if clamped(x, turned_only=True).low >= 0:
        return x
    return Activation(Relu(), x, lambda output: output.scaled(np.array(2.0), call.layers).minus(x, call.layers))


def thresholded_relu(call: Call) -> Result:
    if call.attributes.get("alpha", 1.0) != 0:
        raise Unsupported(JUMP)
    return clamp(call.value(), call, low=0)


def leaky_relu(call: Call) -> Result:
    return leaky(call.value(), np.array(call.attributes.get("alpha", 0.01)), call)


def prelu(call: Call) -> Result:
    return leaky(call.value(), call.weight(1), call)


def leaky(x: Value, slope: np.ndarray, call: Call) -> Result:
    """`max(x, 0) + slope · min(x, 0)`."""
    x = x.settled()
    if clamped(x, turned_only=True).low >= 0:
        return x
    slopes = per_channel(x.arranged(slope))
    if not slopes.any():
        return clamp(x, call, low=0)
    return Activation(LeakyRelu(float(slopes.flat[0]) if (slopes == slopes.flat[0]).all() else slopes), x)


def softmax(call: Call) -> Result:
    """At the outputs a neuron of its own, which no spikes have to compute; within the model it is taken apart."""
    x, axis = _scores(call)
    if call.is_last and _is_last_of(x, axis):
        return Activation(Softmax(), x)
    return normalisation.softmax(call.resting(0), axis, call)


def log_softmax(call: Call) -> Result:
    """At the outputs a neuron of its own, as for softmax."""
    x, axis = _scores(call)
    if call.is_last and _is_last_of(x, axis):
        return Activation(LogSoftmax(), x)
    return normalisation.log_softmax(call.resting(0), axis, call)


def _is_last_of(x: Value, axis: int) -> bool:
    """Whether an ONNX axis is the last of the shape."""
    with suppress(Unsupported):  # which is several axes of the shape
        return x.axis(axis) == len(x.shape) - 1
    return False


def _scores(call: Call) -> tuple[Value, int]:
    x = call.value()
    axis = call.attributes.get("axis", -1 if call.opset >= 13 else 1) % len(x.dims)
    if not x.within((axis,)) and x.layout[0]:  # the batch is moved, and may be there
        raise AcrossImages(f"it works along axis {axis} of {x.dims}, across the images of a batch")
    if call.opset < 13 and len(x.dims) != axis + 1:  # which is over all axes from there on
        large = [place for place in range(axis, len(x.dims)) if x.dims[place] > 1]
        if len(large) > 1:
            raise Unsupported(
                "softmax over several axes, as before opset 13, is not supported; convert the model to it"
            )
        axis = large[0] if large else axis
    return x.settled(), axis


def arg_max(call: Call) -> Ranking:
    return _ranking(call.value(), call)


def arg_min(call: Call) -> Ranking:
    """The scores with their signs turned."""
    return _ranking(call.value().scaled(np.array(-1.0), call.layers), call)


def _ranking(x: Value, call: Call) -> Ranking:
    if x.settled().axis(call.attributes.get("axis", 0) % len(x.dims)) != len(x.settled().shape) - 1:
        raise Unsupported(f"{call.node.op_type} is supported over the last axis only, the channels")
    return Ranking(x)
