"""The conversions that balance: what they set, and that a branching network so balanced says what the ANN says."""

from dataclasses import replace

import naive
import numpy as np
import pytest
from dyadic import dyadic
from networks import residual, weights
from reference import analog
from test_sweep_engine import currents, decode

import snnc
from snnc import ir
from snnc.backend.onnxruntime import resources, spiking
from snnc.backend.onnxruntime.layer import Layer
from snnc.backend.onnxruntime.resources import Resources
from snnc.ir import Connection, Network, Origin, Population
from snnc.passes import BiasCorrection, Canonicalise, Context, parse, run
from snnc.profile import profile

IMAGES = weights(100, 40, 8, 8, 2)
RATE = ("data-norm", "spike-norm")
CONVERSIONS = (*RATE, "few-spike")


def several() -> Network:
    """Three inputs at different depths, two outputs, a concatenation by padding, and edges that skip."""
    same = ((1, 1), (1, 1))
    return Network(
        [
            Population("near", (6, 6, 2), ir.Input()),
            Population("far", (6, 6, 3), ir.Input()),
            Population("hint", (5,), ir.Input()),
            Population("a", (6, 6, 4), ir.Relu(), weights(1, 4, scale=0.2)),
            Population("b", (6, 6, 4), ir.Relu(), weights(2, 6, 6, 4, scale=0.2)),
            Population("c", (6, 6, 4), ir.Relu(), weights(3, 4, scale=5)),
            Population("joined", (6, 6, 8), ir.Clip(8.0), weights(4, 8, scale=0.2)),
            Population("deep", (6,), ir.Relu()),
            Population("side", (5,), ir.Softmax(), weights(5, 5)),
            Population("head", (4,), ir.Identity()),
        ],
        [
            Connection("near", "a", (ir.Conv2D(weights(6, 3, 3, 2, 4, scale=0.5), padding=same),)),
            Connection("a", "b", (ir.Conv2D(weights(7, 3, 3, 4, 4, scale=0.3), padding=same),)),
            Connection("far", "c", (ir.Conv2D(weights(8, 1, 1, 3, 4, scale=9)),)),
            Connection("b", "joined", (ir.Pad(((0, 0), (0, 0), (0, 4))),)),
            Connection("c", "joined", (ir.Pad(((0, 0), (0, 0), (4, 0))),)),
            Connection("near", "joined", (ir.Conv2D(weights(9, 1, 1, 2, 8)),)),
            Connection(
                "joined", "deep", (ir.AveragePool2D((2, 2), (2, 2)), ir.Flatten(), ir.Dense(weights(10, 72, 6)))
            ),
            Connection("hint", "deep", (ir.Dense(weights(11, 5, 6)),)),
            Connection("hint", "side"),
            Connection("c", "side", (ir.AveragePool2D((3, 3), (3, 3)), ir.Flatten(), ir.Dense(weights(12, 16, 5)))),
            Connection("deep", "head", (ir.Dense(weights(13, 6, 4)),)),
            Connection("a", "head", (ir.AveragePool2D((6, 6), (6, 6)), ir.Flatten(), ir.Dense(weights(14, 4, 4)))),
        ],
        ["near", "far", "hint"],
        ["side", "head"],
    )


BRANCHING = {"residual": residual, "several": several}


def images_of(network: Network, count: int) -> dict[str, np.ndarray]:
    """Images within ±1 for every input."""
    return {name: weights(100 + i, count, *network.populations[name].shape) for i, name in enumerate(network.inputs)}


def chain(depth: int) -> Network:
    """Small rectifiers one after another, then a readout."""
    names = ["x", *(f"h{i}" for i in range(depth)), "y"]
    neurons = [ir.Input(), *[ir.Relu()] * depth, ir.Identity()]
    return Network(
        [Population(name, (4,), neuron) for name, neuron in zip(names, neurons, strict=True)],
        [
            Connection(names[i], names[i + 1], (ir.Dense(np.eye(4) + weights(i, 4, 4, scale=0.1)),))
            for i in range(depth + 1)
        ],
        ["x"],
        ["y"],
    )


def layer(neuron: ir.AnalogNeuron, channels: int = 3) -> Network:
    """One population that the input itself drives, which is also the output."""
    populations = [Population("x", (channels,), ir.Input()), Population("y", (channels,), neuron)]
    return Network(populations, [Connection("x", "y")], ["x"], ["y"])


def convert(network: Network, pipeline: str, images, timesteps: int = 16) -> Network:
    return snnc.convert(network, pipeline, calibration=images, timesteps=timesteps, progress=False)


def decoded(network: Network, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What every population but rate-coded inputs decodes to at the end of a run: (images, *shape)."""
    recording = snnc.compile(network).simulate(images, record=network.is_phased)
    said = {name: values[-1] for name, values in recording.decoded.items()}
    for name, counts in recording.spike_counts.items():
        neuron = network.populations[name].neuron
        if neuron.phased:
            said[name] = neuron.amplitude * decode(recording.trains[name])
        elif not neuron.is_input:
            said[name] = neuron.amplitude * counts.astype(np.float64) / network.timesteps
    return said


def activations(network: Network, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What every population of the ANN says, in double precision; of a softmax its logits."""
    logits = [
        replace(population, neuron=ir.Identity()) if isinstance(population.neuron, ir.Softmax) else population
        for population in network.populations.values()
    ]
    doubles = {name: x.astype(np.float64) for name, x in images.items()}
    return analog(network.replace(populations=logits), doubles)


# Spike-norm.


@pytest.mark.parametrize("build", BRANCHING.values(), ids=BRANCHING)
@pytest.mark.parametrize(
    "options",
    ["", "per-channel=true", "scale=0.7", "percentile=90,per-channel=true", "percentile=95", "reset=zero,v-init=0.0"],
)
def test_spike_norm_takes_the_largest_current(build, options):
    """Layer by layer: the spikes that reach a population depend on no λ but those before it, so one run shows all."""
    network = build()
    images = images_of(network, 6)
    snn = convert(network, f"spike-norm{{{options}}}" if options else "spike-norm", images, timesteps=8)
    trains = naive.simulate(snn, images).trains
    chosen = dict(option.split("=") for option in options.split(",") if option)
    percentile, scale = float(chosen.get("percentile", 100)), float(chosen.get("scale", 1))
    kinds = {name: population.neuron for name, population in network.populations.items()}
    firing = [p for p in snn.populations.values() if isinstance(p.neuron, ir.IntegrateFire)]
    assert len(firing) >= 3
    for population in firing:
        summed = np.maximum(currents(snn, images, trains, population.name), 0)
        rows = summed.reshape(-1, summed.shape[-1] if "per-channel" in chosen else 1)
        bins = 0 if percentile == 100 else 2 * summed.max() / 512  # one bin of the histogram, and one between ranks
        found = population.neuron.v_thresh
        low, high = (
            _usable(np.percentile(rows, percentile, axis=0, method=method), rows.max(0)) * scale
            for method in ("lower", "higher")
        )
        if isinstance(kinds[population.name], ir.Clip):
            low, high = np.minimum(low, kinds[population.name].max), np.minimum(high, kinds[population.name].max)
        assert (found >= low * (1 - 1e-5) - bins).all(), population.name
        assert (found <= high * (1 + 1e-5) + bins).all(), population.name
        np.testing.assert_allclose(population.neuron.v_init, found * float(chosen.get("v-init", 0.5)), rtol=1e-6)


def _usable(balanced, largest):
    """A percentile of zero gives way to the largest current, and that of a channel without one to the layer's."""
    balanced = np.where(balanced > 0, balanced, largest)
    return np.where(balanced > 0, balanced, balanced.max())


@pytest.mark.parametrize("build", BRANCHING.values(), ids=BRANCHING)
def test_no_step_brings_more_charge_than_a_spike_carries_off(build):
    """V < λ and x ≤ λ make V + x < 2 λ, so after the soft reset V < λ again: nothing piles up."""
    network = build().replace(
        populations=[
            replace(p, neuron=ir.Relu()) if isinstance(p.neuron, ir.Clip) else p for p in build().populations.values()
        ]
    )
    images = images_of(network, 20)
    for timesteps in (3, 50):
        snn = convert(network, "spike-norm", images, timesteps)
        potentials = snnc.compile(snn).simulate(images).potentials
        for name, v in potentials.items():
            if snn.populations[name].neuron.fires:
                assert v.max() < snn.populations[name].neuron.v_thresh * (1 + 1e-5)


def test_spike_norm_saturates_at_a_clip():
    images = np.array([[0.5, 2.0, 9.0], [0.25, 3.0, 1.0]])
    assert convert(layer(ir.Clip(6.0)), "spike-norm", images).populations["y"].neuron.v_thresh == 6.0
    assert convert(layer(ir.Clip(16.0)), "spike-norm", images).populations["y"].neuron.v_thresh == 9.0
    snn = convert(layer(ir.Clip(6.0)), "spike-norm{per-channel=true}", images)
    np.testing.assert_array_equal(snn.populations["y"].neuron.v_thresh, [0.5, 3.0, 6.0])


def test_spike_norm_gives_the_dead_a_usable_threshold():
    images = np.array([[2.0, -1.0, 0.5], [1.0, -2.0, 0.0]])
    some = convert(layer(ir.Relu()), "spike-norm{per-channel=true}", images)
    np.testing.assert_array_equal(some.populations["y"].neuron.v_thresh, [2.0, 2.0, 0.5])
    dead = convert(layer(ir.Relu()), "spike-norm", -np.ones((2, 3)))
    assert dead.populations["y"].neuron.v_thresh == 1.0


def test_spike_norm_looks_at_each_layer_twice_whatever_the_depth(monkeypatch):
    calls = []
    for name in ("summed", "step"):
        method = getattr(Layer, name)

        def counted(self, *arguments, method=method):
            calls.append(self.name)
            return method(self, *arguments)

        monkeypatch.setattr(Layer, name, counted)
    monkeypatch.setattr(resources, "LARGEST_BATCH", 4)
    monkeypatch.setattr(resources, "_cores", lambda: 2)
    for depth in (4, 8, 16):
        calls.clear()
        convert(chain(depth), "spike-norm", np.abs(weights(0, 10, 4)), timesteps=5)
        assert {name: calls.count(name) for name in calls} == {f"h{i}": 2 * 4 for i in range(depth)}  # 4 batches


# Few-spike.


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("k", [1, 3, 4, 8])
def test_the_largest_number_of_a_code_is_the_largest_activation(k, per_channel):
    pipeline = f"few-spike{{k={k},alpha=max,per-channel={str(per_channel).lower()}}}"
    snn = convert(residual(), pipeline, IMAGES)
    expected = activations(residual(), {"image": IMAGES})
    for name in ("stem", "branch"):
        neuron = snn.populations[name].neuron
        largest = expected[name].max((0, 1, 2) if per_channel else None)
        alive = largest > 0
        np.testing.assert_allclose((neuron.alpha * (1 - 2.0**-k) - largest) * alive, 0, atol=1e-5 * largest.max())
        np.testing.assert_allclose(neuron.v_init, neuron.alpha * 2.0 ** -(k + 1), rtol=1e-6)
        assert neuron.k == k
    merged = snn.populations["merged"].neuron  # clips at 6, and the code with it
    np.testing.assert_allclose(
        merged.alpha * (1 - 2.0**-k), np.minimum(expected["merged"].max((0, 1, 2) if per_channel else None), 6), 1e-5
    )


def staircase(a: np.ndarray, k: int, alpha, v_init) -> np.ndarray:
    """What a few-spike neuron says of `a`, from its docstring."""
    quantum = alpha * 2.0**-k
    return quantum * np.clip(np.floor((a + v_init) / quantum), 0, 2**k - 1)


@pytest.mark.parametrize("rounding", [True, False])
@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_alpha_of_least_error_is_least(k, rounding):
    snn = convert(residual(), f"few-spike{{k={k},rounding={str(rounding).lower()}}}", IMAGES)
    for name in ("stem", "branch"):
        values = activations(residual(), {"image": IMAGES})[name]

        def error(alpha, values=values):
            return ((staircase(values, k, alpha, alpha * 2.0 ** -(k + 1) * rounding) - values) ** 2).mean()

        largest = values.max() / (1 - 2.0**-k)
        found = error(snn.populations[name].neuron.alpha)
        assert found <= 1.02 * error(largest)
        assert found <= 1.05 * min(error(alpha) for alpha in np.linspace(0.05, 1.2, 200) * largest)


@pytest.mark.parametrize("rounding", [True, False])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
def test_a_layer_says_the_staircase_of_its_activations(k, rounding):
    """The largest activation is 2^k − 1 quanta, and everything a dyadic rational: nothing is rounded."""
    x = np.arange(-(2**10), 2**10 - 2 ** (10 - k) + 1)[:, None] / 2**10 * np.ones(3)
    x[:, 1] /= 4
    per_layer = convert(layer(ir.Relu()), f"few-spike{{k={k},alpha=max,rounding={str(rounding).lower()}}}", x)
    assert per_layer.populations["y"].neuron == ir.FewSpike(k, 1.0, 2.0 ** -(k + 1) if rounding else 0.0)
    expected = staircase(x, k, 1.0, 2.0 ** -(k + 1) * rounding)
    np.testing.assert_array_equal(snnc.compile(per_layer).predict(x), expected)
    pipeline = f"few-spike{{k={k},alpha=max,per-channel=true,rounding={str(rounding).lower()}}}"
    per_channel = convert(layer(ir.Relu()), pipeline, x)
    alpha = np.array([1, 0.25, 1])
    np.testing.assert_array_equal(per_channel.populations["y"].neuron.alpha, alpha)
    np.testing.assert_array_equal(
        snnc.compile(per_channel).predict(x), staircase(x, k, alpha, alpha * 2.0 ** -(k + 1) * rounding)
    )
    error = np.abs(np.maximum(x, 0) - expected).max()
    assert error <= 2.0 ** -(k + 1) if rounding else error < 2.0**-k


@pytest.mark.parametrize("k", [3, 4])
@pytest.mark.parametrize(("own", "signed"), [(0, True), (0, False), (5, True), (6, False)])
def test_inputs_as_few_spike_codes(k, own, signed):
    """The sign of a code's spikes is the input's, and its magnitude rounded: odd and even numbers of steps alike."""
    bits = own or k
    x = np.arange(-(2**10) * signed, 2**10 - 2 ** (10 - bits) + 1)[:, None] / 2**10 * np.ones(3)
    x = np.maximum(x, 2.0**-bits - 1)
    options = f"k={k},alpha=max,input=few-spike,signed={str(signed).lower()}" + (f",input-k={own}" if own else "")
    snn = convert(layer(ir.Identity()), f"few-spike{{{options}}}", x)
    assert snn.populations["x"].neuron == ir.FewSpikeInput(bits, 1.0, 2.0 ** -(bits + 1), signed)
    assert snn.timesteps == bits
    expected = np.sign(x) * staircase(np.abs(x), bits, 1.0, 2.0 ** -(bits + 1))
    np.testing.assert_array_equal(snnc.compile(snn).predict(x), expected)


@pytest.mark.parametrize(
    ("layer_k", "expected"),
    [
        ("stem:2", (2, 4, 4)),
        ("stem_bn:2 add:7", (2, 4, 7)),
        ("branch:6 merged:1", (4, 6, 1)),
        ("stem:3 stem_conv:5", (3, 4, 4)),  # its own name is nearer than a layer's
    ],
)
def test_some_layers_have_a_k_of_their_own(layer_k, expected):
    snn = convert(residual(), f"few-spike{{layer-k={layer_k}}}", IMAGES, timesteps=99)
    assert tuple(snn.populations[name].neuron.k for name in ("stem", "branch", "merged")) == expected
    assert snn.timesteps == max(expected)
    assert {c.delay for c in snn.connections} == {0, max(expected)}


@pytest.mark.parametrize("name", ["stm", "digit", "image"])
def test_an_own_k_of_what_does_not_spike_is_refused(name):
    with pytest.raises(ir.PipelineError, match=f"layer-k names {name}; the populations that spike are stem, branch, "):
        convert(residual(), f"few-spike{{layer-k={name}:3}}", IMAGES)


@pytest.mark.parametrize("build", BRANCHING.values(), ids=BRANCHING)
def test_a_network_takes_as_long_as_its_phases(build):
    for timesteps in (1, 64):
        snn = convert(build(), "few-spike{k=5}", images_of(build(), 4), timesteps)
        assert snn.timesteps == 5
        for c in snn.connections:
            assert c.delay == 5 * (snn.depth[c.target] - snn.depth[c.source] - 1)


@pytest.mark.parametrize("build", BRANCHING.values(), ids=BRANCHING)
@pytest.mark.parametrize("options", ["", ",per-channel=true", ",input=few-spike,signed=true"])
def test_twelve_bits_say_what_the_ann_says(build, options):
    """Though sources of different α come together in one population."""
    network = build()
    images = images_of(network, 20)
    snn = convert(network, f"few-spike{{k=12,alpha=max{options}}}", images)
    first, second = ("stem", "branch") if build is residual else ("b", "c")
    alphas = [np.max(snn.populations[name].neuron.alpha) for name in (first, second)]
    assert alphas[0] != pytest.approx(alphas[1], rel=0.1)
    found, expected = decoded(snn, images), activations(network, images)
    for name in snn.outputs:
        assert np.abs(found[name] - expected[name]).max() <= 2.0**-9 * np.abs(expected[name]).max()


# Bias correction.


def mean_error(network: Network, snn: Network, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of each population the mean of decoded less analog activation, by channel."""
    found, expected = decoded(snn, images), activations(network, images)
    return {
        name: (found[name] - expected[name]).reshape(-1, values.shape[-1]).mean(0)
        for name, values in found.items()
        if name not in network.inputs
    }


@pytest.mark.parametrize("build", BRANCHING.values(), ids=BRANCHING)
@pytest.mark.parametrize(
    "conversion",
    [
        "data-norm{v-init=0.0}",
        "data-norm{percentile=95,per-channel=true}",
        "data-norm{reset=zero}",
        "spike-norm{v-init=0.0}",
        "few-spike{k=3,alpha=max,rounding=false}",
        "few-spike{k=2}",
    ],
)
def test_bias_correction_takes_the_mean_error_away(build, conversion):
    network = build()
    images = images_of(network, 40)
    before = convert(network, conversion, images)
    after = convert(network, f"{conversion},bias-correction", images)
    errors, left = mean_error(network, before, images), mean_error(network, after, images)
    for name, found in errors.items():
        if before.populations[name].neuron.is_readout:  # linear, so all of it
            np.testing.assert_allclose(left[name], 0, atol=1e-5 * np.abs(found).max())
            assert after.populations[name].bias is not None
        else:  # a shifted bias shifts but those that are active
            assert np.abs(left[name]).mean() < 0.8 * np.abs(found).mean()
        assert after.populations[name].neuron == before.populations[name].neuron
    assert after.connections == before.connections


@pytest.mark.parametrize("build", BRANCHING.values(), ids=BRANCHING)
@pytest.mark.parametrize(
    "conversion",
    ["data-norm{v-init=0.0}", "data-norm{reset=zero}", "spike-norm{v-init=0.0}", "few-spike{rounding=false}"],
)
def test_bias_correction_brings_logits_nearer(build, conversion):
    """Where spikes systematically lose: they truncate, or their reset throws charge away."""
    network, images = build(), images_of(build(), 40)
    expected = activations(network, images)
    before, after = (decoded(convert(network, conversion + more, images), images) for more in ("", ",bias-correction"))
    for name in network.outputs:
        assert np.abs(after[name] - expected[name]).mean() < 0.9 * np.abs(before[name] - expected[name]).mean()


def test_bias_correction_needs_the_analog_network():
    snn = convert(residual(), "data-norm", IMAGES)
    with pytest.raises(ir.PipelineError, match=r"bias-correction\) compares .* run it in the same pipeline"):
        snnc.run_pipeline(snn, "bias-correction", calibration=IMAGES)
    with pytest.raises(ir.PipelineError, match="needs calibration images"):
        run([BiasCorrection()], snn, Context(analog=residual()))


@pytest.mark.parametrize("pipeline", ["spike-norm", "data-norm,bias-correction", "few-spike{input=few-spike}"])
def test_without_calibration_images_nothing_is_balanced(pipeline):
    with pytest.raises(ir.PipelineError, match="calibration"):
        snnc.convert(residual(), pipeline, timesteps=8)


def test_the_analog_network_is_streamed_once_for_a_pipeline():
    runs = []
    context = snnc._context({"image": IMAGES}, 8, False)

    def activations(network, images):
        runs.append(network)
        return context.activations(network, images)

    run(parse("canonicalise,data-norm,bias-correction"), residual(), replace(context, activations=activations))
    assert len(runs) == 1


# Encodings.


def said(x: np.ndarray, encoding: str) -> np.ndarray:
    """What an input that spikes says of `x` in the long run; λ is the largest magnitude."""
    largest = np.abs(x).max()
    share = {
        "integrate-fire": np.abs(x) / largest,
        "poisson": -np.expm1(-np.abs(x) / largest),
        "spikes": (x != 0).astype(float),
    }
    return (largest * np.sign(x) * share[encoding]).astype(np.float32)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("encoding", "order"), [("integrate-fire", 1), ("poisson", 0.5), ("spikes", 1)])
@pytest.mark.parametrize("conversion", RATE)
def test_spiking_inputs_converge_to_the_ann(conversion, encoding, order, signed):
    """As 1/T where the spikes come evenly, and as 1/√T where they come by chance."""
    x = weights(100, 12, 8, 8, 2) if signed else np.maximum(weights(100, 12, 8, 8, 2), 0)
    x[:, ::3] = 0
    heard = said(x, encoding)  # and what the inputs say must not saturate the neurons: calibrate with it, too
    pipeline = f"{conversion}{{input={encoding},signed={str(signed).lower()}}}"
    snn = convert(residual(), pipeline, np.concatenate([x, heard]), timesteps=1024)
    assert snn.populations["image"].neuron.v_thresh == np.abs(x).max()
    curve = snnc.compile(snn).simulate(x).decoded["digit"]
    expected = activations(residual(), {"image": heard})["digit"]
    error = np.abs(curve - expected).mean((1, 2)) / np.abs(expected).mean()
    assert error[-1] < (0.02 if order == 1 else 0.1)
    assert error[-1] < 2.5 * error[63] / 16**order


@pytest.mark.parametrize("conversion", [*RATE, "few-spike"])
def test_negative_images_need_signed_spikes(conversion):
    encoding = "few-spike" if conversion == "few-spike" else "integrate-fire"
    images = images_of(several(), 3)
    for name in ("near", "hint"):
        images[name] = np.abs(images[name])
    with pytest.raises(ir.DataError, match=f"input 'far' goes down to -0.99.*: give {conversion} .* signed=true"):
        convert(several(), f"{conversion}{{input={encoding}}}", images)


def poisson(seed: int = 0, timesteps: int = 16) -> Network:
    return convert(residual(), f"data-norm{{input=poisson,signed=true,seed={seed}}}", IMAGES, timesteps)


def test_poisson_spikes_depend_on_the_seed_alone():
    first = snnc.compile(poisson()).simulate(IMAGES, record=True)
    other = snnc.compile(poisson(seed=1)).simulate(IMAGES, record=True)
    assert (first.trains["image"] != other.trains["image"]).mean() > 0.1
    for options in ({"memory": 2**15}, {"threads": 1}, {"threads": 3}):  # a few steps at a time; other images at once
        again = snnc.compile(poisson(), **options).simulate(IMAGES, record=True)
        np.testing.assert_array_equal(again.trains["image"], first.trains["image"])
        np.testing.assert_allclose(again.decoded["digit"], first.decoded["digit"], atol=1e-5)
    assert spiking.chunk_of(poisson(), Resources.of(2**15), 40).steps < 16


def test_poisson_spikes_are_independent_and_of_the_right_rate():
    timesteps = 1024
    snn = poisson(timesteps=timesteps)
    images = IMAGES[:8]
    spikes = snnc.compile(snn).simulate(images, record=True).trains["image"]
    probability = -np.expm1(-np.abs(images) / snn.populations["image"].neuron.v_thresh)
    np.testing.assert_array_equal(np.sign(spikes.sum(0)), np.where(spikes.any(0), np.sign(images), 0))
    deviation = (np.abs(spikes) - probability) / np.sqrt(np.maximum(probability * (1 - probability), 1e-9))
    assert np.abs(deviation.mean(0)[probability > 0.02]).max() < 5 / np.sqrt(timesteps)
    usual = (deviation * (probability > 0.02)).reshape(timesteps, len(images), -1)
    together = [usual[1:] * usual[:-1], usual[:, 1:] * usual[:, :-1], usual[..., 1:] * usual[..., :-1]]
    for products in together:  # successive steps, images and neurons
        assert abs(products.mean()) < 5 / np.sqrt(products.size)


# Readouts.


@pytest.mark.parametrize("conversion", ["data-norm", "spike-norm", "data-norm{threshold=mse"])
def test_a_readout_may_fire(conversion):
    options = "{readout=spikes" if "{" not in conversion else ",readout=spikes"
    snn = convert(residual(), f"{conversion}{options}}}", IMAGES, timesteps=256)
    neuron = snn.populations["digit"].neuron
    assert isinstance(neuron, ir.IntegrateFire)
    recording = snnc.compile(snn).simulate(IMAGES)
    found = snnc.compile(snn).predict(IMAGES)
    np.testing.assert_allclose(found, neuron.v_thresh * recording.spike_counts["digit"] / 256, rtol=1e-6)
    logits = activations(residual(), {"image": IMAGES})["digit"]
    assert np.abs(found - np.clip(logits, 0, neuron.v_thresh)).max() < 0.1 * logits.max()
    clear = np.sort(logits)[:, -1] > np.maximum(np.sort(logits)[:, -2], 0) + 0.1 * logits.max()
    assert clear.sum() > 5
    np.testing.assert_array_equal(found.argmax(-1)[clear], logits.argmax(-1)[clear])


@pytest.mark.parametrize("readout", ["potential", "spikes"])
@pytest.mark.parametrize("transient", [1, 5, 15])
def test_a_transient_does_not_count(readout, transient):
    """Against potentials, or counts, at two times of the same run."""
    snn = convert(residual(), f"data-norm{{readout={readout}}}", IMAGES)
    compiled = snnc.compile(snn)
    early, late = (snnc.compile(snn.replace(timesteps=t)).simulate(IMAGES) for t in (transient, 16))
    if readout == "potential":
        expected = (late.potentials["digit"] - early.potentials["digit"]) / (16 - transient)
    else:
        counted = late.spike_counts["digit"] - early.spike_counts["digit"]
        expected = snn.populations["digit"].neuron.v_thresh * counted / (16 - transient)
    np.testing.assert_allclose(compiled.predict(IMAGES, transient=transient), expected, atol=1e-5)
    labels = np.arange(40) % 5
    result = compiled.evaluate(IMAGES, labels, transient=transient)
    whole = compiled.evaluate(IMAGES, labels)
    np.testing.assert_array_equal(result.predictions[:transient], whole.predictions[:transient])
    margin = np.sort(expected)[:, -1] - np.sort(expected)[:, -2] > 1e-4
    np.testing.assert_array_equal(result.predictions[-1][margin], expected.argmax(-1)[margin])
    assert result.accuracy[-1] == (result.predictions[-1] == labels).mean()


@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_probabilities_are_a_softmax(conversion):
    images = images_of(several(), 10)
    compiled = snnc.compile(convert(several(), conversion, images))
    logits, shares = compiled.predict(images), compiled.predict(images, probabilities=True)
    assert set(logits) == set(shares) == {"side", "head"}
    for name, share in shares.items():
        np.testing.assert_allclose(share.sum(-1), 1, rtol=1e-5)
        np.testing.assert_array_equal(share.argmax(-1), logits[name].argmax(-1))
        odds = np.log(share[:, 0] / share[:, 1])
        np.testing.assert_allclose(odds, logits[name][:, 0] - logits[name][:, 1], atol=1e-3)


@pytest.mark.parametrize(
    ("conversion", "transient", "message"),
    [
        ("data-norm", 16, "transient is 16, but the network runs for 16 timesteps"),
        ("data-norm", -1, "transient is -1"),
        ("few-spike", 1, "transient is 1, but the network answers once"),
    ],
)
def test_a_transient_is_shorter_than_the_run(conversion, transient, message):
    compiled = snnc.compile(convert(residual(), conversion, IMAGES))
    with pytest.raises(ir.DataError, match=message):
        compiled.predict(IMAGES, transient=transient)
    with pytest.raises(ir.DataError, match=message):
        compiled.evaluate(IMAGES, np.zeros(40), transient=transient)


# A branching network so balanced says what the ANN says.


def error_bounds(network: Network, snn: Network, images: dict[str, np.ndarray], slack: float) -> dict[str, np.ndarray]:
    """The largest error that theory allows each neuron on each image, given what the neurons before it say.

    The soft reset keeps all charge: after T steps of mean input z a neuron says λ n / T = z − (V − v_init) / T. If the
    input were the same in every step, |V − v_init| would be at most λ / 2, as v_init is; `slack` is that many λ instead
    where input comes unevenly. A few-spike neuron hears all of its input first, and is off by half a quantum. What is
    above λ, or above the largest number of a code, is clipped. What is handed on adds to z as W times the errors of the
    neurons before, since rectifiers and clips never enlarge a difference.
    """
    a, d = activations(network, images), decoded(snn, images)
    errors = {name: np.zeros(x.shape) for name, x in images.items()} | {name: d[name] - a[name] for name in d}
    bounds = {}
    for name in d:
        neuron, incoming = snn.populations[name].neuron, snn.incoming(name)
        handed_on = np.abs(sum(ir.apply(c.operators, errors[c.source]) for c in incoming))
        steady = not any(snn.populations[c.source].neuron.fires for c in incoming)
        own = 0.0
        if neuron.fires:
            quantum = neuron.amplitude * (2.0**-neuron.k if neuron.phased else 1 / snn.timesteps)
            largest = neuron.amplitude - quantum if neuron.phased else neuron.amplitude
            own = quantum * (0.5 if neuron.phased or steady else slack) + np.maximum(a[name] - largest, 0)
        bounds[name] = handed_on + own + 1e-5 * np.abs(a[name]).max()  # single precision
    return bounds


@pytest.mark.parametrize("build", BRANCHING.values(), ids=BRANCHING)
@pytest.mark.parametrize(
    "conversion",
    [
        "data-norm",
        "data-norm{percentile=99.9,per-channel=true}",
        "data-norm{threshold=mse}",
        "spike-norm",
        "spike-norm{per-channel=true}",
        "few-spike{k=10}",
        "few-spike{k=12,alpha=max,per-channel=true}",
    ],
)
def test_branching_networks_are_balanced(build, conversion):
    """Populations of different λ or α that come together say what theory says, and in the end what the ANN says."""
    network = run([Canonicalise()], build(), Context())
    images = images_of(network, 12)
    snn = convert(network, conversion, images, timesteps=2048)
    bounds = error_bounds(network, snn, images, slack=1)
    layers = profile(network, snn, images, progress=False).layers
    assert {found.population for found in layers} == set(snn.populations) - set(snn.inputs) == set(bounds)
    for found in layers:
        assert found.mean_error <= bounds[found.population].mean()
        assert found.largest_error <= bounds[found.population].max()
        assert found.mean_error < 0.01 * found.mean_activation


PIPELINES = {
    "data-norm{percentile=99.9}": (64, 0.98),
    "data-norm{threshold=mse,per-channel=true},bias-correction": (8, 0.98),
    "spike-norm{percentile=99.9}": (128, 0.98),
    "data-norm{percentile=99.9,input=poisson}": (256, 0.9),
    "data-norm{percentile=99.9,input=integrate-fire,readout=spikes}": (128, 0.98),
    "few-spike": (1, 0.98),
    "few-spike{input=few-spike,per-channel=true}": (1, 0.98),
}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_trained_network_keeps_its_accuracy(digits, pipeline):
    model, x_train, _, x_test, y_test = digits
    timesteps, share = PIPELINES[pipeline]
    network = snnc.load(model)
    ann = (snnc.compile(network).predict(x_test).argmax(-1) == y_test).mean()
    snn = snnc.compile(convert(network, pipeline, x_train[:256], timesteps))
    assert snn.evaluate(x_test, y_test).accuracy[-1] >= share * ann


# Refusals.


@pytest.mark.parametrize("conversion", CONVERSIONS)
@pytest.mark.parametrize(
    ("neuron", "lowering"),
    [(ir.MaxPool2D((4, 4, 1), (2, 2), (2, 2)), "lower-max-pool"), (ir.LeakyRelu(0.1), "lower-leaky-relu")],
)
def test_what_no_neuron_computes_is_refused_by_layer(conversion, neuron, lowering):
    shape = neuron.output_shape((4, 4, 1))
    populations = [
        Population("x", (4, 4, 1), ir.Input()),
        Population("y", shape, neuron, None, Origin(("conv", "act"))),
        Population("z", shape, neuron),
    ]
    network = Network(populations, [Connection("x", "y"), Connection("x", "z")], ["x"], ["y", "z"])
    with pytest.raises(ir.UnsupportedModelError, match=f"{conversion} cannot convert") as caught:
        convert(network, conversion, np.ones((1, 4, 4, 1)))
    kind = type(neuron).__name__
    helps = f"no single spiking neuron computes it; run {lowering} before {conversion}"
    assert caught.value.problems == (
        f"y ({kind}, from conv, act): {helps}",
        f"z ({kind}, from no known layer): {helps}",
    )


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("spike-norm{percentile=101}", "spike-norm: percentile is 101"),
        ("spike-norm{percentile=0}", "spike-norm: percentile is 0"),
        ("spike-norm{v-init=1}", "spike-norm: v-init is 1"),
        ("spike-norm{v-init=-0.5}", "spike-norm: v-init is -0.5"),
        ("spike-norm{scale=0}", "spike-norm: scale is 0"),
        ("spike-norm{scale=-1}", "spike-norm: scale is -1"),
        ("spike-norm{scale=nan}", "spike-norm: scale is nan"),
        ("spike-norm{scale=inf}", "spike-norm: scale is inf"),
        ("spike-norm{threshold=mse}", "no option 'threshold'"),
        ("spike-norm{reset=hard}", "reset is one of subtract, zero"),
        ("data-norm{input=rate}", "input is one of current, integrate-fire, poisson, spikes"),
        ("data-norm{signed=true}", "data-norm: a constant current has its sign anyway; leave out signed=true"),
        ("spike-norm{input=poisson,seed=x}", "seed takes an? int"),
        ("data-norm{readout=none}", "readout is one of potential, spikes"),
        ("few-spike{k=0}", "few-spike: k is 0; a phase has 1 to"),
        ("few-spike{k=99}", "few-spike: k is 99; a phase has 1 to"),
        ("few-spike{k=2.5}", "k takes a"),
        ("few-spike{input=few-spike,input-k=99}", "few-spike: k is 99"),
        ("few-spike{input=few-spike,input-k=-1}", "few-spike: k is -1"),
        ("few-spike{input-k=3}", "input-k and signed=true are for input=few-spike"),
        ("few-spike{signed=true}", "input-k and signed=true are for input=few-spike"),
        ("few-spike{alpha=min}", "alpha is one of mse, max"),
        ("few-spike{layer-k=stem}", "cannot read layer-k 'stem'; expected layer:k layer:k"),
        ("few-spike{layer-k=stem:x}", "cannot read layer-k 'stem:x'"),
        ("few-spike{layer-k=:3}", "cannot read layer-k ':3'"),
        ("few-spike{layer-k=stem:0}", "few-spike: k is 0"),
        ("bias-correction{rate=1}", "no option 'rate'|takes no options"),
    ],
)
def test_bad_options_are_named(pipeline, message):
    with pytest.raises(ir.PipelineError, match=message):
        parse(pipeline)


def test_rate_conversions_need_timesteps():
    for conversion in RATE:
        with pytest.raises(ir.PipelineError, match=f"{conversion} needs to know how long the network runs"):
            snnc.run_pipeline(residual(), f"canonicalise,{conversion}", calibration=IMAGES)


# Golden texts.


def exact() -> tuple[Network, np.ndarray]:
    """A residual network and images whose sums are the same to the last bit on every machine, and so all hashes.

    They are dyadic rationals of few bits, and so are the thresholds that spike-norm finds for them. Means are over a
    power of two of them, and only added in a fixed order.
    """
    same = ((1, 1), (1, 1))
    network = Network(
        [
            Population("image", (8, 8, 2), ir.Input()),
            Population(
                "stem", (8, 8, 4), ir.Relu(), dyadic(1, 4, step=1 / 8), Origin(("stem_conv", "stem_bn", "stem"))
            ),
            Population("branch", (8, 8, 4), ir.Relu(), None, Origin(("branch",))),
            Population("merged", (8, 8, 4), ir.Clip(6.0), dyadic(2, 8, 8, 4, step=1 / 8), Origin(("add", "merged"))),
            Population("digit", (5,), ir.Softmax(), dyadic(3, 5, step=1 / 8), Origin(("digit",))),
        ],
        [
            Connection("image", "stem", (ir.Conv2D(dyadic(4, 3, 3, 2, 4, step=1 / 8), padding=same),)),
            Connection("stem", "branch", (ir.Conv2D(dyadic(5, 3, 3, 2, 4, step=1 / 8), padding=same, groups=2),)),
            Connection("branch", "merged", (ir.Conv2D(dyadic(6, 1, 1, 4, 4, step=1 / 8)),)),
            Connection("stem", "merged"),
            Connection(
                "merged",
                "digit",
                (ir.AveragePool2D((2, 2), (2, 2)), ir.Flatten(), ir.Dense(dyadic(7, 64, 5, step=1 / 8))),
            ),
        ],
        ["image"],
        ["digit"],
    )
    return network, dyadic(8, 8, 8, 8, 2, limit=1, step=1 / 8)


@pytest.mark.parametrize(
    ("name", "pipeline"),
    [
        ("spike-norm", "spike-norm"),
        ("spike-norm-per-channel", "spike-norm{per-channel=true,v-init=0.0}"),
        ("few-spike", "few-spike"),
        ("few-spike-input", "few-spike{per-channel=true,input=few-spike,signed=true,input-k=6,layer-k=stem_conv:3}"),
        ("bias-correction", "data-norm,bias-correction"),
        ("data-norm-integrate-fire", "data-norm{input=integrate-fire,signed=true,readout=spikes}"),
        ("data-norm-poisson", "data-norm{input=poisson,signed=true,seed=7}"),
        ("data-norm-spikes", "data-norm{input=spikes,signed=true,reset=zero}"),
    ],
)
def test_text(assert_golden, name, pipeline):
    network, images = exact()
    assert_golden(convert(network, pipeline, images), name)


@pytest.mark.parametrize("scale", [1e-30, 1e-36, 1e-38, 1e-42])
@pytest.mark.parametrize(
    "pipeline",
    ["data-norm{percentile=99.9,per-channel=true}", "data-norm{threshold=mse,per-channel=true}", "few-spike{k=4}"],
)
def test_a_channel_that_hardly_ever_wakes_is_counted_like_the_others(pipeline, scale):
    """As a pruned one: a batch norm's γ that weight decay has made all but nothing."""
    kernel = weights(1, 3, 3, 2, 4, scale=0.5) * np.float32([1, scale, 3, 1])
    network = Network(
        [
            Population("x", (8, 8, 2), ir.Input()),
            Population("h", (6, 6, 4), ir.Relu()),
            Population("y", (3,), ir.Identity()),
        ],
        [
            Connection("x", "h", (ir.Conv2D(kernel.astype(np.float32)),)),
            Connection("h", "y", (ir.Flatten(), ir.Dense(weights(2, 144, 3)))),
        ],
        ["x"],
        ["y"],
    )
    snn = convert(network, pipeline, IMAGES, timesteps=16)
    neuron = snn.populations["h"].neuron
    amplitude = np.broadcast_to(neuron.amplitude, 4)
    largest = analog(network, {"x": IMAGES})["h"].max((0, 1, 2))
    assert np.isfinite(amplitude).all()
    assert (amplitude > 0).all()
    if "per-channel" in pipeline:
        assert (amplitude <= largest * 1.001).all()
        assert (amplitude >= 0.25 * largest).all()


def test_activations_that_are_not_finite_are_named_with_layer_and_image():
    network = Network(
        [
            Population("x", (2,), ir.Input()),
            Population("h", (2,), ir.Relu(), None, Origin(("block/act",))),
            Population("y", (2,), ir.Identity()),
        ],
        [
            Connection("x", "h", (ir.Dense(np.float32([[1, 3e38], [1, 3e38]])),)),
            Connection("h", "y", (ir.Dense(np.eye(2, dtype=np.float32)),)),
        ],
        ["x"],
        ["y"],
    )
    images = np.full((300, 2), 0.25, np.float32)
    images[277] = 3
    for pipeline in ("data-norm", "data-norm{threshold=mse}", "few-spike{k=3}"):
        with pytest.raises(ir.DataError, match="calibration image 277 drives block/act beyond what float32 holds"):
            convert(network, pipeline, images, timesteps=8)
