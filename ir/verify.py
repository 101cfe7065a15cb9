"""What a network must satisfy: one list of rules for each stage, and all faults in one report.

- `analog`: what a frontend makes. Shapes fit along every edge, the graph is acyclic, all neurons are
  analog, all numbers finite.
- `canonical`: analog, and operators are folded, edges that skip layers carry the aligning delay,
  every population reaches an output, and readouts lead nowhere.
- `spiking`: canonical in structure, all neurons spiking, thresholds positive, timesteps known, few-spike throughout or
  not at all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from typing import Literal, get_args
from weakref import WeakValueDictionary

import networkx as nx
import numpy as np

from .arguments import as_network, is_whole, shown
from .errors import ShapeError, VerificationError
from .folding import fold
from .functions import FUNCTIONS
from .network import Connection, Network, Origin, Population
from .neurons import (
    FewSpike,
    FewSpikeNeuron,
    Function,
    LeakyRelu,
    Neuron,
    Product,
    QuantizedRelu,
    SpikingNeuron,
    Tracking,
)
from .operators import Operator, output_shape
from .record import Record
from .windows import Shape

LARGEST_T = 2**20  # beyond which nobody runs a network, and counts and outputs of every step fit no memory
MOST_LEVELS = 127  # spikes in a step, which a train keeps as a number of eight bits
LARGEST_K = 24  # a few-spike value is a number of k bits, and single precision holds 24

Stage = Literal["analog", "canonical", "spiking"]


def verify(network: Network, stage: Stage | None = None) -> None:
    """Raise a VerificationError that lists every fault of `network`; by default at the stage that it looks to be in."""
    network = as_network(network)
    if stage is None:
        stage = "spiking" if network.is_spiking else "analog"
    found = faults(network, stage)
    if found:
        raise VerificationError(f"not a valid {stage} network, {len(found)} fault(s):", found)


def faults(network: Network, stage: Stage) -> list[str]:
    """Every fault of `network` at `stage`, each naming its population or connection."""
    network = as_network(network)
    if not (isinstance(stage, str) and stage in get_args(Stage)):
        raise VerificationError(f"there is no stage {shown(stage)}; there are: {', '.join(get_args(Stage))}", ())
    found = [*_endpoints(network), *_nodes(network, stage), *_edges(network), *_cycles(network)]
    if found or stage == "analog":
        return found
    return [*_canonical(network), *(_timesteps(network) if stage == "spiking" else ())]


def _endpoints(network: Network) -> Iterator[str]:
    for kind, names in (("input", network.inputs), ("output", network.outputs)):
        if not names:
            yield f"the network has no {kind}"
        for name in names:
            if name not in network.populations:
                yield f"{kind} {name!r} is not a population"
        for name in sorted(name for name, count in Counter(names).items() if count > 1):
            yield f"{kind} {name!r} is listed more than once"


def _nodes(network: Network, stage: Stage) -> Iterator[str]:
    for name, population in network.populations.items():
        for fault in _population_faults(network, population, stage):
            yield f"population {name!r}: {fault}"


def _population_faults(network: Network, population: Population, stage: Stage) -> Iterator[str]:
    shape, neuron = population.shape, population.neuron
    if not _is_shape(shape):
        yield f"shape {shape} is neither (H, W, C) nor (N,) with positive sizes"
        return
    if not isinstance(neuron, Neuron):
        yield "has no neuron"
        return
    if neuron.spiking != (stage == "spiking"):
        kind = "spiking" if neuron.spiking else "analog"
        yield f"{type(neuron).__name__} is {kind}, which a network at stage {stage!r} may not hold"
    if neuron.is_input != (population.name in network.inputs):
        yield f"{type(neuron).__name__} is {'not ' if neuron.is_input else ''}listed among the inputs"
    if neuron.is_input and network.graph.in_degree(population.name):
        yield "is an input but has incoming connections"
    if neuron.is_input and population.bias is not None:
        yield "is an input but has a bias"
    if population.table is not None and not (neuron.is_input and population.table.shape[1:] == shape[2:]):
        yield f"has a table of shape {population.table.shape}; only inputs (L, 1, C) have one, (numbers, C)"
    if not neuron.is_input and not network.graph.in_degree(population.name):
        yield "has no incoming connections"
    elif not neuron.is_input:
        for port, (_, bias) in enumerate(population.ports):
            if bias is None and not network.incoming(population.name, port):
                yield f"has no incoming connections at port {port}, and no bias"
    yield from _neuron_shape(population)
    yield from _not_finite(neuron)
    yield from _origin_faults(population.origin)
    soma = neuron.soma if isinstance(neuron, SpikingNeuron) else None
    if soma:
        yield from _not_finite(soma)
    yield from _analog_fields(soma or neuron, shape)
    for summed, bias in population.ports:
        if bias is not None and bias.shape not in (summed, summed[-1:]):
            yield f"bias of shape {bias.shape} for an input of shape {summed}"
    if population.second_bias is not None and neuron.ports < 2:
        yield f"has a bias for a second port, which {type(neuron).__name__} has not"
    yield from _not_finite(population)
    if isinstance(neuron, SpikingNeuron):
        yield from _spiking_fields(neuron, shape, network.timesteps)


def _neuron_shape(population: Population) -> Iterator[str]:
    try:
        shape = population.neuron.output_shape(population.input_shape)
    except ShapeError as error:
        yield str(error)
        return
    if shape != population.shape:
        yield f"has shape {population.shape} but its neuron gives {shape}"


def _analog_fields(neuron: Neuron, shape: Shape) -> Iterator[str]:
    """Faults of an analog neuron, which may be what a spiking one computes."""
    if isinstance(neuron, (Function, Product)) and neuron.function not in FUNCTIONS:
        yield f"there is no function {neuron.function!r}"
    if isinstance(neuron, QuantizedRelu) and not (neuron.max > 0 and 0 < neuron.levels < 2**LARGEST_K):
        yield f"max is {neuron.max} and levels {neuron.levels}; both are positive, levels below {2**LARGEST_K}"
    if isinstance(neuron, LeakyRelu) and np.shape(neuron.slope) not in ((), shape[-1:], shape):
        yield f"slope has shape {np.shape(neuron.slope)}; expected a number, or {shape[-1:]} or {shape}"


def _spiking_fields(neuron: SpikingNeuron, shape: Shape, timesteps: int | None) -> Iterator[str]:
    values = {name: getattr(neuron, name) for name in ("v_thresh", "alpha", "v_init") if hasattr(neuron, name)}
    for name, value in values.items():
        if np.shape(value) not in ((), shape[-1:]):
            yield f"{name} has shape {np.shape(value)}; expected a number or one per channel, {shape[-1:]}"
        if name != "v_init" and not np.all(np.asarray(value) > 0):
            yield f"{name} is not positive"
    choices = {"reset": ("subtract", "zero"), "comparison": (">=", ">"), "scores": ("classes", "labels")}
    for name, known in choices.items():
        if getattr(neuron, name, known[0]) not in known:
            yield f"{name} {getattr(neuron, name)!r} is neither {known[0]!r} nor {known[1]!r}"
    seed = getattr(neuron, "seed", 0)
    if not (is_whole(seed) and -(2**63) <= seed < 2**63):
        yield f"seed is {shown(seed)}; it is a whole number of 64 bits"
    if isinstance(neuron, Tracking):
        yield from _tracking_fields(neuron)
    if isinstance(neuron, FewSpikeNeuron) and timesteps and not 1 <= neuron.k <= min(timesteps, LARGEST_K):
        yield f"k is {neuron.k}; a phase of {timesteps} steps has room for 1 to {min(timesteps, LARGEST_K)}"
    elif isinstance(neuron, FewSpike) and not 0 <= neuron.limit < 2**neuron.k:
        yield f"limit is {neuron.limit}; {neuron.k} bits say at most {2**neuron.k - 1}"


def _tracking_fields(neuron: Tracking) -> Iterator[str]:
    if not (is_whole(neuron.levels) and 1 <= neuron.levels <= MOST_LEVELS):
        yield f"levels is {shown(neuron.levels)}; a neuron sends from 1 to {MOST_LEVELS} spikes in a step"
    v_init, v_thresh = np.asarray(neuron.v_init), np.asarray(neuron.v_thresh)
    comparable = v_init.shape == v_thresh.shape or 1 in (v_init.size, v_thresh.size)
    if comparable and not np.all((v_init >= 0) & (v_init <= v_thresh)):
        yield "v_init does not lie from 0 to v_thresh"
    if neuron.computes.is_input or neuron.computes.spiking:
        yield f"cannot compute {type(neuron.computes).__name__}"


def _origin_faults(origin: Origin) -> Iterator[str]:
    error = origin.error
    if not (isinstance(origin.function, str) and isinstance(error, (int, float)) and 0 <= error < math.inf):
        yield f"comes within {shown(error)} of {shown(origin.function)}, which is no error of a function"


def _edges(network: Network) -> Iterator[str]:
    for connection in network.connections:
        for fault in _connection_faults(network, connection):
            yield f"connection {connection}: {fault}"


def _connection_faults(network: Network, connection: Connection) -> Iterator[str]:
    if connection.delay < 0:
        yield f"delay {connection.delay} is negative"
    yield from _origin_faults(connection.origin)
    for operator in connection.operators:
        if not isinstance(operator, Operator):
            yield f"{operator!r} is not an operator"
            return
        yield from _not_finite(operator)
    ends = [network.populations.get(name) for name in (connection.source, connection.target)]
    for name, population in zip((connection.source, connection.target), ends, strict=True):
        if population is None:
            yield f"{name!r} is not a population"
    source, target = ends
    if source is None or target is None or not (_is_shape(source.shape) and isinstance(target.neuron, Neuron)):
        return
    try:
        shape = output_shape(connection.operators, source.shape)
    except ShapeError as error:
        yield str(error)
        return
    if connection.port not in range(target.neuron.ports):
        yield f"there is no port {connection.port}: {type(target.neuron).__name__} has {target.neuron.ports}"
        return
    wanted, _ = target.ports[connection.port]
    if shape != wanted:
        yield f"gives shape {shape} where the target takes {wanted}"


def _cycles(network: Network) -> Iterator[str]:
    for component in nx.strongly_connected_components(network.graph):
        if len(component) > 1:
            yield f"these populations form a cycle: {', '.join(sorted(component))}"
    for name in nx.nodes_with_selfloops(network.graph):
        yield f"population {name!r} is connected to itself"


def _canonical(network: Network) -> Iterator[str]:
    reaching = network.leading_to(network.outputs)
    for name, population in network.populations.items():
        if name not in reaching and name not in network.inputs:
            yield f"population {name!r}: reaches no output"
        if population.neuron.is_readout and (name not in network.outputs or network.graph.out_degree(name)):
            yield f"population {name!r}: a readout must be an output and lead nowhere"
    for connection in network.connections:
        source_shape = network.populations[connection.source].shape
        folded = fold(connection.operators, source_shape)
        if list(map(type, folded)) != list(map(type, connection.operators)):
            yield f"connection {connection}: its operators can be folded"
        aligned = network.aligned(connection.source, connection.target)
        if connection.delay != aligned:
            yield f"connection {connection}: delay {connection.delay} does not align it, {aligned} does"


def _timesteps(network: Network) -> Iterator[str]:
    if network.is_phased:
        for name, population in network.populations.items():
            if isinstance(population.neuron, SpikingNeuron) and not population.neuron.phased:
                yield f"population {name!r}: {type(population.neuron).__name__} knows no phases, but others here do"
    if not is_timesteps(network.timesteps):
        yield f"timesteps is {network.timesteps!r}; T is a number from 1 to {LARGEST_T:,}"
    elif not (is_whole(network.lag) and 1 <= network.lag <= (1 if network.is_phased else network.timesteps or 1)):
        yield f"lag is {shown(network.lag)}; it is a number from 1 to T, and 1 where windows are phases"


def is_timesteps(value: object) -> bool:
    """Whether a network can be run for so many steps."""
    return is_whole(value) and 1 <= value <= LARGEST_T


def _not_finite(record: Record) -> Iterator[str]:
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, (int, float, np.ndarray)) and not _is_finite(value):
            yield f"{type(record).__name__}.{field.name} holds numbers that are not finite"


# Records hold their arrays read-only and passes hand most of them on, so each is looked at once.
_KNOWN_FINITE: WeakValueDictionary[int, np.ndarray] = WeakValueDictionary()


def _is_finite(value: float | np.ndarray) -> bool:
    if isinstance(value, int):
        return abs(value) < 2**127  # which single precision holds
    if _KNOWN_FINITE.get(id(value)) is value:
        return True
    finite = bool(np.isfinite(value).all())
    if finite and isinstance(value, np.ndarray):
        _KNOWN_FINITE[id(value)] = value
    return finite


def _is_shape(shape: object) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) in (1, 3)
        and all(isinstance(size, int) and size > 0 for size in shape)
        and math.prod(shape) < 2**31
    )
