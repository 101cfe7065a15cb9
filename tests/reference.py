"""The analog semantics in a few lines of numpy: what every other implementation is compared with."""

import numpy as np

from snnc.ir import Network, apply


def analog(network: Network, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every population's activation, (images, *shape), in the precision of the inputs."""
    values = dict(inputs)
    for name in network.order:
        population = network.populations[name]
        if name not in network.inputs:
            summed = []
            for port, (_, bias) in enumerate(population.ports):
                total = sum(apply(c.operators, values[c.source]) for c in network.incoming(name, port))
                summed.append(total if bias is None else total + bias)
            values[name] = population.neuron.apply(*summed)
    return values
