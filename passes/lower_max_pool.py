"""Max pooling as a tree of rectifiers, which spiking neurons can compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import ClassVar

import numpy as np

from ..ir import (
    AnalogNeuron,
    AveragePool2D,
    Clip,
    Connection,
    Conv2D,
    Flatten,
    MaxPool2D,
    MaxPoolRelu2D,
    Network,
    Neuron,
    Pad,
    Pick,
    Population,
    Relu,
    UnsupportedModelError,
)
from .canonicalise import Canonicalise
from .manager import Context
from .rewrite import Lowering, Rewrite, Sum


@dataclass(frozen=True)
class LowerMaxPool(Lowering):
    """Replace max pooling by rectifiers and linear edges: max(a, b) = a + relu(b − a), as a tree over each window.

    Exact in the analog network. A window of n positions becomes n − 1 populations, in log₂ n layers; the maximum is
    the sum of one position and one rectifier per layer, so whoever read the pooling population now reads those.
    Positions in the padding count as zero, which never wins against a rectified activation; pooling of
    anything else is refused if it pads.

    - before-neuron: where a plain rectifier stands right before or behind the pooling, make one population of both,
      whose neurons integrate the largest current of their window. Exact for few-spike; under rate codes, whose
      currents come and go, too large. The embedded engine runs it, GeNN cannot.
    """

    name: ClassVar[str] = "lower-max-pool"
    lowers: ClassVar[type[AnalogNeuron]] = MaxPool2D

    before_neuron: bool = False

    def run(self, network: Network, context: Context) -> Network:
        joined = _joined(network, self.name) if self.before_neuron else network
        _require_lowerable(joined)
        lowered = super().run(joined, context)
        return Canonicalise().run(lowered, context) if lowered is joined is not network else lowered

    def applies(self, neuron: Neuron) -> bool:
        return super().applies(neuron) and not (self.before_neuron and isinstance(neuron, MaxPoolRelu2D))

    def lowered(self, rewrite: Rewrite) -> Sum:
        elements = [rewrite.summed.then(tap) for tap in _taps(rewrite.old)]
        names = (f"{rewrite.old.name}/max{number}" for number in count(1))
        while len(elements) > 1:
            halves = zip(elements[::2], elements[1::2], strict=False)
            left_over = elements[len(elements) // 2 * 2 :]
            larger = [a.plus(rewrite.population(next(names), Relu(), b.minus(a))) for a, b in halves]
            elements = [*larger, *left_over]
        if isinstance(rewrite.old.neuron, MaxPoolRelu2D):
            return rewrite.population(rewrite.heir("rectified"), Relu(), elements[0])
        return elements[0]


def _joined(network: Network, by: str) -> Network:
    """The network with each pooling population and the plain rectifier next to it as one."""
    for name in network.order:
        pool = network.populations[name]
        if type(pool.neuron) is not MaxPool2D:
            continue
        before, behind = _only(network.incoming(name)), _only(network.outgoing(name))
        if before and _is_plain(network, before.source, before) and pool.bias is None:
            network = _one(network, network.populations[before.source], pool, name, by)
        elif behind and _is_plain(network, behind.target, behind) and name not in network.outputs:
            network = _one(network, pool, network.populations[behind.target], behind.target, by)
    return network


def _only(connections: Sequence[Connection]) -> Connection | None:
    """The only one of `connections`, if it is one to one."""
    return connections[0] if len(connections) == 1 and not connections[0].operators else None


def _is_plain(network: Network, name: str, edge: Connection) -> bool:
    """Whether a population only rectifies what passes through `edge`, at one of its ends."""
    population = network.populations[name]
    if not isinstance(population.neuron, Relu):
        return False
    if name == edge.source:
        return len(network.outgoing(name)) == 1 and name not in network.outputs
    return len(network.incoming(name)) == 1 and (population.bias is None or population.bias.ndim == 1)


def _one(network: Network, first: Population, second: Population, name: str, by: str) -> Network:
    """The network with `first` and `second`, of which one pools and the other rectifies, as one called `name`."""
    pool = first.neuron if isinstance(first.neuron, MaxPool2D) else second.neuron
    assert isinstance(pool, MaxPool2D)
    neuron = MaxPoolRelu2D(pool.image, pool.pool_size, pool.strides, pool.padding)
    bias = second.bias if first.bias is None else first.bias if second.bias is None else first.bias + second.bias
    joined = Population(name, second.shape, neuron, bias, first.origin.merge(second.origin).by(by))
    kept = [population for population in network.populations.values() if population not in (first, second)]
    connections = [
        replace(
            c,
            source=name if c.source == second.name else c.source,
            target=name if c.target == first.name else c.target,
        )
        for c in network.connections
        if (c.source, c.target) != (first.name, second.name)
    ]
    return network.replace(populations=[*kept, joined], connections=connections)


def _taps(pool: Population) -> Iterator[Conv2D]:
    """For each position of the window the convolution that picks what lies there."""
    assert isinstance(pool.neuron, MaxPool2D)
    height, width = pool.neuron.pool_size
    channels = pool.shape[2]
    for place in np.eye(height * width, dtype=np.float32).reshape(-1, height, width, 1, 1):
        weight = np.repeat(place, channels, axis=3)
        yield Conv2D(weight, pool.neuron.strides, pool.neuron.padding, groups=channels)


def _require_lowerable(network: Network) -> None:
    problems = [
        f"{name} (MaxPool2D, from {', '.join(population.origin.layers) or 'no known layer'}): it pads, and may pool "
        "negative numbers; put the ReLU before the pooling, where it changes nothing"
        for name, population in network.populations.items()
        if isinstance(population.neuron, MaxPool2D)
        and not isinstance(population.neuron, MaxPoolRelu2D)
        and any(map(any, population.neuron.padding))
        and not _is_rectified(network, population)
    ]
    if problems:
        raise UnsupportedModelError("lower-max-pool cannot lower these populations:", problems)


def _is_rectified(network: Network, population: Population) -> bool:
    """Whether the summed input is never negative, as far as the structure tells."""
    keeps_sign = (AveragePool2D, Flatten, Pad, Pick)
    return (population.bias is None or bool((population.bias >= 0).all())) and all(
        _gives_no_negative(network, c.source) and all(isinstance(o, keeps_sign) for o in c.operators)
        for c in network.incoming(population.name)
    )


def _gives_no_negative(network: Network, name: str) -> bool:
    population = network.populations[name]
    if type(population.neuron) is MaxPool2D:
        return _is_rectified(network, population)
    return isinstance(population.neuron, (Relu, Clip, MaxPoolRelu2D))
