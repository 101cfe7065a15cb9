"""What the rule of an operator is given, a node with its inputs, and what it may give back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from ..ir import AnalogNeuron
from .affine import Value
from .support import Unsupported


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
class Regrouped:
    """A tensor of the numbers of `value` in places of their own: `positions` in its ONNX tensor, since `layer`."""

    value: Value
    positions: np.ndarray
    layer: str


Argument = Value | np.ndarray | Ranking | Quantized | Mask | Regrouped | None


def _unchanged(output: Value) -> Value:
    return output


@dataclass(frozen=True)
class Activation:
    """A nonlinearity on `summed`: becomes a population, and `finish` of its output is what the ONNX node gives."""

    neuron: AnalogNeuron
    summed: Value
    finish: Callable[[Value], Any] = _unchanged


Result = Value | np.ndarray | Ranking | Quantized | Mask | Regrouped | Activation | tuple[Value, ...]


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
