"""A spiking network as an mlGeNN network."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import ml_genn

from ...ir import Connection, CurrentInput, Network
from .connectivity import Edge
from .neurons import neuron
from .snippets import connectivity_of


def emit(
    network: Network, edges: Sequence[Edge], record_spikes: Collection[str] = ()
) -> tuple[ml_genn.Network, dict[str, ml_genn.Population]]:
    """The mlGeNN network with the meaning of a spiking network, and its populations by their names in the IR.

    Those named in `record_spikes` can be recorded with mlGeNN's SpikeRecorder.
    """
    assert network.timesteps is not None  # verified
    emitted = ml_genn.Network()
    populations: dict[str, ml_genn.Population] = {}
    with emitted:
        for number, (name, population) in enumerate(network.populations.items()):
            readout = "var" if name in network.outputs else None
            begin, ahead = network.depth[name] * network.pace, network.ahead(name)
            if network.is_phased:  # every phase starts GeNN's time again
                begin, ahead = 0, 0
            holds = {edge.port for edge in network.incoming(name) if is_constant(network, edge)}
            spiking = neuron(population, begin, network.timesteps, readout, holds, ahead)
            populations[name] = ml_genn.Population(
                spiking, population.shape, record_spikes=name in record_spikes, name=genn_name("p", number, name)
            )
        for number, edge in enumerate(edges):
            source, target = edge.connection.source, edge.connection.target
            ends = (populations[source], populations[target])
            ml_genn.Connection(*ends, connectivity_of(edge), name=genn_name("c", number, f"{source}_to_{target}"))
    return emitted, populations


def is_constant(network: Network, connection: Connection) -> bool:
    """Whether a connection brings a constant current."""
    return isinstance(network.populations[connection.source].neuron, CurrentInput)


def genn_name(kind: str, number: int, name: str) -> str:
    """A name that is a C identifier whatever `name` holds and, by its number, unique."""
    return f"{kind}{number}_" + re.sub(r"[^0-9A-Za-z]+", "_", name)
