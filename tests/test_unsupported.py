"""What cannot be converted or read is refused with one message that names all of it, and leaves nothing behind."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

import snnc
from snnc.frontend.keras import require_keras

require_keras()
import keras  # noqa: E402
import onnx  # noqa: E402
from keras import layers as L  # noqa: E402


def refusal(model) -> str:
    with pytest.raises(snnc.SnncError) as caught:
        snnc.load(model)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def bad_everywhere(with_lambda=True):
    x = keras.Input((8, 4), name="x")
    y = L.LSTM(6, name="memory")(x)
    y = L.Dense(5, activation="swish", name="gate")(y)
    y = L.Activation("tanh", name="squash")(y)
    y = L.Lambda(lambda t: 2 * t, name="double")(y) if with_lambda else y
    y = L.Dense(3, activation="relu", name="fine")(y)
    return keras.Model(x, L.Dense(2, activation="sigmoid", name="out")(y))


@pytest.mark.parametrize("suffix", [None, ".keras", ".h5"])
def test_all_unsupported_layers_are_named_at_once(suffix, tmp_path):
    model = bad_everywhere()
    if suffix:
        path = tmp_path / f"model{suffix}"
        model.save(path)
        model = path
    message = refusal(model)
    for layer in (
        "memory (LSTM)",
        "gate (Dense 'silu')",
        "squash (Activation 'tanh')",
        "double (Lambda)",
        "out (Dense 'sigmoid')",
    ):
        assert message.count(layer) == 1
    assert "fine" not in message.replace("fine-tune", "")
    assert "swap the activation for ReLU" in message
    assert os.listdir(tmp_path) == ([path.name] if suffix else [])


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (lambda: L.Conv2DTranspose(2, 3, name="up"), (6, 6, 1), "up (Conv2DTranspose)"),
        (lambda: L.UpSampling2D(name="up"), (6, 6, 1), "up (UpSampling2D)"),
        (lambda: L.LayerNormalization(name="norm"), (6, 6, 1), "norm (LayerNormalization)"),
        (lambda: L.LeakyReLU(name="leaky"), (6, 6, 1), "leaky (LeakyReLU"),
        (lambda: L.Activation("gelu", name="act"), (6,), "act (Activation 'gelu')"),
        (lambda: L.Conv1D(2, 3, name="conv"), (6, 2), "inputs of shape (6, 2)"),
        (lambda: L.Embedding(10, 4, name="words"), (6,), "words (Embedding)"),
        (lambda: L.ReLU(name="thresholded", threshold=1.0), (6,), "thresholded (ReLU)"),
        (lambda: L.Bidirectional(L.GRU(2), name="both"), (6, 2), "both (Bidirectional)"),
        (lambda: L.Reshape((3, 2, 1), name="fold"), (6,), "fold (Reshape)"),
        (lambda: L.Conv2D(2, 3, name="conv"), (None, None, 1), "(None, None, 1)"),
    ],
)
def test_each_kind_is_refused_by_name(layer, shape, expected):
    x = keras.Input(shape, name="x")
    assert expected in refusal(keras.Model(x, layer()(x)))


def test_softmax_inside_and_products_of_activations():
    x = keras.Input((6,), name="x")
    attention = L.Multiply(name="attend")([L.Dense(6, activation="softmax", name="scores")(x), x])
    message = refusal(keras.Model(x, L.Dense(2)(attention)))
    assert "attend (Multiply)" in message


def test_no_code_from_a_file_runs(tmp_path):
    x = keras.Input((4,), name="x")
    marker = tmp_path / "ran"
    model = keras.Model(x, L.Lambda(lambda t, path=str(marker): Path(path).touch() or t, name="trap")(x))
    marker.unlink(missing_ok=True)  # building the model ran it
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"model{suffix}")
        marker.unlink(missing_ok=True)
        assert "trap (Lambda)" in refusal(tmp_path / f"model{suffix}")
        assert not marker.exists()


def test_classes_from_elsewhere_are_refused_and_never_imported(tmp_path):
    keras.Model(x := keras.Input((4,)), L.Dense(2, name="dense")(x)).save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(contents["config.json"])
    config["config"]["layers"][1].update(module="antigravity", class_name="Flyer", registered_name="Flyer")
    contents["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    message = refusal(tmp_path / "model.keras")
    assert "dense (Flyer)" in message
    assert "'antigravity'" in message


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".onnx", ".snn"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a model at all" * 100, b"\x89HDF\r\n\x1a\n" + bytes(50)])
def test_foreign_files(suffix, content, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    assert str(path) in refusal(path)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_truncated_files(suffix, share, tmp_path):
    path = tmp_path / f"model{suffix}"
    keras.Model(x := keras.Input((30,)), L.Dense(200)(x)).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert str(path) in refusal(path)


def test_files_that_are_no_models(tmp_path):
    assert "no such file" in refusal(tmp_path / "missing.keras")
    assert "known are" in refusal(tmp_path / "model.pth")
    (tmp_path / "folder.h5").mkdir()
    assert "is a folder" in refusal(tmp_path / "folder.h5")
    model = keras.Model(x := keras.Input((3,)), L.Dense(2)(x))
    model.save_weights(tmp_path / "model.weights.h5")
    assert "weights only" in refusal(tmp_path / "model.weights.h5")
    assert "cannot read a dict" in refusal({})


def test_onnx_files_may_not_read_other_files(tmp_path):
    weight = onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [1, 2])],
        [onnx.helper.make_tensor_value_info("y", 1, [1, 2])],
        [weight],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "good.onnx")
    network = snnc.load(tmp_path / "good.onnx")
    np.testing.assert_array_equal(snnc.compile(network).predict(np.ones((1, 2))), [[2, 2]])
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../etc/passwd")
    (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
    assert "bad.onnx" in refusal(tmp_path / "bad.onnx")


def test_missing_packages_are_named(monkeypatch):
    import builtins

    real = builtins.__import__

    def without_tf2onnx(name, *args, **kwargs):
        if name == "tf2onnx":
            raise ImportError("No module named 'tf2onnx'", name="tf2onnx")
        return real(name, *args, **kwargs)

    model = keras.Model(x := keras.Input((3,)), L.Dense(2)(x))
    monkeypatch.setattr(builtins, "__import__", without_tf2onnx)
    assert "pip install 'snnc[keras]'" in refusal(model)
