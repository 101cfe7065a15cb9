"""Tracking conversion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..ir import (
    AnalogNeuron,
    Clip,
    Identity,
    Input,
    Integrate,
    LeakyRelu,
    MaxPool2D,
    Network,
    Neuron,
    PipelineError,
    Population,
    ProbabilityReadout,
    QuantizedRelu,
    SomaNeuron,
    Tracking,
    shown,
)
from ..ir.verify import MOST_LEVELS
from .calibration import Statistics
from .conversion import clipped, giving_outputs, hidden, per_layer_or_channel, positive, scores
from .manager import Context
from .rate import RateCoded


@dataclass(frozen=True)
class TrackingConversion(RateCoded):
    """Rate code of any function, in signed spikes that follow the mean of the input.

    A neuron adds up its input, applies its function to the mean so far, and sends what it has not yet said of that: a
    spike where it lacks λ, a negative one where it has said too much [Wang 2022,
    https://doi.org/10.24963/ijcai.2022/347; You 2024, https://arxiv.org/abs/2406.03470]. So a spike that came too early
    is taken back, max pooling is exact, and functions of both signs are said like any other. What is lost is what comes
    too late: where a mean changes by more than a step's spikes can say. Activations that are quantised to no more
    levels than T steps can say are met exactly but for that, and with levels=T wholly.

    - levels: the most spikes of a neuron in a step, for changes [Li 2022, https://arxiv.org/abs/2204.13271].
    - rate: how many spikes a step the largest activation takes, at most `levels`: λ is so much smaller than that.
    - threshold: the largest activation that is to be said is that of least squared error (`mse`) at T timesteps, for a
      run of just that length, or the largest that the calibration images evoke (`max`), which outputs always take.
    - per-channel: one λ per channel instead of one per population.
    """

    name: ClassVar[str] = "tracking"
    convertible: ClassVar[tuple[type[Neuron], ...]] = (*RateCoded.convertible, SomaNeuron, LeakyRelu, MaxPool2D)

    levels: int = 1
    rate: int = 1
    threshold: Literal["mse", "max"] = "mse"
    per_channel: bool = True
    v_init: float = 0.5
    input: Literal["current", "integrate-fire", "poisson", "spikes"] = "current"
    signed: bool = False
    seed: int = 0
    lag: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.levels <= MOST_LEVELS:
            raise PipelineError(f"tracking: levels is {shown(self.levels)}; a step has from 1 to {MOST_LEVELS} spikes")
        if not 1 <= self.rate <= self.levels:
            raise PipelineError(f"tracking: rate is {shown(self.rate)}; it lies from 1 to levels, {self.levels}")

    def run(self, network: Network, context: Context) -> Network:
        timesteps = self.require_timesteps(context)
        self.require_convertible(network)
        self.warn_of_levels(network, lambda _, neuron: neuron.levels <= timesteps * self.rate)
        statistics = context.statistics(network)
        self.warn_of_range(network, statistics)
        whole = giving_outputs(network)
        self.warn_of_silence(network, {name: statistics[name].maximum for name in hidden(network)})

        def neuron(population: Population) -> Neuron:
            match population.neuron:
                case Input():
                    return self.encoding(population, network, context)
                case (Identity() | ProbabilityReadout()) as readout:
                    return Integrate(scores(readout))
            threshold = "max" if population.name in whole else self.threshold
            return self._tracking(statistics[population.name], population.neuron, timesteps, threshold)

        return self.converted(network, timesteps, neuron, self.lag)

    def _tracking(self, statistics: Statistics, neuron: Neuron, timesteps: int, threshold: str) -> Tracking:
        """The neuron in place of an analog one. A quantised one is a clip, which spikes round."""
        assert isinstance(neuron, AnalogNeuron)  # verified
        largest = self._largest(statistics, timesteps, threshold)
        v_thresh = clipped(largest, neuron, timesteps * self.rate) / np.float32(self.rate)
        if isinstance(neuron, QuantizedRelu):
            if neuron.levels <= timesteps * self.rate:  # a spike counts as one level
                v_thresh = np.full_like(largest, neuron.max / neuron.levels * timesteps)
            neuron = Clip(neuron.max)
        balanced = per_layer_or_channel(v_thresh, self.per_channel)
        return Tracking(balanced, self.v_init * balanced, self.levels, neuron)

    def _largest(self, statistics: Statistics, timesteps: int, threshold: str) -> np.ndarray:
        """The largest activation that is to be said, (C,) or (1,)."""
        if threshold == "mse":
            largest = statistics.least_error(timesteps * self.rate, self.v_init, self.per_channel)
        else:
            largest = statistics.percentile(100, self.per_channel)
        return positive(largest, statistics.maximum)
