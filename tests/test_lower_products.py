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
from snnc.passes.expansion import expansion
from snnc.passes.instruments import CheckEquivalence
from snnc.profile import profile

IMAGE = (3, 4, 2)
X = {"x": weights(11, 12, *IMAGE)}


def gated(
    shape=(3, 4, 5), neuron=ir.Product(), deep=True, broadcast=False, output=True, biases=(None, None), drawn=weights
) -> Network:
    """A product of an image and what a rectifier makes of it, by a gate that is `deep`, or no deeper than the rectifier.

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
        pool = (ir.AveragePool2D((3, 4), (3, 4)),) if size != shape else ()
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
    shape = draw(st.sampled_from([(3, 4, 5), (3, 4, 1), (6,), (1,)]))
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
    network = gated(neuron=ir.Product(function), biases=(weights(9, 5), weights(10, 3, 4, 5) + 40))
    run([Canonicalise(), LowerProducts()], network, context(), [CheckEquivalence(X)])
    assert LowerProducts.keeps_function


def test_text(assert_golden):
    biased = gated(output=False, biases=(exact(9, 5), exact(10, 3, 4, 5)), drawn=exact_weights)
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


def test_networks_without_them_are_handed_on():
    network = lowered(gated())
    assert run([LowerProducts()], network, Context()) is network


# To rectifiers.


def of_two(neuron=ir.Product()) -> Network:
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
    after = snnc.run_pipeline(
        of_two(), f"canonicalise,lower-products,lower-functions{{pieces={pieces}}}", calibration=grid(a, b, 2), progress=False
    )
    ratio = np.sqrt(np.ptp(b) / np.ptp(a))
    bounds = []
    for sign in (-1, 1):
        ends = [(ratio * x + sign * y / ratio) / 2 for x in a for y in b]
        margin = 0.05 * np.ptp(ends)
        bounds.append(expansion("square", 1.0, pieces, min(ends) - margin, max(ends) + margin).bound)
    x = grid(a, b, 401)
    real = np.abs(analog(after, x)["y"] - x["a"] * x["b"]).max()
    assert real <= sum(bounds) + 1e-5 * np.abs(x["a"] * x["b"]).max()
    assert sum(bounds) <= 2 * real
    assert sum(bounds) <= 1.25 * np.ptp(a) * np.ptp(b) / (4 * pieces**2)
