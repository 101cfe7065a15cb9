"""The analog semantics in ten lines of numpy: what every other implementation is compared with."""

import numpy as np

from snnc.ir import Network, apply


def analog(network: Network, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every population's activation, (images, *shape), in the precision of the inputs."""
    values = dict(inputs)
    for name in network.order:
        population = network.populations[name]
        if name not in network.inputs:
            summed = sum(apply(c.operators, values[c.source]) for c in network.incoming(name))
            values[name] = population.neuron.apply(summed if population.bias is None else summed + population.bias)
    return values
