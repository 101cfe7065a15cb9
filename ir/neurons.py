"""The neurons: nonlinearities that populations apply to their summed input.

Analog neurons map the input once; spiking neurons are stepped T times. Each docstring states the
equation; x is the sum over the incoming connections plus the population's bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from .record import Record
from .windows import NO_PADDING, Padding, Pair, Shape, pool_counts, windows


@dataclass(frozen=True, eq=False)
class Neuron(Record):
    """What a population does with its input."""

    spiking: ClassVar[bool] = False
    is_input: ClassVar[bool] = False
    is_readout: ClassVar[bool] = False

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the population, given the shape of its summed input."""
        return shape

    def input_shape(self, shape: Shape) -> Shape:
        """The shape of the summed input, given the shape of the population."""
        return shape


@dataclass(frozen=True, eq=False)
class AnalogNeuron(Neuron):
    """A neuron of the ANN: one real value."""

    def apply(self, x: np.ndarray) -> np.ndarray:
        """The activation, of shape (batch, *output_shape), for summed inputs `x`."""
        return x


@dataclass(frozen=True, eq=False)
class Input(AnalogNeuron):
    """`y = the network's input`."""

    is_input: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class Relu(AnalogNeuron):
    """`y = max(x, 0)`."""

    def apply(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0)


@dataclass(frozen=True, eq=False)
class Clip(AnalogNeuron):
    """`y = min(max(x, 0), max)`: ReLU6 is `Clip(6)`."""

    max: float

    def apply(self, x: np.ndarray) -> np.ndarray:
        return np.clip(x, 0, self.max)


@dataclass(frozen=True, eq=False)
class MaxPool2D(AnalogNeuron):
    """`y[h, w, c] = max of x over a window`; positions in the padding never win.

    The summed input has shape `image`, (H, W, C); the population has the pooled shape.
    """

    image: Shape
    pool_size: Pair
    strides: Pair
    padding: Padding = NO_PADDING

    def output_shape(self, shape: Shape) -> Shape:
        counts = pool_counts("MaxPool2D", shape, self.pool_size, self.strides, self.padding)
        return (*counts, shape[2])

    def input_shape(self, shape: Shape) -> Shape:
        return self.image

    def apply(self, x: np.ndarray) -> np.ndarray:
        return windows(x, self.pool_size, self.strides, self.padding, fill=-np.inf).max((-1, -2))


@dataclass(frozen=True, eq=False)
class Identity(AnalogNeuron):
    """`y = x`: a linear readout."""

    is_readout: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class Softmax(AnalogNeuron):
    """`y = exp(x) / Σ exp(x)` over the last axis: a readout of class probabilities."""

    is_readout: ClassVar[bool] = True

    def apply(self, x: np.ndarray) -> np.ndarray:
        exponential = np.exp(x - x.max(-1, keepdims=True))
        return exponential / exponential.sum(-1, keepdims=True)


@dataclass(frozen=True, eq=False)
class SpikingNeuron(Neuron):
    """A neuron of the SNN, stepped once in each of the T timesteps of its window."""

    spiking: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class CurrentInput(SpikingNeuron):
    """Constant current: the network's input itself, sent unchanged in every one of the T steps.

    It is graded, not binary: its targets receive `W · input` in each step [Rueckauer 2017].
    """

    is_input: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class IntegrateFire(SpikingNeuron):
    """Integrate and fire without leak. V starts at `v_init`; then, in every step,

    `V += x;  spike if V >= v_thresh;  on a spike V −= v_thresh (or V = 0)`.

    At most one spike a step. A spike adds `W · v_thresh` downstream, so the activation is decoded as
    `v_thresh · spikes / T`. With `reset="subtract"` (soft reset) no charge is lost [Rueckauer 2017];
    `reset="zero"` is the hard reset of [Diehl 2015].

    `v_thresh` (λ) and `v_init` are in units of the ANN's activations: a number, or one per channel, (C,).
    `comparison` says whether a potential exactly at the threshold fires.
    """

    v_thresh: float | np.ndarray
    v_init: float | np.ndarray = 0.0
    reset: Literal["subtract", "zero"] = "subtract"
    comparison: Literal[">=", ">"] = ">="


@dataclass(frozen=True, eq=False)
class Integrate(SpikingNeuron):
    """A readout that never fires: `V += x` from V = 0; its value after t steps is decoded as `V / t`."""

    is_readout: ClassVar[bool] = True


NEURONS: dict[str, type[Neuron]] = {
    cls.__name__: cls
    for cls in (Clip, CurrentInput, Identity, Input, Integrate, IntegrateFire, MaxPool2D, Relu, Softmax)
}
