"""Conversion without balancing."""

from __future__ import annotations

from typing import Any

import ml_genn
from ml_genn.neurons import Neuron

from .enum import InputType
from .rate import RateConverter


class Simple(RateConverter):
    """Integrate-and-fire neurons with a threshold of 1, which `spike_normalise` can balance afterwards.

    Args:
        evaluate_timesteps: T, the steps that an example is shown for.
        signed_input:       Negative numbers in the images become negative spikes.
        input_type:         How images become spikes.
        mlgenn_neurons:     mlGeNN's neurons and its compiler, as in ml_genn_tf: they reset to zero, and the last spikes
                            of an example arrive in the next one.
    """

    def __init__(
        self,
        evaluate_timesteps: int,
        signed_input: bool = False,
        input_type: InputType | str = InputType.POISSON,
        *,
        mlgenn_neurons: bool = False,
    ):
        super().__init__(evaluate_timesteps, signed_input, input_type, mlgenn_neurons)

    def create_neurons(self, tf_layer: Any, pre_convert_output: Any, is_output: bool) -> Neuron:
        """Threshold 1."""
        return self.integrate_fire(tf_layer, 1.0, is_output)

    def pre_compile(self, mlg_network: ml_genn.Network) -> None:
        """Nothing; ml_genn_tf has it."""
