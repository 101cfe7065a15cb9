"""The embedded spiking engine: layer by layer over time.

Every population sees exactly T aligned steps, so a layer's whole input over time can be computed before the next
layer is looked at. Images, and where one image is still too much its timesteps, are cut into chunks
(`resources.py`); potentials are carried from chunk to chunk, so cutting changes nothing.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping

import numpy as np

from ...ir import Network, verify
from ..compiled import CompiledSpiking, Recording, Wanted
from .layer import Layer, is_graded
from .layout import Layout
from .resources import Buffers, Chunk, Resources, side_by_side


class CompiledEngine(CompiledSpiking):
    """A spiking network on the embedded engine."""

    def __init__(self, network: Network, resources: Resources | None = None):
        verify(network, "spiking")
        super().__init__(network)
        self._resources = resources or Resources.of()
        self._layers: dict[int, list[Layer]] = {}  # by the threads for each linear map
        self._last_use = last_use(network)

    def _run(self, inputs: dict[str, np.ndarray], wanted: Wanted) -> Iterator[Recording]:
        images = len(next(iter(inputs.values())))
        chunk = chunk_of(self.network, self._resources, images)
        layers = self._compiled(chunk.threads)

        layout, own = Layout.of(self.network), threading.local()

        def run(start: int) -> Recording:
            if not hasattr(own, "buffers"):
                own.buffers = Buffers()
            part = {name: layout.inward(array[start : start + chunk.images]) for name, array in inputs.items()}
            return self._run_batch(layers, part, start, chunk.steps, wanted, own.buffers)

        return side_by_side(run, range(0, images, chunk.images), self._resources.threads // chunk.threads)

    def _compiled(self, threads: int) -> list[Layer]:
        if threads not in self._layers:
            self._layers[threads] = [Layer.of(self.network, name, threads) for name in stepped(self.network)]
        return self._layers[threads]

    def _run_batch(
        self,
        layers: list[Layer],
        inputs: dict[str, np.ndarray],
        first_image: int,
        steps: int,
        wanted: Wanted,
        buffers: Buffers,
    ) -> Recording:
        slots = time_slots(self.network)
        states = {
            layer.name: layer.start(
                inputs, first_image, totals=not wanted.each_image and layer.name not in self.network.outputs
            )
            for layer in layers
        }
        decoded: dict[str, list[np.ndarray]] = {name: [] for name in self.network.outputs}
        trains: dict[str, list[np.ndarray]] = {}
        for first in range(0, slots, steps):
            sent: dict[str, np.ndarray] = {}
            for layer in layers:
                state = states[layer.name]
                counts_before = state.counts.copy() if layer.name in decoded else state.counts
                result = layer.step(min(steps, slots - first), state, sent, first, buffers)
                sent[layer.name] = result
                if layer.name in decoded:
                    decoded[layer.name].append(layer.decode(result, counts_before, first))
                if layer.name in wanted.trains:
                    trains.setdefault(layer.name, []).append(layer.trains(result, self.network.timesteps or 1))
                for name in _spent(layer.name, sent, self._last_use):
                    buffers.give(sent.pop(name))
        counts = {layer.name: states[layer.name].counts for layer in layers if layer.neuron.fires}
        potentials = {layer.name: states[layer.name].v for layer in layers if not layer.neuron.is_input}
        if not wanted.each_image:
            counts = {name: summed.sum(0, dtype=np.int64, keepdims=True) for name, summed in counts.items()}
            potentials = {}
        return Recording(
            {layer.name: layer.external(counts[layer.name]) for layer in layers if layer.name in counts},
            {layer.name: layer.external(potentials[layer.name]) for layer in layers if layer.name in potentials},
            {name: np.concatenate(parts) for name, parts in decoded.items()},
            {name: np.concatenate(parts) for name, parts in trains.items()} if wanted.trains else None,
        )


def stepped(network: Network) -> list[str]:
    """The populations that are run, in order: all but graded inputs, whose values are taken as they are."""
    return [name for name in network.order if not is_graded(network.populations[name].neuron)]


def time_slots(network: Network) -> int:
    """How often a layer's input has to be computed: in each timestep, or in a few-spike network once per phase."""
    return 1 if network.is_phased else network.timesteps or 1


def last_use(network: Network) -> Mapping[str, str]:
    """For each population whose spikes are read, the last population to read them."""
    return {edge.source: name for name in network.order for edge in network.incoming(name)}


def chunk_of(network: Network, resources: Resources, images: int) -> Chunk:
    """How a run of so many images is cut."""
    return resources.chunk(images, time_slots(network), 4 * _live_neurons(network))


def _live_neurons(network: Network) -> int:
    """The largest number of neurons whose spikes or currents are held at the same time."""
    live: dict[str, int] = {}
    largest = 0
    last = last_use(network)
    for name in stepped(network):
        population = network.populations[name]
        live[name] = population.size
        summed = math.prod(population.input_shape)
        largest = max(largest, sum(live.values()) + summed)  # onnxruntime's result beside its copy
        for spent in _spent(name, live, last):
            del live[spent]
    return largest


def _spent(now: str, held: Mapping[str, object], last: Mapping[str, str]) -> list[str]:
    """Those of the populations `held` whose spikes no population after `now` reads."""
    return [name for name in held if last.get(name, name) == now]
