"""Tracking neurons: rate code of any function, whose spikes may be taken back."""

from dataclasses import replace

import dyadic
import naive
import numpy as np
import pytest
from dyadic import dyadic as weights
from test_conformance import BACKENDS, assert_same, needs_genn

import snnc
import snnc.profile
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


# The pass


def analog(*neurons, size=(6, 6, 4)):
    """Neurons one behind the other, behind convolutions, and a readout of scores; products are of two convolutions."""
    populations, connections = [ir.Population("x", (6, 6, 2), ir.Input())], []
    for number, neuron in enumerate(neurons):
        source = populations[-1]
        name, shape = f"{number}", neuron.output_shape(size)
        populations.append(ir.Population(name, shape, neuron, random(number, 4, scale=0.1)))
        for port in range(neuron.ports):
            kernel = random(10 * number + port, 3, 3, source.shape[2], 4, scale=0.35)
            conv = ir.Conv2D(kernel, padding=dyadic.SAME_3X3)
            connections.append(ir.Connection(source.name, name, (conv,), port=port))
        size = shape
    dense = ir.Dense(random(99, int(np.prod(size)), 5, scale=0.2))
    populations.append(ir.Population("y", (5,), ir.Identity()))
    connections.append(ir.Connection(populations[-2].name, "y", (ir.Flatten(), dense)))
    return ir.Network(populations, connections, ["x"], ["y"])


def random(seed, *shape, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def converted(network, options="", timesteps=16, x=None):
    pipeline = f"tracking{{{options}}}"
    x = IMAGES if x is None else x
    return snnc.convert(network, pipeline, calibration=x, timesteps=timesteps, progress=False)


def error(network, snn, x):
    """The mean error of the scores, as a share of their mean."""
    expected = snnc.compile(network).predict(x)
    return np.abs(snnc.compile(snn).predict(x) - expected).mean() / np.abs(expected).mean()


IMAGES = random(1, 64, 6, 6, 2)
POOLED = {"image": (6, 6, 4), "pool_size": (2, 2), "strides": (1, 1)}
NEURONS = {
    "relu": ir.Relu(),
    "clip": ir.Clip(0.6),
    "leaky": ir.LeakyRelu(0.1),
    "leaky per channel": ir.LeakyRelu(np.array([0.5, 0.0, 0.25, 1.0])),
    "quantised": ir.QuantizedRelu(1.0, 6),
    "silu": ir.Function("silu"),
    "sigmoid": ir.Function("sigmoid"),
    "tanh": ir.Function("tanh"),
    "product": ir.Product(),
    "gate": ir.Product("sigmoid"),
    "max": ir.MaxPool2D(**POOLED),
    "max relu": ir.MaxPoolRelu2D(**POOLED),
}


@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS)
def test_every_neuron_is_converted(neuron):
    network = analog(ir.Relu(), neuron, ir.Relu()) if neuron.output_shape((6, 6, 4)) == (6, 6, 4) else analog(neuron)
    for options, timesteps, most in (("levels=4", 16, 0.2), ("levels=4", 128, 0.06), ("threshold=max", 128, 0.08)):
        assert error(network, converted(network, options, timesteps), IMAGES) < most


def test_what_is_lost_falls_with_timesteps_and_levels():
    network = analog(ir.Relu(), ir.Function("silu"), ir.Relu())
    by_time = [error(network, converted(network, timesteps=t), IMAGES) for t in (8, 32, 128)]
    by_levels = [error(network, converted(network, f"levels={n}"), IMAGES) for n in (1, 2, 8)]
    by_rate = [error(network, converted(network, f"levels=8,rate={n}"), IMAGES) for n in (1, 2, 4)]
    for errors in (by_time, by_levels, by_rate):
        assert errors == sorted(errors, reverse=True)
    assert by_time[0] > 4 * by_time[2]


@pytest.mark.parametrize(("timesteps", "rate"), [(8, 1), (13, 1), (32, 1), (4, 2)])
def test_quantised_networks_are_exact_with_enough_spikes_a_step(timesteps, rate):
    """Whatever T, if only it is no shorter than there are levels, or has as many spikes."""
    network = analog(*(ir.QuantizedRelu(largest, 8) for largest in (1.0, 0.75, 1.5)))
    x = random(2, 200, 6, 6, 2)
    expected = snnc.compile(network).predict(x)
    snn = converted(network, f"levels={max(timesteps, 8)},rate={rate}", timesteps)
    found = snnc.compile(snn).predict(x)
    stray = (np.abs(found - expected) > 1e-4 * np.abs(expected).max()).any(1).sum()
    assert stray <= 2  # sums within the last bit of the middle between two levels
    assert error(network, converted(network, "", timesteps * rate), x) < 0.15


def test_more_levels_than_can_be_said_are_warned_of():
    network = analog(ir.QuantizedRelu(1.0, 20))
    with pytest.warns(ir.ModelWarning, match="quantised to 20 levels are only come close to"):
        converted(network, timesteps=16)


def test_thresholds_per_channel_and_per_layer():
    network = analog(ir.Function("tanh"), ir.Clip(0.25))
    per_channel = converted(network, "threshold=max").populations
    largest = np.abs(next(iter(snnc.backend.onnxruntime.CompiledAnalog(network).activations({"x": IMAGES})))["0"])
    np.testing.assert_allclose(per_channel["0"].neuron.v_thresh, largest.max((0, 1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(per_channel["0"].neuron.v_init, per_channel["0"].neuron.v_thresh / 2)
    assert per_channel["1"].neuron.v_thresh.max() == 0.25
    per_layer = converted(network, "threshold=max,per-channel=false,levels=4,rate=4,v-init=0.25").populations
    assert per_layer["0"].neuron.v_thresh == pytest.approx(largest.max() / 4)
    assert per_layer["0"].neuron.v_init == pytest.approx(largest.max() / 16)
    assert per_layer["0"].neuron.levels == 4
    assert (converted(network).populations["0"].neuron.v_thresh <= per_channel["0"].neuron.v_thresh).all()


def test_outputs_of_functions_are_told_by_spikes():
    """A sigmoid at the end, and one that goes below zero."""
    for name in ("sigmoid", "tanh"):
        network = analog(ir.Relu(), ir.Function(name))
        populations = [p for p in network.populations.values() if p.name != "y"]
        network = network.replace(populations=populations, connections=network.connections[:-1], outputs=["1"])
        expected = snnc.compile(network).predict(IMAGES)
        found = snnc.compile(converted(network, "levels=3", timesteps=64)).predict(IMAGES)
        assert np.abs(found - expected).mean() < 1 / 64
        assert (found.min() < -0.5) == (name == "tanh")


@pytest.mark.parametrize(("kind", "most"), [("integrate-fire", 0.02), ("poisson", 0.3)])
def test_inputs_may_be_spikes(kind, most):
    """Poisson spikes compress what is bright."""
    network = analog(ir.Relu(), ir.Function("silu"))
    assert error(network, converted(network, f"input={kind},signed=true", timesteps=512), IMAGES) < most


def test_bias_correction_mends_rectifiers_and_leaves_functions():
    network = analog(ir.Relu(), ir.Function("silu"), ir.LeakyRelu(0.1), ir.MaxPool2D(**POOLED))
    plain = converted(network, timesteps=4)
    corrected = snnc.convert(network, "tracking,bias-correction", calibration=IMAGES, timesteps=4, progress=False)
    for name in ("0", "2", "3", "y"):
        assert (corrected.populations[name].bias != plain.populations[name].bias).any()
    np.testing.assert_array_equal(corrected.populations["1"].bias, plain.populations["1"].bias)
    expected, before, after = (snnc.compile(each).predict(IMAGES).mean(0) for each in (network, plain, corrected))
    assert np.abs(after - expected).max() < 0.3 * np.abs(before - expected).max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("levels=0", "levels is 0; a step has from 1 to 127 spikes"),
        ("levels=128", "levels is 128"),
        ("rate=2", "rate is 2; it lies from 1 to levels, 1"),
        ("levels=2,rate=0", "rate is 0"),
        ("v-init=1.0", "v-init is 1.0"),
        ("signed=true", "a constant current has its sign anyway"),
        ("threshold=percentile", "threshold is one of mse, max"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ir.PipelineError, match=message):
        converted(analog(ir.Relu()), options)


def test_the_profile_takes_the_error_apart():
    x = dyadic.dyadic(1, 50, 40, limit=2.0, step=1 / 16)
    populations = [ir.Population("x", (40,), ir.Input()), ir.Population("y", (40,), ir.Function("tanh_shrink"))]
    network = ir.Network(populations, [ir.Connection("x", "y")], ["x"], ["y"])
    y = ir.Tracking(0.25, 0.125, 2, ir.Function("tanh_shrink"))
    snn = dyadic.spiking(
        [ir.Population("x", (40,), ir.CurrentInput()), ir.Population("y", (40,), y)],
        network.connections,
        ["x"],
        ["y"],
        8,
    )
    (layer,) = snnc.profile.profile(network, snn, x, progress=False).layers
    activations = ir.Function("tanh_shrink").apply(x)
    assert layer.clipping == pytest.approx(np.maximum(np.abs(activations) - 0.5, 0).mean(), rel=1e-4)
    assert 0 < layer.quantisation < 0.25 / 8 / 2
    assert layer.unevenness < 1e-3  # where a sum lies within rounding of a step
    assert layer.correlation > 0.95
    found = snnc.compile(snn).simulate(x)
    assert layer.rate == pytest.approx(found.spike_counts["y"].sum() / found.spike_counts["y"].size / 8)


def test_the_profile_of_a_converted_network():
    network = analog(ir.Relu(), ir.Function("silu"), ir.MaxPool2D(**POOLED))
    profile = snnc.profile.profile(network, converted(network), IMAGES, progress=False)
    assert [layer.population for layer in profile.layers] == ["0", "1", "2", "y"]
    assert min(layer.correlation for layer in profile.layers) > 0.95
    assert profile.layers[0].unevenness < 1e-5  # what reaches it is steady


@needs_genn
def test_genn_refuses_what_one_neuron_cannot_compute():
    for kind in (ir.MaxPoolRelu2D, ir.MaxPool2D):
        with pytest.raises(ir.BackendError, match="largest of a window, as those of '0' do: run lower-max-pool"):
            snnc.compile(converted(analog(kind(**POOLED))), "mlgenn", device="cpu")
    with pytest.raises(ir.BackendError, match=r"(?s)run lower-matmul before the conversion.*'scores'"):
        snnc.compile(products(), "mlgenn", device="cpu")


@needs_genn
def test_genn_runs_converted_networks():
    """In sums of floats the last bit depends on their order: few spikes differ, and none of steady inputs."""
    network = analog(ir.Relu(), ir.Function("silu"), ir.Product("sigmoid"), ir.LeakyRelu(0.1))
    snn = converted(network, "levels=2", timesteps=32)
    x = random(3, 12, 6, 6, 2)
    ours, theirs = (snnc.compile(snn, backend).simulate(x, record=True) for backend in ("onnxruntime", "mlgenn"))
    apart = sum((ours.trains[name] != theirs.trains[name]).sum() for name in ours.trains)
    assert apart < 1e-3 * sum(trains.size for trains in ours.trains.values())
    assert np.abs(ours.decoded["y"][-1] - theirs.decoded["y"][-1]).max() < 0.1 * np.abs(ours.decoded["y"][-1]).max()
