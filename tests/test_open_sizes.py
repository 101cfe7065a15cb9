"""Sizes that a model leaves open, and what is said of its inputs: examples or shapes, in order or by name."""

import keras
import keras.layers as kl
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from frontend_models import randomise
from onnx import helper, numpy_helper
from reference import analog

import snnc
from snnc import ir
from snnc.frontend import given

RNG = np.random.default_rng(0)


def value(name, *sizes):
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes)


def of_any_size(second: bool = False) -> onnx.ModelProto:
    """A convolution whose pixels become rows, by sizes computed in the graph; of two inputs, added, if `second`."""
    nodes = [
        ("Add", "x z", "sum") if second else ("Identity", "x", "sum"),
        ("Conv", "sum w", "c", {"pads": [1, 1, 1, 1]}),
        ("Relu", "c", "r"),
        ("Shape", "r", "s"),
        ("Gather", "s two", "height"),
        ("Gather", "s three", "width"),
        ("Mul", "height width", "pixels"),
        ("Unsqueeze", "pixels axis", "pixels_"),
        ("Gather", "s axis", "batch"),
        ("Concat", "batch four pixels_", "shape", {"axis": 0}),
        ("Reshape", "r shape", "y"),
    ]
    constants = {"two": 2, "three": 3, "axis": [0], "four": [4]}
    made = [
        helper.make_node(op, inputs.split(), [output], name=output, **attributes[0])
        for op, inputs, output, *attributes in [(*node, {})[:4] for node in nodes]
    ]
    weights = [numpy_helper.from_array(np.asarray(array, np.int64), name) for name, array in constants.items()]
    weights.append(numpy_helper.from_array(RNG.normal(size=(4, 3, 3, 3)).astype(np.float32), "w"))
    inputs = [value(name, "batch", 3, "height", "width") for name in ("x", "z")[: 1 + second]]
    graph = helper.make_graph(made, "any", inputs, [value("y", "batch", 4, "pixels")], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("said", [(1, 3, 5, 4), [(1, 3, 5, 4)], {"x": (7, 3, 5, 4)}, np.zeros((2, 3, 5, 4))])
def test_an_onnx_model_of_any_size(said):
    model = of_any_size()
    network = snnc.load(model, inputs=said, verify=True)
    x = RNG.normal(size=(2, 3, 5, 4)).astype(np.float32)
    (y,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    found = analog(network, {"x": np.moveaxis(x, 1, -1)})[network.outputs[0]]
    np.testing.assert_allclose(found.reshape(2, 20, 4), np.moveaxis(y, 1, -1), atol=1e-5)  # channels last


def test_sizes_of_one_name_are_one():
    network = snnc.load(of_any_size(second=True), inputs={"z": (1, 3, 5, 4)}, verify=True)
    assert network.populations["x"].shape == network.populations["z"].shape == (5, 4, 3)
    with pytest.raises(ir.DataError, match=r"z takes \(batch, 3, 5, 4\), but is given the shape \(1, 3, 6, 4\)"):
        snnc.load(of_any_size(second=True), inputs=[(1, 3, 5, 4), (1, 3, 6, 4)])


def test_what_is_open_is_said_with_names_and_the_way_out():
    with pytest.raises(ir.UnsupportedModelError, match="ONNX model 'any' leaves sizes of its inputs open") as error:
        snnc.load(of_any_size(second=True))
    first, second = error.value.problems
    assert first == (
        "x (input): its shape (batch, 3, height, width) is open in height and width; say the sizes, as in "
        "inputs={'x': (1, 3, 64, 64)}, or --input-shape x=1x3x64x64"
    )
    assert second.startswith("z (input)")


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ((1, 1, 5, 4), r"x takes \(batch, 3, height, width\), but is given the shape \(1, 1, 5, 4\)"),
        ((3, 5, 4), "but is given the shape"),
        ({"photo": (1, 3, 5, 4)}, "has no input 'photo'; its inputs are x"),
        ([(1, 3, 5, 4)] * 2, "takes x, but inputs has 2"),
        ((1, 3, 0, 4), "inputs takes an example"),
        ((1, 3, -5, 4), "inputs takes an example"),
        ("x", "inputs takes an example"),
        ({"x": None}, "inputs takes an example"),
        ([[1, 2], [3]], "inputs takes an example|but inputs has 2"),
    ],
)
def test_shapes_that_do_not_fit(said, match):
    with pytest.raises(ir.DataError, match=match):
        snnc.load(of_any_size(), inputs=said)


def test_shapes_that_no_memory_holds():
    with pytest.raises(ir.UnsupportedModelError, match="at most 67108864 numbers"):
        snnc.load(of_any_size(), inputs=(1, 3, 10**5, 10**5))


@pytest.mark.parametrize("said", [{"dim_value": 0}, {"dim_value": -1}, {"dim_param": "?"}])
def test_sizes_that_exporters_write_for_open_ones(said):
    model = of_any_size()
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.CopyFrom(onnx.TensorShapeProto.Dimension(**said))
    with pytest.raises(ir.UnsupportedModelError, match=r"its shape \(batch, 3, \?, \?\) is open; say"):
        snnc.load(model)
    assert snnc.load(model, inputs=(1, 3, 5, 4)).populations["x"].shape == (5, 4, 3)


def test_shapes_in_all_forms():
    assert given.shapes_of(None) == ()
    assert given.shapes_of((1, 2, 3)) == given.shapes_of(np.zeros((1, 2, 3))) == ((1, 2, 3),)
    assert given.shapes_of(tf.zeros((1, 2))) == ((1, 2),)
    assert given.shapes_of(([1, 2], np.zeros((1, 3)))) == ((1, 2), (1, 3))
    assert given.shapes_of({"a": (1, 2)}) == {"a": (1, 2)}


# Keras and TensorFlow.


def of_any_image() -> keras.Model:
    layers = [kl.Conv2D(4, 3, activation="relu", padding="same"), kl.GlobalAveragePooling2D(), kl.Dense(2)]
    return randomise(keras.Sequential([keras.Input((None, None, 3), name="photo"), *layers]))


def assert_reads(source: object, model: keras.Model, said: object) -> None:
    network = snnc.load(source, inputs=said, verify=True)
    x = RNG.normal(size=(2, *network.populations[network.inputs[0]].shape)).astype(np.float32)
    found = analog(network, {network.inputs[0]: x})[network.outputs[0]]
    np.testing.assert_allclose(found, model(x), atol=1e-5)


def test_keras_models(tmp_path):
    model = of_any_image()
    assert_reads(model, model, (1, 8, 6, 3))
    model.save(tmp_path / "model.keras")
    assert_reads(tmp_path / "model.keras", model, {"photo": np.zeros((4, 8, 6, 3))})
    with pytest.raises(ir.DataError, match=r"photo takes \(batch, \?, \?, 3\), but is given the shape \(1, 8, 8, 1\)"):
        snnc.load(model, inputs=(1, 8, 8, 1))


def test_saved_models_and_functions(tmp_path):
    model = of_any_image()
    model.export(tmp_path / "model", verbose=False)
    assert_reads(tmp_path / "model", model, (1, 8, 6, 3))
    with pytest.raises(ir.UnsupportedModelError, match="leaves sizes of its inputs open"):
        snnc.load(tmp_path / "model")
    signature = [tf.TensorSpec((None, None, None, 3), name="image")]
    called = tf.function(lambda image: model(image, training=False), input_signature=signature)
    assert_reads(called, model, {"image": (1, 8, 6, 3)})
    free = tf.function(lambda image: model(image, training=False))
    for said in ((1, 8, 6, 3), np.zeros((1, 8, 6, 3), np.float32), {"image": (1, 8, 6, 3)}):
        assert_reads(free, model, said)


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.inner = of_any_image()

    def call(self, x):
        return self.inner(x)


def test_subclassed_models_of_any_size():
    model = Subclassed()
    model(np.zeros((1, 9, 9, 3), np.float32))
    assert_reads(model, model, (1, 8, 6, 3))


def test_pytorch_modules():
    torch = pytest.importorskip("torch")

    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3)

        def forward(self, image, mask):
            return torch.relu(self.conv(image * 2)) + self.conv(mask)

    shape = (1, 3, 6, 5)
    for said in ([shape, shape], {"mask": torch.zeros(shape), "image": shape}):
        network = snnc.load(Two(), inputs=said, verify=True)
        assert network.inputs == ("image", "mask")
    with pytest.raises(ir.DataError, match="does not take image, other"):
        snnc.load(Two(), inputs={"image": shape, "other": shape})


# The command line.


@pytest.fixture
def files(tmp_path):
    model = of_any_size()
    pool = [helper.make_node("ReduceMean", ["y"], ["scores"], axes=[2], keepdims=0, name="pool")]
    model.graph.node.extend(pool)
    model.graph.output[0].CopyFrom(value("scores", "batch", 4))
    onnx.save(model, tmp_path / "model.onnx")
    x, y = RNG.normal(size=(8, 5, 4, 3)), RNG.integers(0, 4, 8)
    np.savez(tmp_path / "data.npz", x=x, y=y, x_train=x)
    return tmp_path


COMMANDS = (
    "check {}/model.onnx",
    "convert {}/model.onnx -o {}/net.snn -c {}/data.npz -t 4",
    "evaluate {}/model.onnx -d {}/data.npz",
    "show {}/model.onnx",
    "opt {}/model.onnx -p canonicalise",
    "diff {}/model.onnx {}/model.onnx",
    "sweep {}/model.onnx -d {}/data.npz -t 2 -p data-norm",
    "bisect {}/model.onnx -d {}/data.npz -f 0",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_shapes(snnc_command, files, command):
    arguments = command.replace("{}", str(files)).split()
    code, out, err = snnc_command(*arguments)
    assert code
    assert "is open in height and width" in out + err
    code, out, err = snnc_command(*arguments, "--input-shape", "x=1x3x5x4")
    assert not code, out + err


def test_profile_takes_shapes(snnc_command, files):
    shape = ("--input-shape", "x=1x3x5x4")
    snnc_command("convert", files / "model.onnx", "-o", files / "net.snn", "-c", files / "data.npz", "-t", "4", *shape)
    code, out, err = snnc_command("profile", files / "model.onnx", files / "net.snn", "-d", files / "data.npz", *shape)
    assert not code, out + err


@pytest.mark.parametrize("text", ["1x3x5x4", "x=", "x=1x3x5xk", "x=1,3,5,4", "x=1x3x-5x4"])
def test_shapes_that_are_none(snnc_command, files, text):
    code, _, err = snnc_command("check", files / "model.onnx", "--input-shape", text)
    assert code
    assert "--input-shape takes a name and sizes" in " ".join(err.replace("│", " ").split())
