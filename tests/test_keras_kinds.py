"""Keras and TensorFlow models in every form: functions, SavedModels, Keras 2, and Keras 3 on other backends."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from frontend_models import randomise
from keras import layers as kl

import snnc
from snnc import frontend, ir, proof

SHAPE = (8, 8, 3)


def small() -> keras.Model:
    x = keras.Input(SHAPE, name="image")
    y = kl.BatchNormalization(name="norm")(kl.Conv2D(4, 3, activation="relu", name="conv")(x))
    y = kl.Flatten(name="flat")(kl.MaxPooling2D(name="pool")(y))
    return randomise(keras.Model(x, kl.Dense(3, name="top")(y), name="small"))


def assert_read(source, model, inputs=None):
    """The network of `source` gives what the Keras model gives."""
    network = snnc.load(source, inputs=inputs, verify=True)
    x = np.random.default_rng(3).normal(size=(4, *SHAPE)).astype(np.float32)
    expected = np.asarray(model(x))
    np.testing.assert_allclose(
        snnc.compile(network).predict(x, progress=False), expected, rtol=0, atol=1e-4 * np.abs(expected).max()
    )
    return network


def problems(source, inputs=None) -> list[str]:
    with pytest.raises(ir.UnsupportedModelError) as error:
        frontend.load(source, inputs)
    return list(error.value.problems)


# Functions.


def test_a_function_with_an_example():
    model = small()
    function = tf.function(lambda image: model(image, training=False))
    assert_read(function, model, np.zeros((5, *SHAPE), np.float32))
    assert "give an example" in problems(function)[0]


def test_a_function_with_a_signature():
    model = small()
    signature = [tf.TensorSpec((None, *SHAPE), tf.float32, "photo")]
    network = assert_read(tf.function(lambda image: model(image, training=False), input_signature=signature), model)
    assert network.inputs == ("photo",)


def test_a_concrete_function_of_several_inputs_by_name():
    weight = tf.Variable(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32))

    @tf.function
    def mixed(a, b):
        with tf.name_scope("hidden"):
            hidden = tf.nn.relu(a @ weight + b)
        return {"sum": hidden + b, "hidden": hidden}

    spec = tf.TensorSpec((None, 5), name="a"), tf.TensorSpec((None, 4), name="b")
    reading = frontend.read(mixed.get_concrete_function(*spec))
    assert reading.network.inputs == ("a", "b")
    assert reading.network.populations["hidden"].origin.layers == ("hidden",)
    assert proof.prove(reading) < 1e-6


def test_functions_are_refused_by_their_name_scopes():
    @tf.function
    def curved(x):
        with tf.name_scope("outer"), tf.name_scope("inner"):
            return tf.math.special.bessel_j0(x)

    (line,) = problems(curved, np.zeros((1, 4), np.float32))
    assert line.startswith("outer/inner/bessel_j0 (name scope): BesselJ0 is neither")


def test_functions_of_other_shapes():
    function = tf.function(lambda x: tf.nn.relu(x))
    concrete = function.get_concrete_function(tf.TensorSpec((None, None, None, 3)))
    assert "its shape (batch, ?, ?, 3) is open" in problems(concrete)[0]


def test_a_mistake_in_a_function_is_found_in_its_scope(monkeypatch):
    from snnc.frontend import operators

    model = small()
    function = tf.function(lambda image: model(image, training=False))
    monkeypatch.setitem(operators._HANDLERS, "MaxPool", operators._HANDLERS["AveragePool"])
    with pytest.raises(ir.MismatchError) as error:
        snnc.load(function, inputs=np.zeros((1, *SHAPE), np.float32), verify=True)
    assert error.value.layer is not None
    assert "pool" in error.value.layer


# SavedModels.


@pytest.mark.parametrize("save", ["export", "saved_model"])
def test_saved_models(tmp_path, save):
    model = small()
    if save == "export":
        model.export(tmp_path / "model", verbose=False)
    else:
        tf.saved_model.save(model, str(tmp_path / "model"))
    network = assert_read(tmp_path / "model", model)
    assert len(network.populations) == 4
    assert all("Partitioned" not in name for name in network.populations)


class Module(tf.Module):
    """Something to save: `compute` is made by each test."""

    def __init__(self, compute):
        super().__init__()
        self.weight = tf.Variable(tf.ones((4, 4)))
        self.compute = tf.function(lambda x: compute(self, x), input_signature=[tf.TensorSpec((None, 4))])


def saved(folder, compute, **attributes):
    module = Module(compute)
    for name, value in attributes.items():
        setattr(module, name, value)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.compute})
    return folder


def test_saved_models_that_touch_files_are_not_let_in(tmp_path):
    target = tmp_path / "written"

    def write(module, x):
        tf.io.write_file(str(target), "mischief")
        return x @ module.weight

    (line,) = problems(saved(tmp_path / "model", write))
    assert "(WriteFile)" in line
    assert not target.exists()


def printed(module, x):
    tf.print("hello")
    return x @ module.weight


@pytest.mark.parametrize(
    ("operator", "compute"),
    [
        ("ReadFile", lambda module, x: x + tf.cast(tf.strings.length(tf.io.read_file("/etc/passwd")), tf.float32)),
        ("EagerPyFunc", lambda module, x: tf.py_function(lambda t: t, [x], tf.float32)),
        ("PrintV2", printed),
        ("MatchingFiles", lambda module, x: x + tf.cast(tf.size(tf.io.matching_files("/*")), tf.float32)),
    ],
)
def test_operators_that_do_more_than_compute(tmp_path, operator, compute):
    found = problems(saved(tmp_path / "model", compute))
    assert any(f"({operator})" in line and "not let in" in line for line in found)


def test_objects_whose_restoring_would_run_functions(tmp_path):
    keys = tf.lookup.KeyValueTensorInitializer(["a"], [1.0])
    table = tf.lookup.StaticHashTable(keys, 0.0)
    found = problems(saved(tmp_path / "model", lambda module, x: x @ module.weight, table=table))
    assert any("not let in" in line for line in found)


def test_saved_models_that_are_damaged(tmp_path):
    folder = saved(tmp_path / "model", lambda module, x: tf.nn.relu(x @ module.weight))
    assert len(frontend.load(folder).populations) == 2
    graph = (folder / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(graph[: len(graph) // 2])
    with pytest.raises(ir.SnncError):
        frontend.load(folder)
    (folder / "saved_model.pb").write_bytes(graph)
    for file in (folder / "variables").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ir.ModelFileError, match="damaged"):
        frontend.load(folder)
    (folder / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ir.ModelFileError, match="not saved by TensorFlow 2"):
        frontend.load(folder)


def test_saved_models_without_a_signature(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "model"))
    with pytest.raises(ir.ModelFileError, match="no signature"):
        frontend.load(tmp_path / "model")


def test_saved_models_that_attend_and_gate(tmp_path):
    """Whose constants TensorFlow keeps as tensors that a function has captured, and whose GELU is an Erfc."""
    x = kl.Input((6, 4), name="x")
    y = kl.LayerNormalization(name="norm")(x)
    y = kl.Add(name="sum")([x, kl.MultiHeadAttention(2, 3, name="attention")(y, y)])
    y = kl.Dense(3, name="top")(kl.Flatten(name="flat")(kl.Dense(4, "gelu", name="bend")(y)))
    model = randomise(keras.Model(x, y))
    model.export(tmp_path / "model", verbose=False)
    network = snnc.load(tmp_path / "model", verify=True)
    images = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
    np.testing.assert_allclose(snnc.compile(network).predict(images), np.asarray(model(images)), atol=1e-4)


def test_a_loop_in_a_saved_model_is_refused_by_the_name_of_its_layer(tmp_path):
    model = keras.Sequential([kl.Input((5, 3), name="x"), kl.LSTM(4, name="memory"), kl.Dense(2, name="top")], name="m")
    model.export(tmp_path / "model", verbose=False)
    with pytest.raises(ir.UnsupportedModelError, match="cannot be read") as error:
        frontend.load(tmp_path / "model")
    (problem,) = error.value.problems
    assert re.match(r"m(_\d+)?/memory(_\d+)? \(While\): it is a loop", problem)
    assert problem.endswith("write its steps out, as unroll=True does in Keras")


# Keras 2.


def keras2():
    """A Keras 2 model with a block inside, a layer that is called twice, and an operator between layers."""
    tf_keras = pytest.importorskip("tf_keras")
    layers = tf_keras.layers
    inner = layers.Input((8, 8, 3))
    block = tf_keras.Model(inner, layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(inner)), name="block")
    x = layers.Input(SHAPE, name="image")
    shared = layers.Conv2D(3, 3, padding="same", activation="relu", name="shared")
    y = block(shared(shared(x)) + x)
    y = layers.Dense(3, name="top")(layers.Flatten(name="flat")(layers.MaxPooling2D(name="pool")(y)))
    model = tf_keras.Model(x, y, name="old")
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 0.5, weight.shape) for weight in model.get_weights()])
    return tf_keras, model


def test_keras_2():
    _, model = keras2()
    before = [sorted(vars(layer)) for layer in model._flatten_layers()]
    network = assert_read(model, model)
    assert {"shared", "shared#2", "block/relu", "pool", "top"} <= set(network.populations)
    assert [sorted(vars(layer)) for layer in model._flatten_layers()] == before


def test_a_mistake_in_keras_2_is_found_in_its_layer(monkeypatch):
    from snnc.frontend import operators

    _, model = keras2()
    monkeypatch.setitem(operators._HANDLERS, "MaxPool", operators._HANDLERS["AveragePool"])
    with pytest.raises(ir.MismatchError) as error:
        snnc.load(model, verify=True)
    assert error.value.layer == "pool"


def test_keras_2_layers_are_refused_by_name():
    tf_keras, _ = keras2()
    layers = tf_keras.layers
    x = layers.Input(SHAPE, name="image")
    y = layers.LayerNormalization(name="norm")(layers.Conv2D(3, 3, name="conv")(x))
    y = layers.Dense(4, name="top")(layers.Flatten(name="flat")(layers.UpSampling2D(name="up")(y)))
    found = problems(tf_keras.Model(x, y))
    assert [line.split(":")[0] for line in found] == ["norm (LayerNormalization)"]
    with pytest.raises(ir.UnsupportedModelError, match="has not been built"):
        frontend.load(tf_keras.Sequential())


# Keras 3 on JAX and PyTorch: a process of its own, as a process has one backend.

ELSEWHERE = """
import json, sys, numpy as np, keras, snnc
from keras import layers as kl
from snnc import frontend, proof
assert keras.backend.backend() == sys.argv[1]
x = keras.Input((8, 8, 3), name="image")
y = kl.MaxPooling2D(name="pool")(kl.Conv2D(4, 3, activation="relu", name="conv")(x))
model = keras.Model(x, kl.Dense(3, name="top")(kl.Flatten(name="flat")(y)), name="small")
reading = frontend.read(model)
images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
expected = keras.ops.convert_to_numpy(model(images))
error = np.abs(snnc.compile(reading.network).predict(images, progress=False) - expected).max() / np.abs(expected).max()
model.save(sys.argv[2])
first = keras.Input((3, 8, 8), name="first")
permuted = frontend.read(keras.Model(first, kl.Conv2D(4, 3, name="conv")(kl.Permute((2, 3, 1), name="last")(first))))
facts = {"error": float(error), "proved": proof.prove(reading), "names": list(reading.network.populations),
         "layers": reading.layers, "file": proof.prove(frontend.read(sys.argv[2])),
         "permuted": proof.prove(permuted)}
class Mine(kl.Layer):
    def call(self, x):
        return x * 2.0
y = kl.Conv2D(4, 3, activation="sparse_plus", name="swishy")(x)
facts["refused"] = []
for bad in (keras.Model(x, y), keras.Model(x, Mine(name="mine")(y))):
    try:
        snnc.load(bad)
    except snnc.ir.UnsupportedModelError as error:
        facts["refused"].append([problem for problem in error.problems])
print(json.dumps(facts))
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_keras_on_other_backends(tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = {**os.environ, "KERAS_BACKEND": backend}
    command = [sys.executable, "-c", textwrap.dedent(ELSEWHERE), backend, str(tmp_path / "model.keras")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert max(facts["error"], facts["proved"], facts["file"], facts["permuted"]) < 1e-4
    assert facts["names"] == ["image", "conv", "pool", "top"]
    assert facts["layers"] == ["conv", "pool", "flat", "top"]
    (swish,), custom = facts["refused"]
    assert swish.startswith("swishy (Conv2D 'sparse_plus')")
    assert any(line.startswith("mine (Mine)") and "KERAS_BACKEND=tensorflow" in line for line in custom)
