"""Activations that are rounded to steps: floor, round and ceil with the bounds around them, and QuantizeLinear.

However it is written, `offset + factor · q · min(max(round(x / q), low), high)` becomes one population as soon as both
bounds are known. Until then it is a `Rounded` population in the making, which no network holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ..ir import AnalogNeuron, QuantizedRelu
from .affine import Value
from .bounds import affine, clamped, number, raised, stretched
from .call import Activation, Call, Quantized, Result
from .support import Unsupported

Ties = Literal["up", "even", "odd"]
Stepped = Value | np.ndarray | Activation

UNBOUNDED = (
    "it rounds activations that have no bounds; clip them between two numbers, as in clamp(round(x / s), 0, 15) * s"
)
_NEAR = 1e-4  # of a step: bounds in single precision


@dataclass(frozen=True, eq=False)
class Rounded(AnalogNeuron):
    """`y = q · min(max(round(x / q), low), high)`, where a bound may be infinite."""

    quantum: float
    ties: Ties
    low: float = -np.inf
    high: float = np.inf

    spiking: ClassVar[bool] = False


@dataclass(frozen=True)
class _Steps:
    """`offset + factor · y`, where y is what `Rounded` makes of `inner`."""

    inner: Value
    rounded: Rounded
    factor: float = 1.0
    offset: float = 0.0

    def between(self, low: float, high: float) -> _Steps:
        """The same between two bounds; raises Unsupported where they lie between two steps."""
        step = self.factor * self.rounded.quantum
        low, high = sorted(((low - self.offset) / step, (high - self.offset) / step))
        narrowed = replace(
            self.rounded, low=max(self.rounded.low, _whole(low)), high=min(self.rounded.high, _whole(high))
        )
        return replace(self, rounded=narrowed)

    def lies_on(self, quantum: float) -> bool:
        """Whether all that is said are multiples of a quantum."""
        shares = np.array([self.factor * self.rounded.quantum, self.offset]) / quantum
        return bool((np.abs(shares - np.rint(shares)) < _NEAR).all())

    def result(self, layers: tuple[str, ...]) -> Stepped:
        """The population, or the constant that it comes to."""
        rounded = self.rounded
        if rounded.low >= rounded.high:
            level = self.offset + self.factor * rounded.quantum * rounded.low
            return np.full(self.inner.dims, level, np.float32)
        if not np.isfinite([rounded.low, rounded.high]).all():
            return Activation(rounded, self.inner, lambda output: stretched(output, self.factor, self.offset, layers))
        levels, start = int(rounded.high - rounded.low), rounded.low * rounded.quantum
        ties: Ties = rounded.ties
        if rounded.low % 2 and ties != "up":
            ties = "odd" if ties == "even" else "even"
        offset = self.offset + self.factor * start
        return Activation(
            QuantizedRelu(levels * rounded.quantum, levels, ties),
            stretched(self.inner, 1.0, -start, layers),
            lambda output: stretched(output, self.factor, offset, layers),
        )


def floor(call: Call) -> Result:
    x = call.value()
    return _rounded(x, -0.5, "up", call.layers)


def ceil(call: Call) -> Result:
    """`−floor(−x)`."""
    minus = np.array(-1.0)
    below = _rounded(call.value().scaled(minus, call.layers), -0.5, "up", call.layers)
    if isinstance(below, np.ndarray):
        return np.negative(below)
    return _finished(below, lambda output: output.scaled(minus, call.layers))


def round_half_even(call: Call) -> Result:
    return _rounded(call.value(), 0.0, "even", call.layers)


def quantize(call: Call) -> Result:
    """QuantizeLinear gives integers that stand for what is rounded, which DequantizeLinear gives."""
    scale, zero, kind = _grid(call)
    limits, x = np.iinfo(kind), call.value()
    low, high = float(limits.min - zero), float(limits.max - zero)
    before = _steps(x)
    if before is not None and before.lies_on(scale):  # quantised already
        narrowed = before.between(low * scale, high * scale)
        result = x if narrowed == before else narrowed.result(call.layers)
    else:
        result = _bounded(_Steps(x, Rounded(scale, "even", low, high))).result(call.layers)
    return _finished(result, lambda output: Quantized(output, scale, zero))


def dequantize(call: Call) -> Value:
    scale, zero, _ = _grid(call)
    quantized = call.inputs[0]
    if isinstance(quantized, Value):  # integers that the network is given
        return quantized.shifted(np.array(-float(zero)), call.layers).scaled(np.array(scale), call.layers)
    if not isinstance(quantized, Quantized) or (scale, zero) != (quantized.scale, quantized.zero):
        raise Unsupported("it does not undo a QuantizeLinear of the same scale and zero point")
    return quantized.value


def clamp(x: Value, low: float, high: float, layers: tuple[str, ...]) -> Stepped | None:
    """`min(max(x, low), high)` of what is rounded; None for what is not."""
    steps = _steps(x)
    if steps is None:
        return None
    narrowed = steps.between(low, high)
    return x if narrowed == steps else narrowed.result(layers)


def _steps(x: Value) -> _Steps | None:
    """What is rounded, as far as its one term tells."""
    found = affine(x)
    if found is None or found.source.summed is None:
        return None
    inner = replace(found.source.summed, layout=x.layout)
    match found.source.neuron:
        case Rounded() as rounded:
            return _Steps(inner, rounded, found.factor, found.offset)
        case QuantizedRelu(largest, levels, ties):
            return _Steps(inner, Rounded(largest / levels, ties, 0, levels), found.factor, found.offset)
    return None


def _rounded(x: Value, shift: float, ties: Ties, layers: tuple[str, ...]) -> Stepped:
    """`round(x + shift)`; what is whole already stays what it is."""
    before = _steps(x)
    if before is not None and before.lies_on(1.0):
        return x
    return _bounded(_Steps(raised(x, shift, layers), Rounded(1.0, ties))).result(layers)


def _bounded(steps: _Steps) -> _Steps:
    """Where a clip comes before the rounding: its bounds, rounded, are those of the steps."""
    before, rounded = clamped(steps.inner), steps.rounded
    shares = np.array([before.low, before.high]) / rounded.quantum
    low, high = (np.floor(shares + 0.5) if rounded.ties == "up" else np.rint(shares)).tolist()
    narrowed = replace(rounded, low=max(low, rounded.low), high=min(high, rounded.high))
    return replace(steps, inner=before.inner, rounded=narrowed)


def _whole(bound: float) -> float:
    """A bound in steps."""
    if abs(bound) > 2**24:
        return float(np.copysign(np.inf, bound))
    if abs(bound - np.rint(bound)) > _NEAR * max(abs(bound), 1):
        raise Unsupported("it clips between two of the steps that it has rounded to; clip at one of them, or before")
    return float(np.rint(bound))


def _finished(result: Stepped, finish: Callable[[Value], Value | Quantized]) -> Stepped | Quantized:
    """What a rule gives, with something done to it afterwards; constants stay what they are."""
    match result:
        case Activation(finish=first):
            return replace(result, finish=lambda output: finish(first(output)))
        case Value():
            return finish(result)
    return result


def _grid(call: Call) -> tuple[float, int, np.dtype]:
    """The scale, the zero point and the type of the integers, which is that of the zero point."""
    scale, zero = call.weight(1), call.constant(2)
    zero = np.zeros(1, np.uint8) if zero is None else zero
    if zero.dtype.kind not in "iu" or (zero != zero.flat[0]).any() or "output_dtype" in call.attributes:
        raise Unsupported("activations can be quantised to 8 or 16 bit integers with one zero point only")
    return number(scale), int(zero.flat[0]), zero.dtype
