"""The oracle: the equations of DESIGN.md, stepped naively in global time, one image after another.

Nothing here is fast, clever or shared with an engine. In step s every population of the network is looked at
once. What it sent in step s arrives over a connection in step s + 1 + delay; a population at depth d adds its bias and
fires only in its window [d, d + T). Numbers are float64, so sums of dyadic numbers are exact.
"""

import numpy as np

from snnc import ir
from snnc.backend.compiled import Recording


def simulate(network: ir.Network, inputs: dict[str, np.ndarray]) -> Recording:
    """Run the images, (images, *shape) by input, for T + D steps each; every spike is recorded."""
    images = len(next(iter(inputs.values())))
    runs = [_simulate_one(network, {name: x[image] for name, x in inputs.items()}) for image in range(images)]
    counts, potentials, decoded, trains = zip(*runs, strict=True)
    return Recording(_stack(counts, 0), _stack(potentials, 0), _stack(decoded, 1), _stack(trains, 1))


def _simulate_one(network, image):
    timesteps, depth = network.timesteps, network.depth
    v = {name: _initial_potential(network.populations[name]) for name in network.order if name not in network.inputs}
    sent = {name: {} for name in network.order}  # what goes into a population's connections, by step
    trains = {name: [] for name in network.order if _fires(network.populations[name])}
    decoded = {name: [] for name in network.outputs}
    for step in range(timesteps + max(depth.values())):
        for name in network.order:
            population = network.populations[name]
            if not depth[name] <= step < depth[name] + timesteps:
                assert not any(step - 1 - c.delay in sent[c.source] for c in network.incoming(name)), "a spike is lost"
                continue
            if name in network.inputs:
                sent[name][step] = image[name].astype(np.float64)
                continue
            v[name] = v[name] + _arriving(network, name, sent, step)
            if population.bias is not None:
                v[name] = v[name] + population.bias
            if _fires(population):
                spikes = _fire(population.neuron, v[name])
                v[name] = _reset(population.neuron, v[name], spikes)
                sent[name][step] = spikes * population.neuron.v_thresh
                trains[name].append(spikes)
            if name in decoded:
                t = step - depth[name] + 1
                decoded[name].append(_decode(population.neuron, v[name], sum(trains.get(name, [0])), t))
    counts = {name: np.sum(spikes, axis=0, dtype=np.int32) for name, spikes in trains.items()}
    return counts, v, {name: np.array(d) for name, d in decoded.items()}, {n: np.array(s) for n, s in trains.items()}


def _arriving(network, name, sent, step):
    total = np.zeros(network.populations[name].shape)
    for connection in network.incoming(name):
        before = sent[connection.source].get(step - 1 - connection.delay)
        if before is not None:
            total = total + ir.apply(connection.operators, before[None])[0]
    return total


def _initial_potential(population):
    return np.zeros(population.shape) + (population.neuron.v_init if _fires(population) else 0)


def _fires(population):
    return isinstance(population.neuron, ir.IntegrateFire)


def _fire(neuron, v):
    return v >= neuron.v_thresh if neuron.comparison == ">=" else v > neuron.v_thresh


def _reset(neuron, v, spikes):
    return np.where(spikes, v - neuron.v_thresh if neuron.reset == "subtract" else 0, v)


def _decode(neuron, v, count, t):
    return neuron.v_thresh * np.asarray(count, np.float64) / t if isinstance(neuron, ir.IntegrateFire) else v / t


def _stack(runs, axis):
    return {name: np.stack([run[name] for run in runs], axis) for name in runs[0]}
