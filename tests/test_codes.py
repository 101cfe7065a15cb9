"""What every spiking neuron says at best, from its own class, is what the naive simulator's decodes to."""

import naive
import numpy as np
import pytest

from snnc import ir
from snnc.ir import Connection, Network, Population

LAMBDA = np.array([1.0, 2.0, 0.5, 4.0])
X = np.linspace(-6, 6, 97, dtype=np.float32)[:, None].repeat(4, 1)

FIRING = {
    "integrate-and-fire": ir.IntegrateFire(LAMBDA, LAMBDA / 4),
    "beyond the threshold": ir.IntegrateFire(LAMBDA, 0.5 * LAMBDA, comparison=">"),
    "tracking": ir.Tracking(LAMBDA, LAMBDA / 4, 1, ir.Identity()),
    "tracking, three a step": ir.Tracking(LAMBDA / 2, LAMBDA / 8, 3, ir.Relu()),
    "few-spike": ir.FewSpike(3, LAMBDA, LAMBDA / 16),
    "few-spike, five levels": ir.FewSpike(3, LAMBDA, LAMBDA / 16, limit=5),
    "few-spike function": ir.FewSpikeFunction(4, LAMBDA, LAMBDA / 32, ir.Identity(), True),
    "few-spike function, one sign": ir.FewSpikeFunction(4, LAMBDA, LAMBDA / 32, ir.Identity(), False),
}
INPUTS = {
    f"{name}, {'signed' if signed else 'unsigned'}": neuron
    for signed in (False, True)
    for name, neuron in {
        "integrate-and-fire input": ir.IntegrateFireInput(2.0, signed, 0.5),
        "beyond the threshold": ir.IntegrateFireInput(2.0, signed, 0.5, comparison=">"),
        "binary": ir.SpikeInput(2.0, signed),
        "few-spike input": ir.FewSpikeInput(3, 4.0, 0.25, signed),
    }.items()
}


def decoded(network, name):
    """What a population says of each of X in its spikes, (images, neurons)."""
    trains = naive.simulate(network, {"x": X}).trains[name]
    neuron = network.populations[name].neuron
    unit = 0.5 ** np.arange(1.0, len(trains) + 1) if neuron.phased else np.full(len(trains), 1 / len(trains))
    return neuron.amplitude * np.tensordot(unit, trains, 1)


@pytest.mark.parametrize("kind", FIRING)
def test_hidden_neurons_say_what_their_staircase_has(kind):
    neuron = FIRING[kind]
    source = ir.GradedInput() if neuron.phased else ir.CurrentInput()
    populations = [Population("x", (4,), source), Population("y", (4,), neuron)]
    network = Network(populations, [Connection("x", "y")], ["x"], ["y"], timesteps=8)
    activation = neuron.soma.apply(X) if neuron.soma else X
    found = neuron.says(activation.astype(np.float64), 8)
    np.testing.assert_array_equal(found, decoded(network, "y"))
    assert len(np.unique(found[:, 0])) > 4
    reach = neuron.reach(activation.astype(np.float64))
    assert (np.abs(found - reach) <= np.abs(neuron.amplitude) / (2 if neuron.phased else 8)).all()


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_say_what_their_staircase_has(kind):
    neuron = INPUTS[kind]
    readout = ir.FewSpikeReadout() if neuron.phased else ir.Integrate()
    populations = [Population("x", (4,), neuron), Population("y", (4,), readout)]
    network = Network(populations, [Connection("x", "y")], ["x"], ["y"], timesteps=8)
    spikes = naive.simulate(network, {"x": X}).decoded["y"][-1]
    np.testing.assert_array_equal(neuron.says(X.astype(np.float64), 8), spikes)


def test_a_poisson_input_says_on_average_what_its_probability_has():
    neuron = ir.PoissonInput(2.0, signed=True)
    rates = 1 - np.exp(-np.abs(X[:, 0].astype(np.float64)) / 2)
    drawn = np.random.default_rng(0).random((20000, len(rates))) < rates
    average = np.sign(X[:, 0]) * 2 * drawn.mean(0)
    np.testing.assert_allclose(neuron.says(X[:, 0].astype(np.float64), 8), average, rtol=0, atol=0.04)


@pytest.mark.parametrize("neuron", [ir.CurrentInput(), ir.Integrate(), ir.GradedInput(), ir.FewSpikeReadout()])
def test_what_does_not_fire_says_everything(neuron):
    x = X.astype(np.float64)
    np.testing.assert_array_equal(neuron.says(x, 8), x)
    np.testing.assert_array_equal(neuron.reach(x), x)
