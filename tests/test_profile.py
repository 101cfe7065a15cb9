"""The profile: its three parts against the equations, its sums against whole arrays, and how it is shown."""

import json
from io import StringIO

import numpy as np
import pytest
from networks import residual, weights
from reference import analog
from rich.console import Console

import snnc
from snnc import ir
from snnc.backend.onnxruntime import CompiledEngine
from snnc.ir import Connection, Network, Origin, Population
from snnc.passes import Canonicalise, Context, run
from snnc.profile import LayerProfile, error_parts, plot, profile, to_json, to_table

IMAGES = weights(100, 40, 8, 8, 2)
SIXTEENTHS = np.arange(-32, 96)[:, None] / 16 * np.ones(4)  # the engine's single precision adds them exactly


@pytest.fixture(scope="module")
def networks():
    """The residual network, canonical, and its conversion: a branch that leads nowhere stays in the analog one only."""
    canonical = run([Canonicalise()], residual(), Context())
    spiking = snnc.convert(residual(), "data-norm{percentile=95,per-channel=true}", calibration=IMAGES, timesteps=16)
    return canonical, spiking


def pair(neuron, timesteps=8, channels=4):
    """An analog and a spiking network of one population, driven by the input itself."""
    connection = [Connection("x", "y")]
    relu = Network(
        [Population("x", (channels,), ir.Input()), Population("y", (channels,), ir.Relu())], connection, ["x"], ["y"]
    )
    fire = Network(
        [Population("x", (channels,), ir.CurrentInput()), Population("y", (channels,), neuron)],
        connection,
        ["x"],
        ["y"],
        timesteps,
    )
    return relu, fire


@pytest.mark.parametrize("comparison", [">=", ">"])
@pytest.mark.parametrize("v_init", [0.0, 0.5])
def test_a_steady_current_leaves_no_unevenness(comparison, v_init):
    threshold = np.array([1.0, 2.0, 0.5, 4.0])
    relu, fire = pair(ir.IntegrateFire(threshold, v_init * threshold, comparison=comparison))
    (layer,) = profile(relu, fire, SIXTEENTHS).layers
    assert layer.unevenness == 0
    assert layer.quantisation > 0
    assert layer.clipping == np.maximum(SIXTEENTHS - threshold, 0).mean()
    assert layer.threshold == (0.5, 4.0)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_the_parts_sum_to_the_error(reset):
    generator = np.random.default_rng(0)
    a, d = generator.uniform(-1, 5, (2, 30, 3, 3, 4))
    neuron = ir.IntegrateFire(np.array([1.0, 2.0, 0.3, 4.0]), 0.25, reset)
    parts = error_parts(a, d, neuron, 10)
    np.testing.assert_allclose(sum(parts), a - d, rtol=0, atol=1e-14)
    clipping, quantisation, _ = parts
    np.testing.assert_allclose(clipping, a - np.clip(a, 0, neuron.v_thresh), rtol=0, atol=1e-14)
    inside = (a >= 0) & (a <= neuron.v_thresh)
    assert (np.abs(quantisation)[inside] <= (np.broadcast_to(neuron.v_thresh, a.shape) / 10)[inside] + 1e-9).all()


def test_a_hard_reset_loses_charge_and_that_is_unevenness():
    x = np.full((1, 4), 0.75)
    for reset, unevenness in (("subtract", 0.0), ("zero", 0.25)):  # 6 spikes in 8 steps, or one every second step
        (layer,) = profile(*pair(ir.IntegrateFire(1.0, 0.0, reset)), x).layers
        assert (layer.clipping, layer.quantisation, layer.unevenness) == (0, 0, unevenness)


def test_streamed_sums_equal_those_of_whole_arrays(networks, monkeypatch):
    """However the images are cut: batches of the analog network, and chunks within them."""
    import snnc.profile
    from snnc.backend.onnxruntime import analog as analog_backend

    whole = profile(*networks, IMAGES)
    monkeypatch.setattr(analog_backend, "LARGEST_BATCH", 7)
    monkeypatch.setattr(snnc.profile, "CHUNK", 1000)
    found = profile(*networks, IMAGES)
    canonical, spiking = networks
    expected = analog(canonical, {"image": IMAGES.astype(np.float64)})
    recording = CompiledEngine(spiking).simulate(IMAGES)
    assert [layer.population for layer in found.layers] == ["stem", "branch", "merged", "digit"]
    for layer, other in zip(found.layers, whole.layers, strict=True):
        np.testing.assert_array_equal(layer.sample, other.sample)
        if layer.population == "digit":
            continue
        a = expected[layer.population]
        threshold = spiking.populations[layer.population].neuron.v_thresh
        d = recording.spike_counts[layer.population] * threshold.astype(np.float64) / 16
        assert layer.mean_activation == pytest.approx(a.mean(), rel=1e-5)
        assert layer.mean_error == pytest.approx(np.abs(a - d).mean(), rel=1e-5) == other.mean_error
        assert layer.largest_error == pytest.approx(np.abs(a - d).max(), rel=1e-5)
        assert layer.correlation == pytest.approx(np.corrcoef(a.ravel(), d.ravel())[0, 1], rel=1e-6)
        assert layer.clipping == pytest.approx(np.maximum(a - threshold, 0).mean(), rel=1e-4)
        assert layer.rate == pytest.approx(recording.spike_counts[layer.population].mean() / 16)
        assert layer.sample.shape == (2000, 2)
        assert np.isin(layer.sample[:, 1], d.astype(np.float32)).all()


def test_readouts_are_compared_before_the_softmax(networks):
    canonical, spiking = networks
    digit = profile(canonical, spiking, IMAGES).layers[-1]
    softmax = canonical.populations["digit"]
    logits = Population(softmax.name, softmax.shape, ir.Identity(), softmax.bias)
    linear = canonical.replace(populations={**canonical.populations, "digit": logits})
    expected = analog(linear, {"image": IMAGES})["digit"]
    found = CompiledEngine(spiking).predict(IMAGES)
    assert digit.mean_error == digit.unevenness == pytest.approx(np.abs(expected - found).mean(), rel=1e-4)
    assert (digit.clipping, digit.quantisation, digit.threshold, digit.rate) == (0, 0, None, None)
    assert digit.sample.shape == (200, 2)


def encoded(neuron, timesteps=8) -> LayerProfile:
    """The profile of an input that spikes, in a network that does nothing else."""
    readout = ir.FewSpikeReadout() if neuron.phased else ir.Integrate()
    shape, edge = (4,), [Connection("x", "y")]
    analog_network = Network(
        [Population("x", shape, ir.Input()), Population("y", shape, ir.Identity())], edge, "x", "y"
    )
    spiking = Network([Population("x", shape, neuron), Population("y", shape, readout)], edge, "x", "y", timesteps)
    found, readout_found = profile(analog_network, spiking, SIXTEENTHS).layers
    assert (found.population, found.analog) == ("x", "x")
    assert readout_found.mean_error == pytest.approx(found.mean_error)
    return found


@pytest.mark.parametrize("rounding", [False, True])
@pytest.mark.parametrize("timesteps", [3, 5])  # a phase may be longer than a population's k
def test_few_spike_neurons_clip_and_quantise(rounding, timesteps):
    alpha = np.array([1.0, 2.0, 0.5, 4.0])
    quantum = alpha / 8
    neuron = ir.FewSpike(3, alpha, quantum / 2 if rounding else 0.0)
    relu, _ = pair(neuron)
    edge = [Connection("x", "y")]
    populations = [Population("x", (4,), ir.GradedInput()), Population("y", (4,), neuron)]
    spiking = Network(populations, edge, ["x"], ["y"], timesteps)
    (layer,) = profile(relu, spiking, SIXTEENTHS).layers
    a = np.maximum(SIXTEENTHS, 0)
    reachable = np.minimum(a, alpha - quantum)
    staircase = quantum * np.clip(np.floor(a / quantum + (0.5 if rounding else 0)), 0, 7)
    assert layer.unevenness == 0
    assert layer.clipping == (a - reachable).mean()
    assert layer.quantisation == np.abs(reachable - staircase).mean() > 0
    assert layer.threshold == (0.5, 4.0)
    assert layer.rate == np.bitwise_count((staircase / quantum).astype(int)).mean() / timesteps


def test_a_few_spike_network_is_profiled_layer_by_layer():
    canonical = run([Canonicalise()], residual(), Context())
    spiking = snnc.convert(residual(), "few-spike{k=4,per-channel=true}", calibration=IMAGES)
    found = profile(canonical, spiking, IMAGES)
    expected = analog(canonical, {"image": IMAGES.astype(np.float64)})
    assert [layer.population for layer in found.layers] == ["stem", "branch", "merged", "digit"]
    assert found.timesteps == 4
    stem, branch, _, digit = found.layers
    assert stem.unevenness == pytest.approx(0, abs=1e-4)  # nothing was lost before it
    assert branch.unevenness > 0.001
    a, quantum = expected["stem"], spiking.populations["stem"].neuron.alpha / 16
    reachable = np.minimum(a, 15 * quantum)
    staircase = quantum * np.minimum(np.floor(a / quantum + 0.5), 15)
    assert stem.clipping == pytest.approx((a - reachable).mean(), rel=1e-3)
    assert stem.quantisation == pytest.approx(np.abs(reachable - staircase).mean(), rel=1e-3)
    logits = CompiledEngine(spiking).predict(IMAGES)
    assert (digit.clipping, digit.quantisation, digit.threshold, digit.rate) == (0, 0, None, None)
    assert np.isin(digit.sample[:, 1], logits).all()


@pytest.mark.parametrize("signed", [False, True])
def test_inputs_that_spike_are_compared_with_the_images(signed):
    whole = SIXTEENTHS if signed else np.maximum(SIXTEENTHS, 0)
    spikes = encoded(ir.IntegrateFireInput(2.0, signed, 1.0))
    clipped = np.clip(SIXTEENTHS, -2.0 if signed else 0, 2.0)
    rounded = np.sign(clipped) * 0.25 * np.floor(np.abs(clipped) / 0.25 + 0.5)
    assert spikes.clipping == np.abs(SIXTEENTHS - clipped).mean()
    assert spikes.quantisation == np.abs(clipped - rounded).mean()
    assert spikes.unevenness == 0
    few = encoded(ir.FewSpikeInput(4, 4.0, 0.125, signed))
    reachable = np.clip(whole, -3.75, 3.75)
    assert few.clipping == np.abs(SIXTEENTHS - reachable).mean()
    assert few.unevenness == 0
    binary = encoded(ir.SpikeInput(2.0, signed))
    assert binary.clipping == np.abs(SIXTEENTHS - 2 * np.sign(whole)).mean()
    assert (binary.quantisation, binary.unevenness) == (0, 0)
    poisson = encoded(ir.PoissonInput(2.0, signed), timesteps=512)
    assert poisson.clipping == pytest.approx(
        np.abs(SIXTEENTHS + 2 * np.sign(whole) * np.expm1(-np.abs(whole) / 2)).mean()
    )
    assert poisson.quantisation == 0
    assert 0 < poisson.unevenness < 0.1


def renamed(network: Network, names: dict[str, str]) -> Network:
    populations = [
        p if p.name not in names else Population(names[p.name], p.shape, p.neuron, p.bias, p.origin)
        for p in network.populations.values()
    ]
    connections = [
        Connection(names.get(c.source, c.source), names.get(c.target, c.target), c.operators, c.delay, c.origin)
        for c in network.connections
    ]
    return network.replace(populations=populations, connections=connections)


def test_populations_are_joined_by_origin_where_names_differ(networks):
    canonical, spiking = networks
    other = renamed(spiking, {"merged": "sum_relu"})
    joined = {layer.population: layer.analog for layer in profile(canonical, other, IMAGES).layers}
    assert joined == {"stem": "stem", "branch": "branch", "sum_relu": "merged", "digit": "digit"}


def test_populations_without_a_partner_are_listed(networks):
    _, spiking = networks
    whole = profile(residual(), spiking, IMAGES)
    assert (whole.only_analog, whole.only_spiking) == (("forgotten",), ())
    stem = spiking.populations["stem"]
    stranger = Population("stranger", stem.shape, stem.neuron, stem.bias, Origin(("elsewhere",)))
    other = renamed(spiking, {"stem": "stranger"})
    other = other.replace(populations={**other.populations, "stranger": stranger})
    found = profile(residual(), other, IMAGES)
    assert (found.only_analog, found.only_spiking) == (("stem", "forgotten"), ("stranger",))
    assert "only in the spiking network, not compared: stranger" in printed(found)


def test_what_cannot_be_compared_is_refused(networks):
    canonical, spiking = networks
    with pytest.raises(ir.DataError, match="the networks take x and image"):
        profile(pair(ir.IntegrateFire(1.0))[0], spiking, IMAGES)
    with pytest.raises(ir.VerificationError, match="not a valid analog network"):
        profile(spiking, spiking, IMAGES)
    with pytest.raises(ir.DataError, match="expected"):
        profile(canonical, spiking, IMAGES[:, :4])
    relu, fire = pair(ir.IntegrateFire(1.0))
    with pytest.raises(ir.DataError, match="no population"):
        profile(relu, renamed(fire, {"y": "z"}).replace(outputs=["z"]), np.ones((2, 4)))


def printed(found) -> str:
    console = Console(width=200, file=StringIO())
    console.print(to_table(found))
    return console.file.getvalue()


def test_table_and_json(networks):
    found = profile(*networks, IMAGES)
    text = printed(found)
    assert "40 images, 16 timesteps" in text
    assert all(layer.population in text for layer in found.layers)
    content = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert content["layers"][0]["origin"] == ["stem_conv", "stem_bn", "stem"]
    assert content["layers"][0]["relative"]["clipping"] == found.layers[0].clipping / found.layers[0].mean_activation
    assert content["layers"][-1]["threshold"] is None


def test_names_are_drawn_as_they_are(networks, tmp_path):
    canonical, spiking = networks
    found = profile(canonical, renamed(spiking, {"merged": "$\\frac{block$_1/" + 30 * "long"}), IMAGES)
    plot(found, tmp_path / "profile.svg")
    assert list(tmp_path.iterdir()) == [tmp_path / "profile.svg"]


def test_a_silent_layer_has_no_correlation_and_prints(tmp_path):
    found = profile(*pair(ir.IntegrateFire(1.0)), -np.ones((3, 4)))
    (layer,) = found.layers
    assert (layer.correlation, layer.relative(layer.mean_error), layer.mean_error) == (None, None, 0)
    assert "–" in printed(found)
    json.dumps(to_json(found), allow_nan=False)
    plot(found, tmp_path / "silent.png")


def test_plot_is_written_whole_or_not_at_all(networks, tmp_path):
    found = profile(*networks, IMAGES)
    plot(found, tmp_path / "profile.png")
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ir.DataError, match="cannot write the plot"):
        plot(found, tmp_path / "profile.xyz")
    assert [path.name for path in tmp_path.iterdir()] == ["profile.png"]
