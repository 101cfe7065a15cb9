"""Which populations of a spiking network send negative spikes, as far as weights and functions say."""

from __future__ import annotations

import numpy as np

from ..ir import (
    FUNCTIONS,
    Conv2D,
    Dense,
    FewSpikeFunction,
    FewSpikeInput,
    Function,
    MatMul,
    Network,
    Neuron,
    Operator,
    Product,
    Scale,
    SpikeEncoding,
    SpikingNeuron,
    Tracking,
)
from .enclosure import enclosure


def sending_signs(network: Network) -> list[str]:
    """The populations that may send negative spikes, in topological order.

    Not those that are given no negative number and make none: the quotients of a softmax, say.
    """
    found: list[str] = []
    never: set[str] = set()
    for name in network.order:
        neuron = network.populations[name].neuron
        if _is_signed(neuron) and not _is_known_positive(network, name, never):
            found.append(name)
        elif isinstance(neuron, SpikingNeuron) and neuron.fires:
            never.add(name)
    return found


def _is_signed(neuron: Neuron) -> bool:
    """Whether some of the spikes that a neuron sends are negative, for some input."""
    match neuron:
        case FewSpikeFunction(computes=computes, signed=signed):
            return signed and computes.is_signed
        case FewSpikeInput(signed=signed) | SpikeEncoding(signed=signed):
            return signed
    return isinstance(neuron, Tracking)


def _is_known_positive(network: Network, name: str, never: set[str]) -> bool:
    """Whether a soma makes no negative number of what those send that are `never` negative themselves."""
    population = network.populations[name]
    given = [
        (bias is None or bool((bias >= 0).all()))
        and all(c.source in never and all(map(_keeps_sign, c.operators)) for c in network.incoming(name, port))
        for port, (_, bias) in enumerate(population.ports)
    ]
    match population.neuron:
        case FewSpikeFunction(computes=Function(function, parameter)):
            return _keeps_positive(function, parameter, given[0])
        case FewSpikeFunction(computes=Product(function, parameter)):
            return given[0] and _keeps_positive(function, parameter, given[1])
        case FewSpikeFunction(computes=MatMul()):
            return all(given)
    return False


def _keeps_positive(function: str, parameter: float, positive: bool) -> bool:
    """Whether f(x) is never negative, for all x or for all positive ones."""
    low, high = np.array([0.0 if positive else -np.inf]), np.array([np.inf])
    return bool((enclosure(FUNCTIONS[function], parameter, low, high).value.low >= 0).all())


def _keeps_sign(operator: Operator) -> bool:
    match operator:
        case Conv2D(weight) | Dense(weight):
            return bool((weight >= 0).all())
        case Scale(factor):
            return bool((factor >= 0).all())
    return True
