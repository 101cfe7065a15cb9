"""The text form of a network: one line per population and connection, for reading, diffs and golden tests.

Lines are in topological order, ties by name, so that the same network always prints the same text; a
network that breaks the rules prints too. Arrays appear as type, shape and a hash of their bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from .errors import VerificationError
from .network import Connection, Network, Origin, Population
from .record import Record


def to_text(network: Network) -> str:
    """The text form, ending in a newline."""
    header = "network" if network.timesteps is None else f"network timesteps={network.timesteps}"
    lines = [f"{header} inputs=({', '.join(network.inputs)}) outputs=({', '.join(network.outputs)})"]
    rank = {name: position for position, name in enumerate(_order(network))}
    lines += [population_line(network.populations[name]) for name in rank if name in network.populations]
    edges = [(rank[c.source], rank[c.target], connection_line(c)) for c in network.connections]
    lines += [line for *_, line in sorted(edges)]
    return "\n".join(lines) + "\n"


def summary(network: Network) -> str:
    """One line: the kind of network and how large it is."""
    kind = "spiking" if network.is_spiking else "analog"
    neurons = sum(population.size for population in network.populations.values())
    steps = f", {network.timesteps} timesteps" if network.timesteps else ""
    counts = f"{len(network.populations)} populations, {neurons} neurons, {len(network.connections)} connections"
    return f"{kind} network: {counts}{steps}"


def population_line(population: Population) -> str:
    """The line of one population."""
    shape = ",".join(map(str, population.shape))
    bias = "" if population.bias is None else f" bias={value_text(population.bias)}"
    return f"  {population.name} [{shape}] {value_text(population.neuron)}{bias}{_origin(population.origin)}"


def connection_line(connection: Connection) -> str:
    """The line of one connection."""
    chain = ", ".join(map(value_text, connection.operators)) or "one-to-one"
    delay = f" delay={connection.delay}" if connection.delay else ""
    return f"  {connection}: {chain}{delay}{_origin(connection.origin)}"


def value_text(value: Any) -> str:
    """A field's value as the text form prints it; a record prints the fields that are not at their default."""
    if isinstance(value, Record):
        shown = (f for f in fields(value) if not _is_default(getattr(value, f.name), f.default))
        return f"{type(value).__name__}({', '.join(f'{f.name}={value_text(getattr(value, f.name))}' for f in shown)})"
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()[:8]
        return f"{value.dtype}[{','.join(map(str, value.shape))}]#{digest}"
    if isinstance(value, float):
        return str(np.float32(value))
    if isinstance(value, tuple):
        return f"({','.join(map(value_text, value))})"
    return str(value)


def _is_default(value: Any, default: Any) -> bool:
    return default is not MISSING and not isinstance(value, np.ndarray) and bool(value == default)


def _origin(origin: Origin) -> str:
    layers = f" from {', '.join(origin.layers)}" if origin.layers else ""
    return layers + (f" by {', '.join(origin.passes)}" if origin.passes else "")


def _order(network: Network) -> tuple[str, ...]:
    try:
        return network.order
    except VerificationError:
        return tuple(sorted(network.graph))
