"""From a Keras model to an mlGeNN network: the hooks say which neurons, the compiler does the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_genn
import numpy as np
from ml_genn import neurons as mlgenn
from ml_genn.utils.value import is_value_constant

from .. import frontend, ir, run_pipeline
from ..backend.mlgenn.emit import genn_name
from .compilers import InferenceCompiler
from .connectivity import connect
from .neurons import reads_potential, with_bias

# Without neurons or synapses of their own, ml_genn_tf never asked about them.
_NEVER_VALIDATED = {"InputLayer", "Flatten", "Add", "Dropout"}


@dataclass
class LayerConfig:
    """What `validate_tf_layer` is told about a layer.

    `neurons` is what `create_neurons` made for it; None for a layer that becomes part of an edge.
    """

    tf_layer: Any
    shape: tuple[int, ...]
    is_input: bool = False
    is_output: bool = False
    has_activation: bool = False
    neurons: Any = None
    synapses: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Analog:
    """A Keras model and its network in the IR, made of rectifiers: `layers` has the Keras layer of each population."""

    tf_model: Any
    network: ir.Network
    layers: Mapping[str, Any]


class Converter:
    """Base of all converters; its methods are the hooks that a subclass overrides.

    A population is created for every rectifier, input and output of the model. The weights of an edge are those of its
    Keras layers, batch normalisation folded in, and a spike counts as 1: where a threshold is θ, in units of what
    reaches the population, a spike stands for θ times as much as one of its sources. Where branches meet whose spikes
    stand for different amounts, the edges of the smaller ones are scaled.
    """

    _lowering = "canonicalise,lower-max-pool,lower-leaky-relu,clip"
    _converting: Analog | None = None

    def convert(
        self, tf_model: Any
    ) -> tuple[ml_genn.Network, list[ml_genn.Population], list[ml_genn.Population], dict[Any, ml_genn.Population]]:
        """The mlGeNN network of a Keras 3 model, its inputs, its outputs, and the population of each Keras layer.

        A layer that several populations come from, as from max pooling, stands for the last of them. Raises
        UnsupportedModelError with every layer that has no spiking counterpart.
        """
        self._converting = analog = self._analog(tf_model)
        try:
            pre_convert_output = self.pre_convert(tf_model)
            neurons = self._neurons(analog, pre_convert_output)
        finally:
            self._converting = None
        self._validate(analog, neurons)
        network, populations = _emit(analog, neurons)
        inputs = [populations[name] for name in analog.network.inputs]
        outputs = [populations[name] for name in analog.network.outputs]
        self.post_convert(network, inputs, outputs)
        return network, inputs, outputs, {analog.layers[name]: population for name, population in populations.items()}

    def create_input_neurons(self, pre_convert_output: Any) -> mlgenn.Neuron:
        """The mlGeNN neuron of an input."""
        raise NotImplementedError

    def create_neurons(self, tf_layer: Any, pre_convert_output: Any, is_output: bool) -> mlgenn.Neuron:
        """The mlGeNN neuron of a population that the activation of `tf_layer` becomes."""
        raise NotImplementedError

    def pre_convert(self, tf_model: Any) -> Any:
        """What the conversion has to find out about the model first; the other hooks are given the result."""

    def post_convert(
        self,
        mlg_network: ml_genn.Network,
        mlg_network_inputs: list[ml_genn.Population],
        mlg_model_outputs: list[ml_genn.Population],
    ) -> None:
        """What there is to do to the finished network."""

    def create_compiler(self, **kwargs: Any) -> Any:
        """A compiler for what `convert` makes."""
        return InferenceCompiler(**kwargs)

    def validate_tf_layer(self, tf_layer: Any, config: LayerConfig) -> None:
        """Raise an error for a layer that the converter cannot take; the frontend has refused what snnc cannot."""

    def _analog(self, tf_model: Any) -> Analog:
        """The model as the IR has it; during a conversion it is read once."""
        if self._converting is not None and self._converting.tf_model is tf_model:
            return self._converting
        network = run_pipeline(frontend.load(tf_model), self._lowering, progress=False)
        problems = [
            f"{', '.join(p.origin.layers) or name}: its neuron is more than a rectifier, which mlGeNN's are not; "
            "convert it with snnc.convert"
            for name, p in network.populations.items()
            if isinstance(p.neuron, (ir.QuantizedRelu, ir.SomaNeuron))
        ]
        if problems:
            raise ir.UnsupportedModelError("the converters cannot take every layer of this model", problems)
        found = {name: _find(tf_model, p.origin.layers[-1]) for name, p in network.populations.items()}
        return Analog(tf_model, network, found)

    def _neurons(self, analog: Analog, pre_convert_output: Any) -> dict[str, Any]:
        network = analog.network
        neurons = {}
        for name in network.order:
            if name in network.inputs:
                neurons[name] = self.create_input_neurons(pre_convert_output)
                continue
            is_output = name in network.outputs
            neurons[name] = self.create_neurons(analog.layers[name], pre_convert_output, is_output)
        return neurons

    def _validate(self, analog: Analog, neurons: Mapping[str, Any]) -> None:
        by_layer = {id(layer): name for name, layer in analog.layers.items()}
        for layer in analog.tf_model.layers:
            if type(layer).__name__ in _NEVER_VALIDATED:
                continue
            name = by_layer.get(id(layer))
            config = LayerConfig(
                layer,
                tuple(layer.output.shape[1:]),
                is_output=name in analog.network.outputs,
                has_activation=name is not None,
                neurons=None if name is None else neurons[name],
            )
            self.validate_tf_layer(layer, config)


def thresholds(analog: Analog, largest: Mapping[str, float]) -> dict[Any, np.float64]:
    """The threshold of each Keras layer, as its neurons meet it, from what a spike of each population is to stand for.

    `largest` has λ, in units of activations. It is divided by the λ of the sources, whose spikes count as 1.
    """
    found = {layer: np.float64(1.0) for layer in analog.tf_model.layers}
    assigned: dict[Any, np.float64] = {}
    amounts: dict[str, float] = {}
    for name in analog.network.order:
        layer, unit = analog.layers[name], _unit(analog.network, name, amounts)
        if name in largest:  # populations of one layer share its threshold: the highest that any of them needs
            assigned[layer] = max(assigned.get(layer, np.float64(0.0)), np.float64(largest[name] / unit))
        amounts[name] = unit * assigned.get(layer, np.float64(1.0))
    return found | assigned


def images_of(norm_data: Iterable[Any], network: ir.Network) -> ir.Images:
    """The images of normalisation data, as passes take them.

    ml_genn_tf takes a list whose first entry gives batches: (images, labels), or a list or mapping of the images of
    several inputs in place of the images.
    """
    batches = [batch[0] if isinstance(batch, (tuple, list)) else batch for batch in next(iter(norm_data))]
    if not batches:
        raise ir.DataError("norm_data has no batches")
    if len(network.inputs) == 1 and not isinstance(batches[0], (tuple, list, Mapping)):
        return np.concatenate([np.asarray(batch) for batch in batches])
    names = network.inputs
    keyed = [batch if isinstance(batch, Mapping) else dict(zip(names, batch, strict=True)) for batch in batches]
    return {name: np.concatenate([np.asarray(batch[name]) for batch in keyed]) for name in names}


def _emit(analog: Analog, neurons: Mapping[str, Any]) -> tuple[ml_genn.Network, dict[str, ml_genn.Population]]:
    network = analog.network
    is_phased = any(isinstance(neuron, (mlgenn.FewSpikeRelu, mlgenn.FewSpikeReluInput)) for neuron in neurons.values())
    emitted = ml_genn.Network()
    populations: dict[str, ml_genn.Population] = {}
    amounts: dict[str, float] = {}
    with emitted:
        for number, name in enumerate(network.order):
            population, neuron, unit = network.populations[name], neurons[name], _unit(network, name, amounts)
            amounts[name] = unit * _threshold(neuron)
            if population.bias is not None and population.bias.any():
                bias = np.broadcast_to(population.bias, population.shape).reshape(-1) / np.float32(unit)
                neuron = with_bias(neuron, bias.reshape(population.shape), analog.layers[name].name)
            populations[name] = ml_genn.Population(neuron, population.shape, name=_name(number, name))
        for number, edge in enumerate(network.connections):
            source, target = populations[edge.source], populations[edge.target]
            delay = 0 if is_phased else edge.delay  # mlGeNN's compiler delays by phases
            connectivity = connect(edge.operators, source.shape, delay)
            unit = _unit(network, edge.target, amounts)
            if amounts[edge.source] != unit:
                connectivity.weight = connectivity.weight * np.float32(amounts[edge.source] / unit)
            taken = any(other().target() is target for other in source.outgoing_connections)
            name = f"Conn_{source.name}_{target.name}" + (f"_{number}" if taken else "")
            ml_genn.Connection(source, target, connectivity, name=name)
    return emitted, populations


def _unit(network: ir.Network, name: str, amounts: Mapping[str, float]) -> float:
    """What 1 in a population's potential stands for: as much as a spike of its sources, or of the largest of them."""
    return max((amounts[edge.source] for edge in network.incoming(name)), default=1.0)


def _threshold(neuron: Any) -> float:
    """How many units a spike takes off, for the neurons of which that is known."""
    is_known = isinstance(neuron, mlgenn.IntegrateFire) and is_value_constant(neuron.v_thresh)
    return float(neuron.v_thresh) if is_known and not reads_potential(neuron) else 1.0


def _name(number: int, name: str) -> str:
    """The population's own name if C can have it."""
    return name if name.isascii() and name.isidentifier() else genn_name("p", number, name)


def _find(tf_model: Any, path: str) -> Any:
    """The Keras layer, or operation, at a path such as "outer/inner"."""
    inputs = [tensor._keras_history.operation for tensor in getattr(tf_model, "inputs", None) or ()]
    for operation in (*inputs, *getattr(tf_model, "operations", ()), *getattr(tf_model, "layers", ())):
        if operation.name == path:
            return operation
        if path.startswith(f"{operation.name}/"):
            return _find(operation, path.removeprefix(f"{operation.name}/"))
    return tf_model  # a layer that a layer of the user's own holds
