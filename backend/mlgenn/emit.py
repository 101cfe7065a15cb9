"""A spiking network as an mlGeNN network."""

from __future__ import annotations

import re

import ml_genn

from ...ir import Network
from ..weights import weighted
from .connectivity import connect
from .neurons import neuron


def emit(network: Network) -> tuple[ml_genn.Network, dict[str, ml_genn.Population]]:
    """The mlGeNN network with the meaning of a spiking network, and its populations by their names in the IR."""
    assert network.timesteps is not None  # verified
    emitted = ml_genn.Network()
    populations: dict[str, ml_genn.Population] = {}
    with emitted:
        for number, (name, population) in enumerate(network.populations.items()):
            readout = "var" if name in network.outputs else None
            spiking = neuron(population, network.depth[name], network.timesteps, readout)
            populations[name] = ml_genn.Population(spiking, population.shape, name=genn_name("p", number, name))
        for number, edge in enumerate(network.connections):
            connectivity = connect(weighted(network, edge), network.populations[edge.source].shape, edge.delay)
            ends = (populations[edge.source], populations[edge.target])
            ml_genn.Connection(*ends, connectivity, name=genn_name("c", number, f"{edge.source}_to_{edge.target}"))
    return emitted, populations


def genn_name(kind: str, number: int, name: str) -> str:
    """A name that is a C identifier whatever `name` holds and, by its number, unique."""
    return f"{kind}{number}_" + re.sub(r"[^0-9A-Za-z]+", "_", name)
