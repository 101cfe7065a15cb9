"""What the rule of an operator is given, a node with its inputs, and what it may give back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from ..ir import AnalogNeuron, Flatten, Function, Pick, Product, Scale, SomaNeuron, only_moves
from .affine import Layout, Source, Value, alike, as_tensor, per_channel
from .support import Layer, Unsupported


@dataclass(frozen=True, eq=False)
class Ranking:
    """What ArgMax gives: which of the `scores` is the largest. Networks give the scores, which say it too."""

    scores: Value


@dataclass(frozen=True, eq=False)
class Quantized:
    """What QuantizeLinear gives: integers that stand for `value`, by `scale` and `zero`."""

    value: Value
    scale: float
    zero: int


@dataclass(frozen=True, eq=False)
class Mask:
    """What a comparison gives: where `value` lies above `bound`, or below; `layer` compares."""

    value: Value
    bound: float
    above: bool
    layer: str


@dataclass(frozen=True, eq=False)
class Point:
    """What a comparison gives: where `value` is 0, or, `elsewhere`, where it is not; `layer` compares."""

    value: Value
    layer: str
    elsewhere: bool = False


@dataclass(frozen=True, eq=False)
class Patched:
    """A tensor that is `kept` but at a point, until it is known what comes of that; `there` is what it is there."""

    kept: Value | np.ndarray
    point: Point
    there: Value | np.ndarray


@dataclass(frozen=True, eq=False)
class Masked:
    """What a comparison leaves of a tensor, 0 elsewhere: half of a choice, until the other half is added to it."""

    kept: Value | np.ndarray
    mask: Mask


@dataclass(frozen=True, eq=False)
class Regrouped:
    """A tensor of the numbers of `value` in places of their own: `positions` in its ONNX tensor, since `layer`."""

    value: Value
    positions: np.ndarray
    layer: str


Tensor = Value | Regrouped


@dataclass(frozen=True, eq=False)
class Whole:
    """Whole numbers that an input gives, none of them negative, and `offset` more.

    They are `rounded` if the model makes them of real ones.
    """

    value: Tensor
    offset: int = 0
    rounded: bool = False


Argument = Value | np.ndarray | Ranking | Quantized | Mask | Masked | Patched | Point | Regrouped | Whole | None


def whole(argument: Argument) -> Value:
    """What has all the numbers of a tensor of activations, at whatever positions."""
    found = argument.value if isinstance(argument, Regrouped) else argument
    assert isinstance(found, Value)
    return found


def places(x: Tensor) -> np.ndarray:
    """The positions of a tensor's numbers in what has them all, in the tensor's own dimensions."""
    return x.positions if isinstance(x, Regrouped) else x.places


def _unchanged(output: Value) -> Value:
    return output


@dataclass(frozen=True)
class Activation:
    """A nonlinearity on `summed`: becomes a population, and `finish` of its output is what the ONNX node gives."""

    neuron: AnalogNeuron
    summed: Value
    finish: Callable[[Value], Any] = _unchanged


Result = (
    Value
    | np.ndarray
    | Ranking
    | Quantized
    | Mask
    | Masked
    | Patched
    | Point
    | Regrouped
    | Whole
    | Activation
    | tuple[Value | Regrouped | Whole | np.ndarray, ...]
)


def _of_pole(x: Value) -> tuple[Value, Product, np.ndarray | None] | None:
    """A value as a function with a pole, which a product applies itself: what it is of, moved to where x has it.

    And by what x multiplies it, (*shape), if by anything.
    """
    if len(x.terms) != 1 or x.bias is not None:
        return None
    source, operators = x.terms[0].source, x.terms[0].operators
    if not isinstance(source.neuron, Function) or source.neuron.function not in _POLES or source.summed is None:
        return None
    if not all(isinstance(operator, (Flatten, Pick, Scale)) for operator in operators):
        return None
    moves = [operator for operator in operators if not isinstance(operator, Scale)]
    factor = x.terms[0].gain
    inner = source.summed.then(*moves, layout=x.layout)
    neuron = Product(source.neuron.function, source.neuron.parameter)
    return inner, neuron, None if (factor == 1).all() else per_channel(factor)


MASKED = 1e4  # what is so much lower than another score has no exponential in any precision
_POLES = {"power", "reciprocal", "reciprocal_no_nan", "rsqrt"}


@dataclass(frozen=True)
class Call:
    """An ONNX node with its inputs: values, constants, or None where an optional one is left out.

    `is_last` says that nothing is computed of what it gives. `settled` has inputs, by their number, that became
    populations of their own: later nodes take them. `made` are all populations that are made for the node.
    """

    node: onnx.NodeProto
    inputs: tuple[Argument, ...]
    opset: int
    layers: tuple[str, ...]
    layer: Layer
    is_last: bool = False
    settled: dict[int, Value] = field(default_factory=dict)
    made: list[Source] = field(default_factory=list)

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

    def population(self, neuron: AnalogNeuron, x: Value, part: str = "") -> Value:
        """The output of a new population; `part` names it where the layer needs several."""
        x = x.settled()
        return self.sent(Source(neuron, neuron.output_shape(x.shape), x, self.layer, part=part), x.layout)

    def sent(self, source: Source, layout: Layout) -> Value:
        """The output of a new population, arranged as `layout` says."""
        self.made.append(source)
        return source.value(layout)

    @property
    def is_somatic(self) -> bool:
        """Whether a population was made that is more than a rectifier."""
        return any(isinstance(source.neuron, SomaNeuron) for source in self.made)

    def product(self, x: Value, y: Value, part: str = "") -> Value:
        """`x · y`, number by number, repeated where one is longer: a population, unless one of them is constant."""
        x, y = alike(x, y)
        for value, other in ((x, y), (y, x)):
            if not value.terms:
                number = np.zeros((1, *value.shape)) if value.bias is None else value.bias[None]
                if not number.any():
                    return value
                return other.scaled(as_tensor(number, value.layout), self.layers)
        for value, other in ((x, y), (y, x)):
            found = _of_pole(value)
            if found is not None:
                return self._multiplied(other, *found, part)
        return self._multiplied(x, y, Product(), None, part)

    def _multiplied(self, x: Value, y: Value, neuron: Product, factor: np.ndarray | None, part: str) -> Value:
        if x.is_vector:
            x, y = x.flat(), y.flat()
        product = self.sent(Source(neuron, x.shape, x, self.layer, y, part), x.layout)
        return product if factor is None else product.then(Scale(factor), layers=self.layers)

    def resting(self, index: int) -> Value:
        """An input that is used several times: what takes work to compute becomes a population that says it.

        What a mask hides is hidden afterwards: no population says numbers that large.
        """
        x = self.value(index)
        if len(x.terms) == 1 and only_moves(x.terms[0].operators):
            return x
        x = x.settled()
        hidden = np.zeros(x.shape) if x.bias is None else np.where(x.bias < -MASKED, x.bias, 0)
        seen = x if x.bias is None else replace(x, bias=np.where(hidden, 0, x.bias))
        rest = self.population(Function("identity"), seen, "input")
        self.settled[index] = replace(rest, bias=hidden) if hidden.any() else rest
        return self.settled[index]

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
