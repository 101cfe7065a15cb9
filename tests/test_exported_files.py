"""Files that frameworks exported, kept with the outputs that the frameworks themselves gave."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from reference import analog

import snnc
from snnc import frontend, ir

FILES = Path(__file__).parent / "data" / "onnx"
NAMES = ("lenet", "vgg", "resnet18", "mobilenet", "encoder", "keywords", "mlp")
EXPORTERS = ("torchscript", "dynamo")


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def assert_equal(network: ir.Network, x: np.ndarray, expected: list[np.ndarray]) -> None:
    """Compare the outputs in numpy and on onnxruntime with PyTorch's."""
    (name,) = network.inputs
    x = channels_last(x)
    images = x.reshape(len(x), *network.populations[name].shape)
    compiled = snnc.compile(network).predict(x)
    by_onnxruntime = compiled if isinstance(compiled, dict) else {network.outputs[0]: compiled}
    for values in (analog(network, {name: images}), by_onnxruntime):
        for output, y in zip(network.outputs, expected, strict=True):
            y = channels_last(y)
            np.testing.assert_allclose(values[output].reshape(y.shape), y, rtol=0, atol=1e-4 * np.abs(y).max())


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", NAMES)
def test_kept_files(name, exporter):
    with np.load(FILES / f"{name}.npz") as arrays:
        x, *expected = arrays.values()
    assert_equal(frontend.load(FILES / f"{name}-{exporter}.onnx"), x, expected)


@pytest.mark.parametrize("name", ["jax", "sklearn"])
def test_kept_files_of_other_frameworks(name):
    """A Flax network by jax2onnx, channels last; a classifier by skl2onnx, which has the class as an output too."""
    with np.load(FILES / f"{name}.npz") as arrays:
        x, y = arrays.values()
    network = frontend.load(FILES / f"{name}.onnx")
    (output,) = network.outputs
    np.testing.assert_allclose(analog(network, {network.inputs[0]: x})[output], y, rtol=0, atol=1e-4 * np.abs(y).max())


def test_kept_files_are_small():
    stems = [f"{name}-{exporter}" for name in NAMES for exporter in EXPORTERS]
    assert sorted(path.stem for path in FILES.glob("*.onnx")) == sorted([*stems, "jax", "sklearn"])
    assert max(path.stat().st_size for path in FILES.iterdir() if path.is_file()) < 100_000


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_origins_in_files_are_module_paths(exporter):
    network = frontend.load(FILES / f"resnet18-{exporter}.onnx")
    last = network.populations["layer4.1.relu#2" if exporter == "dynamo" else "layer4.1.relu_1"]
    layers = last.origin.layers
    assert [path for path in layers if path.startswith("layer4.1")][:1] == ["layer4.1.conv2"]
    stem = network.populations["relu"].origin.layers
    assert stem[0] == "conv1"
    assert stem[-1] == "relu"
    names = {path for population in network.populations.values() for path in population.origin.layers}
    assert {"layer3.0.conv1", "layer3.0.downsample.0", "fc", "maxpool"} <= names


def test_a_model_in_memory_is_left_as_it_was():
    model = onnx.load(FILES / "keywords-dynamo.onnx")
    model.graph.node[1].name = ""
    before = model.SerializeToString()
    with np.load(FILES / "keywords.npz") as arrays:
        x, *expected = arrays.values()
    assert_equal(frontend.load(model), x, expected)
    assert model.SerializeToString() == before
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ir.ModelFileError, match=r"ONNX model .* is not a valid ONNX model"):
        frontend.load(model)
    model = onnx.load(FILES / "mlp-dynamo.onnx")
    onnx.external_data_helper.convert_model_to_external_data(model, location="weights", size_threshold=0)
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="weights")
    with pytest.raises(ir.ModelFileError, match="give the path of the model"):
        frontend.load(model)
