"""What is read is compared with the model, and a planted mistake is found in the layer where it was planted."""

import dataclasses
import itertools
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from frontend_models import randomise
from keras import layers as kl

import snnc
from snnc import frontend, ir, proof
from snnc.frontend import operators


def nested() -> keras.Model:
    """A block that is called twice, between a stem and a dense readout."""
    block = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            kl.Conv2D(4, 3, padding="same", name="conv"),
            kl.BatchNormalization(name="norm"),
            kl.ReLU(name="relu"),
        ],
        name="block",
    )
    x = keras.Input((8, 8, 3), name="image")
    y = block(block(kl.Conv2D(4, 1, activation="relu", name="stem")(x)))
    y = kl.Flatten(name="flat")(kl.MaxPooling2D(name="pool")(y))
    return randomise(keras.Model(x, kl.Dense(5, activation="softmax", name="top")(y), name="nested"))


@pytest.fixture
def plant(monkeypatch):
    """Plants a mistake: in its nth use, or in all, an operator's constants are one percent too large."""

    def planted(operator: str, nth: int | None = None) -> None:
        handler, calls = operators._HANDLERS[operator], itertools.count(1)

        def mistaken(call):
            if nth not in (None, next(calls)):
                return handler(call)
            inputs = [1.01 * entry if isinstance(entry, np.ndarray) else entry for entry in call.inputs]
            return handler(dataclasses.replace(call, inputs=tuple(inputs)))

        monkeypatch.setitem(operators._HANDLERS, operator, mistaken)

    return planted


def test_what_is_read_right_passes():
    model = nested()
    assert proof.prove(frontend.read(model)) < 1e-6
    assert snnc.load(model, verify=True).outputs == ("top",)


@pytest.mark.parametrize(
    ("operator", "nth", "layer"),
    [
        ("Conv", 1, "stem"),
        ("Conv", 2, "block/conv"),
        ("Conv", 3, "block/conv"),
        ("Mul", 1, "block/norm"),
        ("Add", 2, "block/norm"),
        ("Gemm", 1, "top"),
    ],
)
def test_a_mistake_is_found_in_its_layer(plant, operator, nth, layer):
    plant(operator, nth)
    with pytest.raises(ir.MismatchError, match="the first layer that differs") as error:
        snnc.load(nested(), verify=True)
    assert error.value.layer == layer


def test_a_mistake_in_the_assembled_network_is_found_too(monkeypatch):
    from snnc.frontend import lowering

    def mistaken(operators_, shape):
        return tuple(
            dataclasses.replace(o, weight=o.weight * 1.01) if isinstance(o, ir.Dense) else o
            for o in ir.fold(operators_, shape)
        )

    monkeypatch.setattr(lowering, "fold", mistaken)
    with pytest.raises(ir.MismatchError) as error:
        snnc.load(nested(), verify=True)
    assert error.value.layer == "top"


def test_a_missing_nonlinearity_is_found(monkeypatch):
    monkeypatch.setitem(operators._HANDLERS, "Relu", lambda call: call.value())
    with pytest.raises(ir.MismatchError) as error:
        snnc.load(nested(), verify=True)
    assert error.value.layer == "stem"


def test_subclassed_models_and_several_inputs_and_outputs(plant, monkeypatch):
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = kl.Dense(6, activation="relu", name="first"), kl.Dense(2, name="second")

        def call(self, x):
            return self.second(self.first(x))

    two = Two()
    two(np.ones((1, 4), np.float32))
    randomise(two)
    a, b = keras.Input((6, 6, 2), name="a"), keras.Input((5,), name="b")
    hidden = kl.Dense(4, activation="relu", name="hidden")(kl.Flatten(name="flat")(a))
    outputs = {"one": kl.Dense(3, name="one")(kl.Concatenate(name="both")([hidden, b])), "two": hidden}
    several = randomise(keras.Model([a, b], outputs))
    for model in (two, several):
        assert proof.prove(frontend.read(model)) < 1e-6
    for model, layer in ((two, "second"), (several, "one")):
        monkeypatch.undo()
        plant("Gemm", 2)
        with pytest.raises(ir.MismatchError) as error:
            snnc.load(model, verify=True)
        assert error.value.layer == layer


def test_inputs_of_integers():
    x = keras.Input((6, 6, 3), dtype="uint8", name="bytes")
    y = kl.Conv2D(4, 3, activation="relu", name="conv")(kl.Rescaling(1 / 255, name="scale")(x))
    assert proof.prove(frontend.read(randomise(keras.Model(x, y)))) < 1e-6


def test_models_whose_numbers_overflow():
    x = keras.Input((4,), name="x")
    y = kl.Dense(4, name="large", kernel_initializer=keras.initializers.Constant(3e38))(x)
    with pytest.raises(ir.MismatchError, match="not finite") as error:
        snnc.load(keras.Model(x, y), verify=True)
    assert error.value.layer == "large"


def onnx_file(folder):
    rng = np.random.default_rng(0)
    make = onnx.helper
    arrays = {"w": rng.normal(size=(4, 3, 3, 3)), "b": rng.normal(size=4), "m": rng.normal(size=(4, 5))}
    nodes = [
        make.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        make.make_node("Relu", ["c"], ["r"], name="relu"),
        make.make_node("GlobalAveragePool", ["r"], ["g"], name="mean"),
        make.make_node("Flatten", ["g"], ["f"], name="flat"),
        make.make_node("MatMul", ["f", "m"], ["y"], name="top"),
    ]
    info = make.make_tensor_value_info
    graph = make.make_graph(
        nodes,
        "g",
        [info("x", onnx.TensorProto.FLOAT, ["batch", 3, 6, 5])],
        [info("y", onnx.TensorProto.FLOAT, ["batch", 5])],
        [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    path = folder / "model.onnx"
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_onnx_files(tmp_path, plant):
    path = onnx_file(tmp_path)
    assert proof.prove(frontend.read(path)) < 1e-6
    plant("MatMul")
    with pytest.raises(ir.MismatchError) as error:
        snnc.load(path, verify=True)
    assert error.value.layer == "top"


def test_onnx_files_with_their_weights_beside_them(tmp_path):
    path = onnx_file(tmp_path)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert proof.prove(frontend.read(path)) < 1e-6


def test_the_proof_is_for_models_of_ordinary_size_unless_asked_for(monkeypatch, plant):
    plant("Gemm")
    model = nested()
    with pytest.raises(ir.MismatchError):
        snnc.load(model, verify=None)
    monkeypatch.setattr(proof, "LARGEST_MODEL", 100)
    snnc.load(model, verify=None)
    with pytest.raises(ir.MismatchError):
        snnc.load(model, verify=True)


def test_only_outputs(plant, monkeypatch):
    reading = frontend.read(nested())
    plant("Gemm")
    wrong = dataclasses.replace(frontend.read(nested()), ends={})
    assert proof.prove(dataclasses.replace(reading, ends={})) < 1e-6
    with pytest.raises(ir.MismatchError, match="only its outputs could be compared") as error:
        proof.prove(wrong)
    assert error.value.layer is None


def test_network_files_are_loaded_as_they_are(tmp_path):
    network = snnc.load(nested())
    snnc.save(network, tmp_path / "net.snn")
    assert snnc.load(tmp_path / "net.snn", verify=True) == network


def test_every_exported_file_is_read_right():
    files = sorted((Path(__file__).parent / "data" / "onnx").glob("*.onnx"))
    assert len(files) > 10
    assert max(proof.prove(frontend.read(file)) for file in files) < proof.LARGEST_ERROR


def test_torch_modules_are_compared_with_pytorch():
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    nn = torch.nn
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    reading = frontend.read(module, torch.zeros(4, 3, 8, 8))
    assert proof.prove(reading) < 1e-6
    module[4].weight.data *= 1.1
    with pytest.raises(ir.MismatchError, match="its outputs differ"):
        proof.prove(reading)


def chaotic() -> keras.Model:
    """Each layer makes sixty times as much of a difference, so that rounding soon decides what comes out."""
    x = keras.Input((8,), name="x")
    y = kl.Dense(16, "tanh", name="first")(x)
    for number in range(5):
        y = keras.ops.sin(60.0 * kl.Dense(16, name=f"dense_{number}")(y))
    return randomise(keras.Model(x, kl.Dense(3, name="top")(y), name="chaos"))


def test_what_single_precision_does_not_determine_is_no_mistake():
    said = r"cannot be compared closely.*single precision does not determine what it computes.*millionth"
    with pytest.raises(ir.UncomparableError, match=said):
        snnc.load(chaotic(), verify=True)
    with pytest.warns(ir.ModelWarning, match="cannot be compared closely"):
        assert snnc.load(chaotic(), verify=None).outputs == ("top",)


@pytest.mark.parametrize(("nth", "layer"), [(1, "first"), (2, "dense_0")])
def test_a_mistake_before_that_is_found_all_the_same(plant, nth, layer):
    plant("Gemm", nth)
    with pytest.raises(ir.MismatchError) as error:
        snnc.load(chaotic(), verify=True)
    assert error.value.layer == layer


def small(bias: float, size: float) -> keras.Model:
    """A sigmoid of its bias, and of `size` times what is nearly nothing for the images of a proof."""
    x = keras.Input((64,), name="x")
    y = kl.LayerNormalization(center=False, scale=False, name="norm")(x)
    model = keras.Model(x, kl.Dense(1, "sigmoid", name="top")(y), name="small")
    images = [image["x"] for image in proof._images(frontend.read(model))]
    shown = np.concatenate([np.asarray(model.get_layer("norm")(image)) for image in images]).astype(np.float64)
    kernel = np.random.default_rng(0).normal(size=64)
    kernel -= np.linalg.pinv(shown) @ (shown @ kernel)
    model.get_layer("top").kernel.assign(size * kernel[:, None] / np.linalg.norm(kernel))
    model.get_layer("top").bias.assign([bias])
    return model


def test_what_few_digits_are_known_of_is_compared_as_closely_as_that(plant):
    model = small(-5.0, 2000.0)
    reading = frontend.read(model)
    assert 1e-4 < proof.prove(reading) < proof._CLOSE
    assert snnc.load(model, verify=None).outputs == ("top",)  # and says nothing
    model.get_layer("top").bias.assign([-5.05])
    with pytest.raises(ir.MismatchError, match="top"):
        proof.prove(reading)


@pytest.mark.parametrize("bias", [-20.0, -75.0])
def test_tiny_outputs_are_compared_in_parts_of_what_a_sigmoid_may_be(bias):
    """onnxruntime has 0 where a sigmoid is less than 1e-8."""
    model = small(bias, 1.0)
    assert 0 < np.asarray(model(np.ones((1, 64)))).max() < 1e-6
    assert proof.prove(frontend.read(model)) <= 1
    assert snnc.load(model, verify=None).outputs == ("top",)
    model.get_layer("top").bias.assign([-5.0])
    reading = frontend.read(model)
    model.get_layer("top").bias.assign([-5.01])
    with pytest.raises(ir.MismatchError, match="top"):
        proof.prove(reading)


def test_numbers_that_single_precision_hardly_has_are_not_compared():
    """Exponentials of which onnxruntime, TensorFlow and numpy make nothing, or a few bits."""
    x = keras.Input((8,), name="x")
    model = randomise(keras.Model(x, keras.ops.exp(kl.Dense(3, name="top")(x)), name="faint"))
    model.get_layer("top").bias.assign([-95.0, -90.0, -88.0])
    model.get_layer("top").kernel.assign(model.get_layer("top").kernel.numpy() / 100)
    assert proof.prove(frontend.read(model)) < proof.LARGEST_ERROR
