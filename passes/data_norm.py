"""Data-based threshold balancing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ..ir import (
    Clip,
    CurrentInput,
    Identity,
    Input,
    Integrate,
    IntegrateFire,
    Network,
    Neuron,
    PipelineError,
    Population,
    Relu,
    Softmax,
    Stage,
    UnsupportedModelError,
)
from .calibration import Statistics
from .manager import Context, Pass


@dataclass(frozen=True)
class DataNorm(Pass):
    """Integrate-and-fire neurons with λ, the threshold, from the activations of calibration images.

    A population's λ is the largest activation that the images evoke [Diehl 2015,
    https://doi.org/10.1109/IJCNN.2015.7280696], or a percentile of them, which trades a little clipping for much
    finer steps [Rueckauer 2017, https://doi.org/10.3389/fnins.2017.00682], or the λ that loses least on the
    activations after T steps [Li 2021, https://proceedings.mlr.press/v139/li21d.html]. Weights are not touched.
    Inputs become constant currents and readouts integrate without firing.

    - percentile: of all activations of the population (or channel), zeros included; 100 is the largest.
    - per-channel: one λ per channel instead of one per population.
    - reset: `subtract` the threshold from the potential on a spike, or set it to `zero`.
    - v-init: initial potential as a share of λ; a half makes spike counts round instead of truncate.
    - threshold: λ is a `percentile` of the activations, or the one of least squared error (`mse`) at T timesteps,
      for a run of just that length.
    """

    name: ClassVar[str] = "data-norm"
    requires: ClassVar[Stage] = "canonical"
    ensures: ClassVar[Stage] = "spiking"

    percentile: float = 100.0
    per_channel: bool = False
    reset: Literal["subtract", "zero"] = "subtract"
    v_init: float = 0.5
    threshold: Literal["percentile", "mse"] = "percentile"

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise PipelineError(f"data-norm: percentile is {self.percentile}; it lies above 0 and up to 100")
        if self.threshold == "mse" and self.percentile != 100:
            raise PipelineError("data-norm: a percentile says nothing with threshold=mse; leave one of them out")
        if not 0 <= self.v_init < 1:
            raise PipelineError(
                f"data-norm: v-init is {self.v_init}; it is a share of the threshold, from 0 to below 1"
            )

    def run(self, network: Network, context: Context) -> Network:
        if context.timesteps is None:
            raise PipelineError("data-norm needs to know how long the network runs: give timesteps=… (or --timesteps)")
        _require_convertible(network)
        statistics = context.statistics(network)
        populations = [
            replace(
                population,
                neuron=self._neuron(population, statistics, context.timesteps),
                origin=population.origin.by(self.name),
            )
            for population in network.populations.values()
        ]
        return network.replace(populations=populations, timesteps=context.timesteps)

    def _neuron(self, population: Population, statistics: Mapping[str, Statistics], timesteps: int) -> Neuron:
        match population.neuron:
            case Input():
                return CurrentInput()
            case Identity() | Softmax():
                return Integrate()
        balanced = self._balance(statistics[population.name], timesteps)
        if isinstance(population.neuron, Clip):  # a neuron fires once a step at most, so λ itself is the clip
            balanced = np.minimum(balanced, population.neuron.max)
        return self._integrate_fire(balanced)

    def _integrate_fire(self, v_thresh: np.ndarray) -> IntegrateFire:
        threshold = v_thresh if self.per_channel else float(v_thresh[0])
        return IntegrateFire(threshold, self.v_init * threshold, self.reset)

    def _balance(self, statistics: Statistics, timesteps: int) -> np.ndarray:
        """λ, (C,) or (1,). Where the percentile is zero the maximum stands in; a dead channel takes the layer's."""
        if not statistics.maximum.any():
            return np.ones(len(statistics.maximum) if self.per_channel else 1, np.float32)
        if self.threshold == "mse":
            balanced = statistics.least_error(timesteps, self.v_init, self.per_channel)
        else:
            balanced = statistics.percentile(self.percentile, self.per_channel)
        balanced = np.where(balanced > 0, balanced, statistics.percentile(100, self.per_channel))
        return np.where(balanced > 0, balanced, balanced.max())


def _require_convertible(network: Network) -> None:
    known = (Input, Relu, Clip, Identity, Softmax)
    problems = [
        f"{name} ({type(population.neuron).__name__}, from {', '.join(population.origin.layers) or 'no known layer'}): "
        "no integrate-and-fire neuron computes it; run lower-max-pool before data-norm"
        for name, population in network.populations.items()
        if not isinstance(population.neuron, known)
    ]
    if problems:
        raise UnsupportedModelError("data-norm cannot convert these populations:", problems)
