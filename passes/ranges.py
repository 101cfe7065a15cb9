"""How far summed inputs reach on the calibration images, which no population tells: they are what neurons are given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..ir import AnalogNeuron, Identity, Network, Population
from .calibration import with_logits
from .manager import Context

Range = tuple[float, float]


@dataclass(frozen=True)
class Probe:
    """What is looked at: the summed input at a port of a population, or what `neuron` makes of it."""

    population: str
    port: int = 0
    neuron: AnalogNeuron = field(default_factory=Identity)


def ranges(network: Network, context: Context, probes: Sequence[Probe]) -> list[Range] | None:
    """The smallest and the largest number of each probe that calibration shows; None if there are no images."""
    if not probes:
        return []
    if context.activations is None or context.calibration is None:
        return None
    names = _free(len(probes), network)
    probed = _probed(network, dict(zip(names, probes, strict=True)))
    low, high = dict.fromkeys(names, math.inf), dict.fromkeys(names, -math.inf)
    for batch in context.activations(with_logits(probed), context.calibration):
        for name in names:
            low[name] = min(low[name], float(batch[name].min()))
            high[name] = max(high[name], float(batch[name].max()))
    return [(low[name], high[name]) for name in names]


def _probed(network: Network, probes: dict[str, Probe]) -> Network:
    """The network with more outputs: what is probed, by name."""
    added, edges = [], []
    for name, probe in probes.items():
        shape, bias = network.populations[probe.population].ports[probe.port]
        added.append(Population(name, shape, probe.neuron, bias))
        edges += [replace(edge, target=name, port=0) for edge in network.incoming(probe.population, probe.port)]
    return network.replace(
        populations=[*network.populations.values(), *added],
        connections=[*network.connections, *edges],
        outputs=[*network.outputs, *probes],
    )


def _free(count: int, network: Network) -> list[str]:
    """So many names that no population has."""
    prefix = "probe "
    while any(name.startswith(prefix) for name in network.populations):
        prefix += "'"
    return [f"{prefix}{number}" for number in range(count)]
