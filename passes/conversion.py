"""What all conversions share: which neurons they take, and what they learn from the calibration images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..ir import (
    Clip,
    DataError,
    Identity,
    Input,
    MaxPool2D,
    MaxPoolRelu2D,
    Network,
    Neuron,
    PipelineError,
    Population,
    Relu,
    Softmax,
    Stage,
    UnsupportedModelError,
    as_inputs,
)
from .calibration import Statistics
from .manager import Context, Pass

_CONVERTIBLE = (Input, Relu, Clip, MaxPoolRelu2D, Identity, Softmax)
_LOWERED_BY = {"MaxPool2D": "lower-max-pool", "LeakyRelu": "lower-leaky-relu"}


@dataclass(frozen=True)
class Conversion(Pass):
    """A pass that replaces analog neurons by spiking ones, population by population, and leaves the weights alone."""

    requires: ClassVar[Stage] = "canonical"
    ensures: ClassVar[Stage] = "spiking"

    def require_convertible(self, network: Network) -> None:
        """Raise UnsupportedModelError with every population that is more than a rectifier, and the pass that helps."""
        problems = [
            f"{name} ({type(population.neuron).__name__}, "
            f"from {', '.join(population.origin.layers) or 'no known layer'}): "
            f"no single spiking neuron computes it{self._way_out(population)}"
            for name, population in network.populations.items()
            if not isinstance(population.neuron, _CONVERTIBLE)
        ]
        if problems:
            raise UnsupportedModelError(f"{self.name} cannot convert these populations:", problems)

    def _way_out(self, population: Population) -> str:
        lowering = _LOWERED_BY.get(type(population.neuron).__name__)
        return f"; run {lowering} before {self.name}" if lowering else ""

    def converted(self, network: Network, timesteps: int, neuron: Callable[[Population], Neuron]) -> Network:
        """`network` with the neurons that `neuron` gives for its populations."""
        populations = [
            replace(population, neuron=neuron(population), origin=population.origin.by(self.name))
            for population in network.populations.values()
        ]
        return network.replace(populations=populations, timesteps=timesteps)

    def input_statistics(self, population: Population, network: Network, context: Context, signed: bool) -> Statistics:
        """The distribution of an input's magnitude over the calibration images."""
        if context.calibration is None:
            raise PipelineError(f"{self.name} scales the input's spikes by its images: give calibration=…")
        images = as_inputs(network, context.calibration, "calibration")[population.name]
        if not signed and images.min() < 0:
            raise DataError(
                f"input {population.name!r} goes down to {images.min():.3g}, which spikes of one sign cannot say: "
                f"give {self.name} the option signed=true"
            )
        statistics = Statistics(population.shape[-1])
        statistics.update(np.abs(images))
        return statistics


def positive(balanced: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """`balanced` λ, (C,) or (1,), made usable: the largest activation stands in for a zero.

    A dead channel takes the layer's largest λ, a dead layer 1.
    """
    if not largest.any():
        return np.ones_like(balanced)
    balanced = np.where(balanced > 0, balanced, largest if len(balanced) == len(largest) else largest.max())
    return np.where(balanced > 0, balanced, balanced.max())


def clipped(balanced: np.ndarray, neuron: Neuron) -> np.ndarray:
    """λ of a population whose analog `neuron` may saturate: a neuron says no more than λ, so λ itself is the clip."""
    return np.minimum(balanced, neuron.max) if isinstance(neuron, Clip) else balanced


def pooling(neuron: Neuron) -> MaxPool2D | None:
    """The pooling that the spiking neuron in place of an analog one applies to its input."""
    if not isinstance(neuron, MaxPoolRelu2D):
        return None
    return MaxPool2D(neuron.image, neuron.pool_size, neuron.strides, neuron.padding)


def per_layer_or_channel(values: np.ndarray, per_channel: bool) -> float | np.ndarray:
    """A neuron's parameter from one number per channel, (C,), or from the layer's only one, (1,)."""
    return values if per_channel else float(values[0])
