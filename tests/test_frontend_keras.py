"""Keras models become networks that compute the same, whose every part names the layer that it comes from."""

import logging
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from frontend_models import assert_equal, randomise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers as kl

import snnc
from snnc import frontend, ir

IMAGE = (7, 6, 4)

ON_IMAGES = {
    "dense": lambda: kl.Dense(5),
    "dense_relu": lambda: kl.Dense(5, activation="relu"),
    "conv_valid": lambda: kl.Conv2D(5, 3),
    "conv_rectangular": lambda: kl.Conv2D(5, (2, 3), strides=(2, 1), padding="same", activation="relu"),
    "conv_strided_same": lambda: kl.Conv2D(3, 3, strides=2, padding="same", use_bias=False),
    "conv_dilated": lambda: kl.Conv2D(3, 3, dilation_rate=2, padding="same"),
    "conv_dilated_valid": lambda: kl.Conv2D(3, 2, dilation_rate=(2, 3), activation="relu"),
    "conv_grouped": lambda: kl.Conv2D(6, 3, groups=2, padding="same", strides=2),
    "depthwise": lambda: kl.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
    "depthwise_strided": lambda: kl.DepthwiseConv2D(3, strides=2, depth_multiplier=3, activation="relu6"),
    "depthwise_dilated": lambda: kl.DepthwiseConv2D(2, dilation_rate=2),
    "separable": lambda: kl.SeparableConv2D(5, 3, depth_multiplier=2, padding="same", strides=2, activation="relu"),
    "batch_norm": lambda: kl.BatchNormalization(),
    "batch_norm_plain": lambda: kl.BatchNormalization(scale=False, center=False),
    "batch_norm_height": lambda: kl.BatchNormalization(axis=1),
    "relu": lambda: kl.ReLU(),
    "relu6": lambda: kl.ReLU(6),
    "relu_max": lambda: kl.ReLU(max_value=1.5),
    "activation_relu": lambda: kl.Activation("relu"),
    "activation_relu6": lambda: kl.Activation("relu6"),
    "activation_linear": lambda: kl.Activation("linear"),
    "activation_softmax": lambda: kl.Activation("softmax"),
    "average_valid": lambda: kl.AveragePooling2D(2),
    "average_same": lambda: kl.AveragePooling2D(3, padding="same"),
    "average_overlapping": lambda: kl.AveragePooling2D((3, 2), strides=1, padding="same"),
    "global_average": lambda: kl.GlobalAveragePooling2D(),
    "global_average_kept": lambda: kl.GlobalAveragePooling2D(keepdims=True),
    "max_valid": lambda: kl.MaxPooling2D(2),
    "max_same": lambda: kl.MaxPooling2D(3, strides=2, padding="same"),
    "global_max": lambda: kl.GlobalMaxPooling2D(),
    "flatten": lambda: kl.Flatten(),
    "reshape_flat": lambda: kl.Reshape((-1,)),
    "dropout": lambda: kl.Dropout(0.5),
    "spatial_dropout": lambda: kl.SpatialDropout2D(0.5),
    "zero_padding": lambda: kl.ZeroPadding2D(((1, 0), (2, 3))),
    "rescaling": lambda: kl.Rescaling(1 / 127.5, offset=-1.0),
    "normalization": lambda: kl.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 4.0, 9.0, 2.0]),
    "normalization_adapted": lambda: kl.Normalization(),
    "softmax": lambda: kl.Softmax(),
}


@pytest.mark.parametrize("name", ON_IMAGES)
def test_each_layer_alone_and_before_and_after_others(name):
    """The layer alone; after a ReLU; and between linear layers, so that its bias meets a padded convolution."""
    layer = ON_IMAGES[name]
    alone = keras.Sequential([keras.Input(IMAGE), layer()])
    assert_equal(randomise(alone))
    if "softmax" in name:
        return
    inside = keras.Sequential([keras.Input(IMAGE), kl.Conv2D(4, 1, activation="relu"), layer()])
    if inside.output_shape[1:3] != (None,) and len(inside.output_shape) == 4:
        inside.add(kl.Conv2D(3, 3, padding="same"))
    inside.add(kl.Flatten())
    inside.add(kl.Dense(3))
    assert_equal(randomise(inside))


@pytest.mark.parametrize("activation", ["linear", "relu", "relu6", "softmax", None])
def test_vectors(activation):
    model = keras.Sequential([keras.Input((9,)), kl.Rescaling(0.5, 1.0), kl.Dense(8), kl.BatchNormalization()])
    model.add(kl.ReLU())
    model.add(kl.BatchNormalization())
    model.add(kl.Dense(4, activation=activation))
    assert_equal(randomise(model))


def test_several_inputs_and_outputs():
    image, vector = keras.Input(IMAGE, name="eye"), keras.Input((5,), name="ear")
    seen = kl.Conv2D(3, 3, activation="relu", name="see")(image)
    heard = kl.Dense(6, activation="relu", name="hear")(vector)
    both = kl.Concatenate(name="both")([kl.Flatten(name="flat")(seen), heard])
    outputs = [kl.Dense(3, activation="softmax", name="what")(both), kl.Dense(2, name="where")(both), heard]
    network = assert_equal(randomise(keras.Model([image, vector], outputs)))
    assert network.inputs == ("eye", "ear")
    assert network.outputs == ("what", "where", "hear")


def test_inputs_in_a_dictionary():
    a, b = keras.Input((3,), name="a"), keras.Input((4,), name="b")
    model = keras.Model({"b": b, "a": a}, {"sum": kl.Add(name="sum")([kl.Dense(2, name="x")(a), kl.Dense(2)(b)])})
    network = frontend.load(randomise(model))
    assert set(network.inputs) == {"a", "b"}
    assert network.outputs == ("sum",)


def test_the_same_tensor_twice_as_output_and_an_input_as_output():
    x = keras.Input((4,), name="x")
    y = kl.Dense(3, activation="relu", name="y")(x)
    network = assert_equal(randomise(keras.Model(x, [y, kl.Identity()(y), x])))
    assert network.outputs == ("y", "y#2", "x#2")


def test_operations_on_tensors_and_functions():
    x = keras.Input(IMAGE, name="x")
    y = keras.ops.relu(kl.Conv2D(4, 3, padding="same")(x) * 2.0 - 0.5) + x
    y = keras.ops.clip(y / 3.0, 0, 2)
    y = kl.Subtract()([y, kl.Average()([x, y, y])])
    assert_equal(randomise(keras.Model(x, keras.ops.mean(-y, axis=(1, 2)))))


def test_subclassed_model():
    class Classifier(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = kl.Conv2D(4, 3, name="conv")
            self.head = keras.Sequential([kl.Flatten(), kl.Dense(3, name="logits")], name="head")

        def call(self, x):
            return self.head(keras.ops.relu(self.conv(x)))

    model = Classifier()
    model(np.zeros((5, *IMAGE), np.float32))
    network = assert_equal(randomise(model))
    assert network.outputs == ("head/logits",)


def test_integer_images_and_names_of_inputs():
    x = keras.Input(IMAGE, dtype="uint8", name="bytes")
    model = randomise(keras.Model(x, kl.Conv2D(3, 3)(kl.Rescaling(1 / 255)(x))))
    assert frontend.load(model).inputs == ("bytes",)
    network = frontend.load(keras.Sequential([keras.Input((3,)), kl.Dense(2)]))
    assert network.inputs[0].startswith("input_layer")


def test_frozen_weights():
    x = keras.Input(IMAGE)
    model = randomise(keras.Model(x, kl.Dense(3)(kl.Flatten()(kl.Conv2D(4, 3, activation="relu")(x)))))
    model.layers[1].trainable = False
    assert_equal(model)


# Random graphs. Each step takes tensors that exist already and adds one.

FLATTENING = {"flatten", "reshape_flat", "global_average", "global_max", "softmax", "activation_softmax"}
STEPS = [name for name in ON_IMAGES if name not in FLATTENING]


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_graphs(data):
    image = keras.Input(IMAGE)
    tensors = [image]
    for _ in range(data.draw(st.integers(2, 8))):
        x = data.draw(st.sampled_from(tensors[-3:]))
        alike = [t for t in tensors if t.shape[1:3] == x.shape[1:3]]
        match data.draw(st.sampled_from(["layer", "layer", "add", "concatenate"])):
            case "add":
                y = kl.Add()([x, data.draw(st.sampled_from([t for t in alike if t.shape == x.shape]))])
            case "concatenate":
                y = kl.Concatenate()([x, data.draw(st.sampled_from(alike))])
            case _:
                y = _layer_that_fits(data.draw(st.sampled_from(STEPS)), x)
        tensors.append(y)
    y = tensors[-1]
    if data.draw(st.booleans()):
        y = kl.Dense(3, activation=data.draw(st.sampled_from([None, "relu", "softmax"])))(kl.Flatten()(y))
    assert_equal(randomise(keras.Model(image, y), data.draw(st.integers(0, 99))), images=2)


def _layer_that_fits(name: str, x: keras.KerasTensor) -> keras.KerasTensor:
    channels_fit = x.shape[-1] == 4 or not name.startswith(("normalization", "conv_grouped"))
    room_fits = min(x.shape[1:3]) >= 4 or "same" in name or name in ("relu", "batch_norm", "dropout", "rescaling")
    return ON_IMAGES[name]()(x) if channels_fit and room_fits else kl.Conv2D(4, 1, activation="relu")(x)


# Provenance.


def test_names_that_tensorflow_would_confuse():
    """TensorFlow makes names unique by the same suffixes that users choose."""
    x = keras.Input(IMAGE, name="conv_1_2")
    y = kl.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    z = kl.Conv2D(4, 3, padding="same", activation="relu", name="conv_1")(y)
    w = kl.Conv2D(4, 3, padding="same", name="conv_1_1")(z)
    w = kl.BatchNormalization(name="snnc0z")(w)
    w = kl.Activation("relu", name="snnc")(kl.Add(name="Identity")([w, y]))
    network = assert_equal(randomise(keras.Model(x, kl.Dense(2, name="Relu")(kl.Flatten(name="1")(w)))))
    assert list(network.populations) == ["conv_1_2", "conv", "conv_1", "snnc", "Relu"]
    assert {str(c): c.origin.layers for c in network.connections} == {
        "conv_1_2 -> conv": ("conv",),
        "conv -> conv_1": ("conv_1",),
        "conv_1 -> snnc": ("conv_1_1", "snnc0z", "Identity"),
        "conv -> snnc": ("Identity",),
        "snnc -> Relu": ("1", "Relu"),
    }
    assert network.populations["snnc"].origin.layers == ("conv_1_1", "snnc0z", "Identity", "snnc")


def test_layers_that_tf2onnx_would_merge():
    x = keras.Input(IMAGE, name="x")
    y = kl.ZeroPadding2D(1, name="pad")(x)
    y = kl.Conv2D(4, 3, use_bias=False, name="conv")(y)
    y = kl.ReLU(name="relu")(y)
    y = kl.Dense(3, use_bias=False, name="dense")(kl.Flatten(name="flat")(y))
    y = kl.Add(name="add")([y, kl.Dense(3, use_bias=False, name="other")(kl.GlobalAveragePooling2D(name="mean")(x))])
    network = assert_equal(randomise(keras.Model(x, kl.ReLU(name="top")(y))))
    assert {str(c): c.origin.layers for c in network.connections} == {
        "x -> relu": ("pad", "conv"),
        "relu -> top": ("flat", "dense", "add"),
        "x -> top": ("mean", "other", "add"),
    }
    assert network.populations["top"].origin.layers == ("flat", "dense", "mean", "other", "add", "top")


def test_nested_and_shared_layers():
    block = keras.Sequential(
        [keras.Input((6,)), kl.Dense(6, name="dense"), kl.BatchNormalization(name="bn"), kl.ReLU(name="relu")],
        name="block",
    )
    inner = keras.Input((6,))
    outer = keras.Model(inner, kl.Dense(6, activation="relu", name="dense")(block(inner)), name="outer")
    shared = kl.Dense(6, activation="relu", name="dense")
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    y = kl.Add(name="add")([shared(outer(a)), shared(block(b))])
    network = assert_equal(randomise(keras.Model([a, b], shared(y), name="top")))
    calls = {"outer/block/relu", "outer/dense", "block/relu", "dense", "dense#2", "dense#3"}
    assert set(network.populations) == {"a", "b", *calls}
    layers = {str(c): c.origin.layers for c in network.connections}
    assert layers["a -> outer/block/relu"] == ("outer/block/dense", "outer/block/bn")
    assert layers["b -> block/relu"] == ("block/dense", "block/bn")
    assert network.populations["dense#3"].origin.layers == ("add", "dense")


def test_the_readout_of_a_layer_that_also_rectifies_gets_a_second_name():
    x = keras.Input((4,), name="x")
    y = kl.Dense(3, name="twice")
    network = assert_equal(randomise(keras.Model(x, [kl.ReLU(name="r")(y(x)), y(x)])))
    assert network.outputs == ("r", "twice")


# What loading leaves behind.


def test_the_model_is_left_as_it_was():
    block = keras.Sequential([keras.Input((3,)), kl.Dense(3, name="d")], name="block")
    model = randomise(keras.Sequential([keras.Input((3,)), block, kl.Dense(2, activation="sparse_plus", name="bad")]))
    parts = [model, *model._flatten_layers()]
    before = [(part.name, sorted(vars(part))) for part in parts]
    weights = [w.copy() for w in model.get_weights()]
    level = logging.getLogger("tf2onnx").level
    with pytest.raises(ir.UnsupportedModelError):
        frontend.load(model)
    assert before == [(part.name, sorted(vars(part))) for part in parts]
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    assert logging.getLogger("tf2onnx").level == level


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_network_does_not_change_when_the_model_is_trained_further(optimizer, compiled):
    """Although both hold the same memory at first."""
    model = randomise(keras.Sequential([keras.Input((3,), name="x"), kl.Dense(3, name="d")]))
    network = frontend.load(model)
    kept = network.connections[0].operators[0].weight.copy()
    model.compile(optimizer, "mse", jit_compile=compiled)
    model.fit(np.ones((8, 3)), np.zeros((8, 3)), verbose=0)
    assert not np.array_equal(kept, model.get_weights()[0])
    model.trainable_variables[0].assign_add(np.ones((3, 3)))
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    np.testing.assert_array_equal(network.connections[0].operators[0].weight, kept)


def test_nothing_is_printed(capfd):
    frontend.load(randomise(keras.Sequential([keras.Input(IMAGE), kl.Conv2D(2, 3, activation="relu")])))
    with pytest.raises(ir.UnsupportedModelError):
        frontend.load(keras.Sequential([keras.Input(IMAGE), kl.AutoContrast()]))
    assert capfd.readouterr() == ("", "")


def test_importing_the_frontend_imports_nothing_heavy():
    heavy = ["tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime"]
    code = f"import sys, snnc.frontend; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# Inputs whose channels are told by what the model does first.


@pytest.mark.parametrize(
    ("shape", "stack"),
    [
        ((2, 20), lambda: [kl.Conv1D(4, 5, activation="relu")]),
        ((2, 20), lambda: [kl.AveragePooling1D(2), kl.Conv1D(4, 5)]),
        ((3, 9, 8), lambda: [kl.Conv2D(4, 3, activation="relu")]),
        ((3, 9, 8), lambda: [kl.MaxPooling2D(), kl.Conv2D(4, 3), kl.Flatten(), kl.Dense(3)]),
        ((3, 9, 8), lambda: [kl.BatchNormalization(), kl.ZeroPadding2D(1), kl.Conv2D(4, 3)]),
        ((3, 9, 8), lambda: [kl.GlobalAveragePooling2D(), kl.Dense(3)]),
        ((1, 9, 8), lambda: [kl.Conv2D(4, 3), kl.Permute((3, 1, 2))]),
    ],
)
@pytest.mark.parametrize("before", [list, lambda: [kl.Rescaling(0.5, offset=0.1), kl.ReLU()]], ids=["", "scaled"])
def test_inputs_that_the_model_permutes_from_channels_first(shape, stack, before):
    to_last = kl.Permute((*range(2, len(shape) + 1), 1))
    model = keras.Sequential([keras.Input(shape, name="x"), *before(), to_last, *stack()])
    assert_channels_last(randomise(model), shape)


def test_functions_that_permute_channels_first_images():
    kernel = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec((None, 3, 9, 8), name="x")])
    def function(x):
        return tf.nn.relu(tf.nn.conv2d(tf.transpose(x, (0, 2, 3, 1)), kernel, 1, "SAME"))

    assert_channels_last(function, (3, 9, 8))


def assert_channels_last(model, shape):
    """The network takes channels-last images, and gives what the model gives for channels-first ones."""
    network = snnc.load(model, verify=True)
    x = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    expected, images = np.asarray(model(x)), np.moveaxis(x, 1, -1)
    assert network.populations["x"].shape == (*images.shape[1:-1], *(1,) * (3 - len(shape)), shape[0])
    found = snnc.compile(network).predict(images)
    if expected.shape[1] == found.shape[-1] != expected.shape[-1]:
        found = np.moveaxis(found, -1, 1)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("add", [kl.Reshape((9, 8, 1)), lambda x: keras.ops.expand_dims(x, -1)], ids=["reshape", "op"])
def test_grey_images_to_which_the_model_adds_the_channel(add):
    x = keras.Input((9, 8), name="x")
    network = assert_equal(randomise(keras.Model(x, kl.Conv2D(4, 3)(add(x)))))
    assert network.populations["x"].shape == (9, 8, 1)


@pytest.mark.parametrize(
    "stack",
    [lambda: [kl.Reshape((9, 1, 4)), kl.Conv2D(4, (3, 1))], lambda: [kl.Permute((2, 1)), kl.Flatten(), kl.Dense(3)]],
)
def test_other_series_stay_what_they_are(stack):
    model = randomise(keras.Sequential([keras.Input((9, 4), name="x"), *stack()]))
    assert snnc.load(model, verify=True).populations["x"].shape == (9, 1, 4)
