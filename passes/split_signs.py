"""Two populations in place of each that sends signed spikes."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from ..ir import (
    CurrentInput,
    FewSpike,
    FewSpikeFunction,
    FewSpikeInput,
    Function,
    GradedInput,
    IntegrateFire,
    IntegrateFireInput,
    MatMul,
    Network,
    Neuron,
    PoissonInput,
    Population,
    Product,
    SpikeInput,
    Stage,
    Tracking,
    UnsupportedModelError,
)
from .canonicalise import Canonicalise
from .manager import Context, Pass
from .rewrite import Rewrite, Sum
from .signs import sending_signs

Driven = tuple[Neuron, tuple[Sum, ...]]  # a neuron, and what is summed at each of its ports


@dataclass(frozen=True)
class SplitSigns(Pass):
    """Two populations in place of each that sends signed spikes, for targets whose spikes have no sign.

    y = max(y, 0) − max(−y, 0): `NAME/+` codes the first, `NAME/-` the second, and what read `NAME` reads both, the
    second with weights of the other sign. All that is decoded stays exactly the same, and so does the number of spikes;
    there are twice the neurons. Run it after the conversion: few-spike makes such populations of functions that have
    both signs. What its weights and sources show to be never negative, as the quotients of a softmax, stays whole.

    Outputs keep their name, as readouts that gather both halves one phase later. Inputs do, too: they become graded, or
    a constant current, and the halves behind them make spikes of it, so that everything comes one phase, or timestep,
    later. Signed Poisson and binary inputs are refused, and so are tracking neurons, which take spikes back.
    """

    name: ClassVar[str] = "split-signs"
    requires: ClassVar[Stage] = "spiking"
    ensures: ClassVar[Stage] = "spiking"

    def run(self, network: Network, context: Context) -> Network:
        found = sending_signs(network)
        problems = [
            f"{name} ({type(population.neuron).__name__}, "
            f"from {', '.join(population.origin.layers) or 'no known layer'}): {reason}"
            for name, population in network.populations.items()
            if name in found and (reason := _in_the_way(population, network))
        ]
        if problems:
            raise UnsupportedModelError("split-signs cannot split these populations:", problems)
        network = network.replace(populations=[_unsigned(p, found) for p in network.populations.values()])
        for name in found:
            rewrite = Rewrite(network, network.populations[name], self.name)
            network = rewrite.network(_difference(rewrite))
        return Canonicalise().run(network, context) if found else network


def _unsigned(population: Population, signed: Container[str]) -> Population:
    """A population without signs that it never uses."""
    neuron = population.neuron
    if population.name in signed or not (isinstance(neuron, FewSpikeFunction) and neuron.signed):
        return population
    return replace(population, neuron=replace(neuron, signed=False), origin=population.origin.by(SplitSigns.name))


class Half(NamedTuple):
    """Of which population one is a half, and the sign of what it says."""

    name: str
    sign: int


def half_of(population: Population) -> Half | None:
    """What a population is a half of; None if it is whole."""
    name, _, sign = population.name.rpartition("/")
    keeps_name = population.neuron.is_input or population.neuron.is_readout
    if SplitSigns.name not in population.origin.passes or keeps_name or sign not in _SIGNS:
        return None
    return Half(name, _SIGNS[sign])


_SIGNS = {"+": 1, "-": -1}


def _in_the_way(population: Population, network: Network) -> str | None:
    """Why a population with signed spikes cannot be split, and what to do; None if it can."""
    if population.name in network.inputs and population.name in network.outputs:
        return "it is an input and an output, and only one of both can keep its name"
    match population.neuron:
        case Tracking():
            return (
                "its negative spikes take back what it said; convert with few-spike, "
                "or with lower-functions and data-norm"
            )
        case PoissonInput() | SpikeInput():
            return "only an input makes such spikes; convert with input=current or input=integrate-fire"
        case FewSpikeFunction(computes=computes) if not isinstance(computes, (Function, Product, MatMul)):
            return f"no neuron says the negative of its {type(computes).__name__}; lower that before few-spike"
        case FewSpikeFunction() | FewSpikeInput() as neuron:
            quantum = neuron.alpha * np.float32(2.0**-neuron.k)
            return _BOTH_SPIKE if np.any(neuron.v_init >= quantum) else None
        case IntegrateFireInput() if network.lag > 1:
            return "its halves would wait, which it need not; convert with lag=1 or input=current"
        case IntegrateFireInput() as neuron:
            spikes = np.greater_equal if neuron.comparison == ">=" else np.greater
            return _BOTH_SPIKE if spikes(neuron.v_init, neuron.v_thresh) else None
    return None


_BOTH_SPIKE = "its potential starts where it spikes without any input, as both halves would; lower v_init"


def _difference(rewrite: Rewrite) -> Sum:
    """What stands for the old population: its positive part minus its negative one."""
    (neuron, summed), (opposite, negated) = _halves(rewrite)
    above = rewrite.population(f"{rewrite.old.name}/+", neuron, *summed)
    return above.minus(rewrite.population(f"{rewrite.old.name}/-", opposite, *negated))


def _halves(rewrite: Rewrite) -> tuple[Driven, Driven]:
    """The halves of the old population, which each rectify: one its y, the other −y."""
    neuron = rewrite.old.neuron
    match neuron:
        case FewSpikeFunction(computes=Function(function, parameter)):
            code, x = replace(neuron, signed=False), rewrite.summed()
            minus_one = rewrite.constant(np.full(x.shape[-1:], -1, np.float32), x.shape)
            return (code, (x,)), (replace(code, computes=Product(function, parameter)), (minus_one, x))
        case FewSpikeFunction():
            code, x, other = replace(neuron, signed=False), rewrite.summed(0), rewrite.summed(1)
            return (code, (x, other)), (code, (x.scaled(-1.0), other))
        case FewSpikeInput():
            return _behind(rewrite, GradedInput(neuron.sayable[1]), FewSpike(neuron.k, neuron.alpha, neuron.v_init))
    assert isinstance(neuron, IntegrateFireInput)  # all others are in the way
    fires = IntegrateFire(neuron.v_thresh, neuron.v_init, neuron.reset, neuron.comparison)
    return _behind(rewrite, CurrentInput(neuron.sayable[1]), fires)


def _behind(rewrite: Rewrite, graded: Neuron, rectifier: Neuron) -> tuple[Driven, Driven]:
    """The halves of an input: rectifiers of what it sends itself from now on, and of its negative."""
    x = rewrite.population(rewrite.old.name, graded, rewrite.constant(None, rewrite.old.shape))
    return (rectifier, (x,)), (rectifier, (x.scaled(-1.0),))
