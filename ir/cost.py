"""What a spiking network costs: synaptic operations, and the memory of products of matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from .network import Connection, Network, Population
from .neurons import MatMul, SomaNeuron, SpikingNeuron
from .operators import AveragePool2D, Conv2D, ConvTranspose2D, Dense, Operator, Resample, Scale
from .windows import windows

PRODUCT_BYTES = 224  # of a product of two numbers in GeNN on a CPU, at most: measured while it is loaded


def synaptic_operations(network: Network, spike_counts: Mapping[str, np.ndarray]) -> int:
    """How many synapses the spikes cross, `spike_counts` being population → spikes of each neuron, of its shape.

    A spike crosses every synapse of its neuron once. Synapses are the weights that are not zero; a window of a pooling
    has one per position, and a one-to-one edge one per neuron. Where an edge has several operators, every path through
    them counts, as if it were a synapse: an average over 2 × 2 before a 3 × 3 convolution has one for each weight that
    a pixel's average meets. What lies in the padding is no synapse. Graded inputs send no spikes, so their
    multiplications are not counted.
    """
    counted = (c for c in network.connections if c.source in spike_counts)
    return sum(_crossed(connection, spike_counts[connection.source]) for connection in counted)


def function_evaluations(network: Network) -> Mapping[str, int]:
    """How often an image makes neurons evaluate functions, by population: those of which the soma is no rectifier.

    A few-spike neuron does so once, one that tracks the mean of its input in each of T steps. A product of two numbers
    counts as one, with the function of a factor, if any, and a product of matrices as all its multiplications.
    """
    counts = {name: _evaluations(population, network) for name, population in network.populations.items()}
    return {name: count for name, count in counts.items() if count}


def products_text(matrices: MatMul) -> str:
    """How many products of two numbers a product of matrices is, and what memory these take in GeNN, for people."""
    sizes = "·".join(map(str, matrices.sizes))
    return f"{sizes} = {matrices.products:,} products, {readable(matrices.products * PRODUCT_BYTES)}"


def readable(size: int) -> str:
    """A number of bytes for people."""
    if size < 1024:
        return f"{size} B"
    power = min(int(math.log2(size)) // 10, 4)
    return f"{size / 1024**power:.1f} {'KMGT'[power - 1]}iB"


def _evaluations(population: Population, network: Network) -> int:
    neuron = population.neuron
    if not isinstance(neuron, SpikingNeuron) or not isinstance(neuron.soma, SomaNeuron):
        return 0
    once = neuron.soma.products if isinstance(neuron.soma, MatMul) else population.size
    return once if neuron.phased else once * (network.timesteps or 0)


def _crossed(connection: Connection, counts: np.ndarray) -> int:
    arriving = counts[None].astype(np.float64)  # exact up to 2^53, and matrix products are fast
    for operator in connection.operators:
        arriving = _paths(operator, arriving)
    return int(arriving.sum())


def _paths(operator: Operator, x: np.ndarray) -> np.ndarray:
    """The operator with a 1 for each weight that is not zero, applied to `x`, (1, *shape)."""
    match operator:
        case Conv2D(weight) | ConvTranspose2D(weight) | Dense(weight):
            return replace(operator, weight=weight != 0).apply(x)
        case Resample(axis):
            synapses = operator.matrix(x.shape[1 + axis]) != 0
            return np.moveaxis(np.moveaxis(x, 1 + axis, -1) @ synapses, -1, 1 + axis)
        case Scale(factor):
            return x * (factor != 0)
        case AveragePool2D(pool_size, strides, padding):
            return windows(x, pool_size, strides, padding).sum((-1, -2))
    return operator.apply(x)
