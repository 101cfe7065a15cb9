"""Conversion to few-spike neurons."""

from __future__ import annotations

import logging
from collections import namedtuple
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import ml_genn
from ml_genn import compilers, neurons

from .. import ir, passes, run_pipeline
from .compilers import FewSpikeCompiler
from .converter import Converter, images_of
from .neurons import FewSpikeRelu, FewSpikeReluInput, Windowed

logger = logging.getLogger(__name__)

PreConvertOutput = namedtuple("PreConvertOutput", ["layer_alpha", "input_alpha"])


class FewSpike(Converter):
    """Few-spike neurons, balanced by the pass `few-spike` [Stöckl & Maass 2021,
    https://doi.org/10.1038/s42256-021-00311-4].

    Args:
        k:              Steps in a phase, and bits of an activation.
        alpha:          Without `norm_data`, the value that all spikes of a phase add up to, nearly.
        signed_input:   Negative numbers in the images become negative spikes.
        norm_data:      A list whose first entry gives batches of (images, labels), as a TensorFlow data set does. alpha
                        is then what the largest activation of the layer needs.
        mlgenn_neurons: mlGeNN's neurons and its compiler, as in ml_genn_tf: activations are truncated, all sources of a
                        population take the largest alpha of them, and there is no room for biases.
    """

    def __init__(
        self,
        k: int = 10,
        alpha: float = 25,
        signed_input: bool = False,
        norm_data: Iterable[Any] | None = None,
        *,
        mlgenn_neurons: bool = False,
    ):
        self.k = k
        self.alpha = alpha
        self.signed_input = signed_input
        self.norm_data = norm_data
        self.mlgenn_neurons = mlgenn_neurons

    def pre_convert(self, tf_model: Any) -> PreConvertOutput:
        """alpha of every Keras layer that becomes a population, and of the inputs; nothing without `norm_data`."""
        if self.norm_data is None:
            return PreConvertOutput({}, None)
        analog = self._analog(tf_model)
        images = images_of(self.norm_data, analog.network)
        conversion = passes.FewSpikeConversion(
            k=self.k, alpha="max", input="few-spike", signed=self.signed_input, rounding=not self.mlgenn_neurons
        )
        rectified = _with_rectified_outputs(analog.network)
        spiking = run_pipeline(rectified, [conversion], calibration=images, timesteps=self.k, progress=False)
        alphas = {name: float(p.neuron.alpha) for name, p in spiking.populations.items()}  # type: ignore[attr-defined]
        layer_alpha: dict[Any, float] = {}
        for name, layer in analog.layers.items():
            layer_alpha[layer] = max(layer_alpha.get(layer, 0.0), alphas[name])
        # mlGeNN's signed code spends every other step on each sign
        share = (1 - 2.0**-self.k) / (1 - 2.0 ** (1 - self.k)) if self.signed_input and self.mlgenn_neurons else 1.0
        return PreConvertOutput(layer_alpha, share * max(alphas[name] for name in spiking.inputs))

    def create_input_neurons(self, pre_convert_output: PreConvertOutput) -> neurons.Neuron:
        """A few-spike code of the image."""
        alpha = self.alpha if pre_convert_output.input_alpha is None else pre_convert_output.input_alpha
        kind = neurons.FewSpikeReluInput if self.mlgenn_neurons else FewSpikeReluInput
        return kind(self.k, alpha, self.signed_input)

    def create_neurons(self, tf_layer: Any, pre_convert_output: PreConvertOutput, is_output: bool) -> neurons.Neuron:
        """The layer's own alpha; the potential of an output is read."""
        alphas = pre_convert_output.layer_alpha
        if alphas and tf_layer not in alphas:
            logger.warning("FewSpike pre_convert has found no alpha for %r: it takes %s", tf_layer.name, self.alpha)
        kind = neurons.FewSpikeRelu if self.mlgenn_neurons else FewSpikeRelu
        return kind(self.k, alphas.get(tf_layer, self.alpha), readout="var" if is_output else None)

    def post_convert(
        self,
        mlg_network: ml_genn.Network,
        mlg_network_inputs: list[ml_genn.Population],
        mlg_model_outputs: list[ml_genn.Population],
    ) -> None:
        """Give all sources of one of mlGeNN's neurons, which cannot tell them apart, the largest alpha of them."""
        for population in mlg_network.populations:
            sources = [connection().source().neuron for connection in population.incoming_connections]
            if isinstance(population.neuron, Windowed) or not sources:
                continue
            largest = max(source.alpha for source in sources)
            for source in sources:
                source.alpha = largest

    def create_compiler(self, **kwargs: Any) -> compilers.Compiler:
        """A compiler for phases of `k` steps; the arguments are those of mlGeNN's FewSpikeCompiler."""
        return (compilers.FewSpikeCompiler if self.mlgenn_neurons else FewSpikeCompiler)(k=self.k, **kwargs)


def _with_rectified_outputs(network: ir.Network) -> ir.Network:
    """`network` with rectifiers in place of readouts, so that these get an alpha too."""
    populations = [
        replace(population, neuron=ir.Relu()) if population.neuron.is_readout else population
        for population in network.populations.values()
    ]
    return network.replace(populations=populations)
