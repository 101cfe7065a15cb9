"""The canonical form: nothing superfluous, every edge as short as it can be said, delays that align."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ..ir import Connection, Conv2D, Dense, Network, Operator, Scale, Shape, Stage, fold
from .manager import Context, Pass


@dataclass(frozen=True)
class Canonicalise(Pass):
    """Drop what reaches no output, fold each edge's operators, add up parallel edges, and align edges that skip layers.

    An edge from depth i to depth j, the depth being the longest path from the inputs, is delayed by
    j − i − 1 timesteps, or phases of a few-spike network, so that a spiking network's populations all see the same T
    steps of one example. The function of the network does not change.
    """

    name: ClassVar[str] = "canonicalise"
    requires: ClassVar[Stage] = "analog"
    ensures: ClassVar[Stage] = "canonical"
    keeps_function: ClassVar[bool] = True

    def run(self, network: Network, context: Context) -> Network:
        network = _without_dead_ends(network)
        connections: list[Connection] = []
        for connection in network.connections:
            shape = network.populations[connection.source].shape
            operators = fold(connection.operators, shape)
            delay = network.aligned(connection.source, connection.target)
            changed = (*map(type, operators), delay) != (*map(type, connection.operators), connection.delay)
            origin = connection.origin.by(self.name) if changed else connection.origin
            _append(connections, replace(connection, operators=operators, delay=delay, origin=origin), shape, self.name)
        return network.replace(connections=connections)


def _append(connections: list[Connection], connection: Connection, shape: Shape, by: str) -> None:
    """Add a connection to the list; where a parallel one differs in nothing but its weight or last factor, add them.

    `shape` is that of their source.
    """
    for place, other in enumerate(connections):
        if (other.source, other.target, other.port) == (connection.source, connection.target, connection.port):
            total = _added(other.operators, connection.operators)
            if total is not None:
                origin = other.origin.merge(connection.origin).by(by)
                connections[place] = replace(other, operators=fold(total, shape), origin=origin)
                return
    connections.append(connection)


def _added(first: tuple[Operator, ...], second: tuple[Operator, ...]) -> tuple[Operator, ...] | None:
    """What two connections do that differ at most in the weight or factor of their last operator."""
    match first, second:
        case (*before, Dense(a)), (*others, Dense(b)) if a.shape == b.shape:
            total: Operator = Dense(a + b)
        case (*before, Scale(a)), (*others, Scale(b)) if a.shape == b.shape:
            total = Scale(a + b)
        case (*before, Conv2D(a) as conv), (*others, Conv2D(b) as other) if a.shape == b.shape:
            if replace(other, weight=a) != conv:
                return None
            total = replace(conv, weight=a + b)
        case _:
            return None
    return (*before, total) if before == others else None


def _without_dead_ends(network: Network) -> Network:
    """Keep the inputs, the outputs, and what lies between them."""
    kept = {*network.inputs, *network.leading_to(network.outputs)}
    return network.replace(
        populations=[population for name, population in network.populations.items() if name in kept],
        connections=[c for c in network.connections if c.source in kept and c.target in kept],
    )
