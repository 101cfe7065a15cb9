"""GeNN on a GPU gives the spikes of the naive simulator, whatever the size of the batch.

Without a GPU: python tests/cuda_emulation/emulate.py python -m pytest tests/test_cuda.py
"""

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import dyadic
import naive
import numpy as np
import pytest
from dyadic import dyadic as weights
from hypothesis import Phase, given, settings
from networks import every_function
from scipy.stats import binom
from test_conformance import assert_same, poisson
from test_genn_options import every_edge, into_second_ports

import snnc
from snnc import ir
from snnc.backend.mlgenn import gpu

try:
    gpu.require()
except (ImportError, ir.BackendError) as fault:
    pytest.skip(f"no GPU that works: {fault}", allow_module_level=True)

from ml_genn.compilers.compiled_network import CompiledNetwork

from snnc.converters import DataNorm, FewSpike, Simple


def run(network, images, batch, **options):
    """What GeNN does with the images, and that it is right."""
    compiled = snnc.compile(network, "mlgenn", device="gpu", batch_size=batch, **options)
    assert_same(compiled.simulate(images, record=True), naive.simulate(network, images))
    return compiled


@pytest.mark.parametrize(("batch", "images"), [(1, 3), (3, 7), (33, 40)], ids=["batch1", "batch3", "batch33"])
@pytest.mark.parametrize("build", dyadic.NETWORKS.values(), ids=dyadic.NETWORKS)
def test_every_image_of_every_batch_has_its_own_spikes(build, batch, images):
    network = build()
    run(network, dyadic.images(network, images), batch)


def test_functions_are_said_to_within_a_step():
    """Half a step is rounded off; the rest is for the GPU's quick arithmetic."""
    network, shown, values = every_function(8)
    found = snnc.compile(network, "mlgenn", device="gpu", batch_size=len(shown)).predict(shown, progress=False)
    for name, expected in values.items():
        step = network.populations[name].neuron.alpha / 2**8
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=step, err_msg=name)


@pytest.mark.parametrize("batch", [1, 3, 33], ids=["batch1", "batch3", "batch33"])
@settings(max_examples=10, derandomize=True, deadline=None, phases=[Phase.generate])  # each is a build of seconds
@given(network=dyadic.networks())
def test_random_graphs(batch, network):
    run(network, dyadic.images(network), batch)


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
@pytest.mark.parametrize("late", [False, True])
def test_tensorflow_does_not_answer_for_cuda(late):
    """Its libraries, if they are there first, have functions of the same names; who imports pygenn then is told."""
    code = (
        f"import tensorflow{', pygenn' if late else ''}, dyadic, snnc; network = dyadic.NETWORKS['few_spike_1']();"
        "compiled = snnc.compile(network, 'mlgenn', device='gpu'); compiled.simulate(dyadic.images(network))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == late, done.stdout + done.stderr
    assert late == ("BackendError: pygenn was imported after TensorFlow" in done.stderr)


# matrix types

SOURCES = {  # what spikes count as: a current, 1, a sign, a power of two, anything
    "current": ir.CurrentInput(),
    "spikes": ir.IntegrateFire(0.5, 0.25),
    "signs": ir.IntegrateFireInput(0.5, signed=True, v_init=0.25),
    "bits": ir.FewSpike(4, 1.0, 1 / 32),
    "graded": ir.GradedInput(),
}
RATE = ir.CurrentInput(), ir.IntegrateFire(1.5, 0.5), ir.Integrate()
PHASED = ir.GradedInput(), ir.FewSpike(3, 2.0), ir.FewSpikeReadout()
CONVOLUTIONS = {  # which can be Toeplitz matrices, too
    "valid": (ir.Conv2D(weights(9, 3, 2, 4, 4)),),
    "padded": (ir.Conv2D(weights(10, 3, 3, 4, 4), padding=dyadic.SAME_3X3),),
    "even": (ir.Conv2D(weights(11, 2, 4, 4, 4), padding=((1, 0), (2, 1))),),
}
EDGES = {edge.target: edge.operators for edge in every_edge().connections if edge.source == "s"} | CONVOLUTIONS
KERNELS = ("plain", "asymmetric", "strided", *CONVOLUTIONS)  # which can be PROCEDURAL


def fan_of(neuron: ir.SpikingNeuron, shape: ir.Shape, edges: dict[str, tuple[ir.Operator, ...]]) -> ir.Network:
    """One output for each of the edges, all from one population; what it meets one to one fires."""
    first, fires, readout = PHASED if neuron.phased else RATE
    populations = [ir.Population("s", shape, neuron)]
    for name, edge in edges.items():
        populations.append(ir.Population(name, ir.output_shape(edge, shape), readout if edge else fires))
    connections = [ir.Connection("s", name, edge) for name, edge in edges.items()]
    if not neuron.is_input:
        populations.append(ir.Population("x", shape, first))
        connections.append(ir.Connection("x", "s"))
    return dyadic.spiking(populations, connections, ["s" if neuron.is_input else "x"], list(edges), timesteps=4)


@pytest.mark.parametrize("matrix_type", [None, "SPARSE", "DENSE", "PROCEDURAL"])
@pytest.mark.parametrize("source", SOURCES)
def test_every_edge_is_right_in_every_matrix_type(source, matrix_type):
    network = fan_of(SOURCES[source], (6, 6, 4), EDGES)
    names = KERNELS if matrix_type == "PROCEDURAL" else EDGES
    forced = {f"s -> {name}": matrix_type for name in names} if matrix_type else {}
    compiled = run(network, dyadic.images(network), 3, matrix_type=forced)
    found = {str(edge.connection): edge.matrix_type for edge in compiled.edges}
    assert forced.items() <= found.items()


@pytest.mark.parametrize("matrix_type", [None, "SPARSE", "PROCEDURAL"])
def test_every_edge_is_right_into_second_ports(matrix_type):
    network = into_second_ports()
    edges = [edge for edge in network.connections if edge.port]
    if matrix_type == "PROCEDURAL":
        edges = [edge for edge in edges if edge.target in ("plain", "asymmetric", "strided", "same_conv")]
    run(network, dyadic.images(network), 3, matrix_type={str(edge): matrix_type for edge in edges if matrix_type})


def test_toeplitz_matrices_are_right_where_they_can_be_had():
    """With GeNN 5.4 that is from spikes that count as 1, to more neurons than a block has threads."""
    network = fan_of(SOURCES["spikes"], (18, 18, 4), CONVOLUTIONS)
    run(network, dyadic.images(network), 3, matrix_type={f"s -> {name}": "TOEPLITZ" for name in CONVOLUTIONS})


# random spikes


def test_poisson_spikes_come_at_their_rate_and_are_drawn_anew_for_each_image():
    x = np.tile(np.float32([0, -0.125, 0.5, 4, -1.5, 0.03125]), (8, 1))
    compiled = snnc.compile(poisson(0), "mlgenn", device="gpu", batch_size=3)
    images = {"signed": x, "unsigned": x}
    found = compiled.simulate(images, record=True)
    shown = {"signed": np.abs(x[0]) / 0.5, "unsigned": np.maximum(x[0], 0) / 2}
    for name, magnitude in shown.items():
        trains = found.trains[name]
        low, high = binom.interval(1 - 1e-6, trains[..., 0].size, 1 - np.exp(-magnitude.astype(np.float64)))
        counts = np.abs(trains).sum((0, 1), dtype=np.int64)
        assert ((low <= counts) & (counts <= high)).all()
        for i, j in combinations(range(8), 2):
            assert ((trains[:, i] != trains[:, j]).any(0) == (magnitude > 0)).all()
    assert_same(compiled.simulate(images, record=True), found)


# converters


@pytest.fixture
def keras_tests(tmp_path, monkeypatch):
    """The converters' tests, for their models; mlGeNN builds in the working directory, and is stuck after a failure."""
    monkeypatch.chdir(tmp_path)
    yield pytest.importorskip("test_converters", reason="Keras is not installed")
    CompiledNetwork._context = None


def predict(keras_tests, converter, model, x, batch):
    """What GeNN gives for the output, (images, *shape)."""
    network, inputs, outputs, _ = converter.convert(model)
    compiled = converter.create_compiler(batch_size=batch).compile(network, "net", inputs=inputs, outputs=outputs)
    labels, metrics = np.zeros(len(x), int), {outputs[0]: keras_tests._Collected()}
    with compiled:
        found, _ = compiled.evaluate({inputs[0]: x}, {outputs[0]: labels}, metrics=metrics, callbacks=[])
    return found[outputs[0]].result


def rate(neuron: ir.SpikingNeuron) -> dict[type, ir.SpikingNeuron]:
    return {ir.Input: neuron, ir.Relu: ir.IntegrateFire(1.0, 0.5), ir.Identity: ir.Integrate()}


def bits(signed: bool) -> dict[type, ir.SpikingNeuron]:
    code = (4, 4.0, 4.0 / 32)
    return {ir.Input: ir.FewSpikeInput(*code, signed), ir.Relu: ir.FewSpike(*code), ir.Identity: ir.FewSpikeReadout()}


EXACT = {  # converters whose networks round nothing, and what each neuron is to do
    "if": lambda signed: (Simple(16, signed, "if"), rate(ir.IntegrateFireInput(1.0, signed, 0.5))),
    "spike": lambda signed: (Simple(16, signed, "spike"), rate(ir.SpikeInput(1.0, signed))),
    "few-spike": lambda signed: (FewSpike(4, 4.0, signed), bits(signed)),
}


@pytest.mark.parametrize("batch", [1, 3, 33], ids=["batch1", "batch3", "batch33"])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("kind", EXACT)
def test_what_is_converted_computes_the_equations(kind, signed, batch, keras_tests):
    model, x = keras_tests._exact()
    x = 2 * x - 1 if signed else x
    converter, neurons = EXACT[kind](signed)
    analog = snnc.run_pipeline(snnc.load(model), "canonicalise")
    populations = [replace(p, neuron=neurons[type(p.neuron)]) for p in analog.populations.values()]
    timesteps = 4 if kind == "few-spike" else 16
    network = dyadic.spiking(populations, analog.connections, analog.inputs, analog.outputs, timesteps)
    expected = naive.simulate(network, {"image": x}).potentials["digit"]
    np.testing.assert_array_equal(predict(keras_tests, converter, model, x, batch), expected)


@pytest.mark.parametrize("batch", [1, 3, 33], ids=["batch1", "batch3", "batch33"])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_data_norm_follows_the_model(signed, batch, keras_tests):
    model, x = keras_tests._rich(), keras_tests._images(8, 8, 8, 2)
    x = 2 * x - 1 if signed else x
    converter = DataNorm(200, signed, norm_data=[[(x, None)]], input_type="if")
    found = predict(keras_tests, converter, model, x, batch)
    assert np.corrcoef(found.ravel(), model.predict(x, verbose=0).ravel())[0, 1] > 0.99


@pytest.mark.parametrize("batch", [1, 3, 33], ids=["batch1", "batch3", "batch33"])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_the_converters_poisson_spikes_come_at_their_rate(signed, batch, keras_tests):
    """Within five standard deviations of the sum of T draws; no two images of a batch are drawn alike."""
    keras, timesteps, images = keras_tests.keras, 2000, 7
    model = keras.Sequential([keras.layers.Input((6,), name="image"), keras.layers.Dense(4, name="digit")])
    weight, bias = weights(1, 6, 4), weights(2, 4)
    model.set_weights([weight, bias])
    x = np.tile(np.float32([0, -0.125, 0.5, 4, -1.5, 0.03125]), (images, 1))
    found = predict(keras_tests, Simple(timesteps, signed), model, x, batch)
    rate = 1 - np.exp(-np.abs(x[0]).astype(np.float64)) if signed else 1 - np.exp(-np.maximum(x[0], 0))
    mean = timesteps * ((rate * np.sign(x[0])) @ weight + bias)
    deviation = np.sqrt(timesteps * (rate * (1 - rate)) @ weight**2)
    assert (np.abs(found - mean) < 5 * deviation).all()
    assert len(np.unique(found, axis=0)) == images
