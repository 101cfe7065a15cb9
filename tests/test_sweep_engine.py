"""The sweep over a spiking network, layer by layer, against the naive simulator: on dyadic networks, so exactly."""

from dataclasses import replace

import dyadic
import naive
import numpy as np
import pytest
from networks import residual, weights

import snnc
from snnc import ir
from snnc.backend.onnxruntime import resources, sweep
from snnc.ir import Network


def currents(network: Network, inputs: dict[str, np.ndarray], trains: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The summed input of a population, bias included, from spikes that are known: (steps, images, *shape).

    Edges are aligned: what is sent in a step of the source's window arrives in that step of the target's. Of few-spike
    networks, one sum for the whole phase.
    """
    summed = 0.0 if network.populations[name].bias is None else network.populations[name].bias.astype(np.float64)
    for connection in network.incoming(name):
        neuron = network.populations[connection.source].neuron
        if not neuron.fires:
            sent = inputs[connection.source][None].astype(np.float64)
        elif neuron.phased:
            sent = (neuron.amplitude * decode(trains[connection.source]))[None]
        else:
            sent = neuron.amplitude * trains[connection.source].astype(np.float64)
        rows = ir.apply(connection.operators, sent.reshape(-1, *sent.shape[2:]))
        summed = summed + rows.reshape(*sent.shape[:2], *rows.shape[1:])
    images = len(next(iter(inputs.values())))
    steps = 1 if network.is_phased else network.timesteps
    return np.broadcast_to(summed, (steps, images, *network.populations[name].input_shape))


def decode(train: np.ndarray) -> np.ndarray:
    """The number that a few-spike train stands for, as a share of α."""
    return np.tensordot(0.5 ** np.arange(1, len(train) + 1), train, 1)


def looks(network, images):
    """What an `adjust` that changes nothing sees of each population: its currents, its decoded activation."""
    seen = {}
    steps = 1 if network.is_phased else network.timesteps

    def look(drive):
        batches = [part.reshape(steps, -1, *part.shape[1:]) for part in drive.currents()]
        seen[drive.population.name] = np.concatenate(batches, 1), np.concatenate(list(drive.decoded()))
        return drive

    assert sweep(network, images, look, progress=False) == network
    return seen


@pytest.mark.parametrize("build", dyadic.NETWORKS.values(), ids=dyadic.NETWORKS)
def test_a_look_sees_what_the_equations_say(build):
    network = build()
    images = dyadic.images(network)
    expected = naive.simulate(network, images)
    seen = looks(network, images)
    assert set(seen) == set(network.populations) - set(network.inputs)
    for name, (current, decoded) in seen.items():
        neuron = network.populations[name].neuron
        if not isinstance(neuron, ir.FewSpikeFunction):  # whose soma has made something of the sum already
            np.testing.assert_array_equal(current, currents(network, images, expected.trains, name), name)
        if not neuron.fires:
            said = expected.decoded[name][-1]
        elif neuron.phased:
            said = neuron.amplitude * decode(expected.trains[name])
        else:
            said = neuron.amplitude * expected.trains[name].sum(0) / network.timesteps
        np.testing.assert_allclose(decoded, said, rtol=1e-6, atol=0, err_msg=name)


@pytest.mark.parametrize("build", dyadic.NETWORKS.values(), ids=dyadic.NETWORKS)
def test_cutting_the_images_into_batches_changes_nothing(build, monkeypatch):
    network = build()
    images = dyadic.images(network)
    whole = looks(network, images)
    monkeypatch.setattr(resources, "LARGEST_BATCH", 2)
    for name, pair in looks(network, images).items():
        for found, expected in zip(pair, whole[name], strict=True):
            np.testing.assert_array_equal(found, expected, name)


def test_an_adjusted_population_is_what_the_ones_after_it_hear():
    """Thresholds doubled in graph order: each look is at the network whose earlier thresholds are doubled."""
    network = dyadic.strided()
    images = dyadic.images(network)
    seen = {}

    def double(drive):
        seen[drive.population.name] = np.concatenate(list(drive.decoded()))
        population = drive.population
        if not population.neuron.fires:
            return drive
        return drive.having(replace(population, neuron=ir.IntegrateFire(2 * population.neuron.v_thresh)))

    doubled = sweep(network, images, double, progress=False)
    assert doubled.populations["block/add"].neuron == ir.IntegrateFire(2.0)
    assert doubled.connections == network.connections
    np.testing.assert_array_equal(seen["logits"], naive.simulate(doubled, images).decoded["logits"][-1])


@pytest.mark.parametrize("signed", ["false", "true"])
def test_poisson_spikes_are_those_of_a_simulation(signed, monkeypatch):
    images = weights(1, 9, 8, 8, 2) if signed == "true" else np.abs(weights(1, 9, 8, 8, 2))
    pipeline = f"data-norm{{input=poisson,seed=3,signed={signed}}}"
    network = snnc.convert(residual(), pipeline, calibration=images, timesteps=8)
    trains = snnc.compile(network).simulate(images, record=True).trains
    monkeypatch.setattr(resources, "LARGEST_BATCH", 4)
    current, _ = looks(network, images)["stem"]
    expected = currents(network, {"image": images}, trains, "stem")
    np.testing.assert_allclose(current, expected, atol=1e-5)
