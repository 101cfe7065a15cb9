"""Products as squares: the same function, an error that is certain once rectifiers are in place of them, and spikes."""

from dataclasses import replace

import dyadic
import naive
import numpy as np
import pytest
from dyadic import dyadic as exact
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import weights
from reference import analog
from test_conformance import BACKENDS, assert_same
from test_keras_gates import read
from test_lower_matmul import attention

import snnc
from snnc import ir
from snnc.ir import Connection, Network, Origin, Population
from snnc.passes import Canonicalise, Context, LowerProducts, run
from snnc.passes.conversion import giving_outputs
from snnc.passes.instruments import CheckEquivalence
from snnc.profile import profile

IMAGE = (2, 4, 2)
X = {"x": weights(11, 12, *IMAGE)}


PRODUCT = ir.Product()


def gated(
    shape=(2, 4, 5), neuron=PRODUCT, deep=True, broadcast=False, output=True, biases=(None, None), drawn=weights
) -> Network:
    """A product of an image and what a rectifier makes of it, by a gate that is `deep`, or as deep as the rectifier.

    Images may have one gate for all positions. The product is an output if asked for, and two populations read it.
    """
    channels, flat = shape[-1], len(shape) == 1
    one = (1, 1, channels) if broadcast and not flat else shape
    repeated = (ir.Pick(np.broadcast_to(np.arange(channels), shape)),) if one != shape else ()
    source = "maps" if deep else "x"

    def reached(seed: int, source: str, size: ir.Shape) -> tuple[ir.Operator, ...]:
        given = shape if source == "maps" else IMAGE
        if flat:
            return (ir.Dense(drawn(seed, int(np.prod(given)), channels, scale=0.5)),)
        pool = (ir.AveragePool2D((2, 4), (2, 4)),) if size != shape else ()
        return *pool, ir.Conv2D(drawn(seed, 1, 1, given[-1], channels))

    populations = [
        Population("x", IMAGE, ir.Input()),
        Population("maps", shape, ir.Relu(), drawn(1, channels)),
        Population("gate", one, ir.Relu() if deep else ir.Clip(2.0), drawn(2, channels)),
        Population("y", shape, neuron, biases[0], Origin(("gate", "times")), biases[1]),
        Population("z", (3,), ir.Identity(), drawn(3, 3)),
    ]
    connections = [
        Connection("x", "maps", reached(4, "x", shape)),
        Connection(source, "gate", reached(5, source, one), origin=Origin(("squeeze",))),
        Connection("maps", "y", origin=Origin(("keep",))),
        Connection("x", "y", reached(6, "x", shape)),
        Connection("gate", "y", repeated, port=1),
        Connection("maps", "y", (ir.Scale(drawn(7, channels)),), port=1),
        Connection("y", "z", (ir.Dense(drawn(8, int(np.prod(shape)), 3)),), origin=Origin(("dense",))),
        Connection("maps", "z", (ir.Dense(drawn(9, int(np.prod(shape)), 3)),)),
    ]
    return Network(populations, connections, ["x"], ["y", "z"] if output else ["z"])


def squared(network: Network, more: float = 0.0) -> Network:
    """The same with what is at the first port of the product at both, at the second with so much more bias."""
    first = [replace(edge, port=1) for edge in network.incoming("y", 0)]
    others = [edge for edge in network.connections if (edge.target, edge.port) != ("y", 1)]
    y = network.populations["y"]
    bias = None if y.bias is None else y.bias + more
    populations = network.populations | {"y": replace(y, second_bias=bias)}
    return network.replace(populations=populations, connections=[*others, *first])


def context(images=X) -> Context:
    return Context(lambda network, x: snnc.compile(network).activations(x, progress=False), images)


def lowered(network: Network, images=X) -> Network:
    return run([Canonicalise(), LowerProducts()], network, context(images))


def neurons(network: Network) -> dict[str, str]:
    """Which neuron each population has, but for what the networks here have in common."""
    others = {name: p.neuron for name, p in network.populations.items() if name not in ("x", "maps", "gate", "z")}
    return {name: getattr(neuron, "function", type(neuron).__name__) for name, neuron in others.items()}


@st.composite
def networks(draw: st.DrawFn) -> Network:
    shape = draw(st.sampled_from([(2, 4, 5), (2, 4, 1), (6,), (1,)]))
    biases = [draw(st.sampled_from([None, weights(20, *shape), weights(21, shape[-1])])) for _ in range(2)]
    function = draw(st.sampled_from(["identity", "identity", "sigmoid", "square", "silu"]))
    network = gated(shape, ir.Product(function, 1.5), *(draw(st.booleans()) for _ in range(3)), biases)
    return squared(network) if draw(st.booleans()) else network


@settings(max_examples=80, derandomize=True, deadline=None)
@given(networks(), st.booleans())
def test_lowering_keeps_the_function(network, calibrated):
    squares = lowered(network, X if calibrated else None)
    assert not [p for p in squares.populations.values() if isinstance(p.neuron, ir.Product)]
    x = {"x": X["x"].astype(np.float64)}
    before, after = analog(network, x), analog(squares, x)
    for name in network.outputs:
        np.testing.assert_allclose(after[name], before[name], rtol=0, atol=1e-5 * np.abs(before[name]).max())


@pytest.mark.parametrize("function", ["identity", "rsqrt", "reciprocal"])
def test_the_instrument_holds_it_to_the_function(function):
    network = gated(neuron=ir.Product(function), biases=(weights(9, 5), weights(10, *IMAGE[:2], 5) + 40))
    run([Canonicalise(), LowerProducts()], network, context(), [CheckEquivalence(X)])
    assert LowerProducts.keeps_function


def test_text(assert_golden):
    biased = gated(output=False, biases=(exact(9, 5), exact(10, 2, 4, 5)), drawn=exact_weights)
    assert_golden(lowered(biased, None), "lower-products")
    assert_golden(lowered(gated((6,), ir.Product("rsqrt"), drawn=exact_weights), None), "lower-products-at-an-output")


def exact_weights(seed: int, *shape: int, scale: float = 0.5) -> np.ndarray:
    """Weights of so few bits that products of what they sum are exact."""
    return exact(seed, *shape, limit=0.5, step=1 / 4)


def test_a_product_with_itself_is_one_square():
    biases = weights(9, 5), None
    assert neurons(lowered(squared(gated(output=False, biases=biases)))) == {"y": "square"}
    assert neurons(lowered(squared(gated(biases=biases)))) == {"y/square": "square", "y": "Identity"}
    two = {"y/sum": "square", "y/difference": "square"}
    assert neurons(lowered(squared(gated(output=False, biases=biases), 0.5))) == two
    sigmoid = squared(gated(neuron=ir.Product("sigmoid"), output=False))
    assert neurons(lowered(sigmoid)) == {"y/sigmoid": "sigmoid"} | two


@pytest.mark.parametrize("b", [(0, 0), (0, 1)])
def test_factors_that_have_no_spread_or_no_end_are_left_at_their_scale(b):
    network = of_two(ir.Product("reciprocal" if any(b) else "identity"))
    squares = lowered(network, grid((-3, 3), b, 2))
    for half in ("sum", "difference"):
        (edge,) = (edge for edge in squares.incoming(f"y/{half}") if edge.source == "a")
        assert edge.operators[0].factor == 0.5


def test_networks_without_them_are_handed_on():
    network = lowered(gated())
    assert run([LowerProducts()], network, Context()) is network


# To rectifiers.


def of_two(neuron=PRODUCT) -> Network:
    """The product of two inputs."""
    inputs = [Population(name, (1,), ir.Input()) for name in ("a", "b")]
    edges = [Connection("a", "y"), Connection("b", "y", port=1)]
    return Network([*inputs, Population("y", (1,), neuron)], edges, ["a", "b"], ["y"])


def grid(a: tuple[float, float], b: tuple[float, float], points: int) -> dict[str, np.ndarray]:
    """Every pair of numbers in two ranges, the ends included."""
    every = np.meshgrid(np.linspace(*a, points), np.linspace(*b, points))
    return {name: values.reshape(-1, 1) for name, values in zip("ab", every, strict=True)}


@pytest.mark.parametrize(
    ("a", "b", "pieces"),
    [((-1, 1), (-1, 1), 16), ((-30, 50), (0.2, 0.9), 16), ((-0.01, 0.02), (-7, -5), 8), ((0, 3), (99, 101), 12)],
)
def test_rectifiers_in_place_of_products_keep_their_certified_error(a, b, pieces):
    pipeline = f"canonicalise,lower-products,lower-functions{{pieces={pieces}}}"
    after = snnc.run_pipeline(of_two(), pipeline, calibration=grid(a, b, 2), progress=False)
    bound = sum(p.origin.error for p in after.populations.values() if p.origin.function == "square")
    x = grid(a, b, 401)
    real = np.abs(analog(after, x)["y"] - x["a"] * x["b"]).max()
    assert real <= bound + 1e-5 * np.abs(x["a"] * x["b"]).max()
    assert bound <= 2 * real
    assert bound <= 1.35 * np.ptp(a) * np.ptp(b) / (4 * pieces**2)  # twice a margin of 10 %, and digits rounded up


# To spikes.


@pytest.mark.parametrize("pipeline", ["data-norm", "spike-norm"])
def test_rate_codes_say_which_passes_help(pipeline):
    for network, layers, passes in (
        (gated(), "gate, times", "lower-products,lower-functions"),
        (attention(), "attend", "lower-matmul,lower-products,lower-functions"),
    ):
        images = weights(11, 12, *network.populations["x"].shape)
        with pytest.raises(ir.UnsupportedModelError, match=rf"from {layers}\).*run {passes} before {pipeline}"):
            snnc.convert(network, pipeline, calibration=images, timesteps=4, progress=False)
        snn = snnc.convert(network, f"{passes},{pipeline}", calibration=images, timesteps=4, progress=False)
        assert {type(p.neuron).__name__ for p in snn.populations.values() if p.neuron.fires} == {"IntegrateFire"}


def spiking(network: Network) -> Network:
    """Few-spike neurons whose arithmetic is exact in the place of the analog ones."""

    def neuron(old: ir.Neuron) -> ir.Neuron:
        match old:
            case ir.Input():
                return ir.GradedInput()
            case ir.Identity():
                return ir.FewSpikeReadout()
            case ir.Function():
                return ir.FewSpikeFunction(7, 4.0, 1 / 64, old, signed=False)
        return ir.FewSpike(3, 2.0, 1 / 8)

    populations = [replace(p, neuron=neuron(p.neuron)) for p in network.populations.values()]
    return dyadic.spiking(populations, network.connections, network.inputs, network.outputs, timesteps=7)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(2, 4, 5), (6,)])
def test_backends_agree_spike_for_spike_on_squares(shape, backend):
    network = spiking(lowered(gated(shape, broadcast=True, drawn=exact_weights), None))
    images = dyadic.images(network)
    compiled = snnc.compile(network, backend)
    for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1]):
        shown = {"x": images["x"][order]}
        assert_same(compiled.simulate(shown, record=True), naive.simulate(network, shown))


def drawn() -> tuple[Network, np.ndarray]:
    return gated(broadcast=True), X["x"]


def squeezed() -> tuple[Network, np.ndarray]:
    return read("squeeze-excitation", 40)[:2]


@pytest.mark.parametrize("build", [drawn, squeezed])
def test_the_engine_steps_rectifiers_in_place_of_products_as_the_equations_say(build):
    """All but few spikes: sums of floats differ in their last bit, and a bit decides at a threshold."""
    network, images = build()
    pipeline = "lower-products,lower-functions{pieces=8},data-norm{per-channel=true}"
    snn = snnc.convert(network, pipeline, calibration=images, timesteps=24, progress=False)
    shown = {network.inputs[0]: images[:3]}
    ours, theirs = snnc.compile(snn).simulate(shown, record=True), naive.simulate(snn, shown)
    apart = sum((ours.trains[name] != trains).sum() for name, trains in theirs.trains.items())
    assert apart <= 1e-4 * sum(trains.size for trains in theirs.trains.values())
    assert sum(trains.sum() for trains in theirs.trains.values()) > 8_000


def test_squeeze_and_excitation_converges_on_integrate_and_fire_neurons():
    network, images, expected = read("squeeze-excitation", 200)
    errors = {}
    for timesteps in (16, 64, 256):
        pipeline = "lower-products,lower-functions{pieces=32},data-norm"
        snn = snnc.convert(network, pipeline, calibration=images, timesteps=timesteps, progress=False)
        found = snnc.compile(snn).predict(images[:32], progress=False)
        errors[timesteps] = np.abs(found - expected[:32]).mean() / np.abs(expected).mean()
    assert errors[16] > 1.5 * errors[64] > 2 * errors[256]
    assert errors[256] < 0.02


def test_outputs_are_not_clipped():
    pipeline = "canonicalise,lower-products,lower-functions{pieces=4}"
    network = snnc.run_pipeline(gated(), pipeline, calibration=X, progress=False)
    parts = {name for name in network.populations if name.startswith("y")}
    assert {"y", "y/sum/pieces", "y/difference/pieces"} <= parts
    assert giving_outputs(network) == parts | {"z"}


def test_profiles_take_no_square_for_the_product():
    snn = snnc.convert(gated(output=False), "lower-products,few-spike{k=8}", calibration=X, progress=False)
    found = profile(gated(output=False), snn, X, progress=False)
    assert [layer.population for layer in found.layers] == ["maps", "gate", "z"]
    assert (found.only_analog, found.only_spiking) == (("y",), ("y/difference", "y/sum"))
    assert found.layers[-1].mean_error < 0.02 * found.layers[-1].mean_activation


@pytest.mark.parametrize("name", ["layer norm", "causal attention"])
def test_all_that_keras_multiplies_becomes_rectifiers(name):
    """With four times as many the error is a sixteenth; and integrate-and-fire neurons take them."""
    network, images, expected = read(name, 64)
    errors = []
    for pieces in (8, 32):
        pipeline = f"{snnc.LOWERING},lower-matmul,lower-products,lower-functions{{pieces={pieces}}}"
        lower = snnc.run_pipeline(network, f"canonicalise,{pipeline}", calibration=images, progress=False)
        found = snnc.compile(lower).predict(images, progress=False)
        errors.append(np.abs(found - expected).mean() / np.abs(expected).mean())
    assert errors[0] < 0.1
    assert errors[1] < errors[0] / 10
    snn = snnc.convert(network, f"{pipeline},data-norm", calibration=images, timesteps=4, progress=False)
    assert {type(p.neuron).__name__ for p in snn.populations.values() if p.neuron.fires} == {"IntegrateFire"}
