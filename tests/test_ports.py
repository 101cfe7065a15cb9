"""Neurons of several summed inputs: products of activations, number by number and as matrices."""

from dataclasses import replace

import dyadic
import naive
import numpy as np
import pytest
from dyadic import dyadic as weights
from test_conformance import BACKENDS, assert_same

import snnc
from snnc import ir


def analog(neuron, shapes, size, second_bias=None, bias=None):
    """A neuron of two ports, each with an input of its own."""
    populations = [ir.Population(f"x{port}", shape, ir.Input()) for port, shape in enumerate(shapes)]
    populations.append(ir.Population("y", size, neuron, bias, second_bias=second_bias))
    connections = [ir.Connection(f"x{port}", "y", port=port) for port in range(len(shapes))]
    return ir.Network(populations, connections, ["x0", "x1"], ["y"])


def images(*shapes, count=3):
    random = np.random.default_rng(1)
    return {f"x{port}": random.normal(0, 2, (count, *shape)).astype(np.float32) for port, shape in enumerate(shapes)}


@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), (2, 3, 16)])
def test_products_are_computed_number_by_number(shape):
    bias, second = weights(1, *shape), weights(2, shape[-1])
    network = analog(ir.Product(), [shape, shape], shape, second, bias)
    x = images(shape, shape)
    expected = (x["x0"] + bias) * (x["x1"] + second)
    np.testing.assert_allclose(snnc.compile(network).predict(x), expected, rtol=1e-5, atol=1e-6)


def test_matrices_are_multiplied_batch_by_batch():
    left, right = (3, 4, 6), (3, 6, 5)
    bias, second = weights(1, 6), weights(2, *right)
    network = analog(ir.MatMul(left, right), [left, right], (3, 4, 5), second, bias)
    x = images(left, right)
    expected = np.einsum("ibmk,ibkn->ibmn", x["x0"] + bias, x["x1"] + second)
    np.testing.assert_allclose(snnc.compile(network).predict(x), expected, rtol=1e-5, atol=1e-5)


def exact(matrices=True, channels=16):
    """A few-spike network of products, from sources of different depth, of images, of vectors, and of matrices."""
    k, size = 7, (3, 4, channels)
    alphas = 2.0 ** (np.arange(channels) % 4)
    populations = [
        ir.Population("image", (3, 4, 2), ir.GradedInput()),
        ir.Population("events", (6,), ir.FewSpikeInput(4, 1.0, 1 / 32, signed=True)),
        ir.Population("maps", size, ir.FewSpike(k, alphas, alphas / 256), weights(1, channels, limit=0.25)),
        ir.Population(
            "gated",
            size,
            ir.FewSpikeFunction(k, alphas * 2, 0.0, ir.Product()),
            weights(2, channels, limit=0.25),
            second_bias=weights(3, *size, limit=0.25),
        ),
        ir.Population("flat", (5,), ir.FewSpikeFunction(5, 4.0, 1 / 16, ir.Product(), signed=False)),
        ir.Population("y", (3,), ir.FewSpikeReadout(), weights(4, 3)),
    ]
    conv = ir.Conv2D(weights(5, 3, 3, 2, channels, step=1 / 16), padding=((1, 1), (1, 1)))
    connections = [
        ir.Connection("image", "maps", (conv,)),
        ir.Connection("maps", "gated"),
        ir.Connection("image", "gated", (ir.Conv2D(weights(6, 1, 1, 2, channels, step=1 / 16)),), port=1),
        ir.Connection("maps", "gated", (ir.Scale(weights(7, channels)),), port=1),
        ir.Connection("events", "flat", (ir.Dense(weights(8, 6, 5, step=1 / 16)),)),
        ir.Connection("maps", "flat", (ir.Flatten(), ir.Dense(weights(9, channels * 12, 5, step=1 / 16))), port=1),
        ir.Connection("flat", "y", (ir.Dense(weights(10, 5, 3, step=1 / 16)),)),
        ir.Connection("gated", "y", (ir.Flatten(), ir.Dense(weights(11, channels * 12, 3, step=1 / 16)))),
    ]
    if matrices:
        multiply = ir.FewSpikeFunction(6, 16.0, 1 / 8, ir.MatMul((3, 4, channels), (3, channels, 4)))
        populations.append(ir.Population("scores", (3, 4, 4), multiply))
        turned = np.arange(12 * channels).reshape(size).transpose(0, 2, 1)
        connections += [
            ir.Connection("gated", "scores"),
            ir.Connection("maps", "scores", (ir.Pick(turned),), port=1),
            ir.Connection("scores", "y", (ir.Flatten(), ir.Dense(weights(12, 48, 3, step=1 / 16)))),
        ]
    return dyadic.spiking(populations, connections, ["image", "events"], ["flat", "y"], timesteps=k)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [4, 16])
def test_backends_agree_spike_for_spike_on_products(backend, channels):
    network = exact(matrices=backend == "onnxruntime", channels=channels)
    shown = dyadic.images(network, count=4)
    compiled = snnc.compile(network, backend)
    for order in ([0, 1, 2, 3], [3, 0, 2, 1]):
        some = {key: x[order] for key, x in shown.items()}
        assert_same(compiled.simulate(some, record=True), naive.simulate(network, some))


def test_networks_with_ports_are_kept_printed_and_compared(tmp_path):
    network = exact()
    snnc.save(network, tmp_path / "net.snn")
    assert snnc.load(tmp_path / "net.snn") == network
    assert ir.diff(ir.parse(str(network), ir.arrays_of(network)), network) == ()
    assert "maps -> gated port=1: Scale(" in str(network)
    moved = network.replace(connections=[replace(connection, port=0) for connection in network.connections])
    assert any("port=1" in str(difference) for difference in ir.diff(network, moved))
    faults = " ".join(ir.faults(moved, "spiking"))
    assert "population 'flat': has no incoming connections at port 1, and no bias" in faults
    assert "'gated'" not in faults  # which has a bias there


def constant(neuron, port, shapes, size, each):
    """A neuron one port of which has no connections, only a bias, per position or per channel."""
    biases = [weights(1, *shapes[port]), weights(2, shapes[port][-1])]
    network = analog(neuron, shapes, size, **{("bias", "second_bias")[port]: biases[each]})
    source = f"x{1 - port}"
    return network.replace(
        populations=[network.populations[source], network.populations["y"]],
        connections=[edge for edge in network.connections if edge.source == source],
        inputs=[source],
    )


PRODUCTS = {
    "flat": (ir.Product("abs"), [(5,), (5,)], (5,)),
    "image": (ir.Product(), [(3, 4, 16)] * 2, (3, 4, 16)),
    "matrices": (ir.MatMul((3, 4, 6), (3, 6, 5)), [(3, 4, 6), (3, 6, 5)], (3, 4, 5)),
}


@pytest.mark.parametrize("each", [0, 1], ids=["per position", "per channel"])
@pytest.mark.parametrize("port", [0, 1])
@pytest.mark.parametrize(("neuron", "shapes", "size"), PRODUCTS.values(), ids=PRODUCTS)
def test_a_port_may_have_a_bias_alone(neuron, shapes, size, port, each):
    network = constant(neuron, port, shapes, size, each)
    y, source = network.populations["y"], f"x{1 - port}"
    x = images(*shapes)[source]
    of_port = [
        np.zeros((1, *shape), np.float32) if bias is None else bias + np.zeros((1, *shape)) for shape, bias in y.ports
    ]
    of_port[1 - port] = x
    expected = neuron.apply(*of_port)
    np.testing.assert_allclose(snnc.compile(network).predict({source: x}), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("port", [0, 1])
@pytest.mark.parametrize("phased", [True, False], ids=["few-spike", "tracking"])
@pytest.mark.parametrize("kind", PRODUCTS)
def test_backends_agree_spike_for_spike_where_a_port_has_a_bias_alone(kind, phased, port, backend):
    neuron, shapes, size = PRODUCTS[kind]
    if backend == "mlgenn" and kind == "matrices":
        pytest.skip("GeNN multiplies no matrices")
    network = constant(neuron, port, shapes, size, each=1)
    (x, y) = network.populations.values()
    spiking = ir.FewSpikeFunction(4, 2.0, 1 / 16, neuron) if phased else ir.Tracking(0.25, 0.125, 2, neuron)
    graded = ir.GradedInput() if phased else ir.CurrentInput()
    populations = [replace(x, neuron=graded), replace(y, neuron=spiking)]
    timesteps = 4 if phased else 2  # a mean over three steps is not exact
    network = dyadic.spiking(populations, network.connections, network.inputs, network.outputs, timesteps)
    shown = dyadic.images(network, count=4)
    expected = naive.simulate(network, shown)
    assert_same(snnc.compile(network, backend).simulate(shown, record=True), expected)
    assert expected.trains["y"].any()


def test_ports_that_are_not_there_are_faults():
    shape = (4,)
    network = analog(ir.Product(), [shape, shape], shape)
    assert not ir.faults(network, "analog")
    first, second = network.connections
    wrong = network.replace(connections=[first, replace(second, port=2)])
    assert "there is no port 2: Product has 2" in " ".join(ir.faults(wrong, "analog"))
    plain = network.replace(
        populations=[network.populations["x0"], ir.Population("y", shape, ir.Relu(), second_bias=np.ones(4))],
        connections=[first],
        inputs=["x0"],
    )
    assert "has a bias for a second port, which Relu has not" in " ".join(ir.faults(plain, "analog"))
    matrices = analog(ir.MatMul((1, 2, 3), (1, 4, 2)), [(1, 2, 3), (1, 4, 2)], (1, 2, 2))
    assert "MatMul cannot multiply matrices of shapes (1, 2, 3) and" in " ".join(ir.faults(matrices, "analog"))


def test_files_say_nothing_of_ports_that_are_at_their_default(tmp_path):
    """Networks of rectifiers are written as ever."""
    shape = (4,)
    plain = ir.Network(
        [ir.Population("x", shape, ir.Input()), ir.Population("y", shape, ir.Relu(), np.ones(4))],
        [ir.Connection("x", "y")],
        ["x"],
        ["y"],
    )
    snnc.save(plain, tmp_path / "net.snn")
    content = (tmp_path / "net.snn").read_bytes()
    assert b"port" not in content
    assert b"second_bias" not in content
    older = content.replace(b'\\"version\\":2', b'\\"version\\":1')
    assert older != content
    (tmp_path / "old.snn").write_bytes(older)
    assert snnc.load(tmp_path / "old.snn") == plain


def test_products_are_converted_to_few_spikes():
    shape = (2, 3, 8)
    network = analog(ir.Product(), [shape, shape], shape, weights(1, 8), weights(2, *shape))
    x = images(shape, shape, count=64)
    spiking = snnc.convert(network, calibration=x)
    expected = snnc.compile(network).predict(x)
    found = snnc.compile(spiking).predict(x)
    assert np.abs(found - expected).mean() < 0.01 * np.abs(expected).mean()
    with pytest.raises(ir.UnsupportedModelError, match=r"y \(Product"):
        snnc.convert(network, "data-norm", calibration=x, timesteps=8)
