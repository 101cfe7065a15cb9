"""Two populations in place of one that sends signed spikes: the same numbers, spike for spike."""

from dataclasses import replace
from functools import partial

import dyadic
import naive
import numpy as np
import pytest
from dyadic import dyadic as exact
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_conformance import BACKENDS, assert_same, needs_genn
from test_keras_gates import read

import snnc
from snnc import ir
from snnc.backend.compiled import Recording
from snnc.ir import Connection, Network, Origin, Population
from snnc.passes import Context, SplitSigns, run
from snnc.passes.signs import sending_signs
from snnc.passes.split_signs import half_of
from snnc.profile import profile

ALPHAS = np.array([2.0, 4.0, 1.0, 0.5], np.float32)


def split(network: Network) -> Network:
    return run([SplitSigns()], network, Context())


def sent(recording, network):
    """What a split network's populations send, by the names that they had, halves as their difference."""
    whole = {}
    for name, train in recording.trains.items():
        assert train.min() >= 0, "a negative spike"
        half = half_of(network.populations[name])
        whole.setdefault(half.name if half else name, []).append(train if not half else half.sign * train)
    return {name: np.sum(trains, 0, dtype=np.int8) for name, trains in whole.items()}


def assert_split_exactly(network: Network, backend: str = "onnxruntime") -> Recording:
    """Halves send what the whole sent, and everything is decoded as it was; returns what the network did before."""
    halves, images = split(network), dyadic.images(network)
    before, after = naive.simulate(network, images), naive.simulate(halves, images)
    found = snnc.compile(halves, backend).simulate(images, record=True)
    assert_same(found, after)
    now = sent(found, halves)
    read = {name for name in before.trains if network.outgoing(name) or name in network.outputs}
    assert read <= set(now) <= set(before.trains)
    for name, train in now.items():
        np.testing.assert_array_equal(train, before.trains[name], name)
    for name in network.outputs:
        np.testing.assert_array_equal(found.decoded[name], before.decoded[name].astype(np.float32), name)
    assert sum(counts.sum() for counts in found.spike_counts.values()) == sum(
        before.spike_counts[name].sum() for name in now
    )
    return before


def gates(channels: int = 4, outputs: tuple[str, ...] = ("swish", "gated", "flat", "y")) -> Network:
    """Signed functions and products behind one another, of codes of their own, some of them outputs that lead on."""
    small = partial(exact, step=1 / 8)
    image, alphas = (4, 4, channels), np.resize(ALPHAS, channels)

    def code(k: int, alpha, computes: ir.AnalogNeuron) -> ir.FewSpikeFunction:
        return ir.FewSpikeFunction(k, alpha, alpha / 2 ** (k + 1), computes)

    def edge(source: str, target: str, *operators: ir.Operator, port: int = 0) -> Connection:
        return Connection(source, target, operators, port=port, origin=Origin((f"{source}_{target}",)))

    return dyadic.spiking(
        [
            Population("image", (4, 4, 2), ir.GradedInput()),
            Population("events", (5,), ir.FewSpikeInput(4, ALPHAS[[0, 1, 2, 3, 0]] / 2, 1 / 128, signed=True)),
            Population("shrunk", image, code(4, alphas, ir.Function("soft_shrink", 0.25)), exact(1, channels)),
            Population("swish", image, code(5, 4.0, ir.Function("hard_swish")), origin=Origin(("block/act",))),
            Population("gated", image, code(4, 4.0, ir.Product()), exact(4, channels), second_bias=exact(5, *image)),
            Population("rest", image, ir.FewSpike(3, 2.0, 1 / 8), exact(6, channels)),
            Population("flat", (6,), code(5, 4.0, ir.Product("abs")), exact(7, 6)),
            Population("y", (3,), ir.FewSpikeReadout(), exact(8, 3)),
        ],
        [
            edge("image", "shrunk", ir.Conv2D(small(9, 3, 3, 2, channels), padding=dyadic.SAME_3X3)),
            edge("image", "swish", ir.Conv2D(6 * small(10, 1, 1, 2, channels))),
            edge("shrunk", "gated"),
            edge("swish", "gated", ir.Conv2D(small(11, 1, 1, channels, channels)), port=1),
            edge("image", "gated", ir.Pad(((0, 0), (0, 0), (channels - 2, 0))), port=1),
            edge("gated", "rest", ir.Scale(small(12, channels))),
            edge("shrunk", "rest", ir.AveragePool2D((2, 2), (1, 1), ((0, 1), (1, 0)))),
            edge("events", "flat", ir.Dense(small(13, 5, 6))),
            edge("gated", "flat", ir.Flatten(), ir.Dense(small(14, 16 * channels, 6)), port=1),
            edge("flat", "y", ir.Dense(small(15, 6, 3))),
            edge("rest", "y", ir.Flatten(), ir.Dense(exact(16, 16 * channels, 3, step=1 / 16))),
            edge("events", "y", ir.Pick(np.array([4, 0, 2]))),
        ],
        ["image", "events"],
        outputs,
        timesteps=5,
    )


def attention() -> Network:
    """A product of two matrices, both from signed numbers, read by a rectifier, as an output, and by another."""
    left, right, size = (2, 3, 4), (2, 4, 5), (2, 3, 5)
    code = (4, 4.0, 1 / 8)
    first = np.arange(24).reshape(left)
    return dyadic.spiking(
        [
            Population("x", (24,), ir.FewSpikeInput(3, 1.0, 1 / 16, signed=True)),
            Population("q", left, ir.FewSpikeFunction(3, 2.0, 1 / 8, ir.Function("identity")), exact(1, 4)),
            Population("k", right, ir.FewSpikeFunction(3, 2.0, 0.0, ir.Function("hard_shrink", 0.25))),
            Population("scores", size, ir.FewSpikeFunction(*code, ir.MatMul(left, right)), exact(2, *left)),
            Population("again", (2, 3, 4), ir.FewSpikeFunction(*code, ir.MatMul(size, (2, 5, 4)))),
            Population("y", (3,), ir.FewSpikeReadout()),
        ],
        [
            Connection("x", "q", (ir.Pick(first),)),
            Connection("x", "k", (ir.Pick(np.arange(40).reshape(right) * 7 % 24),)),
            Connection("q", "scores"),
            Connection("k", "scores", port=1),
            Connection("scores", "again"),
            Connection("k", "again", (ir.Pick(np.arange(40).reshape(2, 4, 5).transpose(0, 2, 1)),), port=1),
            Connection("again", "y", (ir.Flatten(), ir.Dense(exact(3, 24, 3, step=1 / 8)))),
        ],
        ["x"],
        ["scores", "y"],
        timesteps=4,
    )


def encoded(**how) -> Network:
    """A rate-coded network of signed inputs that skip layers."""
    return dyadic.spiking(
        [
            Population("x", (4, 4, 2), ir.IntegrateFireInput(0.75, signed=True, v_init=0.375, **how)),
            Population("plain", (3,), ir.IntegrateFireInput(0.5, v_init=0.25)),
            Population("maps", (3, 3, 4), ir.IntegrateFire(ALPHAS / 4, ALPHAS / 8), exact(1, 4, limit=0.25)),
            Population("pooled", (3, 3, 4), ir.IntegrateFire(0.5, 0.25), exact(2, 3, 3, 4, limit=0.25)),
            Population("y", (3,), ir.Integrate(), exact(3, 3)),
        ],
        [
            Connection("x", "maps", (ir.Conv2D(exact(4, 2, 2, 2, 4)),)),
            Connection("maps", "pooled", (ir.Conv2D(exact(5, 3, 3, 4, 4), padding=dyadic.SAME_3X3),)),
            Connection("x", "pooled", (ir.AveragePool2D((2, 2), (1, 1)), ir.Pad(((0, 0), (0, 0), (1, 1))))),
            Connection("plain", "y"),
            Connection("pooled", "y", (ir.Flatten(), ir.Dense(exact(6, 36, 3)))),
        ],
        ["x", "plain"],
        ["y"],
        timesteps=9,
    )


NETWORKS = {
    "gates": gates,
    "gates in blocks": lambda: gates(16),
    "attention": attention,
    "integrate and fire": encoded,
    "hard reset": lambda: encoded(reset="zero", comparison=">"),
    "few-spike inputs": dyadic.NETWORKS["few_spike_5"],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_halves_say_what_the_whole_said(build, backend):
    if backend == "mlgenn" and build is attention:
        pytest.skip("GeNN multiplies no matrices")
    before = assert_split_exactly(build(), backend)
    signed = [name for name, train in before.trains.items() if train.min() < 0 < train.max()]
    assert len(signed) >= (5 if build is gates else 1)


@st.composite
def splittable(draw: st.DrawFn, phased: bool | None = None, matrices: bool = False) -> Network:
    """A random graph without what is refused: potentials start below a quantum, nothing tracks, and nothing lags."""
    network = draw(dyadic.networks(phased, matrices))
    populations = [replace(p, neuron=_splittable(p.neuron)) for p in network.populations.values()]
    return dyadic.spiking(populations, network.connections, network.inputs, network.outputs, network.timesteps)


def _splittable(neuron: ir.Neuron) -> ir.Neuron:
    match neuron:
        case ir.FewSpikeFunction() | ir.FewSpikeInput():
            quantum = np.float32(neuron.alpha) / 2**neuron.k
            return replace(neuron, v_init=np.minimum(neuron.v_init, quantum / 2) if neuron.signed else neuron.v_init)
        case ir.Tracking():
            return ir.IntegrateFire(neuron.v_thresh, neuron.v_init)
        case ir.SpikeInput(signed=True) | ir.IntegrateFireInput(signed=True):
            return ir.IntegrateFireInput(neuron.v_thresh, True, min(getattr(neuron, "v_init", 0), neuron.v_thresh / 2))
    return neuron


@settings(max_examples=80, derandomize=True, deadline=None)
@given(splittable(matrices=True))
def test_halves_say_what_the_whole_said_on_random_graphs(network):
    assert_split_exactly(network)


@needs_genn
@settings(max_examples=3, derandomize=True, deadline=None, phases=[Phase.generate])  # each is a build of seconds
@given(splittable(phased=True))
def test_genn_agrees_on_random_graphs(network):
    assert_split_exactly(network, "mlgenn")


def test_networks_without_signs_are_handed_on():
    network = dyadic.NETWORKS["phases"]()
    network = network.replace(
        populations=[
            replace(p, neuron=replace(p.neuron, signed=False)) if isinstance(p.neuron, ir.FewSpikeInput) else p
            for p in network.populations.values()
        ]
    )
    assert split(network) == network


MATRICES = ir.MatMul((1, 2, 4), (1, 4, 3))
PLAIN, LOWERED, RAISED = ("code", 1.0, 0.0), ("code", 1.0, -0.25), ("code", 1.0, 0.25)  # a source, a weight and a bias
NEGATED, IMAGE = ("code", -1.0, 0.0), ("image", 1.0, 0.0)


@pytest.mark.parametrize(
    ("computes", "given", "stays"),
    [
        (ir.Function("abs"), [NEGATED], True),
        (ir.Function("hard_swish"), [PLAIN], True),
        (ir.Function("hard_swish"), [NEGATED], False),
        (ir.Function("hard_swish"), [LOWERED], False),
        (ir.Function("hard_swish"), [IMAGE], False),
        (ir.Function("log"), [RAISED], False),
        (ir.Product("reciprocal"), [PLAIN, RAISED], True),
        (ir.Product("reciprocal"), [NEGATED, RAISED], False),
        (ir.Product("reciprocal"), [PLAIN, NEGATED], False),
        (ir.Product("square"), [PLAIN, IMAGE], False),  # its square is not known to be one of the same number
        (ir.Product("abs"), [PLAIN, IMAGE], True),
        (ir.Product("abs"), [IMAGE, PLAIN], False),
        (MATRICES, [PLAIN, RAISED], True),
        (MATRICES, [NEGATED, PLAIN], False),
        (MATRICES, [PLAIN, LOWERED], False),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, ir.AnalogNeuron) else None,
)
def test_what_is_never_negative_stays_whole(computes, given, stays):
    shapes = [computes.input_shape((1, 2, 4), port) for port in range(computes.ports)]
    y = Population("y", computes.output_shape(shapes[0]), ir.FewSpikeFunction(4, 2.0, 1 / 16, computes))
    edges = [Connection("image", "code"), Connection("code", "z", (ir.Flatten(),))]
    for port, ((source, weight, bias), shape) in enumerate(zip(given, shapes, strict=True)):
        places = ir.Pick(np.arange(np.prod(shape)).reshape(shape) * 5 % 12)
        edges.append(Connection(source, "y", (ir.Scale(np.full(3, weight)), places), port=port))
        y = y.shifted(np.full(shape[-1], bias), port)
    others = {"image": ir.GradedInput(), "code": ir.FewSpike(4, 2.0, 1 / 16)}
    populations = [Population(name, (1, 4, 3), neuron) for name, neuron in others.items()]
    populations += [y, Population("z", (12,), ir.FewSpikeReadout())]
    network = dyadic.spiking(populations, edges, ["image"], ["y", "z"], timesteps=4)
    assert sending_signs(network) == ([] if stays else ["y"])
    assert ("y/-" in split(network).populations) != stays
    spikes = naive.simulate(network, dyadic.images(network)).trains["y"]
    assert spikes.any()
    assert spikes.min() >= 0 or not stays


def test_text(assert_golden):
    assert_golden(split(gates()), "split-signs")
    assert_golden(split(encoded()), "split-signs-current")


def refused(network: Network) -> list[str]:
    with pytest.raises(ir.UnsupportedModelError, match="split-signs cannot split these populations") as caught:
        split(network)
    return list(caught.value.problems)


def test_what_cannot_be_split_is_refused_by_name_with_the_way_out():
    neurons = {
        "poisson": ir.PoissonInput(1.0, signed=True),
        "binary": ir.SpikeInput(1.0, signed=True),
        "strict": ir.IntegrateFireInput(1.0, signed=True, v_init=1.0, comparison=">"),
        "full": ir.IntegrateFireInput(1.0, signed=True, v_init=1.0),
        "unsigned": ir.PoissonInput(1.0),
        "both": ir.IntegrateFireInput(1.0, signed=True),
    }
    populations = [Population(name, (3,), neuron) for name, neuron in neurons.items()]
    populations.append(Population("y", (3,), ir.Tracking(1.0), origin=Origin(("block/act", "block/add"))))
    edges = [Connection(name, "y") for name in neurons]
    assert refused(dyadic.spiking(populations, edges, list(neurons), ["y", "both"], timesteps=4)) == [
        "poisson (PoissonInput, from no known layer): only an input makes such spikes; "
        "convert with input=current or input=integrate-fire",
        "binary (SpikeInput, from no known layer): only an input makes such spikes; "
        "convert with input=current or input=integrate-fire",
        "full (IntegrateFireInput, from no known layer): its potential starts where it spikes without any input, "
        "as both halves would; lower v_init",
        "both (IntegrateFireInput, from no known layer): it is an input and an output, "
        "and only one of both can keep its name",
        "y (Tracking, from block/act, block/add): its negative spikes take back what it said; "
        "convert with few-spike, or with lower-functions and data-norm",
    ]


def test_inputs_that_need_not_wait_are_refused_where_halves_would():
    network = encoded()
    lagging = dyadic.spiking(
        network.populations.values(), network.connections, network.inputs, network.outputs, timesteps=9, lag=2
    )
    assert refused(lagging) == [
        "x (IntegrateFireInput, from no known layer): its halves would wait, which it need not; "
        "convert with lag=1 or input=current"
    ]


def test_codes_that_both_halves_would_start_with_are_refused():
    """Of zero a whole says one thing, and its halves would say it both."""
    network = gates()
    populations = dict(network.populations)
    shrunk = populations["shrunk"].neuron
    assert isinstance(shrunk, ir.FewSpikeFunction)
    quanta = ALPHAS / 2**shrunk.k
    populations["shrunk"] = replace(
        populations["shrunk"], neuron=replace(shrunk, v_init=np.array([0, 0, quanta[2], 0], np.float32))
    )
    leaky = replace(shrunk, computes=ir.LeakyRelu(0.5))
    populations["swish"] = replace(populations["swish"], neuron=leaky)
    assert refused(network.replace(populations=populations)) == [
        "shrunk (FewSpikeFunction, from no known layer): its potential starts where it spikes without any input, "
        "as both halves would; lower v_init",
        "swish (FewSpikeFunction, from block/act): no neuron says the negative of its LeakyRelu; "
        "lower that before few-spike",
    ]


@pytest.mark.parametrize("name", ["squeeze-excitation", "attention"])
@pytest.mark.parametrize("inputs", ["graded", "few-spike,signed=true"])
def test_models_from_keras_are_split_end_to_end(name, inputs):
    """Sums of floats are rounded in another order, so that few codes differ in their last bit."""
    network, images, expected = read(name, 48)
    pipeline = f"canonicalise,few-spike{{k=8,per-channel=true,input={inputs}}}"
    whole, halves = (
        snnc.convert(network, each, calibration=images, progress=False)
        for each in (pipeline, f"{pipeline},split-signs")
    )
    assert not [p for p in halves.populations.values() if getattr(p.neuron, "signed", False)]
    signed = sending_signs(whole)
    assert len(signed) >= 2
    assert {f"{name}/{sign}" for name in signed for sign in "+-"} <= set(halves.populations)
    before, after = (snnc.compile(each).simulate(images, progress=False) for each in (whole, halves))
    (output,) = network.outputs
    apart = np.abs(after.decoded[output] - before.decoded[output])
    assert apart.mean() < 1e-3 * np.abs(expected).mean()
    spikes = [sum(counts.sum() for counts in each.spike_counts.values()) for each in (before, after)]
    assert spikes[1] == pytest.approx(spikes[0], rel=1e-3)


@pytest.fixture(scope="module")
def converted():
    """An analog network with signed functions, one of which is an output, its images, and a conversion."""
    shape = (3, 4, 6)
    random = np.random.default_rng(5)

    def weight(*size: int) -> np.ndarray:
        return random.normal(0, 0.5, size).astype(np.float32)

    analog = Network(
        [
            Population("x", (3, 4, 2), ir.Input()),
            Population("act", shape, ir.Function("tanh"), weight(6), Origin(("block/act",))),
            Population("gate", shape, ir.Product("sigmoid"), weight(6), Origin(("block/gate",)), weight(6)),
            Population("y", (5,), ir.Identity(), weight(5)),
        ],
        [
            Connection("x", "act", (ir.Conv2D(weight(1, 1, 2, 6)),)),
            Connection("x", "gate", (ir.Conv2D(weight(1, 1, 2, 6)),)),
            Connection("act", "gate", (ir.Conv2D(weight(1, 1, 6, 6)),), port=1),
            Connection("gate", "y", (ir.Flatten(), ir.Dense(weight(72, 5)))),
        ],
        ["x"],
        ["act", "y"],
    )
    images = random.normal(0, 1, (64, 3, 4, 2)).astype(np.float32)
    return analog, images, "canonicalise,few-spike{k=5,per-channel=true,input=few-spike,signed=true}"


def test_the_profile_compares_each_half_with_its_part_of_the_activation(converted):
    analog, images, pipeline = converted
    whole, halves = (
        snnc.convert(analog, each, calibration=images, progress=False) for each in (pipeline, f"{pipeline},split-signs")
    )
    before = {layer.population: layer for layer in profile(analog, whole, images, progress=False).layers}
    found = profile(analog, halves, images, progress=False)
    after = {layer.population: layer for layer in found.layers}
    assert set(after) == {"x/+", "x/-", "act/+", "act/-", "act", "gate/+", "gate/-", "y"}
    assert found.only_analog == found.only_spiking == ()
    for name in ("x", "act", "gate"):
        above, below = after[f"{name}/+"], after[f"{name}/-"]
        assert above.analog == below.analog == name
        assert min(above.mean_activation, below.mean_activation) > 0.1 * before[name].mean_activation
        for part in ("mean_activation", "clipping", "quantisation", "rate"):  # each activation is in one of both
            total = getattr(above, part) + getattr(below, part)
            assert total == pytest.approx(getattr(before[name], part), rel=1e-3), (name, part)
        assert above.correlation > 0.99 < below.correlation
    assert after["act"].mean_error == pytest.approx(before["act"].mean_error, rel=1e-3)


def test_biases_are_corrected_before_and_after(converted):
    """What a function makes of a shift is no shift: only readouts are corrected, whatever comes first."""
    analog, images, pipeline = converted
    first, then = (
        snnc.convert(analog, f"{pipeline},{passes}", calibration=images, progress=False)
        for passes in ("bias-correction,split-signs", "split-signs,bias-correction")
    )
    assert {name for name, p in then.populations.items() if "bias-correction" in p.origin.passes} == {"act", "y"}
    np.testing.assert_allclose(first.populations["y"].bias, then.populations["y"].bias, rtol=0, atol=1e-4)
    found, expected = (snnc.compile(each).predict(images, progress=False) for each in (then, analog))
    for name in analog.outputs:
        error = (found[name] - expected[name]).reshape(-1, expected[name].shape[-1]).mean(0)
        np.testing.assert_allclose(error, 0, atol=1e-5)
