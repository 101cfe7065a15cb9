"""A spiking network run layer by layer over all images at once, so that a layer can be set from what reaches it.

Whatever the depth, each layer is computed a fixed number of times: once for each look that the caller takes at it,
and once more to hand its spikes on. Spikes are kept as bits, or bytes where they have signs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from ...ir import Connection, Images, Network, Population, SpikingNeuron, Tracking, as_inputs, verify
from ..compiled import track
from .layer import Layer, State, is_graded
from .resources import Chunk, Resources, side_by_side
from .spiking import chunk_of, laid_out, last_use, stepped, time_slots

Stored = list[np.ndarray]
Sent = Mapping[str, np.ndarray]
Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Drive:
    """A population and what reaches it, everything before it having been run on all images; streamed at every look."""

    network: Network
    layer: Layer
    inputs: Mapping[str, np.ndarray]
    sources: Mapping[str, Stored | Layer]
    chunk: Chunk
    threads: int
    wanted: np.ndarray  # (images,), those that are looked at

    @property
    def population(self) -> Population:
        """The population as it is now."""
        return self.layer.population

    @property
    def incoming(self) -> Sequence[Connection]:
        """The connections that reach it."""
        return self.network.incoming(self.population.name)

    def having(self, population: Population, incoming: Sequence[Connection] = ()) -> Drive:
        """The same place with another `population` and, where given, with others in place of the `incoming` edges."""
        network = self.network.replace(populations={**self.network.populations, population.name: population})
        if not incoming:
            return replace(self, network=network, layer=replace(self.layer, population=population))
        others = {id(old): new for old, new in zip(self.incoming, incoming, strict=True)}
        network = network.replace(connections=[others.get(id(edge), edge) for edge in network.connections])
        return replace(self, network=network, layer=Layer.of(network, population.name, self.chunk.threads))

    def only(self, images: np.ndarray) -> Drive:
        """The same place, looked at on those images alone that are marked in (images,)."""
        return replace(self, wanted=images)

    def received(self) -> Iterator[Mapping[str, np.ndarray]]:
        """Batch by batch what each source has said after the whole run, by name: (images, *shape of the source)."""
        names = dict.fromkeys(edge.source for edge in self.incoming)
        return self._batches(lambda batch: {name: self._said(name, batch) for name in names})

    def currents(self) -> Iterator[np.ndarray]:
        """Batch by batch the summed input of every step, bias included: (steps · images, *shape).

        A few-spike population has one sum for its whole phase: steps is 1.
        """

        def summed(state: State, sent: Sent) -> np.ndarray:
            current = self.layer.summed(self._slots, state, sent)
            return self.layer.external(current.reshape(-1, current.shape[2]))

        return self._looks(summed)

    def decoded(self) -> Iterator[np.ndarray]:
        """Batch by batch what the population decodes after the whole run: (images, *shape)."""

        def decoded(state: State, sent: Sent) -> np.ndarray:
            return self._decoded(self.layer, self.layer.step(self._slots, state, sent), state)

        return self._looks(decoded)

    def stored(self) -> Stored:
        """The spikes of the population, batch by batch: as bits, or as numbers where they are such."""

        def stored(state: State, sent: Sent) -> np.ndarray:
            spikes = self.layer.step(self._slots, state, sent)
            if isinstance(self.layer.neuron, Tracking):
                return spikes.astype(np.int8)
            return spikes if self.layer.neuron.phased else np.packbits(spikes > 0, axis=-1)

        return list(self._looks(stored))

    @property
    def _slots(self) -> int:
        return time_slots(self.network)

    def _decoded(self, layer: Layer, sent: np.ndarray, state: State) -> np.ndarray:
        last = sent[-1:]
        before = state.sums() - last[0] if layer.neuron.fires else state.counts
        return layer.decode(last, before, self._slots - 1)[0]

    def _looks(self, look: Callable[[State, Sent], np.ndarray]) -> Iterator[np.ndarray]:
        """What `look` sees of each batch, in order, from the state before the first step and what sources sent."""
        return self._batches(
            lambda batch: look(self.layer.start(batch.inputs, batch.first), self._sent_to(batch)),
        )

    def _batches(self, look: Callable[[Batch], Seen]) -> Iterator[Seen]:
        """What `look` sees of each batch, in order, but for those of which nothing is wanted."""
        batches = (Batch.of(self, number) for number in range(-(-len(self.wanted) // self.chunk.images)))
        return side_by_side(look, (batch for batch in batches if batch.wanted.any()), self.threads)

    def _sent_to(self, batch: Batch) -> Sent:
        return {name: self._sent(name, batch) for name in self.layer.spiking_sources}

    def _sent(self, name: str, batch: Batch) -> np.ndarray:
        """What a source sends, (steps, images, neurons)."""
        source = self.sources[name]
        if isinstance(source, Layer):  # an input: cheaper to encode again than to keep
            return batch.of_wanted(source.step(self._slots, source.start(batch.all_inputs, batch.first), {}), 1)
        stored = batch.of_wanted(source[batch.number], 1)
        if stored.dtype != np.uint8:
            return stored.astype(np.float32, copy=False)
        neurons = math.prod(self.layer.source_shapes[name])
        return np.unpackbits(stored, axis=-1, count=neurons).astype(np.float32)

    def _said(self, name: str, batch: Batch) -> np.ndarray:
        """What a source has said after the whole run, (images, *shape)."""
        population, layout = self.network.populations[name], self.layer.source_layouts[name]
        neuron = population.neuron
        assert isinstance(neuron, SpikingNeuron)  # verified
        if is_graded(neuron):
            return layout.outward(batch.inputs[name].reshape(len(batch.inputs[name]), -1), population.shape)
        steps = 1 if neuron.phased else self._slots
        unit = layout.per_position(neuron.amplitude, population.shape) / np.float32(steps)
        return layout.outward(self._sent(name, batch).sum(0) * unit, population.shape)


@dataclass(frozen=True)
class Batch:
    """The images of one batch, of which those that are `wanted` are looked at: (images,)."""

    number: int
    first: int
    all_inputs: Mapping[str, np.ndarray]
    wanted: np.ndarray

    @classmethod
    def of(cls, drive: Drive, number: int) -> Batch:
        first = number * drive.chunk.images
        here = slice(first, first + drive.chunk.images)
        return cls(number, first, {name: array[here] for name, array in drive.inputs.items()}, drive.wanted[here])

    @cached_property
    def inputs(self) -> Mapping[str, np.ndarray]:
        return {name: self.of_wanted(array, 0) for name, array in self.all_inputs.items()}

    def of_wanted(self, x: np.ndarray, axis: int) -> np.ndarray:
        return x if self.wanted.all() else np.compress(self.wanted, x, axis)


def sweep(
    network: Network,
    x: Images,
    adjust: Callable[[Drive], object],
    *,
    progress: bool = True,
) -> Network:
    """The spiking `network` with every population that receives connections, and those, as `adjust` would have them.

    `adjust` is called in graph order, with what reaches a population from the images `x`, (images, *input shape), after
    everything before it was adjusted, and gives it back, `having` what it wants there. Raises DataError for images that
    do not fit and VerificationError for a network that breaks its stage's rules.
    """
    verify(network, "spiking")
    inputs = laid_out(network, as_inputs(network, x))
    resources = Resources.of()
    images = len(next(iter(inputs.values())))
    chunk = chunk_of(network, resources, images)
    threads, wanted = resources.threads // chunk.threads, np.ones(images, bool)
    last = last_use(network)
    sources: dict[str, Stored | Layer] = {}
    order = stepped(network)
    with track(f"sweeping over {len(order)} populations", len(order), progress) as advance:
        for name in order:
            layer = Layer.of(network, name, chunk.threads)
            if layer.neuron.is_input:
                sources[name] = layer
            else:
                drive = adjust(Drive(network, layer, inputs, sources, chunk, threads, wanted))
                assert isinstance(drive, Drive)  # what a look gives back is one
                network = drive.network
                if name in last:
                    sources[name] = drive.only(wanted).stored()
                for spent in [source for source in sources if last.get(source) == name]:
                    del sources[spent]
            advance(1)
    return network
