"""Threshold balancing on the spikes themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..ir import Integrate, IntegrateFire, Network, Neuron, PipelineError, Population
from .calibration import Statistics, overflow
from .conversion import giving_outputs, hidden, positive
from .manager import Context, Drive
from .rate import RateConversion


@dataclass(frozen=True)
class SpikeNorm(RateConversion):
    """Integrate-and-fire neurons with λ, the threshold, from the input current that spikes bring.

    A population's λ is the largest summed input of any step that the calibration images evoke in the spiking
    network, all populations before it being balanced already [Sengupta 2019,
    https://doi.org/10.3389/fnins.2019.00095]. No step then brings more charge than one spike carries off. The
    network is swept over once, layer by layer, each layer run twice: once to look, once to fire.

    - scale: λ is this share of the largest current; below 1 it fires more and answers sooner.
    """

    name: ClassVar[str] = "spike-norm"

    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.scale < math.inf:
            raise PipelineError(f"spike-norm: scale is {self.scale}; it is a positive share of the largest current")

    def run(self, network: Network, context: Context) -> Network:
        timesteps = self.require_timesteps(context)
        self.require_convertible(network)
        self.warn_of_levels(network, lambda _, neuron: neuron.levels == timesteps)

        def neuron(population: Population) -> Neuron:
            ones = np.ones(population.shape[-1], np.float32)
            until_its_turn = self.integrate_fire(ones, population.neuron, timesteps)
            return self.unbalanced(population, network, context) or until_its_turn

        whole, negative = giving_outputs(network), self.spiking_readouts(network)
        largest: dict[str, np.ndarray] = {}
        smallest: dict[str, float] = {}

        def balance(drive: Drive) -> Drive:
            population = drive.population
            if not isinstance(population.neuron, IntegrateFire):
                return drive
            name = population.name
            statistics = _currents(drive, timesteps, self.percentile < 100)
            largest[name] = statistics.maximum
            if name in negative:
                integrating = drive.having(replace(population, neuron=Integrate()))
                smallest[name] = min(float(decoded.min()) for decoded in integrating.decoded())
            balanced = positive(self.of_distribution(statistics, name in whole), statistics.maximum)
            analog = network.populations[name].neuron
            neuron = self.integrate_fire(np.float32(self.scale) * balanced, analog, timesteps)
            return drive.having(replace(population, neuron=neuron))

        balanced = context.adjusted(self.converted(network, timesteps, neuron, self.lag), balance)
        self.warn_of_silence(network, {name: largest[name] for name in hidden(network)})
        self.warn_of_negative_outputs(smallest)
        return balanced


def _currents(drive: Drive, timesteps: int, histogram: bool) -> Statistics:
    """The distribution of the summed input of single steps."""
    statistics, first = Statistics(drive.population.shape[-1]), 0
    for currents in drive.currents():
        images = len(currents) // timesteps
        try:
            statistics.update(currents, histogram)
        except FloatingPointError:
            row = int(np.isfinite(currents.reshape(len(currents), -1)).all(1).argmin())
            raise overflow(first + row % images, drive.population) from None
        first += images
    return statistics
