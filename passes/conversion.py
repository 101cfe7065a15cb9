"""What all conversions share: which neurons they take, and what they learn from the calibration images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ..ir import (
    FUNCTIONS,
    Clip,
    Conv2D,
    DataError,
    Function,
    Identity,
    Input,
    MaxPool2D,
    MaxPoolRelu2D,
    ModelWarning,
    Network,
    Neuron,
    Operator,
    PipelineError,
    Population,
    ProbabilityReadout,
    Product,
    QuantizedRelu,
    Relu,
    SomaNeuron,
    Stage,
    UnsupportedModelError,
    as_inputs,
    only_moves,
)
from .calibration import Statistics
from .manager import Context, Pass

_SHOWN = 8  # channels that are named
_WIDE = 256  # times the median of a function: hardly a code says both
_HUGE = 1e4  # what such a function reaches near its pole
_LOWERED_BY = {
    "Function": "lower-functions",
    "LeakyRelu": "lower-leaky-relu",
    "MatMul": "lower-matmul,lower-products,lower-functions",
    "MaxPool2D": "lower-max-pool",
    "Product": "lower-products,lower-functions",
}


@dataclass(frozen=True)
class Conversion(Pass):
    """A pass that replaces analog neurons by spiking ones, population by population, and leaves the weights alone."""

    requires: ClassVar[Stage] = "canonical"
    ensures: ClassVar[Stage] = "spiking"
    convertible: ClassVar[tuple[type[Neuron], ...]] = (
        *(Input, Relu, Clip, QuantizedRelu, MaxPoolRelu2D, Identity, ProbabilityReadout),
    )

    def require_convertible(self, network: Network) -> None:
        """Raise UnsupportedModelError with every population that is more than a rectifier, and the pass that helps."""
        problems = [
            f"{name} ({type(population.neuron).__name__}, "
            f"from {', '.join(population.origin.layers) or 'no known layer'}): "
            f"no single spiking neuron computes it{self._way_out(population)}"
            for name, population in network.populations.items()
            if not isinstance(population.neuron, self.convertible)
        ]
        if problems:
            raise UnsupportedModelError(f"{self.name} cannot convert these populations:", problems)

    def _way_out(self, population: Population) -> str:
        lowering = _LOWERED_BY.get(type(population.neuron).__name__)
        if lowering:
            return f"; run {lowering} before {self.name}"
        return "; few-spike converts it" if isinstance(population.neuron, SomaNeuron) else ""

    def converted(
        self, network: Network, timesteps: int, neuron: Callable[[Population], Neuron], lag: int = 1
    ) -> Network:
        """`network` with the neurons that `neuron` gives for its populations, and delays that align their windows."""
        populations = [
            replace(population, neuron=neuron(population), origin=population.origin.by(self.name))
            for population in network.populations.values()
        ]
        spiking = network.replace(populations=populations, timesteps=timesteps, lag=lag)
        return spiking.replace(
            connections=[replace(c, delay=spiking.aligned(c.source, c.target)) for c in network.connections]
        )

    def warn_of_levels(self, network: Network, says: Callable[[str, QuantizedRelu], bool]) -> None:
        """Warn of quantised populations whose levels the spikes do not say."""
        populations = network.populations.values()
        others = [p for p in populations if isinstance(p.neuron, QuantizedRelu) and not says(p.name, p.neuron)]
        if not others:
            return
        levels = sorted({p.neuron.levels for p in others if isinstance(p.neuron, QuantizedRelu)})
        layers = dict.fromkeys(
            layer for population in others for layer in population.origin.layers or (population.name,)
        )
        exact = f"timesteps={levels[-1]}, or few-spike{{k={levels[-1].bit_length()}}}"
        warnings.warn(
            f"{self.name}: activations quantised to {', '.join(map(str, levels))} levels are only come close to; "
            f"{exact} says what the model computes; layers: {', '.join(layers)}",
            ModelWarning,
            stacklevel=2,
        )

    def warn_of_silence(self, network: Network, largest: Mapping[str, np.ndarray]) -> None:
        """Warn of layers, and of channels of images, that no calibration image woke; `largest` is by population, (C,).

        A neuron of a flat population that is silent on a few hundred images is nothing to speak of, nor is a stretch of
        a function in which no input lies.
        """
        silent = [
            f"{', '.join(network.populations[name].origin.layers) or name} ({_channels(maximum)})"
            for name, maximum in largest.items()
            if (not maximum.any() or (len(network.populations[name].shape) == 3 and not maximum.all()))
            and not is_of_sum(network.populations[name])
        ]
        if silent:
            warnings.warn(
                f"{self.name}: no calibration image wakes {'; '.join(silent)}: their thresholds are guesses; "
                "calibrate with more images, or with others, if this is not dead in the model itself",
                ModelWarning,
                stacklevel=2,
            )

    def warn_of_range(self, network: Network, statistics: Mapping[str, Statistics]) -> None:
        """Warn of functions that leave what they are defined for, as the reciprocal of numbers on both sides of 0."""
        wide = [
            f"{', '.join(population.origin.layers) or name} ({population.neuron.function} up to {largest:.3g})"
            for name, population in network.populations.items()
            if isinstance(population.neuron, (Function, Product))
            and population.neuron.function != "identity"
            and (largest := float(statistics[name].maximum.max())) >= _beyond(population.neuron, statistics[name])
        ]
        if wide:
            warnings.warn(
                f"{self.name}: calibration images bring functions to where they are not defined, or near a pole: "
                f"{'; '.join(wide)}; small values cannot be told there. Bound their input, as by an epsilon",
                ModelWarning,
                stacklevel=2,
            )

    def warn_of_negative_outputs(self, smallest: Mapping[str, float]) -> None:
        """Warn of outputs that are to be told by spikes and go below zero; `smallest` is by population."""
        negative = [f"{name} goes down to {number:.3g}" for name, number in smallest.items() if number < 0]
        if negative:
            warnings.warn(
                f"{self.name}: {', '.join(negative)}, which the spikes of an output cannot say and leave at 0; "
                "read its potential instead (readout=potential)",
                ModelWarning,
                stacklevel=2,
            )

    def largest_input(self, population: Population, network: Network, context: Context) -> float:
        """The largest magnitude of an input in the calibration images, for the record; 0 if there are none."""
        if context.calibration is None:
            return 0.0
        images = as_inputs(network, context.calibration, "calibration")[population.name]
        return float(max(images.max(), -images.min()))

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


def _beyond(neuron: Function | Product, statistics: Statistics) -> float:
    """The magnitude at which a function's value is none that the others can be told beside."""
    largest, usual = float(statistics.maximum.max()), float(statistics.percentile(50, per_channel=False)[0])
    alone = usual < largest / _WIDE  # of which a histogram sees no more
    return min(FUNCTIONS[neuron.function].pole, _HUGE if alone else np.inf)


def hidden(network: Network) -> list[str]:
    """The populations that are neither inputs nor readouts."""
    return [name for name, p in network.populations.items() if not (p.neuron.is_input or p.neuron.is_readout)]


def scores(neuron: Neuron) -> Literal["classes", "labels"]:
    """What an analog readout's numbers are scores of."""
    return "labels" if neuron.tells_labels else "classes"


def giving_outputs(network: Network) -> frozenset[str]:
    """The populations whose activations are the network's outputs as they are: what clips one of them clips an output.

    Besides the outputs themselves, those that a readout only gathers, and what max pooling, a function or a product at
    the end was lowered to.
    """
    found, pending = set(), list(network.outputs)
    while pending:
        name = pending.pop()
        found.add(name)
        population = network.populations[name]
        pools = "lower-max-pool" in population.origin.passes
        sums = pools or is_of_sum(population)
        for edge in network.incoming(name) if pools or population.neuron.is_readout else ():
            if edge.source not in found and (sums or all(map(_only_moves, edge.operators))):
                pending.append(edge.source)
    return frozenset(found)


def is_of_sum(population: Population) -> bool:
    """Whether a population is one of those whose sum is in place of a function or of a product, or that sum."""
    return not {"lower-functions", "lower-products"}.isdisjoint(population.origin.passes)


def _only_moves(operator: Operator) -> bool:
    """Whether every number that an operator gives is one of those it is given, up to a factor."""
    match operator:
        case Conv2D(weight):
            return bool((np.count_nonzero(weight, axis=(0, 1, 2)) <= 1).all())
    return only_moves((operator,))


def _channels(largest: np.ndarray) -> str:
    """Which channels are silent."""
    silent = np.flatnonzero(largest == 0)
    if len(silent) == len(largest):
        return "all of it"
    shown = ", ".join(map(str, silent[:_SHOWN])) + (", …" if len(silent) > _SHOWN else "")
    return f"{len(silent)} of {len(largest)} channels: {shown}"


def positive(balanced: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """`balanced` λ, (C,) or (1,), made usable: the largest activation stands in for a zero.

    A dead channel takes the layer's largest λ, a dead layer 1.
    """
    if not largest.any():
        return np.ones_like(balanced)
    balanced = np.where(balanced > 0, balanced, largest if len(balanced) == len(largest) else largest.max())
    return np.where(balanced > 0, balanced, balanced.max())


def clipped(balanced: np.ndarray, neuron: Neuron, levels: int) -> np.ndarray:
    """λ of a population whose analog `neuron` may saturate: a neuron says no more than λ, so λ itself is the clip.

    Where the spikes have as many `levels` as a quantised neuron, λ is its largest value and they say just what it does.
    """
    match neuron:
        case QuantizedRelu(maximum, own) if own == levels:
            return np.full_like(balanced, maximum)
        case QuantizedRelu(maximum) | Clip(maximum):
            return np.minimum(balanced, maximum)
        case Function(function):
            definition = FUNCTIONS[function]
            return np.minimum(balanced, np.float32(max(-definition.low, definition.high)))
    return balanced


def pooling(neuron: Neuron) -> MaxPool2D | None:
    """The pooling that the spiking neuron in place of an analog one applies to its input."""
    if not isinstance(neuron, MaxPoolRelu2D):
        return None
    return MaxPool2D(neuron.image, neuron.pool_size, neuron.strides, neuron.padding)


def per_layer_or_channel(values: np.ndarray, per_channel: bool) -> float | np.ndarray:
    """A neuron's parameter from one number per channel, (C,), or from the layer's only one, (1,)."""
    return values if per_channel else float(values[0])
