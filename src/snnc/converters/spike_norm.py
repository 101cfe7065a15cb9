"""Thresholds from the spikes themselves, on GeNN, for networks of converters and networks built by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import ml_genn
import numpy as np
from ml_genn.neurons import IntegrateFire
from ml_genn.neurons.input import Input
from ml_genn.utils.network import get_network_dag, get_underlying_pop

from .. import ir
from .compilers import InferenceCompiler
from .neurons import Windowed, reads_potential


class NormCompiler(InferenceCompiler):
    """Compiles networks of which the largest input of each integrate-and-fire population is recorded.

    Its neurons have a threshold that can be set while the network is loaded, and two more variables: `Largest`, the
    largest input of any step, and `Growth`, which says how much a spike counts.
    """

    def build_neuron_model(self, pop: Any, model: Any, compile_state: Any) -> Any:
        """As the InferenceCompiler's, with a record of the input."""
        model = super().build_neuron_model(pop, model, compile_state)
        if not _is_balanced(pop):
            return model
        for name in _dynamic(pop.neuron):
            model.set_param_dynamic(name)
        biased = "Isyn + Bias" if model.has_param("Bias") else "Isyn"
        inside = "t >= Begin && t < End" if model.has_param("Begin") else "true"
        # added after mlGeNN has listed what it resets between examples
        model.add_var("Largest", "scalar", 0.0)
        model.add_var("Growth", "scalar", 1.0)
        model.prepend_sim_code(f"if ({inside}) {{ Largest = fmax(Largest, {biased}); }}")
        return model

    def reads_values(self, population: Any) -> bool:
        """As the InferenceCompiler's; and the growth of a balanced population is read with each of its spikes."""
        return super().reads_values(population) or _is_balanced(population)

    def build_weight_update_model(self, connection: Any, connect_snippet: Any, compile_state: Any) -> Any:
        """As the InferenceCompiler's, but a spike of a balanced population counts `Growth` times as much."""
        model = super().build_weight_update_model(connection, connect_snippet, compile_state)
        if not _is_balanced(connection.source()):
            return model
        code = model.model["pre_spike_syn_code"]
        model.model["pre_spike_syn_code"] = re.sub(r"(addToPost(Delay)?)\(", r"\1(Growth * ", code)
        model.pre_neuron_var_refs = dict(model.pre_neuron_var_refs)  # mlGeNN's default is one dictionary for all
        model.add_pre_neuron_var_ref("Growth", "scalar", "Growth")
        return model

    def create_compiled_network(
        self, genn_model: Any, neuron_populations: Any, connection_populations: Any, compile_state: Any
    ) -> Any:
        """As the InferenceCompiler's; `balanced` has the populations to balance, from the inputs on."""
        compiled = super().create_compiled_network(
            genn_model, neuron_populations, connection_populations, compile_state
        )
        compiled.balanced = [population for population in neuron_populations if _is_balanced(population)]
        return compiled


def spike_normalise(
    net: ml_genn.Network,
    net_inputs: Any,
    net_outputs: Any,
    norm_data: Iterable[Any],
    evaluate_timesteps: int,
    num_batches: int | None = None,
    dt: float = 1.0,
    batch_size: int = 1,
    rng_seed: int = 0,
    kernel_profiling: bool = False,
    prefer_in_memory_connect: bool = True,
    reset_time_between_batches: bool = True,
    **genn_kwargs: Any,
) -> dict[ml_genn.Population, float]:
    """Balance the thresholds of a network's integrate-and-fire neurons, and give them back by population.

    A threshold is the largest input of any step that the data evoke, all populations before it being balanced already
    [Sengupta 2019, https://doi.org/10.3389/fnins.2019.00095]. The network keeps its function: a spike then stands for
    more or less than before, so biases are divided by what a spike of the sources has come to stand for, and where
    sources differ in that, the weights of the smaller ones are scaled. A population without any input keeps its
    threshold, and so does an output that is read from its potential, as it does not fire.

    Args:
        net:                    The network, which is changed.
        net_inputs:             Its input population, or a list of them.
        net_outputs:            Its output population, or a list of them.
        norm_data:              Batches of (images, labels), or of (list of the images of each input, labels).
        evaluate_timesteps:     T, the steps that each example is shown for.
        num_batches:            How many of the batches are used, if not all.

    The other arguments are those of `NormCompiler`.
    """
    inputs, outputs = _listed(net_inputs), _listed(net_outputs)
    compiler = NormCompiler(
        evaluate_timesteps,
        dt,
        batch_size,
        rng_seed,
        kernel_profiling,
        prefer_in_memory_connect,
        reset_time_between_batches,
        **genn_kwargs,
    )
    compiled = compiler.compile(net, "spike_normalise", inputs=inputs, outputs=outputs)
    batches = [_by_input(batch, inputs) for batch in islice(norm_data, num_batches)]
    if not batches:
        raise ir.DataError("norm_data has no batches")
    growth: dict[Any, float] = {}
    with compiled:
        for population in _in_order(inputs, outputs):
            if population in compiled.balanced:
                growth[population] = _balance(compiled, population, batches, outputs)
    return _apply(net, inputs, outputs, growth)


def _balance(compiled: Any, population: Any, batches: Sequence[Mapping[Any, np.ndarray]], outputs: list[Any]) -> float:
    """Set the population's threshold in the loaded network; by how much it has grown."""
    genn_population = compiled.neuron_populations[population]
    largest = genn_population.vars["Largest"]
    largest.view[:] = 0.0  # from when the populations before it were not balanced
    largest.push_to_device()
    for batch in batches:
        compiled.predict(batch, outputs, callbacks=[])
    largest.pull_from_device()
    threshold = float(largest.view.max())
    if threshold <= 0:
        return 1.0
    grown = threshold / _scalar(population)
    for name in _dynamic(population.neuron):
        genn_population.set_dynamic_param_value(
            name, grown * float(population.neuron.v) if name == "VInit" else threshold
        )
    variable = genn_population.vars["Growth"]
    variable.view[:] = grown
    variable.push_to_device()
    return grown


def _apply(net: Any, inputs: list[Any], outputs: list[Any], growth: Mapping[Any, float]) -> dict[Any, float]:
    """Change the network as the loaded one was changed, but so that each spike counts as 1 again."""
    thresholds = {}
    for population in _in_order(inputs, outputs):
        edges = [connection() for connection in population.incoming_connections]
        unit = max((growth.get(edge.source(), 1.0) for edge in edges), default=1.0)
        for edge in edges:
            share = growth.get(edge.source(), 1.0) / unit
            if share != 1:
                edge.connectivity.weight = edge.connectivity.weight * np.float32(share)
        neuron = population.neuron
        if getattr(neuron, "bias", None) is not None:
            neuron.bias = neuron.bias / np.float32(unit)
        if population in growth:
            neuron.v_thresh = thresholds[population] = neuron.v_thresh * growth[population] / unit
            neuron.v = neuron.v * growth[population] / unit
    return thresholds


def _dynamic(neuron: Any) -> tuple[str, ...]:
    """The GeNN parameters that follow the threshold."""
    return ("VThresh", "VInit") if isinstance(neuron, Windowed) else ("Vthresh",)


def _is_balanced(population: Any) -> bool:
    neuron = population.neuron
    return isinstance(neuron, IntegrateFire) and not isinstance(neuron, Input) and not reads_potential(neuron)


def _in_order(inputs: list[Any], outputs: list[Any]) -> list[Any]:
    return list(get_network_dag(inputs, outputs))


def _listed(populations: Any) -> list[Any]:
    listed = populations if isinstance(populations, Sequence) else [populations]
    return [get_underlying_pop(population) for population in listed]


def _by_input(batch: Any, inputs: list[Any]) -> dict[Any, np.ndarray]:
    images = batch[0] if isinstance(batch, (tuple, list)) else batch
    images = [images] if len(inputs) == 1 else images
    return {population: np.asarray(x) for population, x in zip(inputs, images, strict=True)}


def _scalar(population: Any) -> float:
    if np.ndim(population.neuron.v_thresh):
        raise ir.BackendError(f"population {population.name!r} has a threshold for each neuron; give it one number")
    return float(population.neuron.v_thresh)
