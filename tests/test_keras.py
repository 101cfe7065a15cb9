"""The Keras frontend against Keras itself: every option of every layer, and random combinations of them."""

import itertools

import keras
import numpy as np
import pytest
from frontend_models import assert_equal, randomise
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L

import snnc


def check(model):
    return assert_equal(randomise(model))


def functional(*stack, shape=(9, 8, 4)):
    x = y = keras.Input(shape, name="image")
    for layer in stack:
        y = layer(y)
    return keras.Model(x, y)


CONVOLUTIONS = [
    {"strides": strides, "padding": padding, "kernel_size": kernel, "groups": groups}
    for strides, padding, kernel, groups in itertools.product((1, (2, 3)), ("same", "valid"), (2, (3, 1)), (1, 2))
] + [{"kernel_size": 3, "dilation_rate": (2, 3), "padding": padding} for padding in ("same", "valid")]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_convolution(options):
    check(functional(L.Conv2D(6, **options)))


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "layer",
    [
        lambda **options: L.DepthwiseConv2D(3, **options),
        lambda **options: L.DepthwiseConv2D(3, depth_multiplier=3, **options),
        lambda **options: L.SeparableConv2D(5, 3, depth_multiplier=2, **options),
        lambda **options: L.SeparableConv2D(5, 3, activation="relu", use_bias=False, **options),
        lambda **options: L.AveragePooling2D(3, **options),
        lambda **options: L.AveragePooling2D((2, 3), **options),
        lambda **options: L.MaxPooling2D((3, 2), **options),
    ],
    ids=["depthwise", "depthwise-3", "separable", "separable-relu", "average", "average-2x3", "max"],
)
def test_windows(layer, padding, strides):
    check(functional(L.ReLU(), layer(padding=padding, strides=strides)))


def normalisation():
    return L.Normalization(mean=[0.5, -1.0, 2.0, 0.1], variance=[1.0, 2.0, 0.5, 3.0])


@pytest.mark.parametrize(
    "stack",
    [
        [L.Dense(5)],
        [L.Dense(5, activation="relu")],
        [L.Flatten(), L.Dense(5, use_bias=False)],
        [L.Flatten(), L.Dense(7, activation="softmax")],
        [L.Flatten(), L.Dense(7), L.Softmax()],
        [L.Conv2D(3, 1), L.Softmax()],
        [L.BatchNormalization()],
        [L.BatchNormalization(scale=False), L.Conv2D(3, 3, padding="same")],
        [L.BatchNormalization(), L.Conv2D(3, 3), L.BatchNormalization(center=False), L.ReLU()],
        [L.ReLU(), L.BatchNormalization(), L.AveragePooling2D(2), L.BatchNormalization(), L.Flatten(), L.Dense(3)],
        [L.Flatten(), L.BatchNormalization(), L.Dense(6), L.BatchNormalization(), L.ReLU(), L.Dense(2)],
        [L.ReLU(6.0)],
        [L.ReLU(max_value=0.5), L.Conv2D(2, 3)],
        [L.Activation("relu"), L.Activation("linear"), L.Activation("relu6")],
        [L.Conv2D(4, 3, activation="relu6"), L.ReLU()],
        [L.GlobalAveragePooling2D(), L.Dense(3)],
        [L.GlobalAveragePooling2D(keepdims=True), L.Conv2D(3, 1, activation="relu"), L.Flatten()],
        [L.ReLU(), L.GlobalAveragePooling2D()],
        [L.MaxPooling2D(2), L.Conv2D(3, 2), L.MaxPooling2D(2, strides=1, padding="same"), L.ReLU()],
        [L.Reshape((-1,)), L.Dense(3)],
        [L.ReLU(), L.Flatten(), L.ReLU(), L.Dropout(0.5), L.Dense(3)],
        [L.ZeroPadding2D(((1, 0), (2, 3))), L.Conv2D(3, 3)],
        [L.Rescaling(2.0, offset=-1.0), L.ZeroPadding2D(1), L.Conv2D(3, 3, padding="same")],
        [L.Rescaling(1 / 127.5, offset=-1.0), L.Conv2D(3, 3, padding="same", strides=2), L.ReLU()],
        [normalisation(), L.Conv2D(3, 3, padding="same"), L.ReLU()],
        [L.Normalization(mean=0.3, variance=2.0), L.Flatten(), L.Dense(3)],
        [L.Normalization(mean=0.3, variance=2.0, invert=True), L.DepthwiseConv2D(3, padding="same")],
        [L.Dropout(0.3), L.SpatialDropout2D(0.2), L.GaussianNoise(0.1), L.Identity(), L.Conv2D(2, 1)],
    ],
    ids=lambda stack: "-".join(type(layer).__name__ for layer in stack),
)
def test_stacks(stack):
    check(functional(*stack))


def test_adapted_normalisation():
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3, 2, (20, 9, 8, 4)))
    model = functional(layer, L.Conv2D(2, 3, padding="same"))
    assert_equal(model)


def test_flat_inputs():
    check(functional(L.Dense(6, activation="relu"), L.BatchNormalization(), L.Dense(3), shape=(11,)))


def test_branches_add_and_concatenate():
    x = keras.Input((8, 8, 3), name="image")
    stem = L.Conv2D(6, 3, padding="same", activation="relu")(x)
    branch = L.BatchNormalization()(L.Conv2D(6, 3, padding="same")(stem))
    merged = L.ReLU()(L.Add()([stem, branch, L.Conv2D(6, 1)(x)]))
    wide = L.Concatenate()([merged, L.AveragePooling2D(3, strides=1, padding="same")(stem), L.Conv2D(2, 1)(merged)])
    wide = L.BatchNormalization()(wide)
    tall = L.Concatenate(axis=1)([L.ReLU()(wide), wide])
    pooled = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu")(tall))
    check(keras.Model(x, L.Dense(5, activation="softmax")(L.Concatenate()([pooled, L.Flatten()(L.Conv2D(1, 8)(x))]))))


def test_several_inputs_and_outputs():
    left, right = keras.Input((6, 6, 2), name="left"), keras.Input((5,), name="right")
    a = L.Dense(4, activation="relu", name="a")(L.Flatten()(L.Conv2D(3, 3, activation="relu")(left)))
    both = L.Concatenate()([a, right])
    model = keras.Model([left, right], [L.Dense(3, name="first")(both), a, L.Dense(2, activation="softmax")(a)])
    network = check(model)
    assert network.inputs == ("left", "right")
    assert network.outputs[:2] == ("first", "a")


def test_inputs_given_as_a_mapping():
    parts = {name: keras.Input((4,), name=name) for name in ("b", "a")}
    check(keras.Model(parts, L.Dense(3)(L.Add()([L.Dense(4)(parts["a"]), parts["b"]]))))


def test_sequential_and_subclassed_models():
    sequential = keras.Sequential([keras.Input((8, 8, 2)), L.Conv2D(3, 3, activation="relu"), L.Flatten(), L.Dense(2)])
    check(sequential)

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = L.Dense(6, activation="relu", name="hidden"), L.Dense(2, name="out")

        def call(self, x):
            return self.out(self.hidden(x))

    model = Subclassed()
    with pytest.raises(snnc.SnncError, match="call it"):
        snnc.load(model)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    expected = model(x)  # builds it
    np.testing.assert_allclose(snnc.compile(snnc.load(model)).predict(x), expected, atol=1e-5)


@st.composite
def models(draw):
    """A random functional model: convolutions, pooling, normalisation, branches that meet again, a flat head."""
    x = keras.Input((draw(st.integers(6, 9)), draw(st.integers(6, 9)), draw(st.sampled_from([2, 4]))), name="image")
    y = x
    for _ in range(draw(st.integers(1, 4))):
        y = _block(draw, y)
    flatten = draw(st.sampled_from([L.Flatten, L.GlobalAveragePooling2D, lambda: L.Reshape((-1,))]))()
    y = flatten(y)
    if draw(st.booleans()):
        y = L.Dense(5, activation=draw(st.sampled_from(["relu", "relu6", None])))(y)
        y = L.BatchNormalization()(y) if draw(st.booleans()) else y
    if draw(st.booleans()):
        y = L.Dense(3, activation=draw(st.sampled_from(["softmax", None])))(y)
    return keras.Model(x, y)


def _block(draw, y):
    channels = y.shape[-1]
    kind = draw(
        st.sampled_from(["conv", "depthwise", "separable", "pool", "norm", "relu", "pad", "residual", "concat"])
    )
    same = draw(st.sampled_from(["same", "valid"])) if min(y.shape[1:3]) > 3 else "same"
    strides = draw(st.integers(1, 2))
    match kind:
        case "conv":
            groups = draw(st.sampled_from([1, 2])) if channels % 2 == 0 else 1
            activation = draw(st.sampled_from([None, "relu", "relu6"]))
            return L.Conv2D(4, draw(st.integers(1, 3)), strides, same, groups=groups, activation=activation)(y)
        case "depthwise":
            return L.DepthwiseConv2D(draw(st.integers(1, 3)), strides, same, depth_multiplier=draw(st.integers(1, 2)))(
                y
            )
        case "separable":
            return L.SeparableConv2D(4, draw(st.integers(1, 3)), strides, same)(y)
        case "pool":
            pool = draw(st.sampled_from([L.AveragePooling2D, L.MaxPooling2D]))
            return pool(draw(st.integers(2, 3)), strides, same)(y)
        case "norm":
            return draw(st.sampled_from([L.BatchNormalization, lambda: L.Rescaling(0.5, offset=0.25)]))()(y)
        case "relu":
            return draw(st.sampled_from([L.ReLU, lambda: L.ReLU(6.0), lambda: L.Activation("relu")]))()(y)
        case "pad":
            return L.ZeroPadding2D(((1, 0), (0, 2)))(y)
        case "residual":
            branch = L.Conv2D(channels, 3, padding="same", activation=draw(st.sampled_from([None, "relu"])))(y)
            return L.Add()([L.BatchNormalization()(branch), y])
    return L.Concatenate()([L.Conv2D(2, 3, padding="same", activation="relu")(y), y, L.ReLU()(y)])


@settings(max_examples=40, derandomize=True, deadline=None)
@given(models())
def test_random_models_equal_keras(model):
    check(model)


def test_residual_additions_are_two_edges_and_name_the_layers_on_each():
    x = keras.Input((4, 4, 2), name="x")
    stem = L.Conv2D(3, 1, activation="relu", name="stem")(x)
    branch = L.BatchNormalization(name="norm")(L.Conv2D(3, 3, padding="same", name="branch")(stem))
    network = check(keras.Model(x, L.ReLU(name="relu")(L.Add(name="add")([stem, branch]))))
    edges = {
        (c.source, tuple(type(o).__name__ for o in c.operators)): c.origin.layers for c in network.incoming("relu")
    }
    assert edges == {("stem", ()): ("add",), ("stem", ("Conv2D",)): ("branch", "norm", "add")}
    assert set(network.populations["relu"].origin.layers) == {"branch", "norm", "add", "relu"}
