"""The embedded spiking engine: layer by layer over time.

Every population sees exactly T aligned steps, so a layer's whole input over time can be computed before the next
layer is looked at. Images, and where one image is still too much its timesteps, are cut into chunks
(`resources.py`); potentials are carried from chunk to chunk, so cutting changes nothing.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ...ir import Network, verify
from ..compiled import CompiledSpiking, Recording, Wanted, told
from .layer import Layer, is_graded
from .layout import Layout
from .resources import Buffers, Chunk, Resources, side_by_side


class CompiledEngine(CompiledSpiking):
    """A spiking network on the embedded engine."""

    stops_early = True

    def __init__(self, network: Network, resources: Resources | None = None):
        verify(network, "spiking")
        super().__init__(network)
        self._resources = resources or Resources.of()
        self._layers: dict[int, list[Layer]] = {}  # by the threads for each linear map
        self._idle: list[Buffers] = []
        self._last_use = last_use(network)

    def _run(self, inputs: dict[str, np.ndarray], wanted: Wanted) -> Iterator[Recording]:
        images = len(next(iter(inputs.values())))
        chunk = chunk_of(self.network, self._resources, images)
        layers = self._compiled(chunk.threads)
        own, workers = threading.local(), list[_Worker]()

        def run(start: int) -> Recording:
            if not hasattr(own, "worker"):
                own.worker = _Worker(self._buffers())
                workers.append(own.worker)
            part = {name: array[start : start + chunk.images] for name, array in inputs.items()}
            return self._run_batch(layers, laid_out(self.network, part), start, chunk.steps, wanted, own.worker)

        last: Recording | None = None
        for part in side_by_side(run, range(0, images, chunk.images), self._resources.threads // chunk.threads):
            if last is not None:
                yield last
            last = part
        assert last is not None
        self._idle += [worker.buffers for worker in workers]
        yield last if wanted.each_image else replace(last, spike_counts=self._totals(layers, workers))

    def _buffers(self) -> Buffers:
        """Those of an earlier run, or fresh ones; no two threads get the same, and runs may overlap."""
        try:
            return self._idle.pop()
        except IndexError:
            return Buffers()

    def _totals(self, layers: list[Layer], workers: list[_Worker]) -> dict[str, np.ndarray]:
        """The spikes of each neuron over all images: (1, *shape)."""
        firing = [layer for layer in layers if layer.neuron.fires]
        return {
            layer.name: layer.external(np.sum([worker.totals[layer.name] for worker in workers], 0)) for layer in firing
        }

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
        worker: _Worker,
    ) -> Recording:
        slots, outputs = time_slots(self.network), self.network.outputs
        states = {
            layer.name: layer.start(inputs, first_image, totals=not wanted.each_image and layer.name not in outputs)
            for layer in layers
        }
        images = len(next(iter(inputs.values())))
        answers = _Answers.of(self.network, slots, images)
        trains: dict[str, list[np.ndarray]] = {}
        for first, last in _windows(slots, steps, wanted.until_stable):
            sent: dict[str, np.ndarray] = {}
            for layer in layers:
                state = states[layer.name]
                before = state.sums() if layer.name in outputs else state.counts
                result = sent[layer.name] = layer.step(last - first, state, sent, first, worker.buffers)
                if layer.name in outputs:
                    answers.add(layer.name, first, layer.decode(result, before, first))
                if layer.name in wanted.trains:
                    trains.setdefault(layer.name, []).append(layer.trains(result, self.network.timesteps or 1))
                for name in _spent(layer.name, sent, self._last_use):
                    worker.buffers.give(sent.pop(name))
            if wanted.until_stable and last % wanted.until_stable == 0:
                going_on = answers.stop_stable(last - wanted.until_stable, last)
                for state in states.values():
                    state.keep(going_on)
                if not going_on.any():
                    break
        firing = [layer for layer in layers if layer.neuron.fires]
        integrating = [layer for layer in layers if not layer.neuron.is_input]
        if not wanted.each_image:
            for layer in firing:
                worker.count(layer.name, states[layer.name].total())
            firing, integrating = [], []
        return Recording(
            {layer.name: layer.external(states[layer.name].counts) for layer in firing},
            {layer.name: layer.external(states[layer.name].v) for layer in integrating},
            answers.decoded,
            {name: np.concatenate(parts) for name, parts in trains.items()} if wanted.trains else None,
            answers.steps if wanted.until_stable else None,
        )


class _Worker:
    """What a thread keeps while it runs one batch after the other: its memory, and the spikes of each neuron so far."""

    def __init__(self, buffers: Buffers):
        self.buffers = buffers
        self.totals: dict[str, np.ndarray] = {}

    def count(self, name: str, spikes: np.ndarray) -> None:
        if name in self.totals:
            self.totals[name] += spikes
        else:
            self.totals[name] = spikes


@dataclass
class _Answers:
    """What a batch of images decodes after each step, (T, images, *shape) by output, and how long each is shown."""

    decoded: dict[str, np.ndarray]
    steps: np.ndarray
    showing: np.ndarray  # the images that have not stopped
    labels: frozenset[str]  # the outputs that may be asked for labels

    @classmethod
    def of(cls, network: Network, slots: int, images: int) -> _Answers:
        shapes = {name: network.populations[name].shape for name in network.outputs}
        decoded = {name: np.empty((slots, images, *shape), np.float32) for name, shape in shapes.items()}
        labels = frozenset(name for name in network.outputs if network.populations[name].neuron.tells_labels)
        return cls(decoded, np.full(images, slots), np.arange(images), labels)

    def add(self, output: str, first: int, decoded: np.ndarray) -> None:
        """Take down what the images that are shown decode in the steps from `first` on."""
        self.decoded[output][first : first + len(decoded), self.showing] = decoded

    def stop_stable(self, first: int, last: int) -> np.ndarray:
        """Stop the images whose predictions were the same in all steps from `first` to `last`; which of them go on."""
        changed = np.zeros(len(self.showing), bool)
        for name, decoded in self.decoded.items():
            seen = decoded[first:last, self.showing]
            predictions = told(seen, False)
            changed |= (predictions != predictions[-1]).any(0)
            if name in self.labels:
                holds = told(seen, True)
                changed |= (holds != holds[-1]).any((0, 2))
        stopped = self.showing[~changed]
        for decoded in self.decoded.values():
            decoded[last:, stopped] = decoded[last - 1, stopped]
        self.steps[stopped] = last
        self.showing = self.showing[changed]
        return changed


def _windows(slots: int, steps: int, stops: int | None) -> list[tuple[int, int]]:
    """Stretches of at most so many steps; if images may stop, each `stops` steps are some of them together."""
    ends = sorted({*range(0, slots, steps), *range(0, slots, stops or slots), slots})
    return list(pairwise(ends))


def laid_out(network: Network, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Images, (images, *input shape), as the engine has them."""
    return {
        name: Layout.of(network, name).inward(array, network.populations[name].shape) for name, array in inputs.items()
    }


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
    slots = time_slots(network)
    chunk = resources.chunk(images, slots, 4 * _live_neurons(network))
    # a layer that waits for the one before it takes several of its steps at once
    return replace(chunk, steps=slots) if network.lag > 1 else chunk


def _live_neurons(network: Network) -> int:
    """The largest number of neurons whose spikes or currents are held at the same time."""
    live: dict[str, int] = {}
    largest = 0
    last = last_use(network)
    for name in stepped(network):
        population = network.populations[name]
        live[name] = population.size
        summed = sum(math.prod(shape) for shape, _ in population.ports)
        largest = max(largest, sum(live.values()) + summed)  # and what onnxruntime or lists need
        for spent in _spent(name, live, last):
            del live[spent]
    return largest


def _spent(now: str, held: Mapping[str, object], last: Mapping[str, str]) -> list[str]:
    """Those of the populations `held` whose spikes no population after `now` reads."""
    return [name for name in held if last.get(name, name) == now]
