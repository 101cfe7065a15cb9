"""Tracking neurons: rate code of any function, whose spikes may be taken back."""

from dataclasses import replace

import dyadic
import naive
import numpy as np
import pytest
from dyadic import dyadic as weights
from test_conformance import BACKENDS, assert_same

import snnc
from snnc import ir
from snnc.backend.onnxruntime import CompiledEngine
from snnc.backend.onnxruntime.resources import Resources

LAMBDAS = np.array([0.5, 1.0, 0.75, 0.25], np.float32)
HOMOGENEOUS = {
    "relu": ir.Relu(),
    "leaky": ir.LeakyRelu(0.25),
    "leaky per channel": ir.LeakyRelu(np.array([0.5, 0.0, 0.25, 1.0])),
    "clip": ir.Clip(0.75),
    "abs": ir.Function("abs"),
    "identity": ir.Function("identity"),
}


def exact(computes, levels=1, timesteps=16):
    """Images and vectors at different depths, from currents and spikes; outputs that fire and that do not."""
    slope = isinstance(computes, ir.LeakyRelu)
    flat = replace(computes, slope=0.5) if slope else computes
    return dyadic.spiking(
        [
            ir.Population("image", (5, 5, 2), ir.CurrentInput()),
            ir.Population("events", (6,), ir.IntegrateFireInput(1.0, signed=True, v_init=0.5)),
            ir.Population("maps", (5, 5, 4), ir.Tracking(LAMBDAS, LAMBDAS / 2, levels, computes), weights(1, 4)),
            ir.Population("fires", (5, 5, 4), ir.IntegrateFire(0.5, 0.25), weights(2, 4, limit=0.25)),
            ir.Population("flat", (5,), ir.Tracking(0.25, 0.125, levels, flat), weights(3, 5, limit=0.25)),
            ir.Population("deep", (4,), ir.Tracking(0.25, 0.0, 2 * levels, computes)),
            ir.Population("y", (3,), ir.Integrate(), weights(4, 3)),
        ],
        [
            ir.Connection("image", "maps", (ir.Conv2D(weights(5, 3, 3, 2, 4), padding=dyadic.SAME_3X3),)),
            ir.Connection("maps", "fires", (ir.Conv2D(weights(6, 3, 3, 4, 4), padding=dyadic.SAME_3X3),)),
            ir.Connection("image", "fires", (ir.Pad(((0, 0), (0, 0), (2, 0))),)),
            ir.Connection("events", "flat", (ir.Dense(weights(7, 6, 5)),)),
            ir.Connection("maps", "flat", (ir.Flatten(), ir.Dense(weights(8, 100, 5, limit=0.25)))),
            ir.Connection("fires", "deep", (ir.Flatten(), ir.Dense(weights(9, 100, 4, limit=0.25)))),
            ir.Connection("flat", "deep", (ir.Dense(weights(10, 5, 4, limit=2)),)),
            ir.Connection("deep", "y", (ir.Dense(weights(11, 4, 3)),)),
            ir.Connection("maps", "y", (ir.Flatten(), ir.Dense(weights(12, 100, 3)))),
        ],
        ["image", "events"],
        ["flat", "y"],
        timesteps=timesteps,
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("computes", HOMOGENEOUS.values(), ids=HOMOGENEOUS)
def test_backends_agree_spike_for_spike(computes, levels, backend):
    network = exact(computes, levels)
    images = dyadic.images(network, count=4)
    compiled = snnc.compile(network, backend)
    expected = naive.simulate(network, images)
    assert_same(compiled.simulate(images, record=True), expected)
    again = {name: x[::-1] for name, x in images.items()}
    assert_same(compiled.simulate(again, record=True), naive.simulate(network, again))
    assert min(expected.trains[name].min() for name in ("flat", "deep")) < 0
    assert expected.trains["deep"].max() > 1


def pooled(computes):
    """The largest mean of each window, with biases, padding and what several sources send."""
    return dyadic.spiking(
        [
            ir.Population("x", (5, 4, 2), ir.CurrentInput()),
            ir.Population("first", (5, 4, 3), ir.IntegrateFire(0.5, 0.25)),
            ir.Population(
                "pooled",
                computes.output_shape(computes.image),
                ir.Tracking(0.75, 0.375, 1, computes),
                weights(1, 5, 4, 3, limit=0.25),
            ),
            ir.Population("y", (3,), ir.Integrate()),
        ],
        [
            ir.Connection("x", "first", (ir.Conv2D(weights(2, 1, 1, 2, 3)),)),
            ir.Connection("x", "pooled", (ir.Conv2D(weights(3, 3, 3, 2, 3), padding=dyadic.SAME_3X3),)),
            ir.Connection("first", "pooled"),
            ir.Connection("pooled", "y", (ir.Flatten(), ir.Dense(weights(4, 18, 3)))),
        ],
        ["x"],
        ["y"],
        timesteps=9,
    )


@pytest.mark.parametrize("kind", [ir.MaxPool2D, ir.MaxPoolRelu2D])
def test_the_engine_pools_means(kind):
    network = pooled(kind((5, 4, 3), (3, 2), (2, 2), ((1, 1), (0, 0))))
    images = dyadic.images(network)
    assert_same(snnc.compile(network).simulate(images, record=True), naive.simulate(network, images))


def products(matrices=True, timesteps=4, odd=0.0):
    """Products of what sources of different depth say, one of them a constant current, and of matrices.

    With an `odd` number added to potentials, no dyadic number is a tie.
    """
    size = (3, 4, 4)
    populations = [
        ir.Population("image", (3, 4, 2), ir.CurrentInput()),
        ir.Population("maps", size, ir.Tracking(LAMBDAS, LAMBDAS / 2), weights(1, 4, limit=0.25)),
        ir.Population(
            "gated",
            size,
            ir.Tracking(0.125, 0.0625 + odd, 2, ir.Product()),
            weights(2, 4, limit=0.25),
            second_bias=weights(3, *size, limit=0.25),
        ),
        ir.Population("squared", (5,), ir.Tracking(0.25, 0.125 + odd, 1, ir.Product())),
        ir.Population("y", (3,), ir.Integrate(), weights(4, 3)),
    ]
    connections = [
        ir.Connection("image", "maps", (ir.Conv2D(weights(5, 3, 3, 2, 4), padding=dyadic.SAME_3X3),)),
        ir.Connection("maps", "gated"),
        ir.Connection("image", "gated", (ir.Conv2D(weights(6, 1, 1, 2, 4)),), port=1),
        ir.Connection("maps", "squared", (ir.Flatten(), ir.Dense(weights(7, 48, 5, limit=0.25)))),
        ir.Connection("gated", "squared", (ir.Flatten(), ir.Dense(weights(7, 48, 5, limit=0.25)))),
        ir.Connection("maps", "squared", (ir.Flatten(), ir.Dense(weights(8, 48, 5, limit=0.25))), port=1),
        ir.Connection("squared", "y", (ir.Dense(weights(9, 5, 3)),)),
    ]
    if matrices:
        multiply = ir.MatMul((3, 4, 4), (3, 4, 4))
        populations.append(ir.Population("scores", size, ir.Tracking(0.5, 0.25 + odd, 1, multiply)))
        turned = np.arange(48).reshape(size).transpose(0, 2, 1)
        connections += [
            ir.Connection("gated", "scores"),
            ir.Connection("maps", "scores", (ir.Pick(turned),), port=1),
            ir.Connection("scores", "y", (ir.Flatten(), ir.Dense(weights(10, 48, 3)))),
        ]
    return dyadic.spiking(populations, connections, ["image"], ["squared", "y"], timesteps)


def assert_close(found, expected):
    """Fewer than one in ten thousand steps of neurons differ."""
    apart = sum((found.trains[name] != trains).sum() for name, trains in expected.trains.items())
    assert apart < 1e-4 * sum(trains.size for trains in expected.trains.values())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("timesteps", [2, 16])
def test_backends_say_products(timesteps, backend):
    network = products(backend == "onnxruntime", timesteps, odd=0.0 if timesteps == 2 else 0.0123)
    images = dyadic.images(network, count=20)
    found, expected = snnc.compile(network, backend).simulate(images, record=True), naive.simulate(network, images)
    if timesteps == 2:  # so no step divides by a number that is no power of two
        assert_same(found, expected)
    assert_close(found, expected)


def all_functions():
    """Each function of the same numbers, held steady, and of what spikes say of them."""
    populations = [
        ir.Population("x", (40,), ir.CurrentInput()),
        ir.Population("spikes", (40,), ir.Tracking(1.0, 0.5, 4, ir.Function("identity"))),
    ]
    connections = [ir.Connection("x", "spikes")]
    for name in sorted(ir.FUNCTIONS):
        shift = np.full(40, 6.01 if name in ("log", "reciprocal", "rsqrt", "sqrt") else 0.0)
        neuron = ir.Tracking(0.27, 0.133, 15, ir.Function(name))  # so that no dyadic number is a tie
        for source in ("x", "spikes"):
            populations.append(ir.Population(f"{name} of {source}", (40,), neuron, shift))
            connections.append(ir.Connection(source, f"{name} of {source}"))
    return dyadic.spiking(populations, connections, ["x"], [p.name for p in populations[2:]], timesteps=8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_transcendental_functions_differ_in_hardly_any_spike(backend):
    network = all_functions()
    x = np.random.default_rng(0).uniform(-4, 4, (100, 40)).astype(np.float32)
    found = snnc.compile(network, backend).simulate(x, record=True)
    few = {"x": x[:20]}
    assert_close(
        replace(found, trains={name: t[:, :20] for name, t in found.trains.items()}), naive.simulate(network, few)
    )
    for name in sorted(ir.FUNCTIONS):
        y = ir.Function(name).apply(x + network.populations[f"{name} of x"].bias)
        said = found.decoded[f"{name} of x"][-1]
        np.testing.assert_allclose(said, np.clip(y, -15 * 0.27, 15 * 0.27), atol=0.27 / 8 * 0.51)


@pytest.mark.parametrize("v_init", [0.0, 0.5])
def test_steady_rectifiers_are_integrate_and_fire(v_init):
    """Also where more is to be said than one spike a step can."""
    x = dyadic.dyadic(1, 6, 40, limit=2.0)

    def network(neuron):
        populations = [ir.Population("x", (40,), ir.CurrentInput()), ir.Population("y", (40,), neuron)]
        return dyadic.spiking(populations, [ir.Connection("x", "y")], ["x"], ["y"], timesteps=50)

    fires, tracks = (
        snnc.compile(network(neuron)).simulate(x, record=True)
        for neuron in (ir.IntegrateFire(1.0, v_init), ir.Tracking(1.0, v_init))
    )
    np.testing.assert_array_equal(fires.trains["y"], tracks.trains["y"])
    np.testing.assert_array_equal(fires.decoded["y"], tracks.decoded["y"])


def test_cutting_time_and_stopping_early_change_nothing():
    network = exact(ir.Function("identity"), 2, timesteps=64)
    images = dyadic.images(network, count=40)
    whole, cut = CompiledEngine(network), CompiledEngine(network, Resources(memory=100_000, threads=1))
    assert_same(cut.simulate(images, record=True), whole.simulate(images, record=True))
    labels = {"flat": np.zeros(40, int), "y": np.zeros(40, int)}
    stopped, shown = (whole.evaluate(images, labels, until_stable=steps) for steps in (16, 64))
    at = np.arange(40)
    for name in network.outputs:
        np.testing.assert_array_equal(stopped.predictions[name][15], shown.predictions[name][15])
        np.testing.assert_array_equal(
            stopped.predictions[name][stopped.steps - 1, at], shown.predictions[name][stopped.steps - 1, at]
        )
    assert stopped.steps.min() < 64 == shown.steps.max()
    counts = whole.simulate(images).spike_counts
    for name, spikes in shown.spike_counts.items():
        np.testing.assert_array_equal(spikes, counts[name].sum(0))


def test_spikes_are_counted_whatever_their_sign():
    network = exact(ir.Function("identity"), 3)
    found = snnc.compile(network).simulate(dyadic.images(network), record=True)
    for name, trains in found.trains.items():
        np.testing.assert_array_equal(found.spike_counts[name], np.abs(trains.astype(int)).sum(0))


def test_faults_of_tracking_neurons():
    network = exact(ir.Relu())

    def faults(**changes):
        changed = replace(network.populations["flat"], neuron=replace(network.populations["flat"].neuron, **changes))
        return " ".join(ir.faults(network.replace(populations={**network.populations, "flat": changed}), "spiking"))

    assert not faults()
    assert "levels is 0; a neuron sends from 1 to 127" in faults(levels=0)
    assert "levels is 128" in faults(levels=128)
    assert "v_thresh is not positive" in faults(v_thresh=0.0)
    assert "v_init does not lie from 0 to v_thresh" in faults(v_init=-0.125)
    assert "v_init does not lie from 0 to v_thresh" in faults(v_init=np.array([0, 0, 0.5, 0, 0]))
    assert "there is no function 'nothing'" in faults(computes=ir.Function("nothing"))
    assert "slope has shape (3,)" in faults(computes=ir.LeakyRelu(np.ones(3)))
    assert "cannot compute Input" in faults(computes=ir.Input())
    assert "has no incoming connections at port 1" in faults(computes=ir.Product())


def test_networks_are_kept_and_printed(tmp_path):
    network = products()
    snnc.save(network, tmp_path / "net.snn")
    assert snnc.load(tmp_path / "net.snn") == network
    assert ir.diff(ir.parse(str(network), ir.arrays_of(network)), network) == ()
    assert "Tracking(v_thresh=0.25, v_init=0.125, computes=Product())" in str(network)
