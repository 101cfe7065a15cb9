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
    ConvTranspose2D,
    Dense,
    Flatten,
    MaxPool2D,
    MaxPoolRelu2D,
    Network,
    Neuron,
    Operator,
    Pad,
    Pick,
    Population,
    QuantizedRelu,
    Relu,
    Resample,
    Scale,
)
from .canonicalise import Canonicalise
from .manager import Context
from .rewrite import Lowering, Rewrite, Sum


@dataclass(frozen=True)
class LowerMaxPool(Lowering):
    """Replace max pooling by rectifiers and linear edges: max(a, b) = a + relu(b − a), as a tree over each window.

    Exact in the analog network. A window of n positions becomes n − 1 populations, in log₂ n layers; the maximum is
    the sum of one position and one rectifier per layer, so whoever read the pooling population now reads those.
    Positions in the padding count as zero next to a rectifier, before or behind, where zero never wins. Elsewhere
    another position of the same window stands in for them, which costs an edge more per population.

    - before-neuron: where a plain rectifier stands right before or behind the pooling, make one population of both,
      whose neurons integrate the largest current of their window. Exact for few-spike; under rate codes, whose
      currents come and go, too large. The embedded engine runs it, GeNN cannot.
    """

    name: ClassVar[str] = "lower-max-pool"
    lowers: ClassVar[type[AnalogNeuron]] = MaxPool2D

    before_neuron: bool = False

    def run(self, network: Network, context: Context) -> Network:
        joined = _joined(network, self.name) if self.before_neuron else network
        lowered = super().run(joined, context)
        return Canonicalise().run(lowered, context) if lowered is joined is not network else lowered

    def applies(self, neuron: Neuron) -> bool:
        return super().applies(neuron) and not (self.before_neuron and isinstance(neuron, MaxPoolRelu2D))

    def lowered(self, rewrite: Rewrite) -> Sum:
        elements = _elements(rewrite)
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


def _elements(rewrite: Rewrite) -> list[Sum]:
    """What lies at each position of the window. Zero stands for the padding, or where it might win, a position within.

    Repeating a number changes no maximum. What stands in is taken from as few positions as there can be: mostly from
    one, which no window has in the padding.
    """
    taps, summed = list(_taps(rewrite.old)), rewrite.summed()
    elements = [summed.then(tap) for tap in taps]
    if _zero_never_wins(rewrite.before, rewrite.old):
        return elements
    ones = np.ones((1, *summed.shape), np.float32)
    inside = [tap.apply(ones)[0] for tap in taps]
    left = np.ones_like(inside[0])  # where no position stands in yet
    for place in sorted(range(len(taps)), key=lambda place: -inside[place].sum()):
        here, left = left * inside[place], left * (1 - inside[place])
        stand_in = summed.then(taps[place])
        for other, lies in enumerate(inside):
            if (missing := here * (1 - lies)).any():
                elements[other] = elements[other].plus(stand_in.scaled(missing))
    return elements


def _taps(pool: Population) -> Iterator[Conv2D]:
    """For each position of the window the convolution that picks what lies there."""
    assert isinstance(pool.neuron, MaxPool2D)
    height, width = pool.neuron.pool_size
    channels = pool.shape[2]
    for place in np.eye(height * width, dtype=np.float32).reshape(-1, height, width, 1, 1):
        weight = np.repeat(place, channels, axis=3)
        yield Conv2D(weight, pool.neuron.strides, pool.neuron.padding, groups=channels)


def _zero_never_wins(network: Network, pool: Population) -> bool:
    """Whether zeros in the padding change nothing, as far as the structure tells."""
    assert isinstance(pool.neuron, MaxPool2D)
    pads = any(map(any, pool.neuron.padding))
    return not pads or isinstance(pool.neuron, MaxPoolRelu2D) or _is_rectified(network, pool) or _is_cut(network, pool)


def _is_cut(network: Network, pool: Population) -> bool:
    """Whether all that reads the pooling takes negative numbers for zero."""
    return pool.name not in network.outputs and all(
        not edge.operators
        and len(network.incoming(edge.target)) == 1
        and isinstance(network.populations[edge.target].neuron, (Relu, Clip, QuantizedRelu))
        and _holds_no_positive(network.populations[edge.target].bias)
        for edge in network.outgoing(pool.name)
    )


def _is_rectified(network: Network, population: Population) -> bool:
    """Whether the summed input is never negative, as far as the structure tells."""
    return _holds_no_negative(population.bias) and all(
        _gives_no_negative(network, c.source) and all(map(_keeps_sign, c.operators))
        for c in network.incoming(population.name)
    )


def _keeps_sign(operator: Operator) -> bool:
    match operator:
        case Conv2D(weight) | ConvTranspose2D(weight) | Dense(weight) | Resample(weight=weight) | Scale(weight):
            return _holds_no_negative(weight)
    return isinstance(operator, (AveragePool2D, Flatten, Pad, Pick))


def _holds_no_negative(array: np.ndarray | None) -> bool:
    return array is None or bool((array >= 0).all())


def _holds_no_positive(array: np.ndarray | None) -> bool:
    return array is None or bool((array <= 0).all())


def _gives_no_negative(network: Network, name: str) -> bool:
    population = network.populations[name]
    if type(population.neuron) is MaxPool2D:
        return _is_rectified(network, population)
    return isinstance(population.neuron, (Relu, Clip, QuantizedRelu, MaxPoolRelu2D))
