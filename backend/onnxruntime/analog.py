"""The analog network on onnxruntime: one graph, all populations within reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime

from ...ir import AnalogNeuron, Images, Network, as_inputs, as_labels, verify
from ..compiled import PerOutput, by_output, per_output, told, track
from .emit import GraphBuilder, emit_bias, emit_neuron, emit_operators, internal_shape
from .layout import CHANNELS_LAST

# Activations of one batch are all alive at once when calibration asks for every population.
BATCH_BYTES = 256 * 2**20
LARGEST_BATCH = 128


class CompiledAnalog:
    """The ANN itself, as the network says it: the reference for every conversion."""

    def __init__(self, network: Network):
        verify(network, "analog")
        self.network = network

    def predict(self, x: Images, *, progress: bool = True) -> PerOutput:
        """The outputs for `x`, (images, *input shape): (images, *output shape), or a mapping if there are several.

        Raises DataError for data that does not fit.
        """
        inputs = as_inputs(self.network, x)
        parts = list(self._batches(self._predicting, self.network.outputs, inputs, progress))
        return per_output({name: np.concatenate([part[name] for part in parts]) for name in self.network.outputs})

    def accuracy(self, x: Images, y: Any, *, progress: bool = True) -> dict[str, float]:
        """For each output the share of images `x` whose largest activation is that of the class in `y`, (images,).

        Or, where the model ends in a sigmoid, the share of labels in `y`, (images, labels), that it tells rightly.

        Several inputs or outputs are given as mappings by name. Raises DataError for data that does not fit.
        """
        outputs = by_output(self.network, self.predict(x, progress=progress))
        images = len(next(iter(outputs.values())))
        labels = as_labels(self.network, y, images)
        found = {name: told(values[None], labels[name].ndim > 1, threshold=0.5)[0] for name, values in outputs.items()}
        return {name: float((found[name] == labels[name]).mean()) for name in found}

    def activations(
        self, x: Images, of: Sequence[str] | None = None, *, progress: bool = True
    ) -> Iterator[Mapping[str, np.ndarray]]:
        """Batch by batch the activation of every population, inputs included, or `of` some: (images, *shape)."""
        inputs = as_inputs(self.network, x)
        names = tuple(self.network.populations) if of is None else tuple(of)
        return self._batches(_session(self.network, names), names, inputs, progress)

    def _batches(
        self,
        session: onnxruntime.InferenceSession,
        names: tuple[str, ...],
        inputs: dict[str, np.ndarray],
        progress: bool,
    ) -> Iterator[dict[str, np.ndarray]]:
        images, ports = len(next(iter(inputs.values()))), [port.name for port in session.get_inputs()]
        neurons = sum(population.size for population in self.network.populations.values())
        batch = int(np.clip(BATCH_BYTES // (4 * neurons), 1, LARGEST_BATCH))
        with track(f"running the analog network on {images} images", images, progress) as advance:
            for start in range(0, images, batch):
                feed = {port: inputs[port.removeprefix("in:")][start : start + batch] for port in ports}
                values = session.run([f"out:{name}" for name in names], feed)
                yield dict(zip(names, values, strict=True))
                advance(len(values[0]))

    @cached_property
    def _predicting(self) -> onnxruntime.InferenceSession:
        return _session(self.network, self.network.outputs)


def _session(network: Network, outputs: tuple[str, ...]) -> onnxruntime.InferenceSession:
    """Computes these populations, and what they need."""
    graph = GraphBuilder()
    values: dict[str, str] = {}
    needed = network.leading_to(outputs)
    for name in (name for name in network.order if name in needed):
        population = network.populations[name]
        if population.neuron.is_input:
            values[name] = CHANNELS_LAST.entering(graph, f"in:{name}", population.shape).value
            continue
        summed = []
        for port, (shape, bias) in enumerate(population.ports):
            terms = [
                emit_operators(graph, values[c.source], c.operators, network.populations[c.source].shape)
                for c in network.incoming(name, port)
            ]
            summed.append(emit_bias(graph, graph.total(terms, internal_shape(shape)), bias, shape))
        assert isinstance(population.neuron, AnalogNeuron)
        values[name] = emit_neuron(graph, summed, population.neuron, population.input_shape)
    for name in outputs:
        CHANNELS_LAST.leaving(graph, values[name], f"out:{name}", network.populations[name].shape)
    return graph.session()
