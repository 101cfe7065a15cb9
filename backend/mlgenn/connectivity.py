"""How GeNN stores each connection: the matrix type is chosen here, and its memory is known before anything is built.

Nothing here needs GeNN, so that one can look at the choice anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...ir import (
    NO_PADDING,
    BackendError,
    Connection,
    Conv2D,
    Dense,
    Network,
    Operator,
    Scale,
    Shape,
    SpikingNeuron,
    output_shape,
)
from ...ir.cost import readable
from ..weights import weighted
from .fanout import fan_out
from .options import Forced, MatrixType

LARGEST_BLOCK = 1024  # of GeNN's threads, at most: see `_is_safe`
MANY_IMAGES = 64  # at once, above which a GPU is faster with TOEPLITZ; with one image it is twelve times as slow
SPARSE_COPIES = 32  # bytes a synapse: weight and indices, their order, and copies of them on the way to GeNN
DENSE_COPIES = 8  # the weight with λ folded in, and the copy that GeNN is given


@dataclass(frozen=True)
class Machine:
    """What the choice has to know of the machine.

    `memory` is the bytes that connections may take in its main memory, `gpu_memory` those on its GPU, if there is one.
    `toeplitz_sends_values`: whether its GeNN gets TOEPLITZ right for spikes that count as values. `batch` images are
    simulated at once.
    """

    memory: int
    gpu_memory: int | None = None
    toeplitz_sends_values: bool = True
    batch: int = 1

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU simulates."""
        return self.gpu_memory is not None


@dataclass(frozen=True, eq=False)
class Edge:
    """A connection as GeNN is to store it.

    `operators` apply to spikes, λ folded in. `kind` is the class of mlGeNN, or of ours, that makes the
    connection. `bytes` are those of GeNN's arrays of indices and weights, `host_bytes` all that is held here.
    """

    connection: Connection
    operators: tuple[Operator, ...] = field(repr=False)
    shape: Shape  # of the source
    kind: str
    matrix_type: MatrixType
    synapses: int
    bytes: int
    host_bytes: int

    def __str__(self) -> str:
        return f"{self.connection}: {self.synapses:,} synapses, {self.matrix_type}, {readable(self.bytes)}"


def choose(network: Network, machine: Machine, matrix_type: Forced | None = None) -> list[Edge]:
    """The matrix type of each connection of a spiking network, in the network's order.

    `matrix_type` forces one on every connection, or on those named "source -> target". Raises BackendError where a
    connection cannot have it.
    """
    names = {str(connection) for connection in network.connections}
    forced = matrix_type or {}
    if isinstance(forced, str):
        forced = dict.fromkeys(names, forced)
    unknown = sorted(forced.keys() - names)
    faults = [f"there is no connection {name!r}; there are: {', '.join(sorted(names))}" for name in unknown]
    choices = []
    for connection in network.connections:
        possible = _possible(network, connection, machine)
        wanted = forced.get(str(connection))
        if wanted and wanted not in possible:
            where = "a GPU" if machine.on_gpu else "a CPU"
            faults.append(f"{connection} cannot be {wanted} on {where}, only {' or '.join(possible)}")
        choices.append([possible[wanted]] if wanted in possible else list(possible.values()))
    if faults:
        raise BackendError("matrix_type does not fit the network:\n" + "\n".join(f"  - {fault}" for fault in faults))
    chosen = _fitting(choices, lambda edge: edge.host_bytes, machine.memory)
    if machine.gpu_memory is None:
        return chosen
    options = [ways if edge is ways[0] else [edge] for ways, edge in zip(choices, chosen, strict=True)]
    return _fitting(options, lambda edge: edge.bytes, machine.gpu_memory)


def _fitting(choices: list[list[Edge]], size: Callable[[Edge], int], memory: int) -> list[Edge]:
    """The best way to store each connection, but the largest in the smallest way until all fit into `memory`."""
    chosen = [ways[0] for ways in choices]
    smallest = [min(ways, key=size) for ways in choices]
    needed = sum(map(size, chosen))
    for at in sorted(range(len(chosen)), key=lambda at: size(chosen[at]), reverse=True):
        if needed <= memory:
            break
        needed += size(smallest[at]) - size(chosen[at])
        chosen[at] = smallest[at]
    return chosen


def is_one_to_one(operators: tuple[Operator, ...]) -> bool:
    """Whether each neuron meets its counterpart, all with the same weight."""
    match operators:
        case ():
            return True
        case (Scale(factor),):
            return bool((factor == factor.flat[0]).all())
    return False


def require_memory(edges: Sequence[Edge], available: int, copies: int = 1) -> None:
    """Raise BackendError, naming the largest connections, where `copies` of `edges` would exceed `available` bytes."""
    needed = copies * sum(edge.host_bytes for edge in edges)
    if needed <= available:
        return
    largest = sorted(edges, key=lambda edge: edge.host_bytes, reverse=True)[:5]
    whose = f"in {copies} workers the connections" if copies > 1 else "the connections"
    lines = [
        f"{whose} need {readable(needed)} of memory, and {readable(available)} are free. The largest:",
        *(f"  - {edge}" for edge in largest),
        "Run the network with the backend 'onnxruntime', which makes no synapses, or with fewer workers. "
        "Of convolutions without stride GeNN needs to keep only the kernel",
    ]
    raise BackendError("\n".join(lines))


def _possible(network: Network, connection: Connection, machine: Machine) -> dict[MatrixType, Edge]:
    """Every way to store a connection, the best first.

    That is where each synapse is kept, in the smaller of a sparse and a full matrix; or on a GPU, for many images, a
    Toeplitz matrix, which keeps the kernel alone. A GPU can also make the synapses of each spike anew from a kernel,
    which is the slowest.
    """
    source = network.populations[connection.source]
    assert isinstance(source.neuron, SpikingNeuron)  # verified
    operators, shape = weighted(network, connection), source.shape
    rows = fan_out(operators, shape)
    size, synapses = math.prod(output_shape(operators, shape)), max(int(rows.sum()), 1)
    slots = len(rows) * max(int(rows.max()), 1)  # GeNN pads every row to the longest
    kernel = operators[0].weight.size if operators and isinstance(operators[0], Conv2D) else 0

    def edge(kind: str, matrix_type: MatrixType, count: int, held: int, copies: int) -> Edge:
        return Edge(connection, operators, shape, kind, matrix_type, count, held, held + copies * count)

    sparse = edge("SparseMatrix", "SPARSE", synapses, 4 * len(rows) + 8 * slots, SPARSE_COPIES)
    copies = DENSE_COPIES if len(operators) == 1 and isinstance(operators[0], Dense) else SPARSE_COPIES
    dense = edge("DenseMatrix", "DENSE", len(rows) * size, 4 * len(rows) * size, copies)
    if is_one_to_one(operators):
        sparse = edge("OneToOne", "SPARSE", synapses, 8 * len(rows), 0)
    ways = [sparse, dense]
    if any(isinstance(operator, Dense) for operator in operators) or dense.bytes < sparse.bytes:
        ways = [dense, sparse]
    if is_toeplitz(operators) and (not machine.on_gpu or _is_safe(machine, source.neuron, size)):
        toeplitz = edge("Conv2D", "TOEPLITZ", synapses, 4 * kernel, 0)
        ways.insert(0 if machine.batch > MANY_IMAGES else len(ways), toeplitz)
    if machine.on_gpu and _is_procedural(operators):
        ways.append(edge("Convolution", "PROCEDURAL", synapses, 4 * kernel, 0))
    return {way.matrix_type: way for way in ways}


def _is_safe(machine: Machine, source: SpikingNeuron, size: int) -> bool:
    """Whether a GPU gets TOEPLITZ right, from a source to a target of `size` neurons.

    What reaches a target no larger than a block of threads GeNN 5.4 adds up in memory that the block shares, and its
    warps do not wait for one another from one spike to the next, so that some get lost (benchmarks/gpu.py, races).
    """
    return size > LARGEST_BLOCK and (machine.toeplitz_sends_values or not source.sends_values)


def is_toeplitz(operators: tuple[Operator, ...]) -> bool:
    """Whether GeNN's Toeplitz convolution computes `operators`.

    It takes no padding argument: from the sizes it concludes how the padding of a `same` convolution is
    split, and for even kernels it gives the larger half to the top and left, where Keras gives the smaller.
    """
    match operators:
        case (Conv2D(weight, strides, padding),) if _is_procedural(operators):
            same = tuple((k // 2, (k - 1) // 2) for k in weight.shape[:2])
            return strides == (1, 1) and padding in (NO_PADDING, same)
    return False


def _is_procedural(operators: tuple[Operator, ...]) -> bool:
    """Whether GeNN can make the synapses of `operators` from a kernel: any stride and padding, but whole channels."""
    match operators:
        case (Conv2D(_, _, _, dilation, groups),):
            return dilation == (1, 1) and groups == 1
    return False
