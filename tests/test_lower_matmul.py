"""Products of matrices as products of numbers: the same function, and spikes that backends agree on."""

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

import snnc
from snnc import ir
from snnc.ir import Connection, Network, Origin, Population
from snnc.passes import Canonicalise, Context, LowerMatMul, known_passes, run
from snnc.passes.instruments import CheckEquivalence

IMAGE = (2, 3, 4)


def lowered(network: Network) -> Network:
    return run([Canonicalise(), LowerMatMul()], network, Context())


def attention(
    sizes=(2, 3, 2, 4), weighted=(True, False), read=True, output=True, biases=(None, None), drawn=weights
) -> Network:
    """A product of two matrices, (B, M, N, K) being `sizes`, of what is picked from an image, and of a rectifier.

    `weighted` says which port takes an edge with weights, too; `read` whether such an edge reads the product. At an
    `output` there is also one that only moves it.
    """
    batch, rows, columns, inner = sizes
    left, right, shape = (batch, rows, inner), (batch, inner, columns), (batch, rows, columns)
    populations = [
        Population("x", IMAGE, ir.Input()),
        Population("maps", IMAGE, ir.Relu(), drawn(1, 4)),
        Population("y", shape, ir.MatMul(left, right), biases[0], Origin(("attend",)), second_bias=biases[1]),
        Population("z", (3,), ir.Identity(), drawn(2, 3)),
    ]
    conv = ir.Conv2D(drawn(3, 1, 1, 4, 4))
    connections = [Connection("x", "maps", (conv,), origin=Origin(("conv",)))]
    for port, matrix in enumerate((left, right)):
        places = ir.Pick(np.arange(np.prod(matrix)).reshape(matrix) * 5 % 24)
        connections.append(Connection("maps", "y", (places,), port=port))
        connections.append(Connection("x", "y", (ir.Scale(drawn(5, 4)), places), port=port))
        if weighted[port]:
            connections.append(Connection("x", "y", (ir.Conv2D(drawn(6 + port, 1, 1, 4, 4)), places), port=port))
    flat = ir.Dense(drawn(8, int(np.prod(shape)), 3)) if read else ir.Pick(np.arange(3) % int(np.prod(shape)))
    connections.append(Connection("y", "z", (flat,), origin=Origin(("dense",))))
    return Network(populations, connections, ["x"], ["y", "z"] if output else ["z"])


@st.composite
def attentions(draw: st.DrawFn) -> Network:
    sizes = draw(st.tuples(*[st.integers(1, 4)] * 4))
    flags = draw(st.tuples(*[st.booleans()] * 4))
    batch, rows, columns, inner = sizes
    of = [(batch, rows, inner), (batch, inner, columns)]
    biases = [draw(st.sampled_from([None, weights(9, *shape), weights(10, shape[2])])) for shape in of]
    return attention(sizes, flags[:2], flags[2], flags[3], biases)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(attentions())
def test_lowering_keeps_the_function(network):
    products = lowered(network)
    assert not [p for p in products.populations.values() if isinstance(p.neuron, ir.MatMul)]
    x = {"x": weights(11, 5, *IMAGE).astype(np.float64)}
    before, after = analog(network, x), analog(products, x)
    for name in network.outputs:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-6, atol=1e-6)


def test_the_instrument_holds_it_to_the_function():
    network = attention(biases=(weights(9, 4), weights(10, 2, 4, 2)))
    images = {"x": weights(11, 5, *IMAGE)}
    context = Context(lambda network, x: snnc.compile(network).activations(x, progress=False), images)
    run([Canonicalise(), LowerMatMul()], network, context, [CheckEquivalence(images)])
    assert LowerMatMul.keeps_function


def test_text(assert_golden):
    assert_golden(lowered(attention(output=False, biases=(exact(9, 4), exact(10, 2)), drawn=exact)), "lower-matmul")
    assert_golden(lowered(attention(read=False, weighted=(False, False), drawn=exact)), "lower-matmul-at-an-output")


def neurons(network: Network) -> dict[str, str]:
    return {name: type(population.neuron).__name__ for name, population in network.populations.items()}


def test_what_has_weights_is_settled_rather_than_repeated():
    plain = {"x": "Input", "maps": "Relu", "y/products": "Product", "z": "Identity"}
    assert neurons(lowered(attention(weighted=(False, False), read=False, output=False))) == plain
    left, both = neurons(lowered(attention())), neurons(lowered(attention(weighted=(True, True), read=False)))
    assert left == plain | {"y/left": "Function", "y/sum": "Function", "y": "Identity"}
    assert both == plain | {"y/left": "Function", "y/right": "Function", "y": "Identity"}
    once = lowered(attention((2, 3, 1, 4), output=False))  # one column, so that the matrix on the left is not repeated
    assert neurons(once) == plain | {"y": "Function"}


def test_networks_without_them_are_handed_on():
    network = lowered(attention())
    assert run([LowerMatMul()], network, Context()) is network


def test_what_would_fit_no_memory_is_refused_by_name():
    vast = (12, 200, 200, 64)
    left, right = (12, 200, 64), (12, 64, 200)
    populations = [Population("x0", left, ir.Input()), Population("x1", right, ir.Input())]
    connections = []
    for layer in ("block1/scores", "block2/scores", "block3/scores"):
        populations.append(Population(layer, (12, 200, 200), ir.MatMul(left, right), origin=Origin((layer,))))
        connections += [Connection(f"x{port}", layer, port=port) for port in range(2)]
    network = Network(populations, connections, ["x0", "x1"], [p.name for p in populations[2:]])
    with pytest.raises(ir.UnsupportedModelError) as caught:
        lowered(network)
    count = np.prod(vast)
    assert f"would make {3 * count:,} products, which take 19.2 GiB" in str(caught.value)
    assert caught.value.problems[1] == (
        f"block2/scores (MatMul, from block2/scores): 12·200·200·64 = {count:,} products, 6.4 GiB"
    )
    assert known_passes()["lower-matmul"]().largest > count
    with pytest.raises(ir.PipelineError, match="largest is 0"):
        LowerMatMul(largest=0)


# To spikes.


def spiking(network: Network) -> Network:
    """Few-spike neurons whose arithmetic is exact in the place of the analog ones."""
    code = (4, 4.0, 1 / 8)

    def neuron(old: ir.Neuron) -> ir.Neuron:
        match old:
            case ir.Input():
                return ir.GradedInput()
            case ir.Relu():
                return ir.FewSpike(3, 2.0, 1 / 8)
            case ir.Identity():
                return ir.FewSpikeReadout()
        return ir.FewSpikeFunction(*code, old)

    populations = [replace(p, neuron=neuron(p.neuron)) for p in network.populations.values()]
    return dyadic.spiking(populations, network.connections, network.inputs, network.outputs, timesteps=5)


def small(seed: int, *shape: int) -> np.ndarray:
    """Weights of so few bits that products of what they sum are exact."""
    return exact(seed, *shape, limit=0.5, step=1 / 4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weighted", [(False, False), (True, True)])
def test_backends_agree_spike_for_spike(weighted, backend):
    biases = small(9, 4), small(10, 2, 4, 2)
    network = spiking(lowered(attention(weighted=weighted, biases=biases, drawn=small)))
    images = dyadic.images(network)
    compiled = snnc.compile(network, backend)
    for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1]):
        shown = {"x": images["x"][order]}
        assert_same(compiled.simulate(shown, record=True), naive.simulate(network, shown))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_converted_follows_the_analog_network(backend):
    network = attention(biases=(weights(9, 4), None))
    images = weights(11, 200, *IMAGE)
    expected = snnc.compile(network).predict(images)
    snn = snnc.convert(network, "canonicalise,lower-matmul,few-spike{k=10}", calibration=images)
    found = snnc.compile(snn, backend).predict(images[:20])
    for name in network.outputs:
        assert np.abs(found[name] - expected[name][:20]).mean() < 0.01 * np.abs(expected[name]).mean()


def test_genn_refuses_matrices_and_says_how_large_they_are():
    images = weights(11, 20, *IMAGE)
    snn = snnc.convert(attention(), calibration=images)
    for ask in (snnc.backend.mlgenn.plan, snnc.backend.mlgenn.compile):
        with pytest.raises(ir.BackendError, match="run lower-matmul before the conversion") as caught:
            ask(snn)
        assert "'y' (from attend): 2·3·2·4 = 48 products, 10.5 KiB" in str(caught.value)
