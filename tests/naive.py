"""The oracle: the equations of DESIGN.md and of the neurons, stepped naively in global time, one image after another.

Nothing here is fast, clever or shared with an engine. In step s every population of the network is looked at once. What
it sent in step s arrives over a connection in step s + 1 + delay. A population at depth d fires only in its window of T
steps. In a rate network that begins at step d·lag, and its input counts in T steps that begin lag − 1 earlier, or with
the window if all of it is constant current; in a few-spike network it begins at step d·T, and charge may arrive in the
T steps up to that one. Numbers are float64, so
sums of dyadic numbers are exact.

`PoissonInput` is not here: nobody else draws the same random spikes.
"""

import numpy as np

from snnc import ir
from snnc.backend.compiled import Recording


def simulate(network: ir.Network, inputs: dict[str, np.ndarray]) -> Recording:
    """Run the images, (images, *shape) by input, until the last window has ended; every spike is recorded."""
    images = len(next(iter(inputs.values())))
    runs = [_simulate_one(network, {name: x[image] for name, x in inputs.items()}) for image in range(images)]
    counts, potentials, decoded, trains = zip(*runs, strict=True)
    return Recording(_stack(counts, 0), _stack(potentials, 0), _stack(decoded, 1), _stack(trains, 1))


def _simulate_one(network, image):
    timesteps, phased = network.timesteps, network.is_phased
    begin = {name: depth * (timesteps if phased else network.lag) for name, depth in network.depth.items()}
    v = {name: np.zeros(p.shape) + getattr(p.neuron, "v_init", 0) for name, p in network.populations.items()}
    x = {name: [0] * p.neuron.ports for name, p in network.populations.items()}  # what has arrived and is not yet in v
    summed = {name: [np.zeros(shape) for shape, _ in p.ports] for name, p in network.populations.items()}
    signs = dict.fromkeys(network.order, 1)  # of the spikes
    sent = {name: {} for name in network.order}  # what goes into a population's connections, by step
    trains = {name: [] for name in network.order if network.populations[name].neuron.fires}
    decoded = {name: [] for name in network.outputs}
    for step in range(max(begin.values()) + timesteps):
        for name in network.order:
            population, t = network.populations[name], step - begin[name]
            taken = t + (network.lag - 1 if _waits(network, name) else 0)  # steps since its input began to count
            for port, arriving in _arriving(network, name, sent, step):
                assert -timesteps < t <= 0 if phased else 0 <= taken < timesteps, "a spike is lost"
                x[name][port] = x[name][port] + arriving
            if not 0 <= (t if phased else taken) < timesteps + network.lag - 1:
                continue
            drives, sign = _drive(population, image.get(name))
            drive = drives[0]
            if t == 0 or (not phased and taken < timesteps):
                given = [arrived + more for arrived, more in zip(x[name], drives, strict=True)]
                x[name] = [0] * len(given)
                if isinstance(population.neuron, ir.Tracking):
                    summed[name] = [before + now for before, now in zip(summed[name], given, strict=True)]
                else:
                    value, turned = _computed(population.neuron, given)
                    v[name] = np.minimum(v[name] + value, _largest(population.neuron))
                    signs[name] = sign * turned
            if not 0 <= t < timesteps:
                continue
            if isinstance(population.neuron, ir.Tracking):
                steps = min(taken + 1, timesteps)
                v[name] = _lacking(population.neuron, summed[name], sum(sent[name].values()), steps)
            if name in trains:
                spikes = _fire(population.neuron, v[name], drive, t)
                v[name] = _reset(population.neuron, v[name], spikes, t)
                sent[name][step] = signs[name] * spikes * _unit(population.neuron, t)
                trains[name].append((signs[name] * spikes).astype(np.int8))
            elif isinstance(population.neuron, ir.CurrentInput) or (population.neuron.is_input and t == 0):
                sent[name][step] = drive
            if name in decoded and (t == timesteps - 1 or not phased):
                value = sum(sent[name].values()) if name in trains else v[name]
                steps = t + 1 if name in trains else min(taken + 1, timesteps)
                decoded[name].append(value if phased else value / steps)
    counts = {name: np.abs(spikes).sum(axis=0, dtype=np.int32) for name, spikes in trains.items()}
    potentials = {name: v[name] for name in network.order if name not in network.inputs}
    return counts, potentials, _arrays(decoded), _arrays(trains)


def _waits(network, name):
    sources = [network.populations[edge.source].neuron for edge in network.incoming(name)]
    return not all(isinstance(neuron, ir.CurrentInput) for neuron in sources)


def _arriving(network, name, sent, step):
    for connection in network.incoming(name):
        before = sent[connection.source].get(step - 1 - connection.delay)
        if before is not None:
            yield connection.port, ir.apply(connection.operators, before[None])[0]


def _drive(population, x):
    """What adds to each port beside the connections, in every step or once per phase, and the sign of the spikes."""
    if x is None:
        return [np.zeros(shape) + (0 if bias is None else bias) for shape, bias in population.ports], 1
    x = x.astype(np.float64)
    if not population.neuron.fires:
        return [x], 1
    return ([np.abs(x)], np.where(x < 0, -1, 1)) if population.neuron.signed else ([np.maximum(x, 0)], 1)


def _computed(neuron, given):
    """What the soma makes of its inputs, and the sign of the spikes that say it."""
    if not isinstance(neuron, ir.FewSpikeFunction):
        return neuron.pooling.apply(given[0][None])[0] if neuron.pooling else given[0], 1
    y = neuron.computes.apply(*(np.asarray(x, np.float64)[None] for x in given))[0]
    return (np.abs(y), np.where(y < 0, -1, 1)) if neuron.signed else (y, 1)


def _lacking(neuron, summed, said, steps):
    """The potential of a tracking neuron from the sums of its inputs and what it has said in the steps before."""
    return neuron.computes.tracked(steps, *(x[None] for x in summed))[0] + neuron.v_init - said


def _largest(neuron):
    """Where the potential of a few-spike neuron starts at most."""
    return (neuron.limit + 0.5) * neuron.alpha * 2.0**-neuron.k if getattr(neuron, "limit", 0) else np.inf


def _unit(neuron, t):
    """What a spike in step t of the window stands for, which is also the threshold."""
    return np.asarray(neuron.amplitude) * (2.0 ** -(t + 1) if neuron.phased else 1.0)


def _fire(neuron, v, drive, t):
    if isinstance(neuron, ir.SpikeInput):
        return drive != 0
    if neuron.phased:
        return (v >= _unit(neuron, t)) & (t < neuron.k)
    if isinstance(neuron, ir.Tracking):
        return np.clip(np.floor(v / neuron.v_thresh), -neuron.levels, neuron.levels)
    return v >= _unit(neuron, t) if neuron.comparison == ">=" else v > _unit(neuron, t)


def _reset(neuron, v, spikes, t):
    return np.where(spikes, 0 if getattr(neuron, "reset", "subtract") == "zero" else v - spikes * _unit(neuron, t), v)


def _arrays(by_step):
    return {name: np.array(values) for name, values in by_step.items()}


def _stack(runs, axis):
    return {name: np.stack([run[name] for run in runs], axis) for name in runs[0]}
