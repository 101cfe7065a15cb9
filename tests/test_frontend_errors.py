"""Whatever cannot be read is refused with one message that names every layer, and nothing is left behind."""

import io
import json
import re
import signal
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from frontend_models import assert_equal, randomise
from keras import layers as kl

from snnc import frontend, ir
from snnc.frontend import hdf5_copy

IMAGE = (8, 8, 3)


def small() -> keras.Model:
    x = keras.Input(IMAGE, name="image")
    y = kl.Flatten(name="flat")(kl.Conv2D(4, 3, activation="relu", name="conv")(x))
    return randomise(keras.Model(x, kl.Dense(3, activation="softmax", name="digit")(y), name="small"))


def problems(model: object) -> list[str]:
    with pytest.raises(ir.UnsupportedModelError) as error:
        frontend.load(model)
    return list(error.value.problems)


# Files that can be read.


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
@pytest.mark.filterwarnings("ignore")
def test_files_hold_the_same_network_as_the_model(tmp_path, suffix):
    model = small()
    path = tmp_path / f"model{suffix}"
    model.save(path)
    assert assert_equal(model, path) == frontend.load(model)
    assert frontend.load(str(path)).outputs == ("digit",)


def test_a_compiled_sequential_model_from_a_file(tmp_path):
    model = keras.Sequential([keras.Input((4,)), kl.Dense(3, activation="relu", name="a"), kl.Dense(2, name="b")])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0)
    model.save(tmp_path / "model.keras")
    assert_equal(model, tmp_path / "model.keras")


# Layers without a spiking counterpart.


def everything_bad() -> keras.Model:
    x = keras.Input(IMAGE, name="image")
    y = kl.Conv2D(4, 3, activation="sparse_plus", name="swishy")(x)
    y = kl.Activation("sparse_plus", name="act")(y)
    y = kl.Lambda(lambda t: t * 2, name="twice")(y)
    y = kl.Reshape((-1, 4), name="rows")(y)
    y = kl.LSTM(10, name="memory")(kl.TimeDistributed(kl.Dense(3), name="each")(y))
    inner = keras.Input((10,))
    nested = keras.Model(
        inner, kl.Activation("sparse_plus", name="curve")(kl.Dense(4, name="fine")(inner)), name="nested"
    )
    return keras.Model(x, kl.Dense(2, activation="sparse_plus", name="top")(nested(y)), name="bad")


def test_all_problems_are_reported_at_once_and_by_layer():
    found = problems(everything_bad())
    assert [line.split(":")[0] for line in found] == [
        "swishy (Conv2D 'sparse_plus')",
        "act (Activation 'sparse_plus')",
        "twice (Lambda)",
        "each (TimeDistributed)",
        "nested/curve (Activation 'sparse_plus')",
        "top (Dense 'sparse_plus')",
    ]
    assert "use ReLU there and fine-tune" in found[0]
    assert "apply the inner layer to single images" in found[3]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore")
def test_files_with_code_name_every_layer(tmp_path, suffix):
    path = tmp_path / f"bad{suffix}"
    everything_bad().save(path)
    found = problems(path)
    assert [line.split(":")[0] for line in found] == [
        "swishy (Conv2D 'sparse_plus')",
        "act (Activation 'sparse_plus')",
        "twice (Lambda)",
        "each (TimeDistributed)",
        "nested/curve (Activation 'sparse_plus')",
        "top (Dense 'sparse_plus')",
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_files_without_code_name_every_layer(tmp_path):
    x = keras.Input((5, 5, 2))
    y = kl.UpSampling2D(name="up")(kl.ReLU(threshold=0.1, name="late")(x))
    y = kl.Masking(name="masked")(kl.Reshape((-1, 2), name="rows")(y))
    keras.Model(x, y).save(tmp_path / "bad.keras")
    found = problems(tmp_path / "bad.keras")
    assert [line.split(":")[0] for line in found] == ["late (ReLU)", "masked (Masking)"]


class Doubled(kl.Layer):
    def call(self, x):
        return x * 2.0


def double(x):
    return x * 2.0


def test_custom_classes_and_functions_are_supported_in_memory_but_not_run_from_files(tmp_path):
    x = keras.Input((4,), name="x")
    y = kl.Dense(3, activation=double, name="doubling")(Doubled(name="mine")(x))
    model = randomise(keras.Model(x, kl.Dense(2, activation="sparse_plus", name="top")(y)))
    model.layers[-1].activation = keras.activations.linear
    network = assert_equal(model)
    assert network.connections[0].origin.layers == ("mine", "doubling", "top")
    model.layers[-1].activation = keras.activations.sparse_plus
    model.save(tmp_path / "custom.keras")
    found = problems(tmp_path / "custom.keras")
    assert [line.split(":")[0] for line in found] == ["mine (Doubled)", "doubling (Dense)", "top (Dense 'sparse_plus')"]
    assert all("not run from files" in line for line in found[:2])


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (lambda: kl.Conv2D(4, 3, activation=lambda t: 2 * t, name="conv"), "conv (Conv2D)"),
        (lambda: kl.Activation(lambda t: 2 * t, name="act"), "act (Activation)"),
        (lambda: kl.Dense(4, kernel_initializer=lambda shape, dtype: keras.ops.ones(shape), name="d"), "d (Dense)"),
        (lambda: kl.Dense(4, kernel_regularizer=lambda w: keras.ops.sum(w), name="d"), "d (Dense)"),
        (lambda: kl.Dense(4, bias_constraint=lambda w: w, name="d"), "d (Dense)"),
        (
            lambda: keras.Sequential(
                [keras.Input(IMAGE), kl.Dense(4, activation=lambda t: 2 * t, name="d")], name="in"
            ),
            "in/d (Dense)",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_lambdas_in_files_are_refused_as_named_functions_are(tmp_path, layer, name, suffix):
    path = tmp_path / f"model{suffix}"
    x = keras.Input(IMAGE)
    keras.Model(x, kl.Activation("sparse_plus", name="later")(layer()(x))).save(path)
    found = problems(path)
    assert [line.split(":")[0] for line in found] == [name, "later (Activation 'sparse_plus')"]
    assert "it refers to Python code, which is not run from files" in found[0]


@pytest.mark.filterwarnings("ignore")
def test_functions_that_older_files_know_by_name_alone(tmp_path):
    small().save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace(
            '"activation": "relu"', '"activation": "<lambda>"'
        )
    (line,) = problems(tmp_path / "model.h5")
    assert line.startswith("conv (Conv2D '<lambda>'): it refers to Python code, which is not run from files")


def test_layers_that_hold_code_of_other_frameworks_are_not_read_from_files(tmp_path):
    def exchanged(content: bytes) -> bytes:
        config = json.loads(content)
        config["config"]["layers"][1]["class_name"] = "TFSMLayer"
        return json.dumps(config).encode()

    small().save(tmp_path / "small.keras")
    (line,) = problems(_repacked(tmp_path / "small.keras", tmp_path / "other.keras", {"config.json": exchanged}))
    assert line == "conv (TFSMLayer): it holds a model of another framework; give that model itself"


def test_a_custom_layer_that_fails_does_not_hide_the_others():
    class Broken(kl.Layer):
        def call(self, x):
            if not isinstance(x, keras.KerasTensor):
                raise RuntimeError("deliberately")
            return x

        def compute_output_shape(self, shape):
            return shape

    x = keras.Input((4,), name="x")
    y = kl.Activation("sparse_plus", name="act")(Broken(name="broken")(x))
    found = problems(keras.Model(x, y))
    assert [line.split(":")[0] for line in found] == ["broken (Broken)", "act (Activation 'sparse_plus')"]
    assert "deliberately" in found[0]


def test_a_custom_layer_whose_output_is_unknown_ends_the_search_but_hides_no_class():
    class Fragile(kl.Layer):
        broken = False

        def call(self, x):
            if self.broken:
                raise RuntimeError("deliberately")
            return x

    fragile = Fragile(name="fragile")
    model = keras.Sequential([keras.Input((16,)), kl.Reshape((4, 4), name="rows"), fragile, kl.Masking(name="masked")])
    fragile.broken = True
    found = problems(model)
    assert [line.split(":")[0] for line in found] == ["fragile (Fragile)", "masked (Masking)"]


def _on_image(*layers: kl.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(IMAGE, name="image"), *layers])


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([kl.Resizing(4, 4, interpolation="area", name="area")], "area (Resizing): it resizes images by areas"),
        (
            [kl.Softmax(axis=0, name="wrong")],
            "wrong (Softmax): it works along axis 3 of (3, 8, 8, 1), across the images of a batch",
        ),
        ([kl.Reshape((4, 2, 8, 3), name="deep")], "deep (Reshape): it arranges numbers in 4 axes"),
        ([kl.Conv2D(2, 3, data_format="channels_first", name="cf")], "cf (Conv2D): channels_first"),
    ],
)
def test_messages(layers, expected):
    (line,) = problems(_on_image(*layers))
    assert expected in line


def _on_series(*layers: kl.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((8, 4), name="series"), *layers])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda: _on_image(kl.Reshape((8, 8, 3, 1)), kl.UpSampling3D(name="up")), "up (UpSampling3D): only images"),
        (lambda: _on_image(kl.Reshape((8, 8, 3, 1)), kl.MaxPooling3D(name="pool")), "pool (MaxPooling3D): only images"),
        (lambda: _on_series(kl.Masking(name="mask")), "mask (Masking): it skips steps"),
        (lambda: _on_image(kl.IntegerLookup(name="look")), "look (IntegerLookup): it turns numbers or text"),
        (lambda: _on_image(kl.Discretization([0.0, 1.0], name="bins")), "bins (Discretization): it turns numbers"),
        (lambda: _on_image(kl.AutoContrast(name="contrast")), "contrast (AutoContrast): it changes each image"),
    ],
)
def test_layers_are_refused_by_what_they_do_and_not_by_their_operators(model, expected):
    (line,) = problems(model())
    assert expected in line


needs_adaptive = pytest.mark.skipif(not hasattr(kl, "AdaptiveMaxPooling2D"), reason="Keras is older than 3.14")


@needs_adaptive
@pytest.mark.parametrize("kind", ["Average", "Max"])
def test_adaptive_pooling_to_a_size_that_divides_is_plain_pooling(kind):
    network = assert_equal(_on_image(getattr(kl, f"Adaptive{kind}Pooling2D")((4, 2), name="pool")))
    assert list(network.populations) == ["image", "pool"]
    assert len(network.connections) == 1


def test_state_that_keras_does_not_know_of():
    class Secret(kl.Layer):
        def build(self, shape):
            self.secret = tf.Variable(tf.ones((3, 3)))

        def call(self, x):
            return tf.matmul(x, self.secret)

    class Hiding(keras.Model):
        def build(self, shape):
            self.secret = tf.Variable(tf.ones((3, 3)))

        def call(self, x):
            return tf.matmul(x, self.secret)

    found = problems(
        keras.Sequential([keras.Input((3,)), Secret(name="mine"), kl.Activation("sparse_plus", name="act")])
    )
    assert found[0].startswith("mine (Secret): it keeps a variable")
    assert found[1].startswith("act (Activation 'sparse_plus')")
    hiding = Hiding(name="hiding")
    hiding(np.ones((1, 3), np.float32))
    assert problems(hiding)[0].startswith("hiding (Hiding): it keeps a variable")


def test_input_shapes():
    model = keras.Sequential([keras.Input((None, None, 3), name="photo"), kl.Conv2D(2, 3)])
    assert "say the sizes, as in inputs={'photo': (1, 64, 64, 3)}" in problems(model)[0]
    volume = keras.Sequential([keras.Input((5, 4, 3, 2), name="volume"), kl.Dense(2)])
    assert problems(volume)[0].startswith("volume (Input)")
    with pytest.raises(ir.UnsupportedModelError, match="has not been built"):
        frontend.load(keras.Sequential([kl.Dense(2)]))


def test_weights_that_are_not_finite():
    model = small()
    model.layers[1].bias.assign([np.nan] * 4)
    with pytest.raises(ir.SnncError, match="conv"):
        frontend.load(model)


# Files that cannot be read.


def _refused(path) -> str:
    before = sorted(path.parent.iterdir()) if path.parent.exists() else None
    with pytest.raises(ir.ModelFileError) as error:
        frontend.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None
    assert before is None or sorted(path.parent.iterdir()) == before
    return str(error.value)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5", ".onnx"])
def test_missing_empty_foreign_and_directories(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    assert "no such file" in _refused(path)
    path.write_bytes(b"")
    _refused(path)
    path.write_bytes(b"this is not a model, but it is long enough to be looked at" * 10)
    _refused(path)
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    assert "not a file" in _refused(folder)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.filterwarnings("ignore")
def test_truncated(tmp_path, suffix, share):
    path = tmp_path / f"model{suffix}"
    small().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    _refused(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.pt", "is of PyTorch and may be a pickle, .* give the torch.nn.Module"),
        ("model.pkl", "is a pickle, which can run code, so that it is not opened"),
        ("model.safetensors", "holds weights without a model"),
        ("model.pb", "give the folder of a SavedModel"),
        ("model.tflite", "TensorFlow Lite; give the model that it was made from"),
        ("model.json", "a model's architecture at most"),
        ("model.keras.zip", "unpack it"),
        ("model", "cannot tell"),
        ("model.xyz", "cannot tell"),
    ],
)
def test_other_kinds_of_files_say_what_they_are_and_what_to_give(tmp_path, name, message):
    path = tmp_path / name
    path.write_bytes(b"x")
    assert re.search(message, _refused(path))


def test_architectures_without_weights(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(small().to_json())
    assert "the architecture of a Keras model, without weights; make the model in Python" in _refused(path)
    path.write_text(json.dumps(KERAS_1))
    assert "as Keras '1.0.7' wrote it, without weights; rebuild the model in Keras 3" in _refused(path)
    for other in ("[1]", '{"class_name": 1}', "[" * 100_000, "{"):
        path.write_text(other)
        assert "architecture at most" in _refused(path)


CONVOLUTION = {"name": "c1", "batch_input_shape": [None, 3, 8, 8], "nb_filter": 8, "nb_row": 3, "nb_col": 3}
KERAS_1 = {
    "class_name": "Sequential",
    "keras_version": "1.0.7",
    "config": [{"class_name": "Convolution2D", "config": CONVOLUTION}],
}


@pytest.mark.parametrize("text", [str, str.encode])
def test_models_of_keras_1_are_known_by_their_version(tmp_path, text):
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = text("1.0.7")
        file.attrs["model_config"] = text(json.dumps(KERAS_1))
        file["model_weights/c1/c1_W"] = np.zeros((8, 3, 3, 3), np.float32)
    assert "was written by Keras 1.0.7" in _refused(path)
    assert "rebuild the model in Keras 3" in _refused(path)


def test_archives_that_hold_no_model(tmp_path):
    path = tmp_path / "other.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "not a model saved by Keras" in _refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{not json")
    assert "not a model saved by Keras" in _refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(["unexpected"]))
        archive.writestr("metadata.json", "{}")
    _refused(path)


def test_weights_without_a_model(tmp_path):
    path = tmp_path / "only.weights.h5"
    small().save_weights(path)
    assert "save the whole model" in _refused(path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1, 2]
    _refused(tmp_path / "other.h5")


@pytest.mark.parametrize("thing", [None, 3, {"a": 1}, object(), np.zeros(3)])
def test_objects_that_are_no_model(thing):
    with pytest.raises(ir.UnsupportedModelError, match=r"a Keras model, .* or the path of a \.keras"):
        frontend.load(thing)


def test_missing_packages(monkeypatch, tmp_path):
    model = small()
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ir.ModelFileError, match=r"pip install 'snnc\[keras\]'"):
        frontend.load(model)


# Files that would take more than they are.


def _repacked(source, target, change, compression=zipfile.ZIP_DEFLATED):
    """A .keras file with some of its parts replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change.get(name, lambda content: content)(old.read(name)))
    return target


def test_configurations_that_ask_for_more_than_the_file_holds(tmp_path):
    small().save(tmp_path / "small.keras")
    huge = {"config.json": lambda content: content.replace(b'"units": 3', b'"units": 3000000000')}
    assert "parameters, but it holds" in _refused(_repacked(tmp_path / "small.keras", tmp_path / "huge.keras", huge))


@pytest.mark.parametrize("part", ["config.json", "model.weights.h5"])
def test_archives_that_unpack_to_far_more_than_they_are(tmp_path, part):
    small().save(tmp_path / "small.keras")
    bomb = {part: lambda content: content + b" " * 2**28}
    assert "unpacks to" in _refused(_repacked(tmp_path / "small.keras", tmp_path / "bomb.keras", bomb))


@pytest.mark.filterwarnings("ignore")
def test_weights_in_other_files_are_not_followed(tmp_path):
    small().save(tmp_path / "other.h5")
    small().save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        del file["model_weights"]["conv"]
        file["model_weights"]["conv"] = h5py.ExternalLink(tmp_path / "other.h5", "/model_weights/conv")
    assert "in another file" in _refused(tmp_path / "model.h5")
    small().save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        (name,) = [name for name in _datasets(file) if name.endswith("conv/bias")]
        del file[name]
        file.create_dataset(name, (4,), "f4", external=[("/etc/passwd", 0, 16)])
    assert "in another file" in _refused(tmp_path / "model.h5")


def _datasets(file):
    names = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def test_inputs_that_no_memory_holds(tmp_path):
    x = keras.Input((2**20, 2**20, 3), name="image")
    keras.Model(x, kl.ReLU(name="relu")(x)).save(tmp_path / "large.keras")
    assert "numbers are not supported" in problems(tmp_path / "large.keras")[0]


# Files whose damage is HDF5's or TensorFlow's to trip over.


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore")
def test_arrays_that_are_promised_but_not_held(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    small().save(path)

    def grown(content: bytes) -> bytes:
        buffer = io.BytesIO(content)
        with h5py.File(buffer, "a") as file:
            name = _datasets(file)[0]
            del file[name]
            file.create_dataset(name, (2**31,), "f4", chunks=(2**16,))
        return buffer.getvalue()

    if suffix == ".h5":
        path.write_bytes(grown(path.read_bytes()))
    else:
        path = _repacked(path, tmp_path / "huge.keras", {"model.weights.h5": grown})
    assert "far larger than the file" in _refused(path)


@pytest.mark.filterwarnings("ignore")
def test_what_crashes_or_stalls_hdf5_ends_with_an_error(tmp_path, monkeypatch):
    small().save(tmp_path / "model.h5")
    monkeypatch.setattr(hdf5_copy, "_PATIENCE", 0)
    assert "does not come to an end" in _refused(tmp_path / "model.h5")
    monkeypatch.undo()
    spinning = "from snnc.frontend import hdf5_copy\nhdf5_copy._limit(1)\nwhile True: pass"
    ended = subprocess.run([sys.executable, "-c", spinning], timeout=60)
    assert ended.returncode == -signal.SIGXCPU
    monkeypatch.setattr(hdf5_copy.subprocess, "run", lambda *_, **__: ended)
    assert "does not come to an end" in _refused(tmp_path / "model.h5")
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", str(_crashing(tmp_path)))
    assert "makes HDF5 crash" in _refused(tmp_path / "model.h5")


def _crashing(folder):
    """A program that dies of a segmentation fault, whatever it is to do."""
    program = folder / "crashing"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o755)
    return program


def test_groups_that_hold_themselves(tmp_path):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["a/x"] = [1.0, 2.0]
        file["a/again"] = file["a"]
        file["b"] = file["a/x"]
        file["a"].attrs["names"] = ["x", "again"]
    hdf5_copy.copy(tmp_path / "old.h5", tmp_path / "new.h5", 1000, "old")
    with h5py.File(tmp_path / "new.h5") as file:
        assert file["a/again/again/x"][1] == file["b"][1] == 2
        assert list(file["a"].attrs["names"]) == ["x", "again"]
    with pytest.raises(ir.ModelFileError, match="far larger"):
        hdf5_copy.copy(tmp_path / "old.h5", tmp_path / "new.h5", 20, "old")


def test_configurations_that_keras_gives_memory_before_it_refuses_them(tmp_path):
    model = keras.Sequential([keras.Input((4,)), kl.Dense(3, name="a"), kl.Dense(2, name="b")])
    model.save(tmp_path / "small.keras")

    def grown(content: bytes) -> bytes:
        config = json.loads(content)
        config["config"]["layers"][1]["config"]["units"] = 2**34
        config["config"]["layers"][2]["config"]["bias_initializer"] = 7
        return json.dumps(config).encode()

    _refused(_repacked(tmp_path / "small.keras", tmp_path / "huge.keras", {"config.json": grown}))


def test_variables_of_a_saved_model_behind_a_link(tmp_path):
    folder = tmp_path / "model"
    small().export(folder, verbose=False)
    (folder / "variables").rename(tmp_path / "variables")
    (folder / "variables").symlink_to(tmp_path / "variables")
    assert "a link out of the folder" in _refused(folder)
