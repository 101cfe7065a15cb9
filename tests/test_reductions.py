"""The largest and the smallest of many numbers: as one neuron that pools, or half by half, however they lie."""

import numpy as np
import pytest
from test_frontend_onnx import assert_equal, save

import snnc
from snnc import ir
from snnc.frontend import reductions


@pytest.mark.parametrize("axes", [(1,), (2,), (3,), (1, 2), (2, 3), (1, 3), (1, 2, 3)])
@pytest.mark.parametrize(("operator", "widest"), [("ReduceMax", 256), ("ReduceMax", 1), ("ReduceMin", 1)])
def test_any_axes_pooled_or_compared(tmp_path, monkeypatch, operator, widest, axes):
    monkeypatch.setattr(reductions, "_WIDEST", widest)
    nodes = [(operator, "x axes", "y", {"keepdims": 1})]
    path = save(tmp_path, nodes, (3, 5, 7), axes=np.array(axes))
    network = assert_equal(path, (3, 5, 7), first=snnc.load(path).populations["x"].shape != (3, 5, 7))
    assert any(isinstance(p.neuron, ir.MaxPool2D) for p in network.populations.values()) == (widest > 1)


@pytest.mark.parametrize("operator", ["GlobalMaxPool", "ReduceMax"])
def test_of_very_many_few_populations_find_the_largest(tmp_path, operator):
    """A window of 1 800 positions would be as many populations of rectifiers."""
    more = ["axes"] if operator == "ReduceMax" else []
    path = save(tmp_path, [(operator, " ".join(["x", *more]), "y")], (2, 30, 60), axes=np.array([2, 3]))
    network = assert_equal(path, (2, 30, 60))
    assert len(network.populations) < 15
    x = np.random.default_rng(0).normal(size=(50, 30, 60, 2)).astype(np.float32)
    expected = snnc.compile(network).predict(x)
    snn = snnc.convert(network, "few-spike{k=10}", calibration=x, progress=False)
    np.testing.assert_allclose(snnc.compile(snn).predict(x), expected, atol=0.05 * expected.max())
