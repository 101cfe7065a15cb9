"""The mlGeNN backend beside what the conformance tests see: matrices, emission, errors, and what it leaves behind."""

import gc
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import dyadic
import naive
import numpy as np
import pytest
from dyadic import dyadic as weights
from hypothesis import given, settings
from networks import operator_chains, residual

import snnc
from snnc import ir
from snnc.backend.compiled import TOTALS, Wanted
from snnc.backend.mlgenn import plan
from snnc.ir import (
    AveragePool2D,
    BackendError,
    Connection,
    Conv2D,
    CurrentInput,
    Dense,
    FewSpike,
    FewSpikeReadout,
    Flatten,
    GradedInput,
    Integrate,
    Population,
)

needs_genn = pytest.mark.skipif(not (find_spec("pygenn") and find_spec("ml_genn")), reason="pygenn is not installed")


def edge(operators, shape=(6, 6, 2), device="cpu", source=CurrentInput(), **options):  # noqa: B008
    """How GeNN is to store a connection from a source of `shape`."""
    target = Population("y", ir.output_shape(operators, shape), Integrate())
    source = Population("x", shape, source)
    network = ir.Network([source, target], [Connection("x", "y", operators)], ["x"], ["y"], 4)
    return plan(network, device=device, **options)[0]


@settings(max_examples=200, derandomize=True, deadline=None)
@given(operator_chains())
def test_the_matrix_of_operators_equals_applying_them(drawn):
    pytest.importorskip("scipy")
    from snnc.backend.mlgenn.matrices import matrix

    shape, operators = drawn
    x = weights(1, 3, *shape, limit=1)
    expected = ir.apply(operators, x.astype(np.float64)).reshape(3, -1)
    found = matrix(operators, shape)
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        x.reshape(3, -1) @ found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max(initial=0))
    )


def test_a_matrix_has_an_entry_for_each_synapse_and_none_for_padding():
    pytest.importorskip("scipy")
    from snnc.backend.mlgenn.matrices import matrix

    same = Conv2D(np.zeros((3, 3, 1, 1)), padding=((1, 1), (1, 1)))
    assert matrix((same,), (3, 3, 1)).nnz == 7 * 7


@pytest.mark.parametrize(
    ("operators", "kind", "matrix_type"),
    [
        ((), "OneToOne", "SPARSE"),
        ((ir.Scale(np.full(2, 0.5)),), "OneToOne", "SPARSE"),
        ((ir.Scale(np.array([0.5, 1])),), "SparseMatrix", "SPARSE"),
        ((Conv2D(weights(1, 3, 3, 2, 4)),), "DenseMatrix", "DENSE"),  # rows of 36 synapses to 64 neurons
        ((Conv2D(weights(1, 2, 2, 2, 4), padding=((1, 0), (1, 0))),), "SparseMatrix", "SPARSE"),
        ((Conv2D(weights(1, 2, 2, 2, 4), padding=((0, 1), (0, 1))),), "SparseMatrix", "SPARSE"),
        ((Conv2D(weights(1, 3, 3, 2, 4), padding=((2, 2), (2, 2))),), "SparseMatrix", "SPARSE"),
        ((Conv2D(weights(1, 3, 3, 2, 4), (2, 2), ((0, 1), (0, 1))),), "SparseMatrix", "SPARSE"),
        ((Conv2D(weights(1, 5, 5, 2, 4), (2, 2), ((2, 2), (1, 2))),), "DenseMatrix", "DENSE"),
        ((Conv2D(weights(1, 3, 3, 2, 4), dilation=(2, 2)),), "SparseMatrix", "SPARSE"),
        ((Conv2D(weights(1, 3, 3, 1, 4), groups=2),), "SparseMatrix", "SPARSE"),
        ((Conv2D(weights(1, 3, 3, 1, 2), groups=2),), "SparseMatrix", "SPARSE"),
        ((AveragePool2D((2, 2), (2, 2)),), "SparseMatrix", "SPARSE"),
        ((AveragePool2D((3, 3), (2, 2), ((0, 1), (1, 1))),), "SparseMatrix", "SPARSE"),
        ((AveragePool2D((2, 2), (2, 2)), Conv2D(weights(1, 1, 1, 2, 3))), "SparseMatrix", "SPARSE"),
        ((Flatten(),), "SparseMatrix", "SPARSE"),
        ((Dense(weights(1, 72, 3)),), "DenseMatrix", "DENSE"),
        ((AveragePool2D((2, 2), (2, 2)), Dense(weights(1, 18, 3))), "DenseMatrix", "DENSE"),
    ],
)
def test_each_edge_is_stored_as_small_as_may_be(operators, kind, matrix_type):
    chosen = edge(operators)
    assert (chosen.kind, chosen.matrix_type) == (kind, matrix_type)


PLAIN = (
    (Conv2D(weights(1, 3, 3, 2, 4)),),
    (Conv2D(weights(1, 3, 5, 2, 4), padding=((1, 1), (2, 2))),),
    (Conv2D(weights(1, 2, 2, 2, 4), padding=((1, 0), (1, 0))),),
)


LARGE = (24, 24, 2)


@pytest.mark.parametrize("operators", PLAIN, ids=["valid", "same", "even"])
def test_a_gpu_has_toeplitz_where_genn_is_right(operators):
    """GeNN 5.4.0 is wrong from spikes that carry a value, and to targets no larger than a block of threads."""
    counting = [ir.SpikeInput(0.5), ir.IntegrateFireInput(0.25), ir.PoissonInput()]
    for source in counting:
        chosen = edge(operators, LARGE, "gpu", source, matrix_type="TOEPLITZ")
        assert (chosen.kind, chosen.bytes) == ("Conv2D", 4 * operators[0].weight.size)
        assert edge(operators, LARGE, "gpu", source).matrix_type == "TOEPLITZ"
        assert edge(operators, LARGE, "gpu", source, batch_size=8).matrix_type == "SPARSE"  # which is faster for few
        with pytest.raises(BackendError, match="x -> y cannot be TOEPLITZ on a GPU, only"):
            edge(operators, device="gpu", source=source, matrix_type="TOEPLITZ")
    valued = [CurrentInput(), *(replace(source, signed=True) for source in counting)]
    for source in valued:
        with pytest.raises(BackendError, match="x -> y cannot be TOEPLITZ on a GPU, only"):
            edge(operators, LARGE, "gpu", source, matrix_type="TOEPLITZ")
        assert edge(operators, LARGE, source=source, matrix_type="TOEPLITZ").kind == "Conv2D"  # on a CPU it is right


def test_a_gpu_makes_synapses_from_kernels_where_its_memory_does_not_take_them():
    from snnc.backend.mlgenn.connectivity import Machine, choose

    large = (32, 32, 64)
    conv = Conv2D(weights(1, 3, 3, 64, 64), (2, 2), ((0, 1), (0, 1)))
    plain = Conv2D(weights(1, 3, 3, 64, 16))
    targets = [Population(name, each.output_shape(large), Integrate()) for name, each in (("a", conv), ("b", plain))]
    network = ir.Network(
        [Population("x", large, ir.SpikeInput()), *targets],
        [Connection("x", "a", (conv,)), Connection("x", "b", (plain,))],
        ["x"],
        ["a", "b"],
        4,
    )
    every = choose(network, Machine(sys.maxsize, sys.maxsize, False))
    assert [edge.matrix_type for edge in every] == ["SPARSE", "SPARSE"]
    needed = sum(edge.bytes for edge in every)
    assert [e.matrix_type for e in choose(network, Machine(sys.maxsize, needed, False))] == ["SPARSE", "SPARSE"]
    assert [e.matrix_type for e in choose(network, Machine(sys.maxsize, needed - 1, False))] == ["PROCEDURAL", "SPARSE"]
    kernels = choose(network, Machine(sys.maxsize, 0, False))
    assert [(edge.matrix_type, edge.bytes) for edge in kernels] == [
        ("PROCEDURAL", 4 * conv.weight.size),
        ("TOEPLITZ", 4 * plain.weight.size),
    ]
    assert [edge.matrix_type for edge in choose(network, Machine(0, sys.maxsize, False))] == ["PROCEDURAL", "TOEPLITZ"]


def test_a_network_says_of_each_source_whether_its_spikes_count_as_one():
    """What the IR says is what the emitted neuron does."""
    pytest.importorskip("ml_genn")
    from snnc.backend.mlgenn.neurons import neuron

    few_spike = ir.FewSpikeInput(3, 1.0)
    encodings = [ir.SpikeInput(), ir.PoissonInput(), ir.IntegrateFireInput()]
    spiking = [CurrentInput(), GradedInput(), ir.IntegrateFire(1.0), FewSpike(3, 1.0), few_spike, *encodings]
    spiking += [replace(each, signed=True) for each in (few_spike, *encodings)]
    for each in spiking:
        assert neuron(Population("x", (3,), each), 0, 4, None).sends_values == each.sends_values, each


def test_a_cpu_keeps_kernels_where_memory_does_not_take_every_synapse():
    from snnc.backend.mlgenn.connectivity import Machine, choose

    shape = (16, 16, 4)
    edges = {"a": weights(1, 3, 3, 4, 8), "b": weights(2, 5, 5, 4, 8), "c": weights(3, 1, 1, 4, 2)}
    targets = [Population(name, Conv2D(kernel).output_shape(shape), Integrate()) for name, kernel in edges.items()]
    network = ir.Network(
        [Population("x", shape, CurrentInput()), *targets],
        [Connection("x", name, (Conv2D(kernel),)) for name, kernel in edges.items()],
        ["x"],
        list(edges),
        4,
    )

    def chosen(memory, **options):
        return {edge.connection.target: edge for edge in choose(network, Machine(memory), **options)}

    every = chosen(sys.maxsize)
    assert {edge.matrix_type for edge in every.values()} == {"SPARSE"}
    needed = sum(edge.host_bytes for edge in every.values())
    assert {name for name, edge in chosen(needed - 1).items() if edge.matrix_type == "TOEPLITZ"} == {"b"}
    assert {edge.matrix_type for edge in chosen(0).values()} == {"TOEPLITZ"}
    forced = chosen(0, matrix_type={"x -> b": "SPARSE"})
    assert {name: edge.matrix_type for name, edge in forced.items()} == {
        "a": "TOEPLITZ",
        "b": "SPARSE",
        "c": "TOEPLITZ",
    }


@settings(max_examples=200, derandomize=True, deadline=None)
@given(operator_chains())
def test_synapses_are_counted_without_being_made(drawn):
    pytest.importorskip("scipy")
    from snnc.backend.mlgenn.fanout import fan_out
    from snnc.backend.mlgenn.matrices import matrix

    shape, operators = drawn
    positive = tuple(_positive(operator) for operator in operators)  # so that no path cancels another
    made = matrix(positive, shape)
    has_matrix = any(isinstance(operator, Dense) for operator in operators)
    expected = np.full(made.shape[0], made.shape[1]) if has_matrix else np.diff(made.indptr)
    found = fan_out(operators, shape)
    if not _meets_again(operators):
        np.testing.assert_array_equal(found, expected)
    assert (expected <= found).all()
    assert (found <= made.shape[1]).all()


def _meets_again(operators):
    """Whether paths that parted before a Pick, or in it, may end in the same neuron."""
    adding = (Conv2D, AveragePool2D, ir.ConvTranspose2D, ir.Resample)
    sums = [place for place, operator in enumerate(operators) if isinstance(operator, adding)]
    return any(
        isinstance(operator, ir.Pick)
        and sums
        and place < sums[-1]
        and (sums[0] < place or len(np.unique(operator.indices)) < operator.indices.size)
        for place, operator in enumerate(operators)
    )


def test_synapses_behind_a_transposition_are_counted():
    """As of tokens: an image of which rows and channels change places, and a convolution."""
    from snnc.backend.mlgenn.fanout import fan_out

    turned = np.arange(24).reshape(2, 3, 4).transpose(0, 2, 1)
    operators = (ir.Pick(turned), Conv2D(np.ones((1, 1, 3, 5))))
    np.testing.assert_array_equal(fan_out(operators, (2, 3, 4)), np.full(24, 5))


def _positive(operator):
    match operator:
        case Conv2D(weight) | ir.ConvTranspose2D(weight) | Dense(weight):
            return replace(operator, weight=np.ones_like(weight))
        case ir.Resample(weight=weight):
            return replace(operator, weight=weight != 0)
        case ir.Scale(factor):
            return ir.Scale(np.ones_like(factor))
    return operator


def test_a_matrix_type_can_be_forced():
    conv = (Conv2D(weights(1, 3, 3, 2, 4)),)
    assert edge(conv, matrix_type="SPARSE").kind == "SparseMatrix"
    assert edge(conv, matrix_type={"x -> y": "DENSE"}).kind == "DenseMatrix"
    assert edge(conv, matrix_type="TOEPLITZ").kind == "Conv2D"
    assert edge(conv, matrix_type={}).kind == "DenseMatrix"
    with pytest.raises(BackendError, match="x -> y cannot be PROCEDURAL on a CPU, only DENSE or SPARSE or TOEPLITZ"):
        edge(conv, matrix_type="PROCEDURAL")
    with pytest.raises(BackendError, match="no connection 'x->y'; there are: x -> y"):
        edge(conv, matrix_type={"x->y": "DENSE"})


@needs_genn
def test_any_population_name_makes_a_unique_identifier():
    from snnc.backend.mlgenn.emit import genn_name

    names = ["a/b", "a-b", "a_b", "1 Größe", "日本", ""]
    made = [genn_name("p", number, name) for number, name in enumerate(names)]
    assert len(set(made)) == len(names)
    assert all(name.isidentifier() and name.isascii() for name in made)


@pytest.fixture
def tiny():
    """A network that is quick to build."""
    return dyadic.spiking(
        [Population("x", (3,), CurrentInput()), Population("y", (3,), Integrate())],
        [Connection("x", "y", (Dense(weights(1, 3, 3)),))],
        ["x"],
        ["y"],
        timesteps=4,
    )


@needs_genn
def test_one_can_go_on_in_mlgenn():
    from ml_genn.callbacks import SpikeRecorder

    network = dyadic.branching()
    images = dyadic.images(network, 8)
    compiled = snnc.compile(network, "mlgenn", record_spikes=["mixed"])
    counts = compiled.simulate(images).spike_counts["classes"]  # which mlGeNN reads where we decode
    labels = {"classes": counts.argmax(-1), "value": compiled.predict(images)["value"].argmax(-1)}
    labels["value"][:3] = (labels["value"][:3] + 1) % 3
    recorder = SpikeRecorder(compiled.populations["mixed"], key="mixed")
    metrics, recorded = compiled.mlgenn_evaluate(images, labels, callbacks=[recorder])
    assert {name: metric.result for name, metric in metrics.items()} == {"classes": 1, "value": 5 / 8}
    spikes = compiled.simulate(images, record=["mixed"]).trains["mixed"]
    assert [len(times) for times in recorded["mixed"][0]] == spikes.sum((0, 2)).tolist()
    assert compiled.mlgenn_network.populations == list(compiled.populations.values())
    with pytest.raises(BackendError, match="record_spikes names mix; there are: left, right, mixed"):
        snnc.compile(network, "mlgenn", record_spikes=["mix"])


@pytest.fixture
def few_spike():
    """A few-spike network of depth 3, one input and one output, that is quick to build."""
    return dyadic.spiking(
        [
            Population("x", (3,), GradedInput()),
            Population("a", (4,), FewSpike(5, 1.0), weights(1, 4)),
            Population("b", (4,), FewSpike(4, 0.5, 1 / 64)),
            Population("y", (3,), FewSpikeReadout()),
        ],
        [
            Connection("x", "a", (Dense(weights(2, 3, 4, limit=1)),)),
            Connection("a", "b", (Dense(weights(3, 4, 4, limit=1)),)),
            Connection("b", "y", (Dense(weights(4, 4, 3, limit=1)),)),
            Connection("a", "y", (Dense(weights(5, 4, 3, limit=1)),)),
        ],
        ["x"],
        ["y"],
        timesteps=5,
    )


@needs_genn
def test_few_spike_images_follow_one_another_a_phase_apart(few_spike, monkeypatch):
    compiled = snnc.compile(few_spike, "mlgenn")
    images = dyadic.images(few_spike, 5)
    expected = naive.simulate(few_spike, images)
    step_time, steps = compiled.mlgenn_compiled.step_time, []
    monkeypatch.setattr(compiled.mlgenn_compiled, "step_time", lambda: steps.append(step_time()))
    for count in (1, 2, 5):
        steps.clear()
        parts = []
        for part in compiled._run({"x": images["x"][:count]}, Wanted(frozenset("ab"))):
            parts.append(part)
            assert len(steps) == 5 * (3 + len(parts))
        for kind, axis in (("trains", 1), ("spike_counts", 0), ("potentials", 0), ("decoded", 1)):
            for name, values in getattr(expected, kind).items():
                found = np.concatenate([getattr(part, kind)[name] for part in parts], axis)
                np.testing.assert_array_equal(found, np.take(values, range(count), axis), f"{kind} of {name!r}")


@needs_genn
def test_one_can_go_on_in_mlgenn_with_a_few_spike_network(few_spike):
    images = dyadic.images(few_spike, 8)["x"]
    compiled = snnc.compile(few_spike, "mlgenn")
    labels = compiled.predict(images).argmax(-1)
    labels[:3] = (labels[:3] + 1) % 3
    metrics, _ = compiled.mlgenn_evaluate(images, labels, callbacks=[])
    assert metrics["y"].result == 5 / 8


@needs_genn
def test_the_build_is_silent_and_leaves_nothing_behind(tiny, tmp_path, monkeypatch, capfd):
    temporary, working = tmp_path / "temporary", tmp_path / "working"
    temporary.mkdir()
    working.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(working)
    compiled = snnc.compile(tiny, "mlgenn")
    compiled.predict(weights(2, 2, 3))
    assert capfd.readouterr() == ("", "")
    assert len(list(temporary.iterdir())) == 1
    del compiled
    gc.collect()
    assert not list(temporary.iterdir())
    assert not list(working.iterdir())


@needs_genn
def test_a_failing_build_says_why(tiny, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendError, match=r"(?s)GeNN could not build.*no-such-compiler"):
        snnc.compile(tiny, "mlgenn")


@needs_genn
def test_two_networks_can_be_run_in_turns(tiny):
    first, second = (snnc.compile(tiny, "mlgenn") for _ in range(2))
    x = weights(2, 2, 3)
    runs = [compiled._run({"x": x}, TOTALS) for compiled in (first, second)]
    for ours, theirs in zip(*runs, strict=True):
        np.testing.assert_array_equal(ours.decoded["y"], theirs.decoded["y"])


def test_an_analog_network_is_refused():
    with pytest.raises(BackendError, match="convert it first"):
        snnc.compile(residual(), "mlgenn")


def test_a_broken_network_is_refused(tiny):
    with pytest.raises(ir.VerificationError, match="timesteps"):
        snnc.compile(tiny.replace(timesteps=0), "mlgenn")


def test_without_pygenn_the_way_to_install_it_is_named():
    code = "import sys; sys.modules['pygenn'] = None; import dyadic, snnc; snnc.compile(dyadic.strided(), 'mlgenn')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert "BackendError: the mlgenn backend needs pygenn, ml_genn and scipy" in done.stderr
    assert 'section "GeNN"' in done.stderr
