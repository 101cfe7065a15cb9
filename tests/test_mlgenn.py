"""The mlGeNN backend beside what the conformance tests see: matrices, emission, errors, and what it leaves behind."""

import gc
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import dyadic
import numpy as np
import pytest
from dyadic import dyadic as weights
from hypothesis import given, settings
from networks import operator_chains, residual

import snnc
from snnc import ir
from snnc.ir import AveragePool2D, BackendError, Connection, Conv2D, CurrentInput, Dense, Flatten, Integrate, Population

needs_genn = pytest.mark.skipif(not (find_spec("pygenn") and find_spec("ml_genn")), reason="pygenn is not installed")


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


@needs_genn
@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ((), "OneToOne"),
        ((ir.Scale(np.full(2, 0.5)),), "OneToOne"),
        ((ir.Scale(np.array([0.5, 1])),), "SparseMatrix"),
        ((Conv2D(weights(1, 3, 3, 2, 4)),), "Conv2D"),
        ((Conv2D(weights(1, 3, 5, 2, 4), padding=((1, 1), (2, 2))),), "Conv2D"),
        ((Conv2D(weights(1, 2, 2, 2, 4), padding=((1, 0), (1, 0))),), "Conv2D"),
        ((Conv2D(weights(1, 2, 2, 2, 4), padding=((0, 1), (0, 1))),), "SparseMatrix"),
        ((Conv2D(weights(1, 3, 3, 2, 4), padding=((2, 2), (2, 2))),), "SparseMatrix"),
        ((Conv2D(weights(1, 3, 3, 2, 4), (2, 2)),), "SparseMatrix"),
        ((Conv2D(weights(1, 3, 3, 2, 4), dilation=(2, 2)),), "SparseMatrix"),
        ((Conv2D(weights(1, 3, 3, 1, 4), groups=2),), "SparseMatrix"),
        ((AveragePool2D((2, 2), (2, 2)),), "SparseMatrix"),
        ((Flatten(),), "SparseMatrix"),
        ((Dense(weights(1, 72, 3)),), "DenseMatrix"),
        ((AveragePool2D((2, 2), (2, 2)), Dense(weights(1, 18, 3))), "DenseMatrix"),
    ],
)
def test_edges_use_mlgenns_own_connectivity_where_it_expresses_them(operators, expected):
    from snnc.backend.mlgenn.connectivity import connect

    assert type(connect(operators, (6, 6, 2), 0)).__name__ == expected


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
    network = dyadic.branching()
    images = dyadic.images(network, 8)
    compiled = snnc.compile(network, "mlgenn")
    labels = compiled.predict(images)["value"].argmax(-1)
    labels[:3] = (labels[:3] + 1) % 3
    inputs = {compiled.populations[name]: x for name, x in images.items()}
    value = compiled.populations["value"]
    with compiled.mlgenn_compiled:
        metrics, _ = compiled.mlgenn_compiled.evaluate(inputs, {value: labels}, callbacks=[])
    assert metrics[value].result == 5 / 8
    assert compiled.mlgenn_network.populations == list(compiled.populations.values())


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
    runs = [compiled._run({"x": x}, False) for compiled in (first, second)]
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
