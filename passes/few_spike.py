"""Few-spike conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..ir import (
    FUNCTIONS,
    FewSpike,
    FewSpikeFunction,
    FewSpikeInput,
    FewSpikeNeuron,
    FewSpikeReadout,
    Function,
    GradedInput,
    Identity,
    Input,
    Network,
    Neuron,
    Origin,
    PipelineError,
    Population,
    ProbabilityReadout,
    QuantizedRelu,
    SomaNeuron,
)
from ..ir.verify import LARGEST_K
from .calibration import Statistics
from .conversion import Conversion, clipped, giving_outputs, hidden, per_layer_or_channel, pooling, positive, scores
from .manager import Context


@dataclass(frozen=True)
class FewSpikeConversion(Conversion):
    """Few-spike neurons: each activation as a binary number of K spikes [Stöckl & Maass 2021,
    https://doi.org/10.1038/s42256-021-00311-4].

    A spike in step k of a phase of K steps stands for α · 2^−k, and a layer spikes one phase after the one before it.
    α, its largest number, comes from the activations that the calibration images evoke. Sources of different α
    are no trouble: α is folded into the weights. A neuron has all its input before it spikes, so it can apply any
    function to it first; where that has both signs, so have the spikes. The network's timesteps are K, whatever the
    conversion is asked for.

    - k: steps in a phase, and bits of an activation.
    - alpha: `mse`, of least squared error on the activations, or `max`, so that the largest one is reached; outputs are
      always coded so.
    - per-channel: one α per channel instead of one per population.
    - rounding: half a quantum of initial potential makes activations round; without it they are truncated.
    - input: `graded`, the image itself once per phase, or a `few-spike` code of it.
    - input-k: k of the few-spike code of the image, if not `k`.
    - signed: negative numbers in the images become negative spikes; without it they are refused.
    - factor-k: bits more, at most, for exponentials, squares, reciprocals and roots, whose errors reach many other
      activations: one for each doubling from a population's mean to its largest value. The phase is as long as the
      largest k; who has less is silent for the rest of it. Squares of which a root is taken, as in magnitudes, have up
      to k bits more whatever this is: k bits of a root are 2 k of what is under it.
    - layer-k: populations or layers with a k of their own, as in `layer-k=stem:4 head:6`.
    """

    name: ClassVar[str] = "few-spike"
    convertible: ClassVar[tuple[type[Neuron], ...]] = (*Conversion.convertible, SomaNeuron)

    k: int = 4
    alpha: Literal["mse", "max"] = "mse"
    per_channel: bool = False
    rounding: bool = True
    input: Literal["graded", "few-spike"] = "graded"
    input_k: int = 0
    signed: bool = False
    factor_k: int = 2
    layer_k: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input == "graded" and (self.input_k or self.signed):
            raise PipelineError("few-spike: input-k and signed=true are for input=few-spike; a graded input needs none")
        if self.factor_k < 0:
            raise PipelineError(f"few-spike: factor-k is {self.factor_k}; it is a number of bits, or 0")
        for k in (self.k, self.input_k or self.k, *self._own_k().values()):
            if not 1 <= k <= LARGEST_K:
                raise PipelineError(f"few-spike: k is {k}; a phase has 1 to {LARGEST_K} steps")

    def run(self, network: Network, context: Context) -> Network:
        self.require_convertible(network)
        self._require_known(network)
        statistics = context.statistics(network)
        k = self._k_by_population(network, statistics)
        self.warn_of_range(network, statistics)
        self.warn_of_levels(network, lambda name, neuron: neuron.levels < 2 ** k[name])
        whole = giving_outputs(network)
        self.warn_of_silence(network, {name: statistics[name].maximum for name in hidden(network)})

        def neuron(population: Population) -> Neuron:
            match population.neuron:
                case Input() if self.input == "graded":
                    return GradedInput(self.largest_input(population, network, context))
                case Input():
                    magnitudes = self.input_statistics(population, network, context, self.signed)
                    code = self._code(k[population.name], magnitudes, population.neuron, self.alpha)
                    return FewSpikeInput(*code, self.signed)
                case (Identity() | ProbabilityReadout()) as readout:
                    return FewSpikeReadout(scores(readout))
            alpha = "max" if population.name in whole else self.alpha
            return self._few_spike(k[population.name], statistics[population.name], population, alpha)

        return self.converted(network, max(k.values()), neuron)

    def _few_spike(self, k: int, statistics: Statistics, population: Population, alpha: str) -> FewSpikeNeuron:
        """The neuron in place of an analog one, which may clip, round, pool or apply a function."""
        neuron, pool = population.neuron, pooling(population.neuron)
        if isinstance(neuron, QuantizedRelu) and neuron.levels < 2**k:  # the same levels, so that nothing is lost
            quantum = neuron.max / neuron.levels
            return FewSpike(k, quantum * 2**k, 0.5 * quantum, pool, limit=neuron.levels % (2**k - 1))
        code = self._code(k, statistics, neuron, alpha)
        if isinstance(neuron, SomaNeuron):
            return FewSpikeFunction(*code, neuron, neuron.is_signed)
        return FewSpike(*code, pool)

    def _code(
        self, k: int, statistics: Statistics, neuron: Neuron, alpha: str
    ) -> tuple[int, float | np.ndarray, float | np.ndarray]:
        """k, α and initial potential."""
        levels = 2**k - 1
        if alpha == "mse":
            largest = statistics.least_error(levels, 0.5 if self.rounding else 0.0, self.per_channel)
        else:
            largest = statistics.percentile(100, self.per_channel)
        largest = clipped(positive(largest, statistics.maximum), neuron, levels)
        quantum = per_layer_or_channel(largest / np.float32(levels), self.per_channel)
        return k, quantum * 2**k, 0.5 * quantum if self.rounding else 0.0

    def _require_known(self, network: Network) -> None:
        """Raise PipelineError for an own k that belongs to no population that spikes."""
        spiking = self._spiking(network)
        known = {key for name, population in spiking.items() for key in _keys(name, population.origin)}
        unknown = sorted(set(self._own_k()) - known)
        if unknown:
            raise PipelineError(
                f"few-spike: layer-k names {', '.join(unknown)}; the populations that spike are {', '.join(spiking)}"
            )

    def _spiking(self, network: Network) -> Mapping[str, Population]:
        return {
            name: population
            for name, population in network.populations.items()
            if not isinstance(population.neuron, (Identity, ProbabilityReadout))
            and not (isinstance(population.neuron, Input) and self.input == "graded")
        }

    def _k_by_population(self, network: Network, statistics: Mapping[str, Statistics]) -> Mapping[str, int]:
        """K of each population that spikes."""
        own = self._own_k()
        chosen = {
            name: next((own[key] for key in _keys(name, population.origin) if key in own), None)
            or (
                self.input_k or self.k
                if name in network.inputs
                else self.k + self._more(network, name, statistics[name])
            )
            for name, population in self._spiking(network).items()
        }
        return chosen or {"": self.k}

    def _more(self, network: Network, name: str, statistics: Statistics) -> int:
        """How many bits a population has more than others."""
        neuron, mean = network.populations[name].neuron, float(statistics.mean.mean())
        if not (isinstance(neuron, Function) and FUNCTIONS[neuron.function].is_factor) or mean <= 0:
            return 0
        doublings = np.ceil(np.log2(statistics.maximum.max() / mean))
        most = max(self.factor_k, self.k) if _is_under_root(network, name) else self.factor_k
        return int(np.clip(doublings, 0, min(most, LARGEST_K - self.k)))

    def _own_k(self) -> Mapping[str, int]:
        own = {}
        for item in self.layer_k.split():
            name, _, k = item.rpartition(":")
            if not (name and k.isdecimal() and len(k) < 4):
                raise PipelineError(f"few-spike: cannot read layer-k {item!r}; expected layer:k layer:k")
            own[name] = int(k)
        return own


def _is_under_root(network: Network, name: str) -> bool:
    """Whether a population gives squares, whose sum somebody takes the root of."""
    readers = [network.populations[edge.target].neuron for edge in network.outgoing(name)]
    roots = any(isinstance(reader, Function) and reader.function == "sqrt" for reader in readers)
    return network.populations[name].neuron == Function("square") and roots


def _keys(name: str, origin: Origin) -> tuple[str, ...]:
    """What a user may call a population: its own name first, then the layers that it came from."""
    return (name, *origin.layers)
