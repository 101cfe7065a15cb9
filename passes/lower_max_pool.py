"""Max pooling as a tree of rectifiers, which spiking neurons can compute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..ir import (
    AveragePool2D,
    Clip,
    Connection,
    Conv2D,
    Flatten,
    Identity,
    MaxPool2D,
    Network,
    Pad,
    Pick,
    Population,
    Relu,
    Scale,
    Stage,
    UnsupportedModelError,
    apply,
    fold,
)
from .canonicalise import Canonicalise
from .manager import Context, Pass


@dataclass(frozen=True)
class LowerMaxPool(Pass):
    """Replace max pooling by rectifiers and linear edges: max(a, b) = a + relu(b − a), as a tree over each window.

    Exact in the analog network. A window of n positions becomes n − 1 populations, in log₂ n layers; the maximum is
    the sum of one position and one rectifier per layer, so whoever read the pooling population now reads those.
    Positions in the padding count as zero, which never wins against a rectified activation; pooling of
    anything else is refused if it pads.
    """

    name: ClassVar[str] = "lower-max-pool"
    requires: ClassVar[Stage] = "canonical"
    ensures: ClassVar[Stage] = "canonical"
    keeps_function: ClassVar[bool] = True

    def run(self, network: Network, context: Context) -> Network:
        _require_lowerable(network)
        pools = [name for name in network.order if isinstance(network.populations[name].neuron, MaxPool2D)]
        for name in pools:
            network = _lowered(network, network.populations[name], self.name)
        return Canonicalise().run(network, context) if pools else network


@dataclass(frozen=True)
class _Sum:
    """Some connections, whatever their target, plus a bias of the pooled shape."""

    connections: tuple[Connection, ...]
    bias: np.ndarray | None


def _lowered(network: Network, pool: Population, by: str) -> Network:
    elements = [_element(network, pool, tap, by) for tap in _taps(pool)]
    rectifiers: list[Population] = []
    edges: list[Connection] = []
    while len(elements) > 1:
        halves = zip(elements[::2], elements[1::2], strict=False)
        left_over = elements[len(elements) // 2 * 2 :]
        elements = [*(_larger(network, pool, a, b, rectifiers, edges, by) for a, b in halves), *left_over]
    return _replaced(network, pool, elements[0], rectifiers, edges, by)


def _taps(pool: Population) -> Iterator[Conv2D]:
    """For each position of the window the convolution that picks what lies there."""
    assert isinstance(pool.neuron, MaxPool2D)
    height, width = pool.neuron.pool_size
    channels = pool.shape[2]
    for place in np.eye(height * width, dtype=np.float32).reshape(-1, height, width, 1, 1):
        weight = np.repeat(place, channels, axis=3)
        yield Conv2D(weight, pool.neuron.strides, pool.neuron.padding, groups=channels)


def _element(network: Network, pool: Population, tap: Conv2D, by: str) -> _Sum:
    """What lies at one position of every window."""
    connections = tuple(
        replace(
            c,
            operators=fold((*c.operators, tap), network.populations[c.source].shape),
            origin=c.origin.merge(pool.origin).by(by),
        )
        for c in network.incoming(pool.name)
    )
    if pool.bias is None:
        return _Sum(connections, None)
    return _Sum(connections, tap.apply(np.broadcast_to(pool.bias, pool.input_shape)[None])[0])


def _larger(
    network: Network,
    pool: Population,
    a: _Sum,
    b: _Sum,
    rectifiers: list[Population],
    edges: list[Connection],
    by: str,
) -> _Sum:
    """The larger of two sums: the first, plus a new population that rectifies their difference."""
    name = _unused(network, f"{pool.name}/max{len(rectifiers) + 1}")
    minus = Scale(np.full(pool.shape[2], -1.0))
    shapes = {name: p.shape for name, p in network.populations.items()} | {p.name: p.shape for p in rectifiers}
    edges += [replace(c, target=name) for c in b.connections]
    edges += [replace(c, target=name, operators=fold((*c.operators, minus), shapes[c.source])) for c in a.connections]
    biases = (sum_.bias if sum_.bias is not None else np.zeros(pool.shape) for sum_ in (b, a))
    bias = None if a.bias is b.bias is None else np.subtract(*biases)
    rectifiers.append(Population(name, pool.shape, Relu(), bias, pool.origin.by(by)))
    return _Sum((*a.connections, Connection(name, pool.name, origin=pool.origin.by(by))), a.bias)


def _replaced(
    network: Network,
    pool: Population,
    maximum: _Sum,
    rectifiers: list[Population],
    edges: list[Connection],
    by: str,
) -> Network:
    """The network in which `maximum` stands for the pooling population, which stays on only as an output."""
    populations = {name: population for name, population in network.populations.items() if name != pool.name}
    populations |= {population.name: population for population in rectifiers}
    connections = [c for c in network.connections if pool.name not in (c.source, c.target)] + edges
    for read in network.outgoing(pool.name):
        target = populations[read.target]
        populations[read.target] = replace(target, bias=_shifted(target, read, maximum.bias))
        for term in maximum.connections:
            operators = fold((*term.operators, *read.operators), populations[term.source].shape)
            origin = term.origin.merge(read.origin).by(by)
            connections.append(Connection(term.source, read.target, operators, origin=origin))
    if pool.name in network.outputs:
        populations[pool.name] = replace(pool, neuron=Identity(), bias=maximum.bias, origin=pool.origin.by(by))
        connections += [replace(term, target=pool.name) for term in maximum.connections]
    return network.replace(populations=populations, connections=connections)


def _shifted(target: Population, read: Connection, constant: np.ndarray | None) -> np.ndarray | None:
    """The bias of `target` plus what `constant` sends it through `read`."""
    if constant is None:
        return target.bias
    sent = apply(read.operators, constant[None])[0]
    return sent if target.bias is None else sent + target.bias


def _unused(network: Network, name: str) -> str:
    while name in network.populations:
        name += "'"
    return name


def _require_lowerable(network: Network) -> None:
    problems = [
        f"{name} (MaxPool2D, from {', '.join(population.origin.layers) or 'no known layer'}): it pads, and may pool "
        "negative numbers; put the ReLU before the pooling, where it changes nothing"
        for name, population in network.populations.items()
        if isinstance(population.neuron, MaxPool2D)
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
    if isinstance(population.neuron, MaxPool2D):
        return _is_rectified(network, population)
    return isinstance(population.neuron, (Relu, Clip))
