"""The light models of the ONNX zoo that the onnx package ships, with random weights; onnxruntime is the oracle.

They come with weights that are all the same. AlexNet, VGG-19 and ZFNet-512 are left out for their size.
"""

from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import onnxruntime
import pytest
from onnx import numpy_helper

import snnc
from snnc import frontend

FOLDER = Path(onnx.backend.test.__file__).parent / "data" / "light"
NAMES = ("densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet")


def randomised(name: str) -> onnx.ModelProto:
    """A model without the softmax at its end, whose weights are drawn so that activations keep their size."""
    rng, model = np.random.default_rng(0), onnx.load(FOLDER / f"light_{name}.onnx")
    graph = model.graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made = {node.output[0]: known[node.input[0]] for node in graph.node if node.op_type == "ConstantOfShape"}
    shapes = {name: tuple(shape) for name, shape in made.items()}
    shapes |= {name: array.shape for name, array in known.items() if array.dtype == np.float32}
    positive = {node.input[i] for node in graph.node if node.op_type == "BatchNormalization" for i in (1, 4)}
    kept = [node for node in graph.node if node.op_type not in ("ConstantOfShape", "Softmax")]
    for node in graph.node:
        if node.op_type == "Softmax":
            graph.output[0].name = node.input[0]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(kept)
    model.ir_version = 8  # since 4, weights are no inputs
    for tensor, shape in shapes.items():
        fan_in = np.prod(shape[1:]) if len(shape) > 1 else 100
        drawn = rng.uniform(0.5, 1.5, shape) if tensor in positive else rng.normal(0, np.sqrt(2 / fan_in), shape)
        graph.initializer.append(numpy_helper.from_array(drawn.astype(np.float32), tensor))
    others = [numpy_helper.from_array(array, name) for name, array in known.items() if name not in shapes]
    graph.initializer.extend(others)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_light_models(name):
    model = randomised(name)
    weights = {tensor.name for tensor in model.graph.initializer}
    (entry,) = [entry.name for entry in model.graph.input if entry.name not in weights]
    x = np.random.default_rng(1).normal(size=(1, 3, 224, 224)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {entry: x})
    network = frontend.load(model)
    found = snnc.compile(network).predict(np.moveaxis(x, 1, -1), progress=False).reshape(expected.shape)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
