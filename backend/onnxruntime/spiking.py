"""The embedded spiking engine: layer by layer over time.

Every population sees exactly T aligned steps, so a layer's whole input over time can be computed before
the next layer is looked at: onnxruntime applies the linear maps to [steps · images] at once and a fused
kernel runs the neurons. Constant currents and biases are computed once per image. Images, and where one
image is still too much its timesteps, are cut into chunks that fit a memory budget; potentials are
carried from chunk to chunk, so cutting changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime

from ...ir import Connection, CurrentInput, Integrate, IntegrateFire, Network, Population, verify
from ..compiled import CompiledSpiking, Recording
from ..weights import weighted
from .emit import GraphBuilder, emit_operators, from_internal, internal_shape, per_position, to_internal
from .kernels import integrate, integrate_fire

# For spikes and currents; onnxruntime's own workspace comes on top (measured: about four times as much, whatever the
# number of images and timesteps).
MEMORY_BYTES = 256 * 2**20
LARGEST_BATCH = 256


class CompiledEngine(CompiledSpiking):
    """A spiking network on the embedded engine."""

    def __init__(self, network: Network):
        verify(network, "spiking")
        super().__init__(network)
        self._layers = [_Layer.of(network, name) for name in network.order if name not in network.inputs]
        self._last_use = {source: layer.name for layer in self._layers for source in layer.spiking_sources}

    def _run(self, inputs: dict[str, np.ndarray], trains: bool) -> Iterator[Recording]:
        timesteps = self.network.timesteps
        assert timesteps is not None  # verified
        images = len(next(iter(inputs.values())))
        bytes_per_step = 4 * self._live_neurons()
        batch = int(np.clip(MEMORY_BYTES // (bytes_per_step * timesteps), 1, LARGEST_BATCH))
        steps = int(np.clip(MEMORY_BYTES // bytes_per_step, 1, timesteps))
        for start in range(0, images, batch):
            part = {name: to_internal(array[start : start + batch]) for name, array in inputs.items()}
            yield self._run_batch(part, timesteps, steps, trains)

    def _live_neurons(self) -> int:
        """The largest number of neurons whose spikes or currents are held at the same time."""
        live: dict[str, int] = {}
        largest = 0
        for layer in self._layers:
            live[layer.name] = layer.population.size
            largest = max(largest, sum(live.values()) + layer.population.size)  # onnxruntime's result beside its copy
            for name in self._spent(layer, live):
                del live[name]
        return largest

    def _spent(self, layer: _Layer, live: Mapping[str, object]) -> list[str]:
        """The populations whose spikes no later layer reads."""
        return [name for name in live if self._last_use.get(name, layer.name) == layer.name]

    def _run_batch(self, inputs: dict[str, np.ndarray], timesteps: int, steps: int, trains: bool) -> Recording:
        states = {layer.name: layer.start(inputs) for layer in self._layers}
        decoded: dict[str, list[np.ndarray]] = {name: [] for name in self.network.outputs}
        recorded: dict[str, list[np.ndarray]] = {}
        for first in range(0, timesteps, steps):
            spikes: dict[str, np.ndarray] = {}
            for layer in self._layers:
                state = states[layer.name]
                counts_before = state.counts.copy() if layer.name in decoded else state.counts
                result = layer.step(min(steps, timesteps - first), state, spikes)
                spikes[layer.name] = result
                if layer.name in decoded:
                    decoded[layer.name].append(layer.decode(result, counts_before, first))
                if trains and layer.fires:
                    recorded.setdefault(layer.name, []).append(layer.external(result) > 0)
                for name in self._spent(layer, spikes):
                    del spikes[name]
        return Recording(
            {layer.name: layer.external(states[layer.name].counts) for layer in self._layers if layer.fires},
            {layer.name: layer.external(states[layer.name].v) for layer in self._layers},
            {name: np.concatenate(parts) for name, parts in decoded.items()},
            {name: np.concatenate(parts) for name, parts in recorded.items()} if trains else None,
        )


@dataclass
class _State:
    """What a layer carries through the time of one batch: all (images, neurons)."""

    constant: np.ndarray
    v: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class _Layer:
    """A population with its incoming connections, compiled."""

    population: Population
    steady: onnxruntime.InferenceSession | None  # sums the connections from constant currents
    driven: onnxruntime.InferenceSession | None  # sums the connections from spikes
    steady_sources: tuple[str, ...]
    spiking_sources: tuple[str, ...]

    @classmethod
    def of(cls, network: Network, name: str) -> _Layer:
        steady: list[Connection] = []
        driven: list[Connection] = []
        for connection in network.incoming(name):
            source = network.populations[connection.source].neuron
            (steady if isinstance(source, CurrentInput) else driven).append(connection)
        return cls(
            network.populations[name],
            _session(network, steady),
            _session(network, driven),
            _sources(steady),
            _sources(driven),
        )

    @property
    def name(self) -> str:
        return self.population.name

    @property
    def fires(self) -> bool:
        return isinstance(self.population.neuron, IntegrateFire)

    def external(self, x: np.ndarray) -> np.ndarray:
        """(…, neurons) in internal order as (…, *population shape)."""
        return from_internal(x.reshape(*x.shape[:-1], *internal_shape(self.population.shape)))

    def start(self, inputs: dict[str, np.ndarray]) -> _State:
        """The state before the first step: the steady current of every image, and the initial potentials."""
        images = len(next(iter(inputs.values())))
        shape = (images, self.population.size)
        neuron = self.population.neuron
        constant = np.zeros(shape, np.float32)
        if self.steady is not None:
            constant += self.steady.run(None, {name: inputs[name] for name in self.steady_sources})[0].reshape(shape)
        if self.population.bias is not None:
            constant += per_position(self.population.bias, self.population.shape)
        v = np.zeros(shape, np.float32)
        if isinstance(neuron, IntegrateFire):
            v += per_position(neuron.v_init, self.population.shape)
        return _State(constant, v, np.zeros(shape, np.int32))

    def step(self, steps: int, state: _State, spikes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Advance by `steps`: the spikes of a population that fires, the potentials of one that does not."""
        current = self._current(steps, state, spikes)
        neuron = self.population.neuron
        if isinstance(neuron, Integrate):
            integrate(current, state.constant, state.v)
            return current
        assert isinstance(neuron, IntegrateFire)
        thresholds = per_position(neuron.v_thresh, self.population.shape)
        soft, inclusive = neuron.reset == "subtract", neuron.comparison == ">="
        integrate_fire(current, state.constant, thresholds, state.v, state.counts, soft, inclusive)
        return current

    def _current(self, steps: int, state: _State, spikes: Mapping[str, np.ndarray]) -> np.ndarray:
        images, neurons = state.v.shape
        if self.driven is None:
            return np.zeros((steps, images, neurons), np.float32)
        shapes = {value.name: value.shape[1:] for value in self.driven.get_inputs()}
        feed = {name: spikes[name].reshape(-1, *shapes[name]) for name in self.spiking_sources}
        return self.driven.run(None, feed)[0].reshape(steps, images, neurons)

    def decode(self, result: np.ndarray, counts_before: np.ndarray, first: int) -> np.ndarray:
        """The activation decoded after each step, (steps, images, *shape); `first` steps came before."""
        time = np.arange(first + 1, first + 1 + len(result), dtype=np.float32)[:, None, None]
        neuron = self.population.neuron
        if isinstance(neuron, IntegrateFire):
            counts = counts_before.astype(np.float32) + result.cumsum(0)
            return self.external(per_position(neuron.v_thresh, self.population.shape) * counts / time)
        return self.external(result / time)


def _sources(connections: list[Connection]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(connection.source for connection in connections))


def _session(network: Network, connections: list[Connection]) -> onnxruntime.InferenceSession | None:
    """Sums `connections` for a whole batch; a source's spikes, 0 or 1, count as its λ."""
    if not connections:
        return None
    graph = GraphBuilder()
    values = {
        name: graph.input(name, internal_shape(network.populations[name].shape)) for name in _sources(connections)
    }
    terms = []
    for connection in connections:
        shape = network.populations[connection.source].shape
        terms.append(emit_operators(graph, values[connection.source], weighted(network, connection), shape))
    target = network.populations[connections[0].target]
    graph.output(graph.total(terms), "current", internal_shape(target.shape))
    return graph.session()
