"""Conversion with thresholds from the activations of normalisation data."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable
from typing import Any

from ml_genn.neurons import Neuron

from .. import passes, run_pipeline
from .converter import Converter, images_of, thresholds
from .enum import InputType
from .rate import RateConverter

PreConvertOutput = namedtuple("PreConvertOutput", ["thresholds"])


class DataNorm(RateConverter):
    """Integrate-and-fire neurons balanced by the pass `data-norm`: λ is the largest activation [Diehl 2015,
    https://doi.org/10.1109/IJCNN.2015.7280696].

    Args:
        evaluate_timesteps: T, the steps that an example is shown for.
        signed_input:       Negative numbers in the images become negative spikes.
        norm_data:          A list whose first entry gives batches of (images, labels), as a TensorFlow data set does;
                            without it every threshold is 1.
        input_type:         How images become spikes.
        mlgenn_neurons:     mlGeNN's neurons and its compiler, as in ml_genn_tf: they reset to zero, and the last spikes
                            of an example arrive in the next one. λ is then at least the largest weight.
    """

    def __init__(
        self,
        evaluate_timesteps: int,
        signed_input: bool = False,
        norm_data: Iterable[Any] | None = None,
        input_type: InputType | str = InputType.POISSON,
        *,
        mlgenn_neurons: bool = False,
    ):
        super().__init__(evaluate_timesteps, signed_input, input_type, mlgenn_neurons)
        self.norm_data = norm_data

    @property
    def _lowering(self) -> str:  # type: ignore[override]
        balanced = self.norm_data is not None
        # a neuron says no more than λ: balanced, a clip is its own threshold
        return Converter._lowering.removesuffix(",clip") if balanced else Converter._lowering

    def pre_convert(self, tf_model: Any) -> PreConvertOutput:
        """The threshold of every Keras layer: λ divided by the λ of the populations before it."""
        analog = self._analog(tf_model)
        if self.norm_data is None:
            return PreConvertOutput(thresholds(analog, {}))
        spiking = run_pipeline(
            analog.network,
            [passes.DataNorm(readout="spikes", largest_weight=self.mlgenn_neurons)],
            calibration=images_of(self.norm_data, analog.network),
            timesteps=self.evaluate_timesteps,
            progress=False,
        )
        largest = {
            name: float(population.neuron.v_thresh)  # type: ignore[attr-defined]
            for name, population in spiking.populations.items()
            if name not in spiking.inputs
        }
        return PreConvertOutput(thresholds(analog, largest))

    def create_neurons(self, tf_layer: Any, pre_convert_output: PreConvertOutput, is_output: bool) -> Neuron:
        """The layer's own threshold."""
        return self.integrate_fire(tf_layer, float(pre_convert_output.thresholds[tf_layer]), is_output)
