"""A spiking network run layer by layer over all images at once, so that a layer can be set from what reaches it.

Whatever the depth, each layer is computed a fixed number of times: once for each look that the caller takes at it,
and once more to hand its spikes on. Spikes are kept as bits, or bytes where they have signs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ...ir import Images, Network, Population, Tracking, as_inputs, verify
from ..compiled import track
from .layer import Layer, State
from .resources import Resources, side_by_side
from .spiking import chunk_of, laid_out, last_use, stepped, time_slots

Stored = list[np.ndarray]
Sent = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Drive:
    """What reaches one population, everything before it having been run on all images; streamed at every look."""

    layer: Layer
    inputs: Mapping[str, np.ndarray]
    sources: Mapping[str, Stored | Layer]
    slots: int
    batch: int
    threads: int

    def currents(self) -> Iterator[np.ndarray]:
        """Batch by batch the summed input of every step, bias included: (steps · images, *shape).

        A few-spike population has one sum for its whole phase: steps is 1.
        """

        def summed(state: State, sent: Sent) -> np.ndarray:
            current = self.layer.summed(self.slots, state, sent)
            return self.layer.external(current.reshape(-1, current.shape[2]))

        return self._batches(self.layer, summed)

    def decoded(self, population: Population) -> Iterator[np.ndarray]:
        """Batch by batch what `population` in this place decodes after the whole run: (images, *shape)."""
        layer = replace(self.layer, population=population)

        def decoded(state: State, sent: Sent) -> np.ndarray:
            last = layer.step(self.slots, state, sent)[-1:]
            before = state.sums() - last[0] if layer.neuron.fires else state.counts
            return layer.decode(last, before, self.slots - 1)[0]

        return self._batches(layer, decoded)

    def stored(self, population: Population) -> Stored:
        """The spikes of `population` in this place, batch by batch: as bits, or as numbers where they are such."""
        layer = replace(self.layer, population=population)

        def stored(state: State, sent: Sent) -> np.ndarray:
            spikes = layer.step(self.slots, state, sent)
            if isinstance(layer.neuron, Tracking):
                return spikes.astype(np.int8)
            return spikes if layer.neuron.phased else np.packbits(spikes > 0, axis=-1)

        return list(self._batches(layer, stored))

    def _batches(self, layer: Layer, look: Callable[[State, Sent], np.ndarray]) -> Iterator[np.ndarray]:
        """What `look` sees of each batch, in order, from the state before the first step and what sources sent."""
        images = len(next(iter(self.inputs.values())))

        def at(number: int) -> np.ndarray:
            start = number * self.batch
            part = {name: array[start : start + self.batch] for name, array in self.inputs.items()}
            sent = {name: self._sent(name, number, part, start) for name in layer.spiking_sources}
            return look(layer.start(part, start), sent)

        return side_by_side(at, range(-(-images // self.batch)), self.threads)

    def _sent(self, name: str, number: int, inputs: Mapping[str, np.ndarray], first_image: int) -> np.ndarray:
        source = self.sources[name]
        if isinstance(source, Layer):  # an input: cheaper to encode again than to keep
            return source.step(self.slots, source.start(inputs, first_image), {})
        batch = source[number]
        if batch.dtype != np.uint8:
            return batch.astype(np.float32, copy=False)
        neurons = math.prod(self.layer.source_shapes[name])
        return np.unpackbits(batch, axis=-1, count=neurons).astype(np.float32)


def sweep(
    network: Network,
    x: Images,
    adjust: Callable[[Population, Drive], Population],
    *,
    progress: bool = True,
) -> Network:
    """The spiking `network` with every population that receives connections replaced by what `adjust` makes of it.

    `adjust` is called in graph order, with the population and what reaches it from the images `x`, (images, *input
    shape), after everything before it was adjusted. Raises DataError for images that do not fit and
    VerificationError for a network that breaks its stage's rules.
    """
    verify(network, "spiking")
    inputs = laid_out(network, as_inputs(network, x))
    resources = Resources.of()
    chunk = chunk_of(network, resources, len(next(iter(inputs.values()))))
    threads = resources.threads // chunk.threads
    last = last_use(network)
    sources: dict[str, Stored | Layer] = {}
    order = stepped(network)
    with track(f"sweeping over {len(order)} populations", len(order), progress) as advance:
        for name in order:
            layer = Layer.of(network, name, chunk.threads)
            if layer.neuron.is_input:
                sources[name] = layer
            else:
                drive = Drive(layer, inputs, sources, time_slots(network), chunk.images, threads)
                population = adjust(layer.population, drive)
                network = network.replace(populations={**network.populations, name: population})
                if name in last:
                    sources[name] = drive.stored(population)
                for spent in [source for source in sources if last.get(source) == name]:
                    del sources[spent]
            advance(1)
    return network
