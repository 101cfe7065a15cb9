"""Several populations in place of one: what the passes share that lower a neuron to a sum of simpler ones."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..ir import (
    AnalogNeuron,
    Connection,
    FewSpikeReadout,
    Function,
    Identity,
    Network,
    Neuron,
    Operator,
    Origin,
    Population,
    Scale,
    Shape,
    Stage,
    apply,
    fold,
    output_shape,
)
from .canonicalise import Canonicalise
from .manager import Context, Pass


@dataclass(frozen=True)
class Lowering(Pass):
    """A pass that replaces every population with a neuron of one kind, `lowers`, by a sum of others."""

    requires: ClassVar[Stage] = "canonical"
    ensures: ClassVar[Stage] = "canonical"
    keeps_function: ClassVar[bool] = True
    lowers: ClassVar[type[AnalogNeuron]]

    def run(self, network: Network, context: Context) -> Network:
        found = [name for name in network.order if self.applies(network.populations[name].neuron)]
        for name in found:
            rewrite = Rewrite(network, network.populations[name], self.name)
            network = rewrite.network(self.lowered(rewrite))
        return Canonicalise().run(network, context) if found else network

    def applies(self, neuron: Neuron) -> bool:
        """Whether a population with this neuron is to be replaced."""
        return isinstance(neuron, self.lowers)

    @abstractmethod
    def lowered(self, rewrite: Rewrite) -> Sum:
        """What stands for `rewrite.old`."""


@dataclass(frozen=True)
class Sum:
    """An affine expression of `shape`: some connections, whatever their target, plus a bias as populations have it.

    `origin` is what everything done to the sum comes from.
    """

    terms: tuple[Connection, ...]
    bias: np.ndarray | None
    shape: Shape
    origin: Origin

    def then(self, *operators: Operator) -> Sum:
        """The sum after linear operators."""
        terms = tuple(
            replace(term, operators=(*term.operators, *operators), origin=term.origin.merge(self.origin))
            for term in self.terms
        )
        bias = None
        if self.bias is not None:  # in double precision, or the last bit would be the machine's
            bias = apply(operators, np.broadcast_to(self.bias, self.shape)[None].astype(np.float64))[0]
            bias = bias.astype(np.float32)
        return replace(self, terms=terms, bias=bias, shape=output_shape(operators, self.shape))

    def scaled(self, factor: float | np.ndarray) -> Sum:
        """The sum times a number, or one per channel or position."""
        factors = np.broadcast_to(factor, np.shape(factor) or self.shape[-1:])
        return replace(self.then(Scale(factors)), bias=None if self.bias is None else self.bias * factors)

    def plus(self, other: Sum) -> Sum:
        """The sum of both."""
        return replace(self, terms=(*self.terms, *other.terms), bias=_added(self.bias, other.bias))

    def minus(self, other: Sum) -> Sum:
        """The difference."""
        return self.plus(other.scaled(-1.0))

    def shifted(self, by: float) -> Sum:
        """The sum plus a number."""
        return replace(self, bias=_added(self.bias, np.full(self.shape[-1:], by, np.float32)))


class Rewrite:
    """The network `before`, in which the population `old` is to give way to a sum of others; `by` is the pass's name.

    What it makes must be canonicalised: delays are not set.
    """

    def __init__(self, network: Network, old: Population, by: str):
        self.before = network
        self.old = old
        self._by = by
        self._origin = replace(old.origin, function="", error=0.0).by(by)  # of edges, which are in place of nothing
        self._populations = {name: p for name, p in network.populations.items() if name != old.name}
        self._connections = [c for c in network.connections if old.name not in (c.source, c.target)]

    def constant(self, bias: np.ndarray | None, shape: Shape) -> Sum:
        """A sum of nothing but a bias, or of nothing at all."""
        return Sum((), bias, shape, self._origin)

    def summed(self, port: int = 0) -> Sum:
        """What the old population's neuron is applied to, or has at one of its ports."""
        shape, bias = self.old.ports[port]
        return Sum(tuple(self.before.incoming(self.old.name, port)), bias, shape, self._origin)

    def heir(self, suffix: str) -> str:
        """The old population's own name, so that profiles join by it; with `suffix` where the readout will need it."""
        return f"{self.old.name}/{suffix}" if self.old.name in self.before.outputs else self.old.name

    def population(self, name: str, neuron: Neuron, *summed: Sum, error: float | None = None) -> Sum:
        """The output of a new population, called `name` unless that is taken, with a sum for each port.

        With an `error`, it stands for the old population's function, which is met but for so much.
        """
        while name in self._populations:
            name += "'"
        origin = self.old.origin.by(self._by)
        if error is not None:
            assert isinstance(self.old.neuron, Function)
            origin = replace(origin, function=self.old.neuron.function, error=error)
        shape = neuron.output_shape(summed[0].shape)
        population = Population(name, shape, neuron, origin=origin)
        for port, each in enumerate(summed):
            population = population.shifted(each.bias, port)
            self._connect(each, name, port)
        self._populations[name] = population
        return Sum((Connection(name, name, origin=self._origin),), None, shape, self._origin)

    def network(self, total: Sum) -> Network:
        """The network in which `total` stands for the old population, which stays on only as an output."""
        for read in self.before.outgoing(self.old.name):
            sent = replace(total, origin=read.origin.by(self._by)).then(*read.operators)
            self._populations[read.target] = self._populations[read.target].shifted(sent.bias, read.port)
            self._connect(sent, read.target, read.port)
        if self.old.name in self.before.outputs:
            readout = FewSpikeReadout() if self.before.is_phased else Identity()
            gathering = Population(self.old.name, total.shape, readout, total.bias, self._origin)
            self._populations[self.old.name] = gathering
            self._connect(total, self.old.name)
        return self.before.replace(populations=self._populations, connections=self._connections)

    def _connect(self, summed: Sum, target: str, port: int = 0) -> None:
        for term in summed.terms:
            operators = fold(term.operators, self._populations[term.source].shape)
            self._connections.append(replace(term, target=target, operators=operators, port=port))


def _added(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    return second if first is None else first if second is None else first + second
