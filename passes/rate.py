"""What the rate-coded conversions share: encoded inputs, readouts, integrate-and-fire neurons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..ir import (
    CurrentInput,
    Identity,
    Input,
    Integrate,
    IntegrateFire,
    IntegrateFireInput,
    Network,
    Neuron,
    PipelineError,
    PoissonInput,
    Population,
    ProbabilityReadout,
    SpikeInput,
    SpikingNeuron,
    shown,
)
from .calibration import Statistics
from .conversion import Conversion, clipped, per_layer_or_channel, pooling, scores
from .manager import Context


class RateCoded(Conversion):
    """A conversion to neurons that are shown the image for T steps. Its options, which subclasses have as fields:

    - v-init: initial potential as a share of λ; a half makes spike counts round instead of truncate.
    - input: the images as constant `current`, or as spikes: `integrate-fire` neurons, `poisson` spikes, or binary
      `spikes` in every step wherever the image is not zero. A spike stands for the images' largest magnitude.
    - signed: negative numbers in the images become negative spikes; without it they are refused.
    - seed: of `poisson` spikes.
    - lag: how many steps a layer waits for the one before it. It has then taken in so many steps of its input before it
      fires, and fires more evenly, but each layer adds as many to the latency. T stays as it is.
    """

    lag: int
    v_init: float
    input: Literal["current", "integrate-fire", "poisson", "spikes"]
    signed: bool
    seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.v_init < 1:
            raise PipelineError(
                f"{self.name}: v-init is {self.v_init}; it is a share of the threshold, from 0 to below 1"
            )
        if self.lag < 1:
            raise PipelineError(f"{self.name}: lag is {shown(self.lag)}; it is a number of steps, from 1 on")
        if self.signed and self.input == "current":
            raise PipelineError(f"{self.name}: a constant current has its sign anyway; leave out signed=true")

    def require_timesteps(self, context: Context) -> int:
        """T, or a PipelineError."""
        if context.timesteps is None:
            raise PipelineError(f"{self.name} needs to know how long the network runs: give timesteps=… (--timesteps)")
        if self.lag > context.timesteps:
            raise PipelineError(
                f"{self.name}: lag is {self.lag}, longer than the {context.timesteps} timesteps of the input: nothing "
                "is left to wait for"
            )
        return context.timesteps

    def encoding(self, population: Population, network: Network, context: Context) -> SpikingNeuron:
        """The spiking neuron of an input."""
        if self.input == "current":
            return CurrentInput(self.largest_input(population, network, context))
        largest = float(self.input_statistics(population, network, context, self.signed).maximum.max()) or 1.0
        match self.input:
            case "poisson":
                return PoissonInput(largest, self.signed, self.seed)
            case "spikes":
                return SpikeInput(largest, self.signed)
        return IntegrateFireInput(largest, self.signed, self.v_init * largest)


@dataclass(frozen=True)
class RateConversion(RateCoded):
    """A conversion to integrate-and-fire neurons.

    - percentile: of what balances a population (or channel), zeros included; 100 is the largest, which outputs always
      take, so that they are not clipped.
    - per-channel: one λ per channel instead of one per population.
    - reset: `subtract` the threshold from the potential on a spike, or set it to `zero`.
    - readout: the last layer's membrane `potential`, which never fires, or the `spikes` that it fires.
    """

    percentile: float = 100.0
    per_channel: bool = False
    reset: Literal["subtract", "zero"] = "subtract"
    v_init: float = 0.5
    input: Literal["current", "integrate-fire", "poisson", "spikes"] = "current"
    signed: bool = False
    seed: int = 0
    readout: Literal["potential", "spikes"] = "potential"
    lag: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.percentile <= 100:
            raise PipelineError(f"{self.name}: percentile is {self.percentile}; it lies above 0 and up to 100")

    def encoding(self, population: Population, network: Network, context: Context) -> SpikingNeuron:
        neuron = super().encoding(population, network, context)
        return replace(neuron, reset=self.reset) if isinstance(neuron, IntegrateFireInput) else neuron

    def unbalanced(self, population: Population, network: Network, context: Context) -> Neuron | None:
        """The spiking neuron of an input or of a readout that does not fire; None for what needs a threshold."""
        match population.neuron:
            case Input():
                return self.encoding(population, network, context)
            case (Identity() | ProbabilityReadout()) as readout if self.readout == "potential":
                return Integrate(scores(readout))
        return None

    def spiking_readouts(self, network: Network) -> list[str]:
        """The outputs that are told by spikes, though they are not rectified."""
        readouts = [name for name in network.outputs if network.populations[name].neuron.is_readout]
        return readouts if self.readout == "spikes" else []

    def integrate_fire(self, v_thresh: np.ndarray, analog: Neuron, timesteps: int) -> IntegrateFire:
        """The neuron with thresholds λ, (C,) or (1,), in place of an `analog` one, which may clip, round or pool."""
        threshold = per_layer_or_channel(clipped(v_thresh, analog, timesteps), self.per_channel)
        return IntegrateFire(threshold, self.v_init * threshold, self.reset, pool=pooling(analog))

    def of_distribution(self, statistics: Statistics, is_output: bool) -> np.ndarray:
        """The percentile that the options ask for, or the largest for an output, (C,) or (1,)."""
        return statistics.percentile(100 if is_output else self.percentile, self.per_channel)
