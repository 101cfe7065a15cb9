"""The network: populations (nonlinearities) joined by connections (linear maps)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import networkx as nx
import numpy as np

from .errors import VerificationError
from .neurons import CurrentInput, Neuron, SpikingNeuron
from .operators import Operator
from .record import LATER, Record
from .windows import Shape


@dataclass(frozen=True)
class Origin:
    """Where a part of the network comes from.

    `layers` are the source's own layers (Keras layer paths, or ONNX node names), in the order in which
    they act; `passes` are the passes that made or changed the part. Where a pass put it in place of a function, as
    rectifiers in place of `silu`, `function` is that, and `error` how far it is off at most, in units of the ANN's
    activations.
    """

    layers: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()
    function: str = field(default="", metadata=LATER)
    error: float = field(default=0.0, metadata=LATER)

    def merge(self, *others: Origin) -> Origin:
        """This origin and `others`, in order, each layer and pass once; of their functions the one of largest error."""
        origins = (self, *others)
        worst = max((o for o in origins if o.function), key=lambda o: o.error, default=Origin())
        return Origin(
            tuple(dict.fromkeys(layer for o in origins for layer in o.layers)),
            tuple(dict.fromkeys(name for o in origins for name in o.passes)),
            worst.function,
            worst.error,
        )

    def by(self, pass_name: str) -> Origin:
        """This origin, with one more pass."""
        return self.merge(Origin(passes=(pass_name,)))


@dataclass(frozen=True, eq=False)
class Population(Record):
    """A node: `neuron` applied to the sum of the incoming connections plus `bias`.

    `shape` is (H, W, C) or (N,). `bias` is None, one number per channel, (C,), or one per position of
    the summed input. It is in units of the ANN's activations; a spiking population adds it in every
    step of its window. `second_bias` is that of port 1, for neurons that have two; a port without
    connections has a bias alone. `table` is of inputs of shape (L, 1, C) that are given whole numbers, L for each
    image: the vector that each stands for, (numbers, C).
    """

    name: str
    shape: Shape
    neuron: Neuron
    bias: np.ndarray | None = None
    origin: Origin = field(default_factory=Origin)
    second_bias: np.ndarray | None = field(default=None, metadata=LATER)
    table: np.ndarray | None = field(default=None, metadata=LATER)

    @property
    def size(self) -> int:
        """How many neurons the population has."""
        return math.prod(self.shape)

    @property
    def input_shape(self) -> Shape:
        """The shape of the summed input at port 0: `shape` itself, except for pooling neurons and matrix products."""
        return self.neuron.input_shape(self.shape)

    @property
    def ports(self) -> tuple[tuple[Shape, np.ndarray | None], ...]:
        """For each port the shape of its summed input, and its bias."""
        biases = (self.bias, self.second_bias)
        return tuple((self.neuron.input_shape(self.shape, port), biases[port]) for port in range(self.neuron.ports))

    def shifted(self, by: np.ndarray | None, port: int = 0) -> Population:
        """This population with so much more bias at a port."""
        if by is None:
            return self
        if port:
            return replace(self, second_bias=by if self.second_bias is None else self.second_bias + by)
        return replace(self, bias=by if self.bias is None else self.bias + by)


@dataclass(frozen=True, eq=False)
class Connection(Record):
    """An edge: `operators`, applied in order, from `source` to `port` of `target`. No operators: one to one.

    A connection takes one timestep, plus `delay` more. The delay aligns edges that skip layers: it is the target's
    depth − the source's depth − 1, times the timesteps that the windows of successive depths lie apart; and a constant
    current comes only when a target that waits for nothing else opens its window.
    """

    source: str
    target: str
    operators: tuple[Operator, ...] = ()
    delay: int = 0
    origin: Origin = field(default_factory=Origin)
    port: int = field(default=0, metadata=LATER)

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}{f':{self.port}' if self.port else ''}"


@dataclass(frozen=True, eq=False, repr=False)
class Network(Record):
    """A directed graph of populations and connections. Never changed in place: passes make new ones.

    `populations` may be given as any iterable of populations and is then a mapping by name, read-only.
    `inputs` and `outputs` are population names in the order of the source model's. `timesteps` is T,
    the steps in every population's window, or phase; None for an analog network. `lag` says how many steps the windows
    of successive depths lie apart, where they are not phases: a population takes in what its sources send from their
    first step on, and fires only once its window is open, `lag` steps after theirs. What has come by then counts
    together, and as many steps at the end of the window bring nothing more.
    """

    populations: Mapping[str, Population]
    connections: tuple[Connection, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    timesteps: int | None = None
    lag: int = field(default=1, metadata=LATER)

    def __init__(
        self,
        populations: Mapping[str, Population] | Iterable[Population],
        connections: Iterable[Connection],
        inputs: Iterable[str],
        outputs: Iterable[str],
        timesteps: int | None = None,
        lag: int = 1,
    ):
        listed = tuple(populations.values() if isinstance(populations, Mapping) else populations)
        by_name = {population.name: population for population in listed}
        if len(by_name) < len(listed):
            counts = Counter(population.name for population in listed)
            twice = sorted(name for name, count in counts.items() if count > 1)
            raise VerificationError("populations share a name:", twice)
        object.__setattr__(self, "populations", MappingProxyType(by_name))
        object.__setattr__(self, "connections", tuple(connections))
        object.__setattr__(self, "inputs", tuple(inputs))
        object.__setattr__(self, "outputs", tuple(outputs))
        object.__setattr__(self, "timesteps", int(timesteps) if isinstance(timesteps, np.integer) else timesteps)
        object.__setattr__(self, "lag", int(lag) if isinstance(lag, np.integer) else lag)

    def _arguments(self) -> tuple[Any, ...]:
        _, *others = super()._arguments()
        return tuple(self.populations.values()), *others  # the mapping itself cannot be pickled

    def replace(self, **changes: Any) -> Network:
        """A copy with some of the fields changed."""
        return replace(self, **changes)

    def __str__(self) -> str:
        from .text import to_text

        return to_text(self)

    def __repr__(self) -> str:
        from .text import summary

        return f"<{summary(self)}>"

    @cached_property
    def graph(self) -> nx.MultiDiGraph:
        """The graph, frozen: node attribute `population`, edge attribute `connection`."""
        graph = nx.MultiDiGraph()
        for name, population in self.populations.items():
            graph.add_node(name, population=population)
        for connection in self.connections:
            graph.add_edge(connection.source, connection.target, connection=connection)
        return nx.freeze(graph)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Population names, sources before targets; the same for the same graph. Raises on a cycle."""
        try:
            return tuple(nx.lexicographical_topological_sort(self.graph))
        except nx.NetworkXUnfeasible:
            cycle = [source for source, *_ in nx.find_cycle(self.graph)]
            raise VerificationError("the network has a cycle:", [" -> ".join([*cycle, cycle[0]])]) from None

    @cached_property
    def depth(self) -> Mapping[str, int]:
        """For each population the length of the longest path to it: its window starts after so many steps or phases."""
        depth: dict[str, int] = {}
        for name in self.order:
            depth[name] = max((depth[source] + 1 for source in self.graph.predecessors(name)), default=0)
        return MappingProxyType(depth)

    def incoming(self, name: str, port: int | None = None) -> Sequence[Connection]:
        """The connections into a population, or into one port of it."""
        connections = [data["connection"] for *_, data in self.graph.in_edges(name, data=True)]
        return [c for c in connections if port is None or c.port == port]

    def outgoing(self, name: str) -> Sequence[Connection]:
        """The connections out of a population."""
        return [data["connection"] for *_, data in self.graph.out_edges(name, data=True)]

    def leading_to(self, names: Iterable[str]) -> frozenset[str]:
        """These populations, and every other that they depend on."""
        names = tuple(names)
        return frozenset(names).union(*(nx.ancestors(self.graph, name) for name in names))

    @property
    def is_phased(self) -> bool:
        """Whether this is a few-spike network, whose windows are phases."""
        return any(isinstance(p.neuron, SpikingNeuron) and p.neuron.phased for p in self.populations.values())

    @cached_property
    def pace(self) -> int:
        """How many timesteps the windows of successive depths lie apart: the lag, or a phase in a few-spike network."""
        return (self.timesteps or 1) if self.is_phased else self.lag

    @property
    def latency(self) -> int:
        """The timesteps from an image's first to the end of the last window. The next may follow after T of them."""
        return (self.timesteps or 1) + self.pace * max(self.depth.values(), default=0)

    def aligned(self, source: str, target: str) -> int:
        """The delay with which an edge from `source` brings each spike into the same step of `target`'s window."""
        return (self.depth[target] - self.depth[source]) * self.pace - self.ahead(target) - 1

    def ahead(self, name: str) -> int:
        """How many steps before its window opens the input of a population begins to count.

        None for an input, and for what takes in nothing but constant currents: there is nothing to wait for.
        """
        sources = [self.populations[source].neuron for source in self.graph.predecessors(name)]
        return self.pace - 1 if any(not isinstance(neuron, CurrentInput) for neuron in sources) else 0

    @property
    def is_spiking(self) -> bool:
        """Whether any population spikes: such a network is past its conversion pass."""
        return any(isinstance(population.neuron, SpikingNeuron) for population in self.populations.values())
