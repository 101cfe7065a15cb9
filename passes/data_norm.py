"""Data-based threshold balancing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..ir import Conv2D, ConvTranspose2D, Dense, Network, Neuron, PipelineError, Population
from .calibration import Statistics
from .conversion import giving_outputs, hidden, positive
from .manager import Context
from .rate import RateConversion


@dataclass(frozen=True)
class DataNorm(RateConversion):
    """Integrate-and-fire neurons with λ, the threshold, from the activations of calibration images.

    A population's λ is the largest activation that the images evoke [Diehl 2015,
    https://doi.org/10.1109/IJCNN.2015.7280696], or a percentile of them, which trades a little clipping for much
    finer steps [Rueckauer 2017, https://doi.org/10.3389/fnins.2017.00682], or the λ that loses least on the
    activations after T steps [Li 2021, https://proceedings.mlr.press/v139/li21d.html]. Weights are not touched.

    - threshold: λ is a `percentile` of the activations, or the one of least squared error (`mse`) at T timesteps,
      for a run of just that length.
    - largest-weight: λ is at least the largest weight into the population, as in the 2015 paper.
    """

    name: ClassVar[str] = "data-norm"

    threshold: Literal["percentile", "mse"] = "percentile"
    largest_weight: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold == "mse" and self.percentile != 100:
            raise PipelineError("data-norm: a percentile says nothing with threshold=mse; leave one of them out")

    def run(self, network: Network, context: Context) -> Network:
        timesteps = self.require_timesteps(context)
        self.require_convertible(network)
        self.warn_of_levels(network, lambda _, neuron: neuron.levels == timesteps)
        statistics = context.statistics(network)
        whole = giving_outputs(network)
        self.warn_of_silence(network, {name: statistics[name].maximum for name in hidden(network)})
        self.warn_of_negative_outputs({name: statistics[name].minimum.min() for name in self.spiking_readouts(network)})

        def neuron(population: Population) -> Neuron:
            unbalanced = self.unbalanced(population, network, context)
            if unbalanced is not None:
                return unbalanced
            is_output = population.name in whole
            balanced = self._balance(network, population, statistics[population.name], timesteps, is_output)
            return self.integrate_fire(balanced, population.neuron, timesteps)

        return self.converted(network, timesteps, neuron, self.lag)

    def _balance(
        self, network: Network, population: Population, statistics: Statistics, timesteps: int, is_output: bool
    ) -> np.ndarray:
        """λ, (C,) or (1,)."""
        if self.threshold == "mse":
            balanced = statistics.least_error(timesteps, self.v_init, self.per_channel)
        else:
            balanced = self.of_distribution(statistics, is_output)
        if self.largest_weight:
            balanced = np.maximum(balanced, _largest_weight(network, population.name))
        return positive(balanced, statistics.maximum)


def _largest_weight(network: Network, name: str) -> np.float32:
    operators = [operator for connection in network.incoming(name) for operator in connection.operators]
    weights = [
        operator.weight.max() for operator in operators if isinstance(operator, (Conv2D, ConvTranspose2D, Dense))
    ]
    return np.float32(max(weights, default=0))
