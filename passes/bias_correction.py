"""Biases that make up for what spikes systematically lose."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..ir import Network, Neuron, PipelineError, SomaNeuron, SpikingNeuron, Stage, shown
from .manager import Context, Drive, Pass

MOST_ROUNDS = 1000  # the first few say all that there is to say


@dataclass(frozen=True)
class BiasCorrection(Pass):
    """Shift each channel's bias by the mean error of its decoded activation on the calibration images.

    In graph order, everything before being corrected already, the mean over images and positions of analog activation
    minus decoded activation after T steps is added to the bias: the light calibration of [Li 2021,
    https://proceedings.mlr.press/v139/li21d.html]. It follows the pass that converts, and is for runs of just that
    pass's length. Readouts are corrected too.

    - rounds: how often a population is measured and shifted before it is the next one's turn. A shift moves only the
      neurons that fire, so one round leaves part of the error.
    """

    name: ClassVar[str] = "bias-correction"
    requires: ClassVar[Stage] = "spiking"
    ensures: ClassVar[Stage] = "spiking"
    needs_analog: ClassVar[bool] = True

    rounds: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.rounds <= MOST_ROUNDS:
            raise PipelineError(f"bias-correction: rounds is {shown(self.rounds)}; it lies from 1 to {MOST_ROUNDS}")

    def run(self, network: Network, context: Context) -> Network:
        assert context.analog is not None  # the manager sees to it
        statistics = context.statistics(context.analog)

        def correct(drive: Drive) -> Drive:
            population = drive.population
            if population.name not in statistics or not is_shiftable(population.neuron):
                return drive
            drive = corrected(drive, statistics[population.name].mean, self.rounds)
            return drive.having(replace(drive.population, origin=population.origin.by(self.name)))

        return context.adjusted(network, correct)


def is_shiftable(neuron: Neuron) -> bool:
    """Whether a bias shifts what a spiking neuron decodes to: what a function makes of a shift is no shift."""
    return isinstance(neuron, SpikingNeuron) and not isinstance(neuron.soma, SomaNeuron)


def corrected(drive: Drive, mean: np.ndarray, rounds: int) -> Drive:
    """With a bias that brings the mean decoded activation of each channel to `mean`, (C,), or nearer each round."""
    for _ in range(rounds):
        population = drive.population
        error = (mean - _mean(drive)).astype(np.float32)
        drive = drive.having(replace(population, bias=error if population.bias is None else population.bias + error))
    return drive


def _mean(drive: Drive) -> np.ndarray:
    """The mean decoded activation of each channel, (C,)."""
    total = np.zeros(drive.population.shape[-1])
    count = 0
    for decoded in drive.decoded():
        rows = decoded.reshape(-1, decoded.shape[-1])
        total += rows.sum(0, dtype=np.float64)
        count += len(rows)
    return total / count
